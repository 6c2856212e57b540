"""One byte stream over TCP, TLS or a Unix socket: read, write, start_tls, close.

Specification: RFC 3207 §4.2 and RFC 2595 (what was said before TLS is forgotten); RFC 5929 §4.1 (channel binding).
Contract: the only module that touches transports (net.plain's, and asyncio's for TLS); every face and every outgoing
    connection uses it, so that limits, deadlines and TLS rules are written once. Octets are handed out in the order they
    came; input pauses at 64 KiB unread, `write` waits while 256 KiB are unsent. Who waits for octets goes on inside the call
    that brings them.
Failure: `TimeoutError` when a deadline passes, `ConnectionError` when the peer is gone, `PlaintextAfterStartTLS`
    (a ConnectionError) when octets precede a TLS handshake, `ssl.SSLError` when the handshake fails.
"""

import asyncio
import asyncio.sslproto
import fcntl
import math
import socket
import ssl
import struct
import termios
import threading
from collections.abc import Callable
from dataclasses import dataclass

from fumibako.net.endpoint import Endpoint, endpoint_of
from fumibako.net.plain import PlainTransport
from fumibako.net.tls import ServerContext, end_point_binding
from fumibako.net.wakeup import Wakeup

INPUT_HIGH_WATER = 64 * 1024
OUTPUT_HIGH_WATER = 256 * 1024
OUTPUT_PIECE = 64 * 1024
TLS_READ_BUFFER = 16 * 1024     # one TLS record; the default of 256 KiB is allocated for every connection
WRITE_TIMEOUT_S = 60.0
HANDSHAKE_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 5.0
_RESET = struct.pack("ii", 1, 0)    # socket(7), SO_LINGER: close means RST

asyncio.sslproto.SSLProtocol.max_size = TLS_READ_BUFFER     # class-wide: the only hook there is


class _TlsInput(threading.local):
    """What asyncio receives TLS records into, one for all connections of an event loop: they are copied out of it before the
    loop does anything else, and 10,000 connections that wait would keep 160 MB for nothing."""

    def __init__(self) -> None:
        self.octets = bytearray(TLS_READ_BUFFER)
        self.view = memoryview(self.octets)


_tls_input = _TlsInput()


def _share_tls_input(transport: asyncio.BaseTransport) -> None:
    """uvloop has no such buffer to share."""
    protocol = getattr(transport, "_ssl_protocol", None)
    if isinstance(protocol, asyncio.sslproto.SSLProtocol):
        protocol.__dict__.update(_ssl_buffer=_tls_input.octets, _ssl_buffer_view=_tls_input.view)


class PlaintextAfterStartTLS(ConnectionError):
    """The peer pipelined plaintext behind STARTTLS, or something else before TLS (CVE-2011-0411, CVE-2021-33515)."""


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """What a finished handshake settled. version: `TLSv1.3`; certificates are DER, empty where there is none."""

    version: str
    cipher: str
    bits: int
    peer_certificate: bytes
    server_end_point: bytes     # tls-server-end-point channel binding, RFC 5929 §4.1
    resumed: bool


@dataclass(frozen=True, slots=True)
class RateFloor:
    """The slowest a peer may be: so many octets per second after a grace time (reliability against slow senders)."""

    started_s: float
    octets_per_s: int = 500
    grace_s: float = 30.0

    def remaining_s(self, now_s: float, received_octets: int) -> float:
        """How long the next octet may take; 0 or less: too slow. Use it as the `timeout_s` of the next read."""
        return self.started_s + self.grace_s + received_octets / self.octets_per_s - now_s


