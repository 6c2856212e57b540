"""The one place that reads the clock, draws a random number or makes an id.

Contract: everybody else is handed a `Clock`; tests hand in one that stands still (tests/support/clock.py).
    Wall time (`now_ms`) is for what people read and what is stored; durations come from `monotonic_s`.
Failure: none.
"""

import asyncio
import math
import secrets
import time
from collections.abc import Sequence
from typing import TypeVar

from fumibako.model.ids import TraceId

T = TypeVar("T")

_CHANCE = secrets.SystemRandom()


class Clock:
    """Time, chance and identity of the real world."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01T00:00Z."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds on a clock that never goes back; only differences mean anything."""
        return time.monotonic()

    def utc_offset_minutes(self, at_ms: int) -> int:
        """How far local time is ahead of UTC at that moment (540 in Japan)."""
        return time.localtime(at_ms / 1000).tm_gmtoff // 60

    async def sleep(self, delay_s: float) -> None:
        """Waits; the way for a loop to pause, so that tests can move time themselves."""
        await asyncio.sleep(delay_s)

    def trace_id(self) -> TraceId:
        """128 random bits: the identity of one accepted message."""
        return TraceId(self.token(16))

    def token(self, size_octets: int) -> bytes:
        """Octets nobody can guess."""
        return secrets.token_bytes(size_octets)

    def random_float(self) -> float:
        """A number in [0, 1)."""
        return _CHANCE.random()

    def shuffle(self, items: Sequence[T]) -> list[T]:
        """The same items in a random order; the argument stays as it is."""
        return _CHANCE.sample(items, len(items))


class WallWatch:
    """Notices when somebody sets the wall clock: it moved otherwise than time did. What it is slewed by, and jumps below
    SET_MS, count as time.

    set_by_ms: all jumps, added up.
    """

    SET_MS = 60_000

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.set_by_ms = 0
        self._wall_ms, self._steady_s = clock.now_ms(), clock.monotonic_s()
        self._sure_until_s = math.inf       # the last look before a jump that nobody has seen to

    def now_ms(self) -> int:
        """The wall clock's time; asked often, so that what drifts does not add up."""
        wall_ms, steady_s = self._clock.now_ms(), self._clock.monotonic_s()
        moved_ms = wall_ms - self._wall_ms - round((steady_s - self._steady_s) * 1000)
        if abs(moved_ms) >= self.SET_MS:
            self.set_by_ms += moved_ms
            self._sure_until_s = min(self._sure_until_s, self._steady_s)
        self._wall_ms, self._steady_s = wall_ms, steady_s
        return wall_ms

    @property
    def unsure_ms(self) -> int:
        """How long ago at most the first jump was that nobody has seen to."""
        return math.ceil(max(0.0, self._steady_s - self._sure_until_s) * 1000)

    def seen_to(self) -> None:
        """Everything is of the clock's present time."""
        self._sure_until_s = math.inf
