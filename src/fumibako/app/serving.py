"""One running server: its sockets, its user, its processes.

Specification: DESIGN §4.
Contract: sockets are bound as root, before privileges go; each worker has sockets of its own (SO_REUSEPORT), which the
    supervisor keeps, so that a worker's replacement takes over where it was. A listener that systemd opened is taken from
    it. A replacement starts with the settings of the last reload.
Failure: ListenError or HouseError before anything runs; the exit code of the supervisor afterwards.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import signal
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from socket import AF_UNIX, socket

from fumibako.app.build import Parts
from fumibako.app.limits import allow_most_files, files_allowed, give_back_large_memory
from fumibako.app.processes import Ready, Sockets, Worker, run_in_loop, run_jobs
from fumibako.app.reload import read_anew
from fumibako.app.storage import STORAGE_SOCKET, storage_thread
from fumibako.app.supervisor import Role, Supervisor, harden
from fumibako.app.systemd import DATAGRAMS, ServiceManager, address_text, shares, sockets_handed_over
from fumibako.config import Config
from fumibako.faces.cli.house import HouseError, Misconfigured
from fumibako.net.clock import Clock
from fumibako.net.ipc import Pulse
from fumibako.net.listen import Listener, bind
from fumibako.services.texts import N_, _
from fumibako.store.process import serve_storage

log = logging.getLogger("fumibako")


class Server:
    """bind(), drop_privileges(), run(): in this order, once."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config, self._clock = config, clock
        self._as_read = config      # listeners of systemd take the place of what the file says
        self._pulse = Pulse(str(config.directory / STORAGE_SOCKET))
        self._manager = ServiceManager(os.environ, clock, self._pulse.beat)
        self._workers: list[dict[str, list[socket]]] = []
        self._storage: list[socket] = []

    # -- as root --

    def bind(self) -> None:
        """Open every listener for every worker."""
        handed = sockets_handed_over(os.environ, self._config.listen)
        self._storage = bind(Listener("storage", (f"unix:{self._config.directory / STORAGE_SOCKET}",)))
        count = max(1, _worker_count(self._config))
        self._workers = [{} for _ in range(count)]
        for name, addresses in self._config.listen.items():
            for key in (name, name + DATAGRAMS) if name == "dns" else (name,):
                if key in handed:
                    for sockets, own in zip(self._workers, shares(handed[key], count), strict=True):
                        sockets[key] = own
                else:
                    self._open(key, name, addresses)
        elsewhere = {name: tuple(dict.fromkeys(map(address_text, found)))
                     for name, found in handed.items() if name in self._config.listen}
        self._config = replace(self._config, listen={**self._config.listen, **elsewhere})

    def _open(self, key: str, name: str, addresses: tuple[str, ...]) -> None:
        unix = tuple(address for address in addresses if address.startswith("unix:"))
        inet = tuple(address for address in addresses if not address.startswith("unix:"))
        datagrams = key.endswith(DATAGRAMS)
        _demand_unused(Listener(name, inet), datagrams=datagrams)
        shared = bind(Listener(name, unix)) if unix and not datagrams else []     # a path has one socket: the workers share it
        for sockets in self._workers:
            sockets[key] = [*shared, *bind(Listener(name, inet), reuse_port=True, datagrams=datagrams)]

    def drop_privileges(self) -> list[str]:
        """Become [server] user, or the owner of the data directory. Returns warnings for the terminal."""
        warnings = self._become_user()
        harden()
        return warnings

    def _become_user(self) -> list[str]:
        if os.geteuid() != 0:
            return []
        owner = self._config.directory.stat()
        user, group = owner.st_uid, owner.st_gid
        if self._config.server.user:
            try:
                entry = pwd.getpwnam(self._config.server.user)
            except KeyError:
                raise Misconfigured(N_("[server] user = {user}: there is no such user"), user=self._config.server.user) from None
            user, group = entry.pw_uid, entry.pw_gid
        if user == 0:
            return [_("warning: the server runs as root; give the data directory to a user (chown), or set [server] user")]
        _demand_readable(user, group)
        self._hand_over(user, group)
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)
        return []

    def _hand_over(self, user: int, group: int) -> None:
        """Unix sockets were made as root; the user must be able to use and to remove them."""
        for opened in _distinct([self._storage, *(found for sockets in self._workers for found in sockets.values())]):
            if opened.family == AF_UNIX:
                os.chown(opened.getsockname(), user, group)

    # -- as the user --

    def run(self, announce: Callable[[str], None]) -> int:
        """Start the processes and stay until SIGTERM. announce: one line a listener, then "ready"."""
        def announce_all() -> None:
            for name, addresses in self._config.listen.items():
                for address in addresses:
                    announce(f"{name} {address}")
            announce("ready")
        allow_most_files()
        give_back_large_memory()
        log.info("each process may open %d files; a worker takes connections until four fifths are open", files_allowed())
        if _worker_count(self._config) == 0:
            return self._run_alone(announce_all)
        return Supervisor(list(self._roles()), self._clock, self._manager, self._reload).run(announce_all)

    def _reload(self) -> bool:
        """At SIGHUP; False: nothing changes. The supervisor says when it is done."""
        self._manager.reloading()
        if (found := read_anew(self._config, self._as_read)) is None:
            return False
        self._config, self._as_read = found
        return True

    def _run_alone(self, ready: Ready) -> int:
        """Everything in this process; a failed disk ends it as it would end the storage process."""
        def fail() -> None:
            os._exit(70)    # every session's success now would be a lie
        signal.signal(signal.SIGINT, lambda *_: signal.raise_signal(signal.SIGTERM))
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)       # until the loop listens to it
        with storage_thread(self._config.directory, self._storage[0], self._clock.now_ms, fail):
            return run_in_loop("alone", self._config, self._clock, lambda parts: self._alone(parts, ready))

    async def _alone(self, parts: Parts, ready: Ready) -> int:
        def announce() -> None:
            ready()
            self._manager.ready("one process serves")

        def reread(_: Config) -> Config | None:
            taken = self._reload()
            self._manager.ready("one process serves")
            return self._config if taken else None

        worker = Worker(parts, self._workers[0], reread)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._manager.accompany(worker.stopping))
            return await worker.run(announce, with_jobs=True)

    def _roles(self) -> Iterable[Role]:
        yield Role("storage", self._run_storage)
        yield Role("jobs", self._run_jobs)
        for number, sockets in enumerate(self._workers):
            name = f"worker {number}"
            yield Role(name, self._worker(name, sockets))

    def _run_storage(self, ready: Ready) -> int:
        self._keep_only(self._storage)
        return serve_storage(self._config.directory, self._storage[0], self._clock.now_ms, ready)

    def _run_jobs(self, ready: Ready) -> int:
        self._keep_only([])
        return run_in_loop("jobs", self._config, self._clock, lambda parts: run_jobs(parts, ready))

    def _worker(self, name: str, sockets: Sockets) -> Callable[[Ready], int]:
        def run(ready: Ready) -> int:
            self._keep_only([opened for found in sockets.values() for opened in found])
            return run_in_loop(name, self._config, self._clock, _serve(sockets, ready))
        return run

    def _keep_only(self, own: list[socket]) -> None:
        """A child closes the sockets of the others: a connection must not wait in a socket nobody reads."""
        self._pulse.close()
        for opened in _distinct([self._storage, *(found for sockets in self._workers for found in sockets.values())]):
            if opened not in own:
                opened.close()


def _serve(sockets: Sockets, ready: Ready) -> Callable[[Parts], Awaitable[int]]:
    return lambda parts: Worker(parts, sockets).run(ready, with_jobs=False)


def _demand_unused(listener: Listener, *, datagrams: bool) -> None:
    """SO_REUSEPORT would let two servers share a port, each with half of the connections; without it bind refuses."""
    for probe in bind(listener, datagrams=datagrams):
        probe.close()


def _demand_readable(user: int, group: int) -> None:
    """Modules are loaded later too: a virtual environment below /root would fail then, one by one."""
    os.setegid(group)
    os.seteuid(user)
    unreadable = [file for file in (os.__file__, __file__) if not os.access(file, os.R_OK, effective_ids=True)]
    os.seteuid(0)
    os.setegid(0)
    if unreadable:
        raise HouseError(N_("user {user} cannot read the program ({file}); install it where that user can, e.g. below /opt"),
                         user=pwd.getpwuid(user).pw_name, file=unreadable[0])


def _worker_count(config: Config) -> int:
    workers = config.server.workers
    return workers if isinstance(workers, int) else os.cpu_count() or 1


def _distinct(groups: Iterable[list[socket]]) -> list[socket]:
    return list({id(opened): opened for group in groups for opened in group}.values())
