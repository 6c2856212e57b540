"""A value made out of the directory that is never older than the question it answers.

Contract: what `current` gives has seen everything that was committed before it was called (DESIGN §10: a command holds
    before it returns). Nothing changed: it is at hand. Else it is made once, for all who ask meanwhile.
Failure: while the directory can't be read the last value stands, and the log says so once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from fumibako.services import StoreUnavailable

T = TypeVar("T")

log = logging.getLogger("fumibako")


class Following(Generic[T]):
    """what: its name in the log; version: `directory_version` of the store; make: the value of this moment; first: until then."""

    def __init__(self, what: str, version: Callable[[], int], make: Callable[[], Awaitable[T]], first: T) -> None:
        self._what, self._version, self._make = what, version, make
        self._made_at: tuple[int, int] | None = None
        self._outdated = 0
        self._making = asyncio.Lock()
        self._is_cut_off = False
        self.value = first

    def current(self) -> T | Awaitable[T]:
        """The value itself, in microseconds, where the directory is as it was; else what to wait for."""
        try:
            version = self._version(), self._outdated
        except StoreUnavailable as error:
            self._stay(error)
            return self.value
        if version != self._made_at:
            return self.refresh()
        self._is_cut_off = False
        return self.value

    def outdate(self) -> None:
        """Something else that the value is made of has changed."""
        self._outdated += 1

    async def refresh(self) -> T:
        """The value of now at the earliest; who waits here while another makes it takes theirs, if it is new enough."""
        async with self._making:
            try:
                version = self._version(), self._outdated   # before the reads: what is committed during them is not seen
                if version != self._made_at:
                    self.value = await self._make()
                    self._made_at = version
                self._is_cut_off = False
            except StoreUnavailable as error:
                self._stay(error)
        return self.value

    def _stay(self, error: StoreUnavailable) -> None:
        if not self._is_cut_off:
            log.warning("%s stay as they are: %s", self._what, error)
        self._is_cut_off = True
