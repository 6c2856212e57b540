"""Listening sockets, and the loop that accepts connections, holds the caps, and drains in order.

Contract: `bind` turns a `Listener` into sockets; `serve` runs one session per connection until `stopping` is set, then
    stops accepting, gives the sessions 10 s to end by themselves, and cancels the rest. A session that fails ends alone.
    A connection beyond a cap gets the protocol's refusal line and is closed before anything else is spent on it.
Failure: `ListenError` names the listener's text and what to do about it.
"""

import asyncio
import errno
import ipaddress
import logging
import os
import socket
import ssl
import stat
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from fumibako.net.datagram import ask_for_destination
from fumibako.net.endpoint import endpoint_of, parse_port, plain_address, unix_path
from fumibako.net.stream import OUTPUT_HIGH_WATER, Stream, accept_stream

BACKLOG = 1024
DRAIN_S = 9.0               # a stop takes 10 s at most
AT_ONCE = 64        # connections let in before those that are in get their turn
OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
SHED_PAUSE_S = 0.05     # the rest of the process gets to close something

Session = Callable[[Stream], Awaitable[None]]
Refuse = Callable[[str], bytes]     # reason -> the line that says so in the protocol ("421 4.7.0 ..."), b"": say nothing
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
CapsNow = Callable[[int], "Caps | Awaitable[Caps]"]        # asked with the new connection's descriptor

log = logging.getLogger("fumibako.net")


class ListenError(Exception):
    """A listener that cannot be opened; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A named service and where it listens: "192.0.2.1:25", "[2001:db8::1]:25", ":25" (IPv4 and IPv6), "unix:path"."""

    name: str
    addresses: tuple[str, ...]
    implicit_tls: bool = False


@dataclass(frozen=True, slots=True)
class Caps:
    """How much one service takes on at a time.

    per_address counts an IPv4 address or an IPv6 /64; exempt networks are held to the total only.
    drain_s: how long sessions may take to end once the service is told to stop.
    """

    total: int = 1000
    per_address: int = 50
    exempt: tuple[Network, ...] = ()
    drain_s: float = DRAIN_S


# Binding


