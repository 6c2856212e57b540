"""The trace of one server as it grows: what the demonstration shows of the inside is read here and nowhere else.

Contract: events come in the order the server wrote them; each is given out as often as it is asked for.
Failure: Failed when an event does not come within WAIT_S.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from fumibako.faces.cli.demonstration.failed import Failed
from fumibako.net.clock import Clock

WAIT_S = 20.0
LOOK_EVERY_S = 0.02

Event = dict[str, object]


class Trail:
    """DIR/trace.jsonl of a running server."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._path, self._clock = directory / "trace.jsonl", clock
        self._offset, self._events = 0, list[Event]()

    async def event(self, kind: str, fits: Callable[[Event], bool]) -> Event:
        """The first event of that kind that fits, as soon as it is there."""
        deadline_s = self._clock.monotonic_s() + WAIT_S
        seen = 0
        while True:
            self._read()
            for event in self._events[seen:]:
                if event.get("kind") == kind and fits(event):
                    return event
            seen = len(self._events)
            if self._clock.monotonic_s() > deadline_s:
                raise Failed(f"{self._path.parent.name}/{self._path.name}: no event \"{kind}\" within {WAIT_S:g} s")
            await self._clock.sleep(LOOK_EVERY_S)

    def _read(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        self._events += [json.loads(line) for line in whole.split(b"\n") if line]


def text_of(event: Event, *names: str) -> str:
    """Some fields of an event on one line; lists with commas."""
    values = (event.get(name) for name in names)
    return " ".join(", ".join(map(str, value)) if isinstance(value, list) else str(value) for value in values if value)


def seconds_between(earlier: Event, later: Event) -> float:
    """By the servers' own clocks."""
    first, second = (datetime.fromisoformat(str(event["time"])) for event in (earlier, later))
    return (second - first).total_seconds()
