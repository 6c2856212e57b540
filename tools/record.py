"""Where the results of a proof go: files in bench/results for machines, sections of pages for people.

Contract: a file or page is replaced in one step, so that at any moment it is whole.
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "bench" / "results", ROOT / "docs" / "proof.md"


def commit() -> str:
    """What was proved; "+" after it: and something that is not committed. The results themselves don't count."""
    def ask(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    changed = ask("status", "--porcelain", "--untracked-files=no", "--", "src", "tests", "tools")
    return (ask("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")


def machine() -> str:
    """What a reader of a figure needs to know of where it was measured."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def replace(path: Path, text: str) -> None:
    """The whole file anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    beside.write_text(text, "utf-8")
    os.replace(beside, path)


def write_section(page: Path, begin: str, section: str, end: str) -> None:
    """What stands between two lines of a page, anew. ValueError: the page has no place for it."""
    text = page.read_text("utf-8")
    before, begun, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise ValueError(f"{page.name} has no place for {begin.strip()}")
    replace(page, f"{before}{begin}{section}{end}{after}")
