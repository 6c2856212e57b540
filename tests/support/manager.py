"""What systemd does for a service, without systemd: sockets handed over, and an ear for what the service says."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

FIRST = 3       # SD_LISTEN_FDS_START
# In the new process: the variables that name it, then the program itself, as systemd's own exec does.
_LAUNCH = "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"


class Ear:
    """$NOTIFY_SOCKET: a path, or a name that is in no directory."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        if not address.startswith("@"):
            os.chmod(address, 0o666)
        self.heard: list[tuple[float, dict[str, str]]] = []

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def until(self, word: str, value: str = "", within_s: float = 15.0) -> dict[str, str]:
        """The next message that has this word (and value)."""
        deadline = time.monotonic() + within_s
        while True:
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                said = self._message()
            except (TimeoutError, BlockingIOError):
                raise AssertionError(f"{word} was not said; heard {self.heard}") from None
            if word in said and said[word].startswith(value):
                return said

    def waiting(self) -> list[dict[str, str]]:
        """Everything said so far that nobody has heard."""
        self.socket.setblocking(False)
        found = []
        try:
            while True:
                found.append(self._message())
        except BlockingIOError:
            return found

    def _message(self) -> dict[str, str]:
        said = dict(line.split("=", 1) for line in self.socket.recv(4096).decode().split("\n"))
        self.heard.append((time.monotonic(), said))
        return said


def handing_over(sockets: Sequence[tuple[str, socket.socket]], python: str = sys.executable,
                 user: int = -1) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """The program and the environment with which a server inherits these sockets, named; as root, or as a user."""
    drop = f"os.setgroups([]); os.setgid({user}); os.setuid({user}); " if user >= 0 else ""
    names = ":".join(name for name, _ in sockets)
    moved = ", ".join(f"({one.fileno()}, {FIRST + number})" for number, (_, one) in enumerate(sockets))
    # Far away first: a number in the way of another would be overwritten. Nothing else stays open.
    move = (f"import fcntl, os; far = [(fcntl.fcntl(a, fcntl.F_DUPFD, 200), b) for a, b in [{moved}]]; os.closerange(3, 200); "
            "[os.dup2(a, b, inheritable=True) for a, b in far]; [os.close(a) for a, _ in far]; ")
    return ((python, "-c", move + drop + _LAUNCH, "-m", "fumibako"),
            {"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": names})


def listening(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """As systemd opens it for ListenStream=."""
    opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    opened.bind((host, port))
    opened.listen(1024)
    return opened


def datagrams(host: str, port: int) -> socket.socket:
    """As systemd opens it for ListenDatagram=."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.bind((host, port))
    return opened


def unit_value(path: Path, name: str) -> list[str]:
    """The values of a setting of a unit file."""
    return [line.partition("=")[2] for line in path.read_text("utf-8").split("\n") if line.startswith(f"{name}=")]
