"""What one task waits for, and goes on from at once, inside the call that sets it.

An asyncio.Future tells its task through the event loop: one more turn of the loop, and of its question to the system for what
is ready, for each command that comes in and each answer of storage. A session needs neither: the loop has just handed it
what it waits for.

Specification: the protocol of asyncio for what looks like a future (`asyncio.isfuture`).
Contract: awaited once, by one task, on the loop it was made on. Set while another task runs, or cancelled, it tells its task
    through the loop, as a future does.
Failure: the exception that was set; CancelledError.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


class Wakeup(Generic[T]):
    """loop: the running one."""

    __slots__ = ("_asyncio_future_blocking", "_context", "_error", "_loop", "_result", "_resume", "_settled")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asyncio_future_blocking = False       # asyncio looks for both
        self._settled = False
        self._result: T | None = None
        self._error: BaseException | None = None
        self._resume: Callable[[Wakeup[T]], object] | None = None       # of the task that waits
        self._context: contextvars.Context | None = None

    def done(self) -> bool:
        """Whether it is set or cancelled."""
        return self._settled

    def set_result(self, result: T) -> None:
        """The task goes on now. Nothing happens where it is set already."""
        if not self._settled:
            self._settled, self._result = True, result
            self._tell()

    def set_exception(self, error: BaseException) -> None:
        """The task goes on now, with this error. Nothing happens where it is set already."""
        if not self._settled:
            self._settled, self._error = True, error
            self._tell()

    def _tell(self) -> None:
        if self._resume is None:
            return
        if asyncio.current_task(self._loop) is None:
            cast(contextvars.Context, self._context).run(self._resume, self)
        else:
            self._loop.call_soon(self._resume, self, context=self._context)

    # Called by asyncio.

    def __await__(self) -> Generator[Any, None, T]:
        if not self._settled:
            self._asyncio_future_blocking = True
            yield self
        return self.result()

    def result(self) -> T:
        """What was set. Raises what was set."""
        if self._error is not None:
            raise self._error
        return cast(T, self._result)

    def add_done_callback(self, resume: Callable[[Wakeup[T]], object], *, context: contextvars.Context) -> None:
        self._resume, self._context = resume, context

    def cancel(self, msg: object = None) -> bool:
        """By the task that waits, while it or another runs."""
        if self._settled:
            return False
        self._settled, self._error = True, asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        if self._resume is not None:
            self._loop.call_soon(self._resume, self, context=self._context)
        return True
