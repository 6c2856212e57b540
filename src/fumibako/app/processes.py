"""What each process of a server does from its start to its last reply: storage, worker, jobs.

Specification: DESIGN §4.
Contract: a process says that it is ready once it can do its work, and returns 0 after an orderly stop at SIGTERM.
    Workers take their listening sockets from the supervisor; SIGHUP reads certificate and key anew.
Failure: 70 when the disk or a database failed; the supervisor starts the process again, through recovery.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from socket import socket

from fumibako.app.build import Parts, build_parts, build_queue_runner
from fumibako.app.storage import remote_store
from fumibako.config import Config
from fumibako.faces import smtp
from fumibako.faces.dns import DnsFace
from fumibako.faces.imap.conversation import ImapServices
from fumibako.faces.opening import Door, open_imap, open_pop3, refuse_imap, refuse_pop3
from fumibako.faces.pop3 import Pop3Services
from fumibako.faces.serve import Session, run_session
from fumibako.net.clock import Clock
from fumibako.net.listen import Caps, Refuse, serve, within
from fumibako.net.offload import Offload
from fumibako.net.stream import Stream
from fumibako.net.tls import TlsFileError, read_pair
from fumibako.proto.dns.answer import Answerer
from fumibako.services.following import Following
from fumibako.services.policy import Policy

Sockets = Mapping[str, list[socket]]        # listener name ("dns-udp" for datagrams) -> this worker's own sockets
Ready = Callable[[], None]
OpenSession = Callable[[Stream], Awaitable[Session]]

log = logging.getLogger("fumibako")


@dataclass(frozen=True, slots=True)
class _Service:
    """How one listener is served. refuse: what a connection too many is told."""

    open: OpenSession
    refuse: Refuse
    implicit_tls: bool


class Worker:
    """The protocol faces of one process."""

    def __init__(self, parts: Parts, sockets: Sockets) -> None:
        self._parts, self._sockets = parts, sockets
        self._stopping = asyncio.Event()
        self._caps = Following("the limits", parts.store.directory_version, self._read_caps, Caps())

    async def run(self, ready: Ready, *, with_jobs: bool) -> int:
        """Serve until SIGTERM. with_jobs: also do what else the jobs process does (workers = 0)."""
        parts = self._parts
        _on_signals(self._stopping, parts)
        await parts.zones.refresh()
        await self._caps.refresh()
        async with asyncio.TaskGroup() as background:
            jobs = background.create_task(build_queue_runner(parts).run()) if with_jobs else None
            async with asyncio.TaskGroup() as listeners:
                for name, opened in self._sockets.items():
                    if not name.startswith("dns"):
                        listeners.create_task(self._serve(name, opened))
                if "dns" in self._sockets:
                    face = DnsFace(self._answerer, parts.clock, lambda host: within(host, self._caps.value.exempt))
                    listeners.create_task(face.run(self._sockets["dns-udp"], self._sockets["dns"], self._stopping))
                ready()
                await self._stopping.wait()
            if jobs is not None:
                jobs.cancel()
        return 0

    def _answerer(self) -> Answerer | Awaitable[Answerer]:
        """The zones of now, and with them the networks of now that are exempt from the rate limit."""
        found = self._parts.zones.current()
        return found if isinstance(found, Answerer) else self._answerer_later(found)

    async def _answerer_later(self, found: Awaitable[Answerer]) -> Answerer:
        answerer = await found
        await self._caps.refresh()      # after the zones: whoever finds those new finds the networks no older
        return answerer

    async def _read_caps(self) -> Caps:
        policy = Policy(await self._parts.store.settings())
        per_address = policy.number("limits.connections_per_address")
        return Caps(policy.number("limits.connections"), per_address, policy.networks("limits.exempt"))

    async def _serve(self, name: str, opened: list[socket]) -> None:
        service = self._service(name)

        async def session(stream: Stream) -> None:
            await run_session(await service.open(stream), stream, self._stopping)

        context = self._parts.tls.context(name) if service.implicit_tls else None
        await serve(opened, session, tls_context=context, caps=self._caps.current, stopping=self._stopping,
                    refuse=service.refuse)

    def _service(self, name: str) -> _Service:
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
    stopping = asyncio.Event()
    _on_signals(stopping, parts)
    async with asyncio.TaskGroup() as group:
        runner = group.create_task(build_queue_runner(parts).run())
        ready()
        await stopping.wait()
        runner.cancel()
    return 0


def run_in_loop(config: Config, clock: Clock, work: Callable[[Parts], Awaitable[int]]) -> int:
    """An event loop with a store and everything built on it; closes them again. Returns what `work` returns."""
    async def main() -> int:
        offload = Offload()
        async with remote_store(config.directory, offload) as store:
            code = await work(build_parts(config, store, clock, offload))
        offload.close()
        return code

    with asyncio.Runner(loop_factory=_loop_factory(config.server.loop)) as runner:
        return runner.run(main())


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if name != "uvloop":
        return None
    import uvloop  # noqa: PLC0415 (an optional extra)

    return uvloop.new_event_loop


def _on_signals(stopping: asyncio.Event, parts: Parts) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, parts)


def _reload(parts: Parts) -> None:
    """New handshakes get the new certificate; a broken one leaves things as they are."""
    tls = parts.config.tls
    try:
        parts.tls.reload([read_pair(str(tls.certificate), str(tls.key))])
    except TlsFileError as error:
        log.error("the certificate is not reloaded: %s", error)
