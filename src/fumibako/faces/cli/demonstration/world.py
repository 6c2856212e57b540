"""The small world of the demonstration: two servers as processes of their own, on addresses nobody else uses.

Contract: the servers are set up and run by the commands a user would type (`fumibako init`, `domain add`, `account add`,
    `serve`). Everything lies in one temporary directory (0700); when the block of `open_world` ends, however it ends, every
    process is gone and so is the directory. Real ports where this user may bind them and they are free, else high ones.
Failure: Failed with the words of the command or server that failed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fumibako.faces.cli.demonstration.clients import Login
from fumibako.faces.cli.demonstration.failed import Failed
from fumibako.faces.cli.demonstration.forwarder import forwarding
from fumibako.faces.cli.demonstration.trail import Trail
from fumibako.net.clock import Clock
from fumibako.net.endpoint import Endpoint
from fumibako.net.listen import Listener, ListenError, bind

COMMAND_S = 30.0
READY_S = 30.0
STOP_S = 20.0
ATTEMPTS = 20

Ports = dict[str, int]
REAL: Ports = {"dns": 53, "smtp": 25, "submission": 587, "submissions": 465, "imap": 143, "imaps": 993, "pop3": 110, "pop3s": 995}
HIGH: Ports = {name: 2000 + port for name, port in REAL.items()} | {"smtp": 2525}


@dataclass(slots=True)
class Server:
    """One of the two: its place, its accounts (address -> password), and its process once it runs."""

    domain: str
    address: str
    resolver: Endpoint
    ports: Ports
    directory: Path
    clock: Clock
    accounts: dict[str, str] = field(default_factory=dict)
    _process: Process | None = None

    @property
    def hostname(self) -> str:
        return f"mail.{self.domain}"

    @property
    def certificate(self) -> str:
        return str(self.directory / "tls" / "cert.pem")

    def endpoint(self, listener: str) -> Endpoint:
        return Endpoint(self.address, self.ports[listener])

    def login(self, address: str) -> Login:
        return Login(address, self.accounts[address], self.hostname, self.certificate)

    def trail(self) -> Trail:
        return Trail(self.directory, self.clock)

    # -- set up --

    async def set_up(self, *local_parts: str) -> None:
        """Data directory, domain, accounts with random passwords."""
        self.directory.mkdir(mode=0o700)
        (self.directory / "fumibako.toml").write_text(self._toml())
        await self.command("init", "--hostname", self.hostname)
        await self.command("domain", "add", self.domain)
        for local_part in local_parts:
            await self.add_account(f"{local_part}@{self.domain}")

    async def add_account(self, address: str) -> None:
        password = self.clock.token(9).hex()
        await self.command("account", "add", address, "--password-stdin", stdin=password)
        self.accounts[address] = password

    def _toml(self) -> str:
        listeners = "\n".join(f'{name} = ["{self.endpoint(name)}"]' for name in self.ports)
        return (
            f'[server]\nhostname = "{self.hostname}"\nworkers = 2\n\n[listen]\n{listeners}\n\n'
            f'[resolver]\nservers = ["{self.resolver}"]\n\n[relay]\nmx_port = {self.ports["smtp"]}\n'
        )

    async def command(self, *words: str, stdin: str = "") -> str:
        """Runs `fumibako WORDS --data DIR`; what it printed."""
        process = await asyncio.create_subprocess_exec(
            *_fumibako(*words, "--data", str(self.directory)), stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        try:
            async with asyncio.timeout(COMMAND_S):
                out, complaint = await process.communicate(f"{stdin}\n".encode())
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        if process.returncode != 0:
            raise Failed(f"fumibako {' '.join(words)}: {complaint.decode(errors='replace').strip()}")
        return out.decode()

    # -- run --

    def shown(self, lines: list[str]) -> str:
        """What `start` returned on one line: address, listeners, ready."""
        listeners = [line.replace(f" {self.address}:", " ") for line in lines if f" {self.address}:" in line]
        return f"{self.address}  {' '.join(listeners)}  {lines[-1]}"

    async def start(self) -> list[str]:
        """Starts `fumibako serve`; the lines it prints up to "ready", which names every listener. Failed if one is missing."""
        with (self.directory / "serve.log").open("ab") as log:
            # A session of its own: Ctrl-C is ours alone to act on, and one signal reaches all of its processes.
            process = self._process = await asyncio.create_subprocess_exec(
                *_fumibako("serve", "--data", str(self.directory)), stdin=DEVNULL, stdout=PIPE, stderr=log, start_new_session=True
            )
        assert process.stdout is not None
        lines: list[str] = []
        async with asyncio.timeout(READY_S):
            while (line := (await process.stdout.readline()).decode().rstrip("\n")) != "ready":
                if process.stdout.at_eof():
                    raise Failed(f"{self.hostname}: {self._last_words()}")
                lines.append(line)
        missing = [name for name in self.ports if f"{name} {self.endpoint(name)}" not in lines]
        if missing:
            raise Failed(f"{self.hostname}: {', '.join(missing)}?")
        return [*lines, "ready"]

    def _last_words(self) -> str:
        words = (self.directory / "serve.log").read_text(errors="replace").strip()
        return words.rpartition("\n")[2] or "the server ended without a word"

    def strike(self) -> int:
        """kill -9 of every process of this server at once; how many that were."""
        if self._process is None:
            return 0
        count = len(_processes_of(self._process.pid))
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return count

    async def kill(self) -> int:
        """`strike`, and wait until nothing of it is left."""
        count, process = self.strike(), self._process
        if process is not None and process.stdout is not None:
            await process.wait()
            await process.stdout.read()     # ends when the last of them has let go of it
        self._process = None
        return count

    async def stop(self) -> None:
        """SIGTERM, and kill -9 to whatever is left after a while."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(STOP_S):
                    await self._process.wait()
            except TimeoutError:
                pass
        await self.kill()


