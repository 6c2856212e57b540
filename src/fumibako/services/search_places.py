"""How many long searches run beside each other in a process, and how many may wait for that.

Contract: at most AT_ONCE run at once, and one of an account: a person with many connections has one place, however many ask.
    An account's own wait in the order they came; a place that is free goes to the account that waits longest.
Failure: Crowded where WAITING of the account wait already, or after WAIT_S.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fumibako.model.ids import AccountId

AT_ONCE = 4
WAITING = 8             # of an account, beside the one that runs
WAIT_S = 60.0


class Crowded(Exception):
    """As many searches of the account wait as may."""


class SearchPlaces:
    """Of one process."""

    def __init__(self, at_once: int = AT_ONCE, waiting: int = WAITING, wait_s: float = WAIT_S) -> None:
        self._places, self._waiting, self._wait_s = asyncio.Semaphore(at_once), waiting, wait_s
        self._lines: defaultdict[AccountId, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._present: Counter[AccountId] = Counter()      # running and waiting

    @asynccontextmanager
    async def turn(self, account_id: AccountId) -> AsyncIterator[None]:
        """The body runs when it is the account's turn."""
        if self._present[account_id] > self._waiting:
            raise Crowded
        self._present[account_id] += 1
        try:
            line = self._lines[account_id]
            try:
                async with asyncio.timeout(self._wait_s):
                    await line.acquire()
                    try:
                        await self._places.acquire()
                    except BaseException:
                        line.release()
                        raise
            except TimeoutError:
                raise Crowded from None
            try:
                yield
            finally:
                self._places.release()
                line.release()
        finally:
            self._present[account_id] -= 1
            if not self._present[account_id]:
                del self._present[account_id]
                self._lines.pop(account_id, None)