def bind(listener: Listener, *, reuse_port: bool = False, datagrams: bool = False) -> list[socket.socket]:
    """Opens every address of a listener, non-blocking. reuse_port: several processes may each have their own socket.

    Port 0 takes a free port (the same one for IPv4 and IPv6). Raises ListenError; then nothing stays open.
    """
    sockets: list[socket.socket] = []
    try:
        for text in listener.addresses:
            sockets += _bind_text(text, reuse_port, socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        for opened in sockets:
            opened.close()
        raise ListenError(f"[listen] {listener.name} = {text!r}: {_reason(error)}") from error
    return sockets


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.errno == errno.EACCES:
        return "permission denied; ports below 1024 need root, CAP_NET_BIND_SERVICE or socket activation"
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return "another program listens there already; stop it or choose another address"
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _bind_text(text: str, reuse_port: bool, kind: socket.SocketKind) -> list[socket.socket]:
    if text.startswith("unix:"):
        return [_bind_unix(unix_path(text.removeprefix("unix:")))]
    host, _, port_text = text.rpartition(":")
    port = parse_port(port_text)
    if host:
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        return [_bind_ip(plain_address(bare), port, reuse_port, kind)]
    first = _bind_ip("0.0.0.0", port, reuse_port, kind)     # noqa: S104  # ":25" asks for every address
    try:
        second = _bind_ip("::", first.getsockname()[1], reuse_port, kind)
    except OSError as error:
        if error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:    # a machine without IPv6
            return [first]
        first.close()
        raise
    return [first, second]


def _bind_ip(host: str, port: int, reuse_port: bool, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, because asyncio sets TCP_NODELAY only on sockets that say they are TCP.
    opened = socket.socket(family, kind, socket.IPPROTO_TCP if kind is socket.SOCK_STREAM else 0)
    try:
        opened.setblocking(False)
        if kind is socket.SOCK_STREAM:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family is socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind is socket.SOCK_DGRAM:
            ask_for_destination(opened)     # before the first datagram can come
        opened.bind((host, port))
        _prepare(opened)
        if kind is socket.SOCK_STREAM:
            opened.listen(BACKLOG)
    except BaseException:
        opened.close()
        raise
    return opened


def _prepare(listening: socket.socket) -> None:
    """What its connections take over, from the first on: a dead peer is noticed, a reply does not wait 40 ms for an ACK, and at
    most so much is held in the system that has not been sent; else it is megabytes for a peer that does not read (tcp(7))."""
    if listening.family != socket.AF_UNIX and listening.type == socket.SOCK_STREAM:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, OUTPUT_HIGH_WATER)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _bind_unix(path: str) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        _remove_stale(path)
        opened.bind(path)
        os.chmod(path, 0o600)
        opened.listen(BACKLOG)
    except BaseException:
        opened.close()
        raise
    return opened


def _remove_stale(path: str) -> None:
    """A socket file that a dead process left; a live one, or any other file, stays."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def adopt(descriptor: int) -> socket.socket:
    """A listening socket inherited from the supervisor, as the descriptor of this process."""
    inherited = socket.socket(fileno=descriptor)
    inherited.setblocking(False)
    _prepare(inherited)
    return inherited


def systemd_sockets(environment: Mapping[str, str], process_id: int, first: int = 3) -> dict[str, list[socket.socket]]:
    """Sockets handed over by systemd socket activation (sd_listen_fds(3)): FileDescriptorName= -> sockets."""
    if environment.get("LISTEN_PID") != str(process_id):
        return {}
    count = parse_port(environment.get("LISTEN_FDS", "0"))
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[socket.socket]] = {}
    for index in range(count):
        name = names[index] if index < len(names) else "unknown"
        os.set_inheritable(first + index, False)
        found.setdefault(name, []).append(adopt(first + index))
    return found


# Serving


async def serve(
    sockets: Sequence[socket.socket],
    session: Session,
    *,
    tls_context: ssl.SSLContext | None = None,
    caps: CapsNow = lambda descriptor: Caps(),
    stopping: asyncio.Event | None = None,
    refuse: Refuse = lambda reason: b"",
) -> None:
    """Accepts connections and runs `session` for each until `stopping` is set; then drains. Closes the sockets.

    tls_context: implicit TLS (the handshake comes first). STARTTLS is the session's own business.
    caps: asked at each connection, so that a change holds for the next one; they may have to be waited for.
    `session` may look at the same `stopping` event to say goodbye: its wait for octets then ends with TimeoutError. The
    stream is closed when it returns.
    """
    stopping = stopping or asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            service = _Service(session, tls_context, caps, refuse, group)
            acceptors = [group.create_task(service.accept(listening)) for listening in sockets]
            await stopping.wait()
            for acceptor in acceptors:
                acceptor.cancel()
            await service.drain()
    finally:
        for listening in sockets:
            listening.close()


@dataclass(slots=True)
class _Service:
    """The connections of one `serve` call."""

    session: Session
    tls_context: ssl.SSLContext | None
    caps: CapsNow
    refuse: Refuse
    group: asyncio.TaskGroup
    per_address: Counter[str] = field(default_factory=Counter)
    running: set[asyncio.Task[None]] = field(default_factory=set)
    streams: set[Stream] = field(default_factory=set)
    reserve: int = -1       # a descriptor to give up when all are used, so that a refusal can be sent

    async def accept(self, listening: socket.socket) -> None:
        """One listening socket, for ever. Sessions are tasks beside this one: they outlive it by the drain time."""
        loop = asyncio.get_running_loop()
        self._keep_reserve()
        arrived = asyncio.Event()
        loop.add_reader(listening, arrived.set)     # kept: sock_accept has it made and taken away for each connection
        try:
            while True:
                await arrived.wait()
                arrived.clear()
                try:
                    await self._accept_some(listening)
                except OSError as error:
                    loop.remove_reader(listening)       # it stays ready: to look again at once would be a turn without end
                    await self._accept_failed(listening, error)
                    loop.add_reader(listening, arrived.set)
        finally:
            loop.remove_reader(listening)
            self._drop_reserve()

    async def _accept_some(self, listening: socket.socket) -> None:
        """Those that wait; OSError: no more can be let in now."""
        for _ in range(AT_ONCE):
            try:
                connection, sockname = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            connection.setblocking(False)
            try:
                caps = self.caps(connection.fileno())
                if not isinstance(caps, Caps):
                    caps = await caps
            except BaseException:
                connection.close()
                raise
            self._begin(connection, sockname, caps)

    def _begin(self, connection: socket.socket, sockname: object, caps: Caps) -> None:
        host = endpoint_of(sockname).host
        key = cap_key(host)
        if reason := self._over_cap(host, key, caps):
            self._turn_away(connection, reason)
            return
        self.per_address[key] += 1
        task = self.group.create_task(self._run(connection, sockname), name=f"session {host}")
        self.running.add(task)

        def forget(done: asyncio.Task[None]) -> None:
            self.running.discard(done)
            self.per_address[key] -= 1
            if not self.per_address[key]:
                del self.per_address[key]

        task.add_done_callback(forget)

    def _over_cap(self, host: str, key: str, caps: Caps) -> str:
        if len(self.running) >= caps.total:
            return "too many connections"
        if self.per_address[key] >= caps.per_address and not within(host, caps.exempt):
            return "too many connections from your address"
        return ""

    def _turn_away(self, connection: socket.socket, reason: str) -> None:
        """Says no without a task, a stream or a wait; nothing in plaintext where TLS is expected."""
        try:
            if self.tls_context is None:
                connection.send(self.refuse(reason))
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass        # gone already
        connection.close()

    async def _run(self, connection: socket.socket, sockname: object) -> None:
        stream = Stream()
        self.streams.add(stream)
        try:
            await accept_stream(stream, connection, sockname, self.tls_context)
            await self.session(stream)
        except OSError as error:        # the peer left, was too slow, or failed its handshake (ssl.SSLError)
            log.debug("%s: %s", stream.peer, error)
        except Exception:               # a bug ends its own session, not the server
            log.exception("session of %s failed", stream.peer)
        finally:
            stream.close()
            self.streams.remove(stream)
        await stream.wait_closed()

    async def drain(self) -> None:
        """Lets the sessions end by themselves for a while, then cancels those left."""
        for stream in list(self.streams):
            stream.interrupt()
        if self.running:
            caps = self.caps(-1)
            await asyncio.wait(self.running, timeout=(caps if isinstance(caps, Caps) else await caps).drain_s)
        for task in self.running:
            task.cancel()

    async def _accept_failed(self, listening: socket.socket, error: OSError) -> None:
        """Out of descriptors: spend the reserve on telling one peer so, instead of leaving all of them waiting."""
        if error.errno not in OUT_OF_FILES:
            log.warning("accept on %s: %s", endpoint_of(listening.getsockname()), error)
        elif self.reserve >= 0:
            self._drop_reserve()
            try:
                connection, _ = listening.accept()
                connection.setblocking(False)
                self._turn_away(connection, "out of resources")
            except OSError:
                pass
            self._keep_reserve()
        await asyncio.sleep(SHED_PAUSE_S)

    def _keep_reserve(self) -> None:
        if self.reserve < 0:
            try:
                self.reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                pass        # none to be had: the next peer waits until one is

    def _drop_reserve(self) -> None:
        if self.reserve >= 0:
            os.close(self.reserve)
            self.reserve = -1


@lru_cache(maxsize=4096)        # asked for every connection, and most peers come again
def within(host: str, networks: tuple[Network, ...]) -> bool:
    """Whether an address lies in one of the networks; a Unix socket ("" or a path) lies in none."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in networks)


def cap_key(host: str) -> str:
    """What counts as one peer: an IPv6 customer has a whole /64."""
    if ":" not in host:
        return host
    return str(ipaddress.IPv6Network((host, 64), strict=False))