def _fumibako(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "fumibako", *words)


def _processes_of(group: int) -> list[int]:
    """The processes of a group, as /proc has them: "pid (name) state ppid pgrp ..."."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(errors="replace").rpartition(") ")[2].split()
        except OSError:
            continue        # it ended meanwhile
        if fields[2] == str(group) and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


@dataclass(frozen=True, slots=True)
class World:
    """a: the sender's server; b: the recipient's; resolver: the forwarder that both ask."""

    clock: Clock
    directory: Path
    resolver: Endpoint
    a: Server
    b: Server


@asynccontextmanager
async def open_world(clock: Clock) -> AsyncIterator[World]:
    """Two servers that are not set up yet, and the resolver between them."""
    network, ports = _free_network(clock)
    directory = Path(tempfile.mkdtemp(prefix="fumibako-demo-"))
    resolver = Endpoint(f"{network}.53", ports["dns"])
    a, b = (
        Server(f"{name}.example", f"{network}.{number}", resolver, ports, directory / name, clock)
        for number, name in enumerate("ab", 1)
    )
    try:
        async with forwarding(resolver, {server.domain: server.endpoint("dns") for server in (a, b)}):
            yield World(clock, directory, resolver, a, b)
    finally:
        try:
            await a.stop()
            await b.stop()
        finally:        # somebody who presses Ctrl-C twice gets it the hard way
            a.strike()
            b.strike()
            shutil.rmtree(directory, ignore_errors=True)


def _free_network(clock: Clock) -> tuple[str, Ports]:
    """A random 127.x.y where every port is free, and the ports: the real ones if they may be had."""
    for _ in range(ATTEMPTS):
        high, low = clock.token(2)
        network = f"127.{64 + high % 128}.{low}"
        for ports in (REAL, HIGH):
            if _is_free(network, ports):
                return network, ports
    raise Failed("no free addresses in 127.0.0.0/8")


def _is_free(network: str, ports: Ports) -> bool:
    streams = Listener("demo", tuple(f"{network}.{host}:{port}" for host in (1, 2) for port in ports.values()))
    datagrams = Listener("demo", tuple(f"{network}.{host}:{ports['dns']}" for host in (1, 2, 53)))
    try:
        for opened in (*bind(streams), *bind(datagrams, datagrams=True)):
            opened.close()
    except ListenError:
        return False
    return True
