"""A real `fumibako serve` on loopback, driven through its command line.

As root a run has a network of its own (`own_network`) with the real ports; otherwise a free 127.x.y/24 claimed by a lock,
and high ports, so that runs side by side do not meet.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import pytest

from fumibako.app.house import House
from fumibako.faces.cli.main import run

T = TypeVar("T")
AS_ROOT = os.geteuid() == 0
PASSWORD = "correct horse battery staple"
PROGRAM = (sys.executable, "-m", "fumibako")
REAL_PORTS = {"smtp": 25, "submission": 587, "submissions": 465, "imap": 143, "imaps": 993, "pop3": 110, "pop3s": 995, "dns": 53}
HIGH_PORTS = {name: 20_000 + port for name, port in REAL_PORTS.items()}
READY_S, STOP_S = 30.0, 12.0
_CLONE_NEWNS, _CLONE_NEWNET, _MS_REC, _MS_PRIVATE, _MS_BIND = 0x20000, 0x40000000, 0x4000, 1 << 18, 0x1000
_SIOCSIFFLAGS, _IFF_UP, _PR_SET_PDEATHSIG = 0x8914, 1, 1


def needs(*programs: str) -> None:
    """Skips the test, in one line, where a foreign program is not installed."""
    if missing := [name for name in programs if find_program(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)} (tools/setup.sh peers)")


def find_program(name: str) -> str | None:
    """Daemons live where an ordinary user's PATH does not look."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/lib/postfix/sbin")


def eventually(look: Callable[[], T], what: str, within_s: float = 20.0) -> T:
    """The first true answer of `look`. Foreign processes ring no bell, so they are asked again and again, for so long at most."""
    pause, deadline = threading.Event(), time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        pause.wait(0.02)
    return found


def die_with_tests() -> None:
    """Runs in a child before its program: no server outlives the tests, however they end."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


# -- the network --

_UNSHARED: list[int] = []     # this process, once it has a network of its own


def own_network(resolv_conf: str = "") -> None:
    """Root only: from here on this process and its children see a loopback interface of their own and nothing else.

    Their /etc/hosts knows our server, for clients that check its name; resolv_conf: the text of their /etc/resolv.conf.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if os.getpid() not in _UNSHARED:
        _check(libc, libc.unshare(_CLONE_NEWNET | _CLONE_NEWNS))
        _check(libc, libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None))
        with socket.socket() as probe:
            fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
        _UNSHARED.append(os.getpid())
        _see(libc, "/etc/hosts", "127.0.0.1 localhost\n127.0.3.1 mail.example.jp\n")
    if resolv_conf:
        _see(libc, "/etc/resolv.conf", resolv_conf)


def _see(libc: ctypes.CDLL, path: str, text: str) -> None:
    """A file of the system has another content for us."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        os.chmod(file.name, 0o644)
        _check(libc, libc.mount(os.fsencode(file.name), os.fsencode(path), None, _MS_BIND, None))


def _check(libc: ctypes.CDLL, result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextmanager
def claimed_network() -> Iterator[str]:
    """The first three numbers of a /24 of loopback that nobody else uses, e.g. "127.64.7"."""
    if AS_ROOT:
        own_network()
        yield "127.0.3"
        return
    for number in range(256):
        path = Path(tempfile.gettempdir()) / f"fumibako-127.64.{number}.lock"
        with contextlib.suppress(OSError), path.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield f"127.64.{number}"
            return
    raise RuntimeError("every 127.64.x/24 is in use")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server listens."""

    address: str
    ports: dict[str, int] = field(default_factory=lambda: dict(REAL_PORTS if AS_ROOT else HIGH_PORTS))

    def endpoint(self, name: str) -> tuple[str, int]:
        return self.address, self.ports[name]


# -- the server --


