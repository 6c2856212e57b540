"""How long work for one session may hold the event loop, and how long it may take in all.

Contract: work is counted, not timed, between two turns of the loop: a unit is about what one comparison or one
    character costs, some 100 ns. Who `spend`s what it has just done holds the loop for a few milliseconds at most.
Failure: TookTooLong once the time in all is over.
"""

from __future__ import annotations

import asyncio

from fumibako.net.clock import Clock

TURN_UNITS = 20_000


class TookTooLong(Exception):
    """The work is more than one session may ask for at once."""


class Pace:
    """One piece of work, from now on."""

    def __init__(self, clock: Clock, limit_s: float) -> None:
        self._clock = clock
        self._until_s = clock.monotonic_s() + limit_s
        self._units = 0

    async def spend(self, units: int) -> None:
        """So much was done; the others get their turn when it is time for it."""
        self._units += units
        if self._units >= TURN_UNITS:
            await self.turn()

    async def turn(self) -> None:
        """The others get their turn now."""
        self._units = 0
        if self._clock.monotonic_s() >= self._until_s:
            raise TookTooLong
        await asyncio.sleep(0)
