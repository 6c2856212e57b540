"""The only threads: work that would hold the event loop runs here, on bounded lanes.

Contract: `run` is for SQL and file reads, `run_password` for Argon2 (19 MiB and tens of milliseconds a piece:
    two at a time, so that a password storm can exhaust neither memory nor the processor).
    A caller that is cancelled leaves at once; its place is free again when the thread is done with it.
Failure: `Overloaded` when a lane's queue is full; whatever the function raises.
"""

import asyncio
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

READ_THREADS = 4
READ_QUEUE = 1024
PASSWORD_THREADS = 2
PASSWORD_QUEUE = 64


class Overloaded(Exception):
    """The lane has as much waiting as it may hold: answer "try again later"."""


class _Lane:
    """A thread pool that refuses instead of queueing without end."""

    def __init__(self, name: str, threads: int, queue: int) -> None:
        self._name = name
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._places = threading.BoundedSemaphore(threads + queue)

    async def run(self, call: Callable[[], T]) -> T:
        if not self._places.acquire(blocking=False):
            raise Overloaded(f"the {self._name} queue is full")
        try:
            future = self._pool.submit(call)
        except RuntimeError:        # the pool is shut down
            self._places.release()
            raise
        future.add_done_callback(self._free)
        return await asyncio.wrap_future(future)

    def _free(self, _: Future[T]) -> None:
        self._places.release()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class Offload:
    """The lanes of one process."""

    def __init__(self, read_threads: int = READ_THREADS) -> None:
        self._read = _Lane("read", read_threads, READ_QUEUE)
        self._passwords = _Lane("password", PASSWORD_THREADS, PASSWORD_QUEUE)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a short blocking function (SQL, a file read) in a thread and returns its result."""
        return await self._read.run(functools.partial(function, *args, **kwargs))

    async def run_password(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a password hash in a thread of its own lane and returns its result."""
        return await self._passwords.run(functools.partial(function, *args, **kwargs))

    def close(self) -> None:
        """Waits for what is running and drops what has not begun."""
        self._read.close()
        self._passwords.close()
