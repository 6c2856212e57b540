"""What each process of a server does from its start to its last reply: storage, worker, jobs.

Specification: DESIGN §4.
Contract: a process says that it is ready once it can do its work, and returns 0 after an orderly stop at SIGTERM.
    Workers take their listening sockets from the supervisor. At SIGHUP the configuration is read anew: new sessions and
    attempts go by it, those under way end as they began. At SIGUSR1 each process with an event loop tells how late it is.
Failure: 70 when the disk or a database failed; the supervisor starts the process again, through recovery.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from socket import socket

from fumibako.app.admission import admitted
from fumibako.app.build import Parts, build_notifier, build_parts, build_queue_runner, build_relay, changed_parts
from fumibako.app.limits import files_allowed, is_beyond
from fumibako.app.reload import with_changes
from fumibako.app.storage import remote_store
from fumibako.config import Config, ConfigError, load_config
from fumibako.faces import smtp
from fumibako.faces.dns import DnsFace, ResponseRate
from fumibako.faces.imap.conversation import ImapServices
from fumibako.faces.opening import Door, open_imap, open_pop3, refuse_imap, refuse_pop3
from fumibako.faces.pop3 import Pop3Services
from fumibako.faces.serve import Session, run_session
from fumibako.model.ops import Refusal
from fumibako.net.clock import Clock
from fumibako.net.lag import LagMeter
from fumibako.net.listen import Caps, Refuse, cap_key, serve, within
from fumibako.net.offload import Offload
from fumibako.net.stream import Stream
from fumibako.net.tls import TlsFileError
from fumibako.proto.dns.answer import Answerer
from fumibako.services.following import Following
from fumibako.services.policy import Policy
from fumibako.services.queue import QueueRunner
from fumibako.store.base import StoreUnavailable
from fumibako.store.trouble import tell

Sockets = Mapping[str, list[socket]]        # listener name ("dns-udp" for datagrams) -> this worker's own sockets
Ready = Callable[[], None]
Reread = Callable[[Config], Config | None]      # what runs now -> what to run with; None: the file is wrong, and the log says so
OpenSession = Callable[[Stream], Awaitable[Session]]

log = logging.getLogger("fumibako")
lag_log = logging.getLogger("fumibako.lag")

_M_MMAP_THRESHOLD, _MAPPED_OCTETS = -3, 128 * 1024      # mallopt(3), and its own default


@dataclass(frozen=True, slots=True)
class _Service:
    """How one listener is served. refuse: what a connection too many is told."""

    open: OpenSession
    refuse: Refuse
    implicit_tls: bool


def reread_silently(running: Config) -> Config | None:
    """The supervisor has looked at the file and logged what is to be said."""
    try:
        return with_changes(running, load_config(running.directory))
    except ConfigError:
        return None


class Worker:
    """The protocol faces of one process."""

    def __init__(self, parts: Parts, sockets: Sockets, reread: Reread = reread_silently, workers: int = 1) -> None:
        self.stopping = asyncio.Event()
        self._workers = workers
        self._parts, self._sockets, self._reread = parts, sockets, reread
        self._caps = Following("the limits", parts.store.directory_version, self._read_caps, Caps())
        self._services: dict[str, _Service] = {}
        self._free: Counter[str] = Counter()        # connections that storage does not count, by listener
        self._runner: QueueRunner | None = None

    async def run(self, ready: Ready, *, with_jobs: bool) -> int:
        """Serve until SIGTERM. with_jobs: also do what else the jobs process does (workers = 0)."""
        parts = self._parts
        self._runner = build_queue_runner(parts) if with_jobs else None
        _on_signals(self._stop_at_once if with_jobs else self.stopping.set, self._reload)
        await parts.zones.refresh()
        await self._caps.refresh()
        async with asyncio.TaskGroup() as background:
            jobs = background.create_task(self._runner.run()) if self._runner is not None else None
            async with asyncio.TaskGroup() as listeners:
                for name, opened in self._sockets.items():
                    if not name.startswith("dns"):
                        listeners.create_task(self._serve(name, opened))
                if "dns" in self._sockets:
                    rate = ResponseRate(parts.clock, workers=self._workers)
                    face = DnsFace(self._answerer, parts.clock, lambda host: within(host, self._caps.value.exempt), rate)
                    listeners.create_task(face.run(self._sockets["dns-udp"], self._sockets["dns"], self.stopping))
                ready()
                await self.stopping.wait()
            if jobs is not None:
                jobs.cancel()
        return 0

    def _stop_at_once(self) -> None:
        """Told a second time, a server without a supervisor ends here. What was acknowledged is on the disk."""
        if self.stopping.is_set():
            os._exit(0)
        self.stopping.set()

    def _reload(self) -> None:
        self._parts = _reloaded(self._parts, self._reread, self._runner)
        self._services.clear()

    def _answerer(self) -> Answerer | Awaitable[Answerer]:
        """The zones of now, and with them the networks of now that are exempt from the rate limit."""
        found = self._parts.zones.current()
        return found if isinstance(found, Answerer) else self._answerer_later(found)

    async def _answerer_later(self, found: Awaitable[Answerer]) -> Answerer:
        answerer = await found
        await self._caps.refresh()      # after the zones: whoever finds those new finds the networks no older
        return answerer

    def _held_caps(self, descriptor: int) -> Caps | Awaitable[Caps]:
        """The settings; nobody more while files are short: storage, resolver and deliveries need some too."""
        if is_beyond(descriptor):
            tell("connections", Refusal.NO_FILES, f"{files_allowed()} are allowed, and four fifths of them open")
            return replace(self._caps.value, total=0)
        return self._caps.current()

    async def _read_caps(self) -> Caps:
        policy = Policy(await self._parts.store.settings())
        per_address = policy.number("limits.connections_per_address")
        return Caps(policy.number("limits.connections"), per_address, policy.networks("limits.exempt"))

    async def _serve(self, name: str, opened: list[socket]) -> None:
        service = self._service(name)

        async def session(stream: Stream) -> None:
            is_free = self._free[name] < self._free_places()
            self._free[name] += is_free
            try:
                if claims := self._claims(name, stream.peer.host, is_free=is_free):
                    await self._converse_if_admitted(name, claims, stream)
                else:
                    await self._converse(self._service(name), stream)
            finally:
                self._free[name] -= is_free

        context = self._parts.tls.context(name) if service.implicit_tls else None
        await serve(opened, session, tls_context=context, caps=self._held_caps, stopping=self.stopping, refuse=service.refuse)

    async def _converse_if_admitted(self, name: str, claims: list[tuple[str, int]], stream: Stream) -> None:
        async with admitted(self._parts.store, claims) as exceeded:
            if not exceeded:
                await self._converse(self._service(name), stream)
            else:
                whose = "" if exceeded == name else " from your address"
                await stream.write(self._service(name).refuse(f"too many connections{whose}"))

    def _free_places(self) -> int:
        """How many connections of a listener each worker takes on without asking storage: a question costs as much as a
        command does. All workers together keep them back from what storage gives out, so that the cap holds."""
        return self._caps.value.total // (4 * self._workers) if self._workers > 1 else 0

    def _claims(self, name: str, host: str, *, is_free: bool) -> list[tuple[str, int]]:
        """What storage counts a connection under: its listener, which a single worker counts as well itself, and its peer."""
        caps = self._caps.value
        claims = [] if is_free or self._workers == 1 else [(name, caps.total - self._workers * self._free_places())]
        if host and "/" not in host and not within(host, caps.exempt):
            claims.insert(0, (f"{name} {cap_key(host)}", caps.per_address))
        return claims

    async def _converse(self, service: _Service, stream: Stream) -> None:
        try:
            session = await service.open(stream)
        except StoreUnavailable as error:       # before there is anybody who could say so
            log.warning("%s: the store is away: %s", stream.peer, error)
            if not service.implicit_tls or stream.tls:
                await stream.write(service.refuse("temporary failure"))
            return
        await run_session(session, stream, self.stopping)

    def _service(self, name: str) -> _Service:
        """Of the parts of now."""
        if name not in self._services:
            self._services[name] = self._made_service(name)
        return self._services[name]

    def _made_service(self, name: str) -> _Service:
        parts, implicit_tls = self._parts, name in ("submissions", "imaps", "pop3s")
        starttls = None if implicit_tls or name == "lmtp" else parts.tls.context(name)
        door = Door(parts.config.server.hostname, starttls, parts.config.allow_plaintext)
        if name.startswith("imap"):
            services = ImapServices(parts.mailboxes, parts.login, parts.clock)
            return _Service(_at_once(lambda stream: open_imap(door, services, stream)), refuse_imap, implicit_tls)
        if name.startswith("pop3"):
            maildrops = Pop3Services(parts.mailboxes, parts.login)
            return _Service(_at_once(lambda stream: open_pop3(door, maildrops, stream)), refuse_pop3, implicit_tls)
        return _Service(self._smtp(name, starttls), smtp.refuse_connection, implicit_tls)

    def _smtp(self, name: str, starttls: ssl.SSLContext | None) -> OpenSession:
        parts, role = self._parts, {"smtp": smtp.Role.MX, "lmtp": smtp.Role.LMTP}.get(name, smtp.Role.SUBMISSION)
        config = smtp.SmtpConfig(parts.config.server.hostname, role, starttls, parts.config.allow_plaintext)
        services = smtp.Services(parts.receiver, parts.submitter, parts.login, parts.clock)
        return lambda stream: smtp.open_session(config, services, stream)


def _at_once(make: Callable[[Stream], Session]) -> OpenSession:
    async def open_session(stream: Stream) -> Session:
        return make(stream)
    return open_session


async def run_jobs(parts: Parts, ready: Ready) -> int:
    """Send what waits, until SIGTERM."""
    stopping, queue, present = asyncio.Event(), build_queue_runner(parts), [parts]

    def reload() -> None:
        present[0] = _reloaded(present[0], reread_silently, queue)

    _on_signals(stopping.set, reload)
    async with asyncio.TaskGroup() as group:
        runner = group.create_task(queue.run())
        ready()
        await stopping.wait()
        runner.cancel()
    return 0


def run_in_loop(name: str, config: Config, clock: Clock, work: Callable[[Parts], Awaitable[int]]) -> int:
    """An event loop with a store and everything built on it; closes them again. Returns what `work` returns.

    name: of the process, in what it tells about itself.
    """
    async def main() -> int:
        offload = Offload()
        _tell_lag(name, LagMeter(clock))
        async with remote_store(config.directory, offload) as store:
            code = await work(build_parts(config, store, clock, offload))
        offload.close()
        return code

    with asyncio.Runner(loop_factory=_loop_factory(config.server.loop)) as runner:
        return runner.run(main())


def _tell_lag(name: str, meter: LagMeter) -> None:
    """Measure this loop; SIGUSR1: one line in the log about the time since the last such line."""
    def tell() -> None:
        values = {"role": name, **asdict(meter.take()), "tasks": len(asyncio.all_tasks())}
        lag_log.info("event loop lag", extra={"values": values})

    meter.start()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell)


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if name != "uvloop":
        return None
    import uvloop  # noqa: PLC0415 (an optional extra)

    _map_large_blocks()
    return uvloop.new_event_loop


def _map_large_blocks() -> None:
    """uvloop asks for 256 KiB for each TLS connection and touches little of it. Mapped for itself such a block is only what was
    touched; but glibc raises the size from which it maps with each block that is freed, and then they lie on the heap where
    others have been: 63 instead of 45 KB a connection that waits. A size that is set stays."""
    with suppress(OSError, AttributeError):     # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_OCTETS)


def _on_signals(stop: Callable[[], None], reload: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(signal.SIGHUP, reload)


def _reloaded(parts: Parts, reread: Reread, runner: QueueRunner | None) -> Parts:
    """The parts for new sessions; the same where the file or a certificate is wrong."""
    config = reread(parts.config)
    if config is None:
        return parts
    try:
        parts = changed_parts(parts, config)
    except TlsFileError as error:       # changed since it was looked at
        log.error("the certificate is not reloaded: %s", error)
        return parts
    if runner is not None:
        runner.change(build_notifier(parts), build_relay(parts))
    return parts
