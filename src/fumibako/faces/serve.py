"""The one loop of every stream protocol: events from the core to the session, octets between core and stream.

Specification: RFC 3207 §4.2, RFC 2595 §3.1 and RFC 9051 §6.2.1 (nothing said before TLS counts after it);
    RFC 2920 §3.1 (replies of pipelined commands leave together).
Contract: `run_session` returns when the session is over; the caller closes the stream. A command is cancelled when its
    peer is gone; a stop waits for the running command and its reply. `on_end` runs however the session ends.
Failure: `StoreUnavailable` (the store is away) and bugs end this session through `on_failure`; a bug's traceback goes to the log,
    never to the peer.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar

from fumibako.net.clock import Clock
from fumibako.net.stream import Stream
from fumibako.proto.reader import Need, ProtocolError
from fumibako.services import StoreUnavailable

LOGIN_S = 300.0             # from connection to login, whatever is said meanwhile; RFC 5321 §4.5.3.2.7 has no client be faster
FLUSH_AFTER_EVENTS = 16     # answers of pipelined commands are sent together, but not without bound

T = TypeVar("T")

log = logging.getLogger("fumibako.faces")


class Core(Protocol):
    """The sans-I/O half of a session (DESIGN: pull API)."""

    @property
    def unread(self) -> int:
        """Octets received and not parsed yet."""

    def receive_data(self, data: bytes, /) -> None: ...

    def next_event(self) -> Any:
        """An event, Need.BYTES or Need.REPLY. ProtocolError: the last words are queued, close."""

    def data_to_send(self) -> bytes: ...


class Session(Protocol):
    """What a face writes: one method that answers an event, and what to say when something comes between.

    The `on_` methods only write their farewell into the core and set `closed`; the loop sends it.
    """

    closed: bool
    patience: Patience
    wants_tls: bool             # set with the reply that invites the handshake; the loop clears it

    @property
    def core(self) -> Core: ...

    @property
    def timeout_s(self) -> float:
        """How long the next octets may take from now on."""

    @property
    def starttls_context(self) -> ssl.SSLContext | None: ...

    async def on_event(self, event: Any, /) -> None:
        """Answers the event; may write more by itself as long as it empties the core's data_to_send first."""

    def idle(self) -> Awaitable[None] | None:
        """Asked each time before the session waits for octets: it may wait for something else too. A push is written into
        the core by the awaitable itself, and sent when that is done; it is cancelled when octets arrive first.
        A session that has had enough sets `closed` here instead."""

    def on_tls(self) -> None:
        """The handshake is done: begin anew."""

    def on_timeout(self) -> None: ...

    def on_stop(self) -> None:
        """The server stops."""

    def on_failure(self) -> None:
        """The store is away, or a bug: no success may be claimed for the command at hand."""

    async def on_end(self) -> None:
        """Give back what is held. Also after a cancellation; must not wait long."""


class Patience:
    """How long a peer may take over one command, and to log in. Octets that drip in don't begin it anew, only what they
    make up does; what must be over by the login is begun anew by nothing.

    login_s: from now to the login; infinite where nobody has to log in.
    """

    def __init__(self, clock: Clock, login_s: float = math.inf) -> None:
        self._clock = clock
        self._login_by_s = clock.monotonic_s() + login_s
        self._since_s: float | None = None      # from the next question on

    def begin(self) -> None:
        """An event is answered: the next one may take its time from when it is waited for."""
        self._since_s = None

    def logged_in(self) -> None:
        """From now on a peer may stay as long as it likes."""
        self._login_by_s = math.inf

    @property
    def login_is_overdue(self) -> bool:
        return self._login_by_s < math.inf and self._login_by_s <= self._clock.monotonic_s()

    def left_s(self, limit_s: float) -> float:
        """What is left of a limit, or of the time to log in where that ends sooner; 0.0 when it is over."""
        now_s = self._clock.monotonic_s()
        if self._since_s is None:
            self._since_s = now_s
        return max(0.0, min(self._since_s + limit_s, self._login_by_s) - now_s)


async def run_session(session: Session, stream: Stream, stopping: asyncio.Event) -> None:
    """Serves one connection until the peer leaves, the session closes, or the server stops.

    Whoever sets `stopping` interrupts the stream, too (net.listen.serve does): a wait for octets then ends at once, and
    a running command is left to finish.
    """
    task = asyncio.current_task()
    assert task is not None
    stream.on_lost = task.cancel        # nothing can be sent any more: the running command is over
    try:
        if stream.closed.is_set():
            return
        await _Loop(session, stream, stopping).run()
    except asyncio.CancelledError:
        # As asyncio.timeout does it: what we asked for ends here, what another asked for goes on.
        if not stream.closed.is_set() or task.uncancel():
            raise
    finally:
        stream.on_lost = None
        await session.on_end()


