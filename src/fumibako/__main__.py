"""`python -m fumibako` and the command `fumibako`.

Contract: the exit code is the command line's.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; returns the exit code."""
    from fumibako.app.house import House  # noqa: PLC0415 (imports are most of a short command's time)
    from fumibako.faces.cli.main import run  # noqa: PLC0415

    return run(House(), sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
