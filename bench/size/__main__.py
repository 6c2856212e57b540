"""`python -m bench.size`: how Fumibako grows, each part by itself or all of them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from bench.machine import description, work_directory
from bench.size import accounts, bulk, mailbox, notices, report, small, waiting

_MESSAGES = (1, 1_000, 10_000, 100_000, 1_000_000)
_ACCOUNTS = (1, 1_000, 10_000, 100_000)
_BULK = (100_000, 50_000)
_SMALL = (100_000, 60.0)


def main() -> None:
    options = _options()
    parts: dict[str, Callable[[Path], Any]] = {
        "mailbox": lambda place: mailbox.measure(place, _MESSAGES, options.rounds),
        "accounts": lambda place: accounts.measure(place, _ACCOUNTS),
        "bulk": lambda place: _median_bulk([bulk.measure(place / str(turn), *_BULK) for turn in range(options.rounds)]),
        "waiting": lambda place: [waiting.measure(place / loop, loop, options.connections) for loop in ("asyncio", "uvloop")],
        "notices": lambda place: notices.measure(place, options.samples),
        "small": lambda place: small.measure(place, *_SMALL),
    }
    results: dict[str, Any] = {"begun": datetime.now(UTC).isoformat(timespec="seconds"), "machine": description(),
                               "load": os.getloadavg()[0]}
    with work_directory() as place:
        for part in options.parts or parts:
            print(part, flush=True)
            results[part] = parts[part](place / part)
    print(report.write(results))


def _median_bulk(turns: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Every figure is the median of the turns."""
    def joined(values: list[Any]) -> Any:
        if isinstance(values[0], dict):
            return {key: joined([value[key] for value in values]) for key in values[0]}
        return values[0] if isinstance(values[0], str) else median(values)
    return [joined(list(rows)) for rows in zip(*turns, strict=True)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.size", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="mailbox accounts bulk waiting notices small; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="turns of mailbox and bulk")
    parser.add_argument("--connections", type=int, default=10_000, help="that wait in IDLE")
    parser.add_argument("--samples", type=int, default=500, help="notices")
    return parser.parse_args()


if __name__ == "__main__":
    main()