class Stream(asyncio.Protocol):
    """A connection. `eof` is set once the peer has said its last octet, `closed` once nothing can be sent any more."""

    def __init__(self) -> None:
        self.peer = Endpoint("", 0)
        self.tls: TlsInfo | None = None
        self.eof = asyncio.Event()
        self.closed = asyncio.Event()
        self.given_up = False                   # we have closed it without waiting for the peer
        self.error: Exception | None = None     # why the connection was lost, where the system said so
        self.on_lost: Callable[[], object] | None = None    # called once, when `closed` is set
        self._transport: asyncio.Transport | None = None
        self._tls_begun = False
        self._in = bytearray()
        self._paused = False        # reading, until what has come is taken
        self._waiting: Wakeup[None] | None = None       # of the read that waits for octets
        self._deadline_s = math.inf         # of that read, by the loop's clock
        self._alarm: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._linger: asyncio.TimerHandle | None = None

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._transport is None:     # else it is under TLS from now on
            self.peer = endpoint_of(transport.get_extra_info("peername"))
        self._transport = transport     # type: ignore[assignment]  # asyncio promises a Transport to a Protocol
        transport.set_write_buffer_limits(high=OUTPUT_HIGH_WATER)   # type: ignore[attr-defined]
        if tls := transport.get_extra_info("ssl_object"):       # the loop has shaken hands already
            self._tls_begun = True
            self.tls = _tls_info(tls, server_side=tls.server_side)
            _share_tls_input(transport)

    def data_received(self, data: bytes) -> None:
        self._in += data
        if len(self._in) >= INPUT_HIGH_WATER and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()        # last: whoever waits goes on at once

    def eof_received(self) -> bool:
        self.eof.set()
        self._wake()
        return not self._tls_begun      # a half-closed TCP peer still gets its replies; TLS has no half-close

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = self.error or exc
        for event in (self.eof, self.closed, self._writable):
            event.set()
        for timer in (self._linger, self._alarm):
            if timer is not None:
                timer.cancel()
        on_lost, self.on_lost = self.on_lost, None      # once: a failed handshake is told twice
        if on_lost is not None:
            on_lost()
        self._wake()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # Called by faces and diallers.

    @property
    def local(self) -> Endpoint:
        """Our end, while it is open."""
        return endpoint_of(self._open_transport().get_extra_info("socket").getsockname())

    def has_arrived(self) -> bool:
        """Whether the peer has said something that nobody has read yet."""
        raw = self._open_transport().get_extra_info("socket")
        if self._in or self._tls_begun or raw is None or self.closed.is_set():
            return bool(self._in)
        return any(fcntl.ioctl(raw.fileno(), termios.FIONREAD, bytes(4)))

    async def read(self, timeout_s: float | None = None) -> bytes:
        """Whatever has arrived, at least one octet; b"" when the peer is done or gone. TimeoutError after timeout_s."""
        if not self._in and not self.eof.is_set():
            try:
                await self._arrival(timeout_s)
            finally:
                self._waiting, self._deadline_s = None, math.inf
        data = bytes(self._in)
        self._in.clear()
        if self._paused:
            self._paused = False
            self._open_transport().resume_reading()
        return data

    def _arrival(self, timeout_s: float | None) -> Wakeup[None]:
        # One alarm that is set again when it goes off too early: asyncio.timeout costs more than the command waited for.
        loop = asyncio.get_running_loop()
        waiting: Wakeup[None] = Wakeup(loop)
        self._waiting = waiting
        if timeout_s is not None:
            self._deadline_s = loop.time() + timeout_s
            if self._alarm is None or self._alarm.when() > self._deadline_s:
                self._set_alarm(loop)
        return waiting

    def _set_alarm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = loop.call_at(self._deadline_s, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._alarm = None
        if self._deadline_s <= loop.time():
            self.interrupt()
        elif self._deadline_s < math.inf:
            self._set_alarm(loop)

    def interrupt(self) -> None:
        """A read that is waiting ends with TimeoutError; without one, nothing happens."""
        if self._waiting is not None:
            self._waiting.set_exception(TimeoutError())

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.set_result(None)

    async def write(self, data: bytes, timeout_s: float = WRITE_TIMEOUT_S) -> None:
        """Sends, waiting while the peer is slow; a peer that takes nothing for timeout_s is cut off (TimeoutError)."""
        for start in range(0, len(data), OUTPUT_PIECE):
            if self.closed.is_set():
                raise ConnectionResetError("the peer has closed the connection") from self.error
            whole = len(data) <= OUTPUT_PIECE
            # A view is a slice without a copy.
            self._open_transport().write(data if whole else memoryview(data)[start : start + OUTPUT_PIECE])
            if not self._writable.is_set():
                await self._drained(timeout_s)

    async def _drained(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._writable.wait()
        except TimeoutError:
            self._cut_off()
            raise TimeoutError(f"{self.peer} has not read for {timeout_s:g} s") from None

    async def start_tls(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        announce: bytes = b"",
        timeout_s: float = HANDSHAKE_TIMEOUT_S,
    ) -> None:
        """Turns the stream into a TLS stream.

        announce: the reply that invites the handshake (`220 2.0.0 ...`); it leaves with reading already paused, so that
        a quick ClientHello is not mistaken for plaintext. Octets received before are an attack: the connection is cut.
        """
        if self._tls_begun:
            raise RuntimeError("TLS is already active")
        if self.closed.is_set():
            raise ConnectionResetError("the peer has closed the connection") from self.error
        transport = self._open_transport()
        transport.pause_reading()
        if self._in:
            self.abort()
            raise PlaintextAfterStartTLS(f"{self.peer} sent {len(self._in)} octets before the TLS handshake")
        self._tls_begun = True
        if announce:
            transport.write(announce)
        assert isinstance(transport, PlainTransport)    # where no TLS has begun
        try:
            async with asyncio.timeout(timeout_s):
                raw = await transport.hand_over()
            await _shake_hands(self, raw, context, server_hostname=None if server_side else server_hostname or "",
                               timeout_s=timeout_s)
        except BaseException as error:
            # The loop forgets the protocol of a failed handshake: nobody else would set `closed`.
            transport.abort()
            self.connection_lost(error if isinstance(error, Exception) else None)
            raise

    def close(self) -> None:
        """Sends what is still buffered, then closes; a peer that does not take it within 10 s is cut off."""
        if self._transport is None or self.closed.is_set() or self._linger is not None:
            return
        if self._tls_begun or self._transport.get_write_buffer_size():
            self._linger = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self._cut_off)
        self._transport.close()

    def abort(self) -> None:
        """Closes at once; what is buffered is lost."""
        self.given_up = True
        if self._transport is not None:
            self._transport.abort()

    def _cut_off(self) -> None:
        """For a peer that does not read: the system forgets too what it has not taken, instead of keeping it for minutes."""
        raw = self._open_transport().get_extra_info("socket")
        if raw is not None and raw.family != socket.AF_UNIX:
            try:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            except OSError:
                pass        # gone already
        self.abort()

    async def wait_closed(self) -> None:
        """Returns when the connection is gone (after close() or abort(), within seconds)."""
        if self._transport is not None:
            await self.closed.wait()

    def _open_transport(self) -> asyncio.Transport:
        if self._transport is None:
            raise RuntimeError("the stream is not connected")
        return self._transport


async def _shake_hands(
    stream: Stream, raw: socket.socket, context: ssl.SSLContext, *, server_hostname: str | None, timeout_s: float,
) -> None:
    """Has the loop speak TLS over a connected socket. server_hostname: as a client, of whom ("": nobody by name)."""
    loop = asyncio.get_running_loop()
    if server_hostname is None:
        await loop.connect_accepted_socket(
            lambda: stream, raw, ssl=context, ssl_handshake_timeout=timeout_s, ssl_shutdown_timeout=CLOSE_TIMEOUT_S)
    else:
        await loop.create_connection(
            lambda: stream, sock=raw, ssl=context, server_hostname=server_hostname,
            ssl_handshake_timeout=timeout_s, ssl_shutdown_timeout=CLOSE_TIMEOUT_S)


async def accept_stream(stream: Stream, raw: socket.socket, peername: object, context: ssl.SSLContext | None) -> None:
    """Begins a connection that a listening socket has let in, non-blocking. context: the handshake of implicit TLS comes before
    a single octet is read. peername: what accept said. Raises OSError (ssl.SSLError, too) when the handshake fails."""
    if context is None:
        PlainTransport(raw, stream, peername)
    else:
        await _shake_hands(stream, raw, context, server_hostname=None, timeout_s=HANDSHAKE_TIMEOUT_S)


def _tls_info(tls: ssl.SSLObject, server_side: bool) -> TlsInfo:
    """The facts of a finished handshake."""
    name, _, bits = tls.cipher() or ("", "", 0)
    peer = tls.getpeercert(binary_form=True) or b""
    if server_side:
        context: object = tls.context
        binding = context.end_point if isinstance(context, ServerContext) else b""
    else:
        binding = end_point_binding(peer) if peer else b""
    return TlsInfo(tls.version() or "", name, bits or 0, peer, binding, bool(tls.session_reused))


async def open_stream(endpoint: Endpoint, timeout_s: float, source: str = "") -> Stream:
    """Connects over TCP; source: the local IP address to come from. Raises TimeoutError or OSError."""
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    raw = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, socket.IPPROTO_TCP)
    try:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source:
            raw.bind((source, 0))
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().sock_connect(raw, (endpoint.host, endpoint.port))
    except BaseException:
        raw.close()
        raise
    stream = Stream()
    PlainTransport(raw, stream, (endpoint.host, endpoint.port))
    return stream
