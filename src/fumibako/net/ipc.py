"""The other side of the Unix socket to the storage process: a worker's, a command's, and who only asks whether it answers.

Contract: DESIGN §4. At most 64 operations and 8 MB are in flight; more wait in order. Changes and Revoked reach
    `on_notice` before the answer of the operation that made them. A lost connection fails every pending operation at
    once: nothing is known about them and they are never sent again. While it is lost, submit fails at once and `run`
    tries to connect with back-off. Because changes were missed, every watched account is then told as Revoked, so that
    its sessions close and begin anew.
Failure: StorageGone.
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

from fumibako.model.change import Notice, Revoked
from fumibako.model.frames import (
    MAX_IN_FLIGHT,
    MAX_IN_FLIGHT_OCTETS,
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
    parse_from_storage,
)
from fumibako.model.ids import AccountId
from fumibako.model.ops import Ping, Result, Watch
from fumibako.net.endpoint import unix_path
from fumibako.net.wakeup import Wakeup

_log = logging.getLogger(__name__)

FIRST_RETRY_S = 0.05
LAST_RETRY_S = 1.0
ANSWER_S = 30.0         # recovery after a crash may take a while


class StorageGone(ConnectionError):
    """The storage process is away or broke off: the operation may or may not have happened."""


class _Window:
    """Lets 64 operations and 8 MB through at a time, in the order they came. A single larger one goes alone."""

    def __init__(self) -> None:
        self._operations = self._octets = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def enter(self, size_octets: int) -> None:
        if not self._waiting and self._fits(size_octets):
            self._take(size_octets)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size_octets, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():    # its turn came in the same moment
                self.leave(size_octets)
            raise

    def leave(self, size_octets: int) -> None:
        self._operations -= 1
        self._octets -= size_octets
        while self._waiting:
            wanted, turn = self._waiting[0]
            if not turn.done() and not self._fits(wanted):
                return
            self._waiting.popleft()
            if not turn.done():
                self._take(wanted)
                turn.set_result(None)

    def _fits(self, size_octets: int) -> bool:
        return not self._operations or (
            self._operations < MAX_IN_FLIGHT and self._octets + size_octets <= MAX_IN_FLIGHT_OCTETS)

    def _take(self, size_octets: int) -> None:
        self._operations += 1
        self._octets += size_octets


class _Link(asyncio.Protocol):
    """One connection; frames go to the client, which outlives it."""

    def __init__(self, on_frame: Callable[[FromStorage], None]) -> None:
        self._on_frame = on_frame
        self._frames = FrameBuffer()
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport      # type: ignore[assignment]  # a Transport in all but name under uvloop
        self.transport.write(format_frame(Hello()))     # type: ignore[union-attr]

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        try:
            for octets in self._frames.feed(data):
                self._on_frame(parse_from_storage(octets))
        except ValueError as error:
            _log.error("the storage process says what it should not: %s", error)
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(str(exc or "the storage process closed the connection"))


class StorageClient:
    """path: of the socket. `run` keeps it connected; `ready` waits until it is."""

    def __init__(self, path: str, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self.on_notice: Callable[[Notice], None] = lambda notice: None
        self._path, self._sleep = path, sleep
        self._link: _Link | None = None
        self._greeted = asyncio.Event()
        self._window = _Window()
        self._pending: dict[int, tuple[Wakeup[Result], int]] = {}
        self._last_id = 0
        self._watched: set[AccountId] = set()

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        retry_s = FIRST_RETRY_S
        while True:
            try:
                link = await self._connect()
            except OSError as error:
                _log.debug("no storage process at %s: %s", self._path, error)
            else:
                if await self._served(link):
                    retry_s = FIRST_RETRY_S
            await self._sleep(retry_s)
            retry_s = min(2 * retry_s, LAST_RETRY_S)

    async def _served(self, link: _Link) -> bool:
        """Until the connection is lost; True when the other side had greeted."""
        reason = "stopped"
        try:
            reason = await asyncio.shield(link.lost)
            _log.warning("the storage process is gone: %s", reason)
            return self._greeted.is_set()
        finally:
            self._disconnect(link)
            self._forget(reason)

    async def ready(self) -> None:
        """Returns when operations can be submitted."""
        await self._greeted.wait()

    async def submit(self, operation: Command) -> Result:
        """The result, as soon as it is durable and told. The operation happens even if the caller is cancelled."""
        self._check()
        self._last_id += 1
        id_ = self._last_id
        frame = format_frame(Request(id_, operation))
        size = len(frame)
        await self._window.enter(size)
        try:
            transport = self._check()
        except StorageGone:
            self._window.leave(size)
            raise
        answer: Wakeup[Result] = Wakeup(asyncio.get_running_loop())
        self._pending[id_] = (answer, size)
        transport.write(frame)
        result = await answer
        if isinstance(operation, Watch):
            (self._watched.add if operation.on else self._watched.discard)(operation.account_id)
        return result

    async def close(self) -> None:
        """Break off; whoever waits is told. `run` is cancelled by its owner."""
        if self._link and self._link.transport:
            self._link.transport.abort()
        self._forget("closed")

    # -- inside --

    def _check(self) -> asyncio.Transport:
        if not self._greeted.is_set() or not self._link or not self._link.transport:
            raise StorageGone("the storage process is away")
        return self._link.transport

    async def _connect(self) -> _Link:
        _, link = await asyncio.get_running_loop().create_unix_connection(lambda: _Link(self._receive), unix_path(self._path))
        self._link = link
        return link

    def _disconnect(self, link: _Link) -> None:
        if link.transport:
            link.transport.abort()
        self._link = None

    def _receive(self, frame: FromStorage) -> None:
        match frame:
            case Answer(id=id_, result=result):
                self._settle(id_).set_result(result)
            case Failure(id=id_, reason=reason):
                self._settle(id_).set_exception(StorageGone(reason))
            case Told(change=change):
                self.on_notice(change)
            case Closing(revoked=revoked):
                self.on_notice(revoked)
            case Ringing(rang=rang):
                self.on_notice(rang)
            case Hello(version=version):
                if version != PROTOCOL_VERSION:
                    raise ValueError(f"protocol version {version} instead of {PROTOCOL_VERSION}: restart the whole server")
                self._greeted.set()

    def _settle(self, id_: int) -> Wakeup[Result]:
        if id_ not in self._pending:
            raise ValueError(f"an answer to nothing: {id_}")
        answer, size = self._pending.pop(id_)
        self._window.leave(size)
        return answer

    def _forget(self, reason: str) -> None:
        """Everybody who waits learns at once that nothing is known."""
        self._greeted.clear()
        pending, self._pending = self._pending, {}
        for answer, size in pending.values():
            self._window.leave(size)
            answer.set_exception(StorageGone(reason))
        watched, self._watched = self._watched, set()
        for account_id in watched:
            self.on_notice(Revoked(account_id))


class StorageCall:
    """One connection to the storage process without a loop, one question at a time: for a command that reads files for
    hours and must not be interrupted between two of them. path: of the socket. StorageGone; ask() gives Refused as it is."""

    def __init__(self, path: str) -> None:
        self._frames, self._waiting, self._last_id = FrameBuffer(), deque[bytes](), 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(ANSWER_S)
        try:
            self._socket.connect(unix_path(path))
            self._socket.sendall(format_frame(Hello()))
            if self._receive() != Hello():
                raise StorageGone("another protocol version: restart the whole server")
        except OSError as error:
            self._socket.close()
            raise StorageGone(str(error)) from error

    def ask(self, operation: Command) -> Result:
        """The result, as soon as it is durable."""
        self._last_id += 1
        try:
            self._socket.sendall(format_frame(Request(self._last_id, operation)))
            while True:
                match self._receive():
                    case Answer(id=id_, result=result) if id_ == self._last_id:
                        return result
                    case Failure(reason=reason):
                        raise StorageGone(reason)
        except OSError as error:
            raise StorageGone(str(error)) from error

    def _receive(self) -> FromStorage:
        while not self._waiting:
            octets = self._socket.recv(1 << 16)
            if not octets:
                raise StorageGone("the storage process closed the connection")
            self._waiting.extend(self._frames.feed(octets))
        frame: FromStorage = parse_from_storage(self._waiting.popleft())
        return frame

    def close(self) -> None:
        self._socket.close()


class Pulse:
    """Whether the storage process answers. path: of its socket. No call waits: what a beat asks is looked at by the next one."""

    def __init__(self, path: str) -> None:
        self._path, self._asked = path, False
        self._socket: socket.socket | None = None
        self._frames, self._id = FrameBuffer(), 0

    def beat(self) -> bool:
        """True when the question of the beat before has been answered; asks the next one."""
        try:
            answered = self._answered()
            if answered or not self._asked:
                self._ask()
        except (OSError, ValueError) as error:
            _log.debug("no pulse: %s", error)
            self.close()
            return False
        return answered

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket, self._asked, self._frames = None, False, FrameBuffer()

    def _ask(self) -> None:
        greeting = b""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.setblocking(False)
            self._socket.connect(unix_path(self._path))
            greeting = format_frame(Hello())
        self._id += 1
        self._socket.send(greeting + format_frame(Request(self._id, Ping())))
        self._asked = True

    def _answered(self) -> bool:
        """Reads what is there; everybody is told of closed accounts too."""
        if self._socket is None:
            return False
        answered = False
        with suppress(BlockingIOError):
            while octets := self._socket.recv(65536):
                answered |= any(isinstance(parse_from_storage(one), Answer) for one in self._frames.feed(octets))
            raise ConnectionResetError("the storage process closed the connection")
        return answered
