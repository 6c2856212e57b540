"""What is measured: a running server with an SMTP or an IMAP address, and Fumibako as one of them.

Contract: a Server is started by its class method and serves until `stop`; `delivered` counts the messages that a reader
    would find in the mailboxes at that moment.
Failure: RuntimeError with the last lines of the server's log.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from bench.imap import ImapClient
from bench.machine import wait_until

DOMAIN = "example.test"
PASSWORD = "bench-secret"
SMTP_PORT, IMAP_PORT, IMAPS_PORT = 2525, 1143, 1993
FUMIBAKO = Path(sys.executable).parent / "fumibako"

_CONFIG = """[server]
hostname = "mail.{domain}"
workers = {workers}
loop = "{loop}"
[listen]
smtp = ["{host}:{smtp}"]
imap = ["{host}:{imap}"]
imaps = ["{host}:{imaps}"]
[login]
allow_plaintext = true
"""


def run_fumibako(directory: Path, *words: str, stdin: str = "") -> str:
    """What a command of the program prints; RuntimeError when its answer is no."""
    command = [str(FUMIBAKO), *words, "--data", str(directory)]
    done = subprocess.run(command, input=stdin, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"fumibako {' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def make_directory(directory: Path, host: str, *, workers: str = '"auto"', loop: str = "asyncio") -> None:
    """A data directory as `init` makes it, but for addresses, and for logins without TLS on loopback."""
    run_fumibako(directory, "init", "--hostname", f"mail.{DOMAIN}")
    (directory / "fumibako.toml").write_text(_CONFIG.format(
        domain=DOMAIN, workers=workers, loop=loop, host=host, smtp=SMTP_PORT, imap=IMAP_PORT, imaps=IMAPS_PORT))


class Server(Protocol):
    """A server under measurement. pid: of the process that all others of it descend from."""

    name: str
    host: str
    pid: int

    def delivered(self) -> int: ...

    def stop(self) -> None: ...


class Fumibako:
    """Fumibako as `init` makes it, but for addresses, and for logins without TLS on loopback."""

    def __init__(self, directory: Path, users: Sequence[str], host: str, loop: str = "asyncio") -> None:
        self.directory = directory
        self.name = "Fumibako" if loop == "asyncio" else f"Fumibako ({loop})"
        self.host = host
        make_directory(directory, host, loop=loop)
        run_fumibako(directory, "domain", "add", DOMAIN)
        for user in users:
            run_fumibako(directory, "account", "add", f"{user}@{DOMAIN}", "--password-stdin", stdin=PASSWORD + "\n")
        self._log = directory / "bench.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [FUMIBAKO, "serve", "--data", directory], stdout=log, stderr=log, env=os.environ | {"PYTHONUNBUFFERED": "1"})
        self.pid = self._process.pid
        wait_until(self._is_ready, "fumibako serve")
        self._clients = [ImapClient((host, IMAP_PORT), f"{user}@{DOMAIN}", PASSWORD) for user in users]

    def _is_ready(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(self._log.read_text()[-2000:])
        return b"\nready\n" in self._log.read_bytes()

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def loops(self) -> int:
        """How many of its processes have an event loop: all that the supervisor started, but for storage."""
        return len(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()) - 1

    def delivered(self) -> int:
        return sum(client.messages("INBOX") for client in self._clients)

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)
