"""The whole store in this process: the engine in one thread of its own, reads beside it.

Contract: that of store.base. The thread takes what queued up during the last commit (natural group commit, no timer).
    Used with `[server] workers = 0`, by the command line while the server is down, and by tests.
Failure: after EngineFailed every pending and later operation is StoreUnavailable; `failed` tells the application to exit 70.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fumibako.model.change import Change, Notice, Rang
from fumibako.model.frames import Command
from fumibako.model.ops import Freeze, MemoryOperation, Refusal, Refused, Result
from fumibako.store.base import StoreRefused, StoreUnavailable
from fumibako.store.disk import DiskIO
from fumibako.store.memory import Memory
from fumibako.store.reading import ReadingStore
from fumibako.store.spool import Offload, offload_to_thread
from fumibako.store.sqlite.engine import Engine, EngineFailed
from fumibako.store.sqlite.reader import Reader
from fumibako.store.turns import Turns

_log = logging.getLogger(__name__)

IDLE_S = 5.0        # without operations before a piece of housekeeping
PAUSE_S = 0.05      # the same while there is more to tidy
BUSY_MS = (30_000, 1_000)       # a store that is never idle does a piece as often as this; the same while there is more
_HOLDER = 0         # this process is the only one

_Waiting = tuple[Command, "asyncio.Future[Result]"]
_Answer = tuple["asyncio.Future[Result]", Result | StoreUnavailable, list[Notice]]


class LocalStore(ReadingStore):
    """Use inside a running loop; every call from that loop."""

    def __init__(self, directory: Path, now_ms: Callable[[], int], *,
                 offload: Offload = offload_to_thread, disk: DiskIO | None = None) -> None:
        disk = disk or DiskIO()
        self.engine = Engine(directory, disk, now_ms())
        super().__init__(Reader(directory, disk), disk, offload)
        self.failed: BaseException | None = None
        self._now_ms = now_ms
        self._memory = Memory(self.engine.uid_next)
        self._loop = asyncio.get_running_loop()
        self._handed_over: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._waiting: Turns[_Waiting] = Turns(lambda waiting: waiting[0])      # the thread's own
        self._untidy, self._tidied_ms = False, now_ms()
        self._running = True
        self._thread = threading.Thread(target=self._write, name="store-writer", daemon=True)
        self._thread.start()

    async def _commit(self, operation: Command) -> Result:
        if self.failed or not self._thread.is_alive():
            raise StoreUnavailable("the store has stopped")
        future: asyncio.Future[Result] = self._loop.create_future()
        self._handed_over.put((operation, future))
        # An operation that was handed over happens whether or not anybody waits for it any more.
        return await asyncio.shield(future)

    async def close(self) -> None:
        """What was handed over is finished first."""
        if self._thread.is_alive():
            self._handed_over.put(None)
            await asyncio.to_thread(self._thread.join)
            self._reader.close()

    # -- in the writer's thread --

    def _write(self) -> None:
        while self._running or self._waiting:
            batch = self._next_batch()
            if batch and not self.failed:
                self._execute(batch)
                if not self.failed and abs(self._now_ms() - self._tidied_ms) >= BUSY_MS[self._untidy]:
                    self._housekeep()
            elif batch:
                self._answer(partial(self._fail, batch))
        self.engine.close()

    def _next_batch(self) -> list[_Waiting]:
        wait_s = PAUSE_S if self._untidy else IDLE_S
        try:
            while self._running:
                handed = self._handed_over.get_nowait() if self._waiting else self._handed_over.get(timeout=wait_s)
                if handed is None:
                    self._running = False
                else:
                    self._waiting.add(handed)
        except queue.Empty:
            if not self._waiting and not self.failed:
                self._housekeep()
        return self._waiting.take()

    def _housekeep(self) -> None:
        self._tidied_ms, self._untidy = self._now_ms(), False
        try:
            self._untidy = self.engine.housekeep(self._tidied_ms, pinned=self._memory.pinned)
        except EngineFailed as error:
            self._stop_working(error)

    def _execute(self, batch: list[_Waiting]) -> None:
        durable = [waiting for waiting in batch if not isinstance(waiting[0], MemoryOperation)]
        try:
            outcomes = self.engine.execute([operation for operation, _ in durable], self._now_ms()) if durable else []
        except EngineFailed as error:
            self._stop_working(error)
            self._answer(partial(self._fail, batch))
            return
        answers = [(future, result, [notice for notice in notices if self._is_told(notice)])
                   for (_, future), (result, notices) in zip(durable, outcomes, strict=True)]
        for operation, future in batch:
            if isinstance(operation, MemoryOperation):
                answers.append((future, self._remember(operation), []))
        self._answer(partial(self._finish, answers))

    def _is_told(self, notice: Notice) -> bool:
        match notice:
            case Change(account_id=account_id):
                return bool(self._memory.watchers(account_id))
            case Rang():
                return bool(self._memory.queue_watchers)
        return True

    def _remember(self, operation: MemoryOperation) -> Result:
        if isinstance(operation, Freeze):
            return Refused(Refusal.NOT_ALLOWED, "whoever has the store to himself only stops committing")
        try:
            return self._memory.execute(operation, _HOLDER)
        except StoreRefused as refused:
            return Refused(refused.refusal, refused.detail)

    def _stop_working(self, error: EngineFailed) -> None:
        _log.critical("the store stops: %s", error)
        self.engine.give_up()
        self.failed = error

    def _answer(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            pass    # the loop is closed: nobody waits

    # -- back in the loop --

    def _finish(self, answers: list[_Answer]) -> None:
        for future, result, notices in answers:
            for notice in notices:
                self._tell(notice)
            _resolve(future, result)

    def _fail(self, batch: list[_Waiting]) -> None:
        for _, future in batch:
            _resolve(future, StoreUnavailable(str(self.failed)))


def _resolve(future: asyncio.Future[Result], result: Result | StoreUnavailable) -> None:
    if future.done():
        return
    match result:
        case Refused(refusal=refusal, detail=detail):
            future.set_exception(StoreRefused(refusal, detail))
        case StoreUnavailable():
            future.set_exception(result)
        case _:
            future.set_result(result)
