"""The storage process: one blocking select loop that receives operations, executes them in batches and answers.

Contract: DESIGN §4. A worker is a connection of the Unix socket; each request is answered on the connection it came
    from, after the changes it made were told to every worker that watches the account, and a Revoked to all. What a
    worker held in Memory is released when its connection ends. The listening socket is handed in and stays the
    caller's; its file is readable for the server's user only.
    A batch is what has come while the one before was made durable. Behind one of several operations it waits a millisecond
    longer: a sync costs as much for ten as for one, and meanwhile the workers have the processor.
Failure: a connection that breaks the protocol or does not read is dropped. After EngineFailed all connections are
    closed without answers and `run` returns 70: start again through recovery. SIGTERM (`stop`): what was received is
    finished and answered, then 0.
"""

from __future__ import annotations

import logging
import selectors
import signal
import socket
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from fumibako.model.change import Change, Notice, Rang, Revoked
from fumibako.model.frames import (
    MAX_IN_FLIGHT,
    PROTOCOL_VERSION,
    Answer,
    Closing,
    Command,
    Failure,
    FrameBuffer,
    FromStorage,
    Hello,
    Request,
    Ringing,
    Told,
    format_frame,
    parse_to_storage,
)
from fumibako.model.ops import Freeze, MemoryOperation, Refused, Result
from fumibako.store.base import StoreRefused, StoreUnavailable
from fumibako.store.failpoint import reach
from fumibako.store.memory import Memory
from fumibako.store.sqlite.engine import DirectoryInUse, Engine, EngineFailed
from fumibako.store.trouble import refusal_of, tell
from fumibako.store.turns import Turns

_log = logging.getLogger(__name__)

IDLE_S = 5.0                            # without requests before a piece of housekeeping
PAUSE_S = 0.05                          # the same while there is more to tidy
BUSY_MS = (30_000, 1_000)               # a store that is never idle does a piece as often as this; the same while there is more
GATHER_S, COMPANY = 0.001, 3            # behind a batch of so many operations the next one waits so long for more
FREEZE_S = 0.5                          # a backup that has not begun its snapshots by then begins again
READ_OCTETS = 1 << 20
UNREAD_OCTETS = 64 * 1024 * 1024        # a worker that lets this much pile up is gone
DRAIN_S = 2.0
DEAF_S = 0.2                            # without descriptors nobody is let in for so long
EX_SOFTWARE = 70


@dataclass(slots=True, eq=False)
class _Connection:
    """holder: its name in Memory; waiting: requests not yet answered."""

    socket: socket.socket
    holder: int
    frames: FrameBuffer = field(default_factory=FrameBuffer)
    unsent: bytearray = field(default_factory=bytearray)
    waiting: int = 0
    greeted: bool = False
    events: int = selectors.EVENT_READ


def serve_storage(
    directory: Path, listener: socket.socket, now_ms: Callable[[], int], ready: Callable[[], None] = lambda: None
) -> int:
    """What the storage process does from beginning to end; the exit status. The listener may have peers waiting already.

    ready: called once the store is open, recovery done.
    """
    try:
        engine = Engine(directory, now_ms=now_ms())
    except (EngineFailed, DirectoryInUse, OSError) as error:
        _log.critical("the store does not open: %s", error)
        return EX_SOFTWARE
    server = StorageServer(engine, listener, now_ms)
    ready()
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)    # the terminal's ^C is the supervisor's business
    return server.run()