class LiveServer:
    """One data directory and, while it runs, its server process."""

    def __init__(self, directory: Path, place: Place, hostname: str = "mail.example.jp") -> None:
        self.directory, self.place, self.hostname = directory, place, hostname
        self.program: tuple[str, ...] = PROGRAM
        self.extra: dict[str, str] = {}         # of the environment of `serve`
        self.pass_fds: tuple[int, ...] = ()
        self.files_max = 0                      # RLIMIT_NOFILE of `serve`; 0: ours
        self.process: subprocess.Popen[str] | None = None
        self.announced: list[str] = []
        self.errors_path = directory.with_name(directory.name + ".stderr")
        self.forgiven = re.compile(r"(?!)")     # log lines at level error that the test provokes on purpose

    @property
    def certificate(self) -> Path:
        return self.directory / "tls" / "cert.pem"

    # -- the command line --

    def cli(self, *arguments: str, said: str = "", expect: int = 0, env: dict[str, str] | None = None) -> str:
        """Standard output of a command that has to end with the exit code `expect`."""
        done = self.run_cli(*arguments, said=said, env=env)
        assert done.returncode == expect, f"{arguments}: exit {done.returncode}, expected {expect}\n{done.stdout}{done.stderr}"
        return done.stdout

    def run_cli(self, *arguments: str, said: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        environment = {**_environment(), "FUMIBAKO_DATA": str(self.directory), **(env or {})}
        return subprocess.run([*self.program, *arguments], input=said, capture_output=True, text=True, timeout=60,
                              env=environment, check=False)

    def json(self, *arguments: str, expect: int = 0) -> Any:
        return json.loads(self.cli(*arguments, "--json", expect=expect))

    def here(self, *arguments: str, said: str = "") -> tuple[int, str, str]:
        """The same command line in this process, where many are needed: exit code, standard output and error."""
        out, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors), mock.patch("sys.stdin", io.StringIO(said)):
            code = run(House(), [*arguments, "--data", str(self.directory)])
        return code, out.getvalue(), errors.getvalue()

    def say(self, *arguments: str, said: str = "") -> str:
        """`here`, and it has to go well."""
        code, out, errors = self.here(*arguments, said=said)
        assert code == 0, f"{arguments}: exit {code}\n{out}{errors}"
        return out

    # -- setting up --

    def init(self, **config: str) -> None:
        """init, then every listener on this server's place. config: section__key="TOML value"."""
        self.say("init", "--hostname", self.hostname)
        values = {
            "server__workers": "1", "relay__mx_port": str(self.place.ports["smtp"]), "resolver__servers": '["127.0.53.53:53"]',
            **{f"listen__{name}": f'["{self.place.address}:{port}"]' for name, port in self.place.ports.items()}, **config,
        }
        self.configure(**values)

    def configure(self, **values: str) -> None:
        """Changes lines of fumibako.toml; section__key="TOML value", or "" to take the line out."""
        path = self.directory / "fumibako.toml"
        lines, section, left = [], "", dict(values)
        for line in path.read_text("utf-8").split("\n"):
            section = line[1:-1] if line.startswith("[") else section
            name = f"{section}__{line.removeprefix('# ').partition(' = ')[0]}"
            if name not in left:
                lines.append(line)
            elif value := left.pop(name):
                lines.append(f"{name.partition('__')[2]} = {value}")
        assert not left, f"no such line: {left}"
        path.write_text("\n".join(lines), "utf-8")

    def populate(self, domain: str, *local_parts: str) -> None:
        """A domain and accounts in it."""
        self.say("domain", "add", domain)
        for local_part in local_parts:
            self.say("account", "add", f"{local_part}@{domain}", "--password-stdin", said=f"{PASSWORD}\n")

    # -- running --

    def start(self) -> None:
        with self.errors_path.open("ab") as errors:
            self.process = subprocess.Popen(
                [*self.program, "serve", "--data", str(self.directory)], stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**_environment(), **self.extra}, preexec_fn=self._prepare, pass_fds=self.pass_fds,     # noqa: PLW1509
            )
        self.announced = []
        watchdog = threading.Timer(READY_S, self.process.kill)
        watchdog.start()
        try:
            assert self.process.stdout is not None
            for line in self.process.stdout:
                self.announced.append(line.rstrip("\n"))
                if line == "ready\n":
                    return
        finally:
            watchdog.cancel()
        raise AssertionError(f"the server did not come up: {self.announced}\n{self.errors_text()}")

    def _prepare(self) -> None:
        """In the new process; takes no lock."""
        die_with_tests()
        if self.files_max:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.files_max, self.files_max))

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> float:
        """SIGTERM; exit code 0 and no traceback are demanded. Returns how long it took, seconds."""
        assert self.process is not None
        begun = time.monotonic()
        self.process.terminate()
        code = self._gone()
        took_s = time.monotonic() - begun
        assert code == 0, f"exit {code}\n{self.errors_text()}"
        self.check_log()
        return took_s

    def kill(self) -> None:
        """SIGKILL, as a power cut would; its children follow."""
        assert self.process is not None
        children = self.children()
        self.process.kill()
        self._gone()
        eventually(lambda: not any(_alive(child) for child in children), "the children of a killed server end")

    def _gone(self) -> int:
        assert self.process is not None
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"still running {STOP_S:g} s after SIGTERM\n{self.errors_text()}") from None
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()
        self.process = None
        return code

    # -- looking at it --

    def children(self) -> list[int]:
        """Process ids of storage, jobs and workers, in the order of their start."""
        assert self.process is not None
        return [int(one) for one in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()]

    def resident_octets(self, *, of_all: bool = False) -> int:
        """Memory of the processes that talk to peers: the workers, behind storage and jobs; or of all."""
        assert self.process is not None
        children = self.children()
        return sum(resident_octets(one) for one in children[0 if of_all else 2:] or [self.process.pid])

    def errors_text(self) -> str:
        return self.errors_path.read_text("utf-8", "replace") if self.errors_path.exists() else ""

    def check_log(self) -> None:
        """Standard error is JSON lines without tracebacks or errors."""
        for line in self.errors_text().split("\n")[:-1]:
            said = json.loads(line)
            bad = "traceback" in said or said["level"] in ("error", "critical")
            assert not bad or self.forgiven.search(line), line.replace("\\n", "\n")


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def resident_octets(process: int) -> int:
    """Anonymous memory, what a peer could make grow; any user may read statm, also of a process that gave up its rights."""
    _, resident, shared, *_ = map(int, Path(f"/proc/{process}/statm").read_text().split())
    return (resident - shared) * resource.getpagesize()


def _environment() -> dict[str, str]:
    """What every program of a test finds: one language, no user's settings, no proxy."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "TERM") if name in os.environ}
    # The path: for an interpreter that is not the one of this virtual environment.
    ours = [one for one in sys.path if one and not one.startswith(sys.base_prefix)]
    return {**kept, "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(ours)}


@contextmanager
def live_server(directory: Path, place: Place, domain: str = "example.jp", accounts: Sequence[str] = ("alice", "bob"),
                **config: str) -> Iterator[LiveServer]:
    """A server with accounts, running; its good end is part of the test."""
    server = LiveServer(directory, place)
    server.init(**config)
    server.populate(domain, *accounts)
    server.start()
    try:
        yield server
    except BaseException:
        with contextlib.suppress(AssertionError):       # the first failure is the one to tell
            if server.process is not None:
                server.stop()
        raise
    if server.process is not None:
        server.stop()