class _Loop:
    def __init__(self, session: Session, stream: Stream, stopping: asyncio.Event) -> None:
        self._session, self._stream, self._stopping = session, stream, stopping

    async def run(self) -> None:
        try:
            await self._converse()
        except ProtocolError as error:
            log.info("%s: %s", self._stream.peer, error)
        except OSError as error:
            await asyncio.sleep(0)              # a stream that was just cut off says so one turn later
            if self._stream.closed.is_set() or self._stream.given_up:
                log.debug("%s: %s", self._stream.peer, error)
                return
            log.exception("a session of %s failed", self._stream.peer)      # not the peer's doing: a file, say
            self._session.on_failure()
        except StoreUnavailable as error:
            log.warning("%s: the store is away: %s", self._stream.peer, error)
            self._session.on_failure()
        except Exception:
            log.exception("a session of %s failed", self._stream.peer)
            self._session.on_failure()
        await self._farewell()

    async def _converse(self) -> None:
        session, unflushed = self._session, 0
        while not session.closed:
            event = session.core.next_event()
            if event is Need.BYTES:
                if data := session.core.data_to_send():
                    await self._stream.write(data)
                await self._receive()
                unflushed = 0
                continue
            if event is Need.REPLY:
                raise RuntimeError("the session left an event unanswered")
            await session.on_event(event)
            unflushed += 1
            if session.wants_tls:
                await self._switch_to_tls()
            elif unflushed >= FLUSH_AFTER_EVENTS:
                await self._flush()
                unflushed = 0

    async def _flush(self) -> None:
        if data := self._session.core.data_to_send():
            await self._stream.write(data)

    async def _farewell(self) -> None:
        try:
            await self._flush()
        except OSError as error:
            log.debug("%s: %s", self._stream.peer, error)

    async def _receive(self) -> None:
        """Waits for octets, a push, the deadline, or the server's stop."""
        session = self._session
        if self._stopping.is_set():
            return self._end(session.on_stop)
        if session.patience.login_is_overdue:       # also where octets wait: who never stops talking never times out
            return self._end(session.on_timeout)
        push = session.idle()
        if session.closed:
            return None
        try:
            data = await (self._stream.read(session.timeout_s) if push is None else self._octets_or_push(push))
        except TimeoutError:
            return self._end(session.on_stop if self._stopping.is_set() else session.on_timeout)
        if data is None:
            return None
        if data:
            session.core.receive_data(data)
        else:
            session.closed = True
        return None

    def _end(self, farewell: Any) -> None:
        farewell()
        self._session.closed = True

    async def _octets_or_push(self, push: Awaitable[None]) -> bytes | None:
        """Octets, b"" at the end of input, or None when the push came first."""
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(_outcome(self._stream.read(self._session.timeout_s)))
            pushing = group.create_task(_outcome(push))
            await asyncio.wait((reading, pushing), return_when=asyncio.FIRST_COMPLETED)
            for task in (reading, pushing):
                task.cancel()           # the other one; for what is done it means nothing
        if _is_over(pushing) and isinstance(failure := pushing.result(), Exception):
            raise failure
        octets = reading.result() if _is_over(reading) else None
        if isinstance(octets, Exception):
            raise octets
        return octets

    async def _switch_to_tls(self) -> None:
        session = self._session
        session.wants_tls = False
        context = session.starttls_context
        if context is None:
            raise RuntimeError("STARTTLS was accepted without a certificate")
        if session.core.unread:
            # CVE-2011-0411: octets pipelined behind STARTTLS would be taken for what came under TLS.
            self._stream.abort()
            raise ConnectionAbortedError("octets behind STARTTLS")
        await self._stream.start_tls(context, server_side=True, announce=session.core.data_to_send())
        session.on_tls()


def _is_over(task: asyncio.Task[Any]) -> bool:
    return task.done() and not task.cancelled()


async def _outcome(awaited: Awaitable[T]) -> T | Exception:
    """A failure as a value: a failing task would take its whole group along before anybody could say goodbye."""
    try:
        return await awaited
    except Exception as error:
        return error