class StorageServer:
    """engine: closed when `run` returns."""

    def __init__(self, engine: Engine, listener: socket.socket, now_ms: Callable[[], int]) -> None:
        self._engine, self._listener, self._now_ms = engine, listener, now_ms
        self._memory = Memory(engine.uid_next)
        self._connections: dict[int, _Connection] = {}
        self._holders = count(1)
        self._requests: Turns[tuple[_Connection, Request]] = Turns(lambda waiting: waiting[1].operation)
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._stopping = self._has_company = False
        self._untidy, self._tidied_ms = False, now_ms()
        self._thaw_at_s = self._deaf_until_s = 0.0      # of the monotonic clock

    def stop(self) -> None:
        """From a signal handler or another thread."""
        self._stopping = True
        try:
            self._wake_writer.send(b"x")
        except OSError:
            pass    # it is on its way out already

    def run(self) -> int:
        for one in (self._listener, self._wake_reader):
            one.setblocking(False)
            self._selector.register(one, selectors.EVENT_READ, None)
        try:
            while not (self._stopping and not self._requests):
                self._turn()
            self._drain()
            return 0
        except EngineFailed as error:
            _log.critical("the store stops: %s", error)
            self._engine.give_up()
            return EX_SOFTWARE
        finally:
            self._close()

    def _turn(self) -> None:
        if self._deaf_until_s and time.monotonic() >= self._deaf_until_s:
            self._selector.register(self._listener, selectors.EVENT_READ, None)
            self._deaf_until_s = 0.0
        ready = self._selector.select(self._patience_s())
        if ready and self._has_company and self._memory.freezer is None:
            time.sleep(GATHER_S)
            ready = self._selector.select(0)
        for key, events in ready:
            if key.data is not None:
                self._serve(key.data, events)
            elif key.fileobj is self._listener:
                self._accept()
            else:
                self._wake_reader.recv(64)
        if self._memory.freezer is not None and time.monotonic() >= self._thaw_at_s:
            _log.warning("a backup froze the store for longer than %.1f s; work goes on", FREEZE_S)
            self._memory.thaw(self._memory.freezer)
        is_idle = not ready and not self._requests
        if self._requests:
            self._work()
        now_ms = self._now_ms()
        if self._memory.freezer is None and (is_idle or abs(now_ms - self._tidied_ms) >= BUSY_MS[self._untidy]):
            self._untidy = self._engine.housekeep(now_ms, pinned=self._memory.pinned)
            self._tidied_ms = now_ms

    def _patience_s(self) -> float:
        """How long a turn waits when nobody says anything."""
        if self._memory.freezer is not None:
            return max(0.0, self._thaw_at_s - time.monotonic())
        if self._deaf_until_s and not self._requests:
            return DEAF_S
        return 0.0 if self._requests else PAUSE_S if self._untidy else IDLE_S

    # -- connections --

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return      # it went away
        except OSError as error:
            tell("storage.sock", refusal_of(error), error.strerror)
            self._selector.unregister(self._listener)       # it stays ready: to look at once again would be a turn without end
            self._deaf_until_s = time.monotonic() + DEAF_S
            return
        peer.setblocking(False)
        connection = _Connection(peer, next(self._holders))
        self._connections[connection.holder] = connection
        self._selector.register(peer, selectors.EVENT_READ, connection)
        self._send(connection, Hello())
        self._flush(connection)

    def _serve(self, connection: _Connection, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush(connection)
        if events & selectors.EVENT_READ and connection.holder in self._connections:
            self._receive(connection)

    def _receive(self, connection: _Connection) -> None:
        try:
            octets = connection.socket.recv(READ_OCTETS)
            if not octets:
                self._drop(connection)
                return
            for frame in connection.frames.feed(octets):
                self._take(connection, frame)
        except BlockingIOError:
            return
        except (OSError, ValueError) as error:
            _log.warning("worker %d is dropped: %s", connection.holder, error)
            self._drop(connection)

    def _take(self, connection: _Connection, octets: bytes) -> None:
        frame = parse_to_storage(octets)
        match frame:
            case Request() if connection.greeted:
                connection.waiting += 1
                self._requests.add((connection, frame))
                self._set_events(connection)
            case Hello(version=version) if not connection.greeted and version == PROTOCOL_VERSION:
                connection.greeted = True
            case _:
                raise ValueError(f"unexpected {frame!r:.200}")

    def _set_events(self, connection: _Connection) -> None:
        """A worker keeps to MAX_IN_FLIGHT; one that doesn't is not read until its answers are out."""
        if connection.holder not in self._connections:
            return
        events = selectors.EVENT_READ if connection.waiting <= 2 * MAX_IN_FLIGHT else 0
        events |= selectors.EVENT_WRITE if connection.unsent else 0
        if events != connection.events:
            if not connection.events:
                self._selector.register(connection.socket, events, connection)
            elif not events:
                self._selector.unregister(connection.socket)
            else:
                self._selector.modify(connection.socket, events, connection)
            connection.events = events

    def _send(self, connection: _Connection, frame: FromStorage) -> None:
        self._send_octets(connection, format_frame(frame))

    def _send_octets(self, connection: _Connection, octets: bytes) -> None:
        if connection.holder in self._connections:
            connection.unsent += octets
            if len(connection.unsent) > UNREAD_OCTETS:
                _log.warning("worker %d does not read its answers and is dropped", connection.holder)
                self._drop(connection)

    def _flush(self, connection: _Connection) -> None:
        try:
            while connection.unsent:
                del connection.unsent[:connection.socket.send(connection.unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(connection)
        self._set_events(connection)

    def _drop(self, connection: _Connection) -> None:
        if self._connections.pop(connection.holder, None):
            if connection.events:
                self._selector.unregister(connection.socket)
            connection.socket.close()
            self._memory.release(connection.holder)

    # -- operations --

    def _work(self) -> None:
        """One batch. What lives in memory comes after what is durable: a Ping is answered last."""
        batch = self._next_batch()
        durable = [(connection, request) for connection, request in batch if not isinstance(request.operation, MemoryOperation)]
        self._has_company = len(durable) >= COMPANY
        if durable:
            operations: list[Command] = [request.operation for _, request in durable]
            outcomes = self._engine.execute(operations, self._now_ms())
            reach("before-answer", map(type, operations))
            for (connection, request), (result, notices) in zip(durable, outcomes, strict=True):
                for notice in notices:
                    self._tell(notice)
                self._answer(connection, request, result)
        for connection, request in batch:
            # What a connection that is gone asks for would be held for ever.
            if isinstance(request.operation, MemoryOperation) and connection.holder in self._connections:
                self._answer(connection, request, self._remember(request.operation, connection))
        for connection in list(self._connections.values()):
            if connection.unsent:
                self._flush(connection)
                reach("half-answered")

    def _next_batch(self) -> list[tuple[_Connection, Request]]:
        """While the work stands still: only what the one who froze it says about it."""
        freezer = self._memory.freezer
        if freezer is None:
            return self._requests.take()
        return self._requests.take_short(
            lambda waiting: waiting[0].holder == freezer and isinstance(waiting[1].operation, MemoryOperation))

    def _remember(self, operation: MemoryOperation, connection: _Connection) -> Result:
        try:
            result = self._memory.execute(operation, connection.holder)
        except StoreRefused as refused:
            return Refused(refused.refusal, refused.detail)
        if isinstance(operation, Freeze):
            self._thaw_at_s = time.monotonic() + FREEZE_S
        return result

    def _tell(self, notice: Notice) -> None:
        match notice:
            case Change(account_id=account_id):
                self._tell_some(self._memory.watchers(account_id), Told(notice))
            case Rang():
                self._tell_some(self._memory.queue_watchers, Ringing(notice))
            case Revoked():
                octets = format_frame(Closing(notice))
                for connection in list(self._connections.values()):
                    self._send_octets(connection, octets)
                    self._flush(connection)     # the others close their sessions before the command's answer is sent

    def _tell_some(self, holders: Collection[int], frame: FromStorage) -> None:
        if holders:
            octets = format_frame(frame)
            for holder in list(holders):
                self._send_octets(self._connections[holder], octets)

    def _answer(self, connection: _Connection, request: Request, result: Result | StoreUnavailable) -> None:
        connection.waiting -= 1
        if isinstance(result, StoreUnavailable):
            self._send(connection, Failure(request.id, str(result)))
        else:
            self._send(connection, Answer(request.id, result))

    # -- the end --

    def _drain(self) -> None:
        """Send what is still unsent, for as long as somebody reads."""
        for connection in list(self._connections.values()):
            connection.socket.settimeout(DRAIN_S)
            try:
                connection.socket.sendall(connection.unsent)
            except OSError:
                pass    # it is gone; nobody is told anything wrong

    def _close(self) -> None:
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()
        self._engine.close()
