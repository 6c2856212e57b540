"""How late an event loop is: the longest that a peer, a timer or a signal waits for its turn.

Contract: ten times a second a look is due; by how much it comes late is counted, 4 octets a millisecond, so that it costs
    next to nothing however long it goes on. `take` tells what was seen since it was last asked, and begins anew.
Failure: none.
"""

import asyncio
from array import array
from dataclasses import dataclass

from fumibako.net.clock import Clock

EVERY_S = 0.1
_LONGEST_MS = 2_000         # what is later counts as this; the worst is told exactly


@dataclass(frozen=True, slots=True)
class Lag:
    """What `looks` looks in `window_s` seconds saw. p50 and p99 are rounded up to whole milliseconds."""

    looks: int
    window_s: float
    p50_ms: int
    p99_ms: int
    max_ms: float


class LagMeter:
    """One event loop's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due_s = 0.0
        self._begin()

    def _begin(self) -> None:
        self._counts = array("L", bytes(array("L").itemsize * _LONGEST_MS))
        self._looks, self._worst_s, self._since_s = 0, 0.0, self._clock.monotonic_s()

    def start(self) -> None:
        """Look from now on, for as long as the running loop does."""
        self._due_s = self._clock.monotonic_s() + EVERY_S
        asyncio.get_running_loop().call_later(EVERY_S, self._look)

    def _look(self) -> None:
        self._note(max(0.0, self._clock.monotonic_s() - self._due_s))
        self.start()

    def _note(self, late_s: float) -> None:
        self._counts[min(int(late_s * 1000), _LONGEST_MS - 1)] += 1
        self._looks += 1
        self._worst_s = max(self._worst_s, late_s)

    def take(self) -> Lag:
        """Since the last time, or the start."""
        window_s = self._clock.monotonic_s() - self._since_s
        found = Lag(self._looks, round(window_s, 1), self._percentile(50), self._percentile(99), round(self._worst_s * 1000, 1))
        self._begin()
        return found

    def _percentile(self, percent: int) -> int:
        """The whole millisecond that so many of the looks were not later than."""
        left = self._looks * percent / 100
        for milliseconds, count in enumerate(self._counts):
            left -= count
            if left <= 0 and self._looks:
                return milliseconds + 1
        return 0
