"""A clock that moves only when told, with chance and ids that repeat from run to run."""

import asyncio
import heapq
import itertools
import random

from fumibako.model.ids import TraceId
from fumibako.net.clock import Clock

START_MS = 1_750_000_000_000    # 2025-06-15T15:06:40Z


class FakeClock(Clock):
    """`advance(seconds)` moves wall and monotonic time and wakes sleepers in order; `seed` decides all chance."""

    def __init__(self, now_ms: int = START_MS, seed: int = 1, utc_offset_minutes: int = 540) -> None:
        self._now_ms = now_ms
        self._monotonic_ms = 1_000_000
        self._chance = random.Random(seed)
        self._offset = utc_offset_minutes
        self._order = itertools.count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def advance(self, seconds: float) -> None:
        """Moves time forward; sleepers whose time has come wake on the next turn of the event loop."""
        self._now_ms += round(seconds * 1000)
        self._monotonic_ms += round(seconds * 1000)
        while self._sleepers and self._sleepers[0][0] <= self._monotonic_ms:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock, forwards or back; durations don't notice."""
        self._now_ms += round(seconds * 1000)

    @property
    def next_wake_s(self) -> float | None:
        """Seconds until the first sleeper wakes, or None where nobody sleeps."""
        waiting = [due for due, _, future in self._sleepers if not future.done()]
        return (min(waiting) - self._monotonic_ms) / 1000 if waiting else None

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_s(self) -> float:
        return self._monotonic_ms / 1000

    def utc_offset_minutes(self, at_ms: int) -> int:
        return self._offset

    async def sleep(self, delay_s: float) -> None:
        if delay_s <= 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic_ms + round(delay_s * 1000), next(self._order), future))
        await future

    def trace_id(self) -> TraceId:
        return TraceId(self.token(16))

    def token(self, size_octets: int) -> bytes:
        return self._chance.randbytes(size_octets)

    def random_float(self) -> float:
        return self._chance.random()

    def shuffle(self, items):
        return self._chance.sample(items, len(items))
