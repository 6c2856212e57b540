"""A server that is made to be killed: all of it, its storage process, one of the others, or itself at a named place."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from unittest import mock

from fumibako.model.ops import AddAccount, AddAlias, AddDomain
from fumibako.services.login import make_password_record
from fumibako.store.sqlite import engine as engine_module
from fumibako.store.sqlite.engine import Engine
from tests.crash.clients import PASSWORD
from tests.support.server import READY_S, LiveServer, Place, _environment, die_with_tests, eventually

DOMAIN = "a.example"
READERS = tuple(f"u{number:02d}@{DOMAIN}" for number in range(50))      # mail arrives for them
MOVERS = tuple(f"m{number}@{DOMAIN}" for number in range(3))            # they move their own mail about
SENDER = f"sender@{DOMAIN}"
FORWARDED, FORWARDER, FORWARD_PATH = f"info@{DOMAIN}", READERS[25], "ok-forward@elsewhere.example"


class Machine(LiveServer):
    """LiveServer with a process group of its own, so that one signal ends everything at the same instant."""

    def __init__(self, directory: Path, place: Place) -> None:
        super().__init__(directory, place, f"mail.{DOMAIN}")
        self.starts: list[float] = []       # seconds from exec to "ready"

    def make(self, *, workers: int, smarthost: str = "", shard_accounts: int = engine_module.SHARD_ACCOUNTS,
             populated: bool = True) -> None:
        """A data directory with READERS, MOVERS and SENDER, whose password costs nothing to check, and FORWARDED; or nobody.

        shard_accounts: how many of them share a shard.
        """
        listen = {f"listen__{name}": f'["{self.place.address}:{port}"]' for name, port in self.place.ports.items()
                  if name in ("smtp", "submission", "imap", "pop3")}
        off = {f"listen__{name}": "" for name in ("submissions", "imaps", "pop3s", "dns")}
        self.cli("init", "--hostname", self.hostname)
        self.configure(server__workers=str(workers), listen__lmtp='["unix:lmtp.sock"]', login__allow_plaintext="true",
                       relay__smarthost=f'"{smarthost}"', resolver__servers='["127.0.0.1:9"]', **listen, **off)
        if populated:
            self._populate(shard_accounts)

    def _populate(self, shard_accounts: int) -> None:
        cheap = make_password_record(PASSWORD, b"salt" * 4, b"salt" * 4)
        engine = Engine(self.directory, now_ms=int(time.time() * 1000))
        with mock.patch.object(engine_module, "SHARD_ACCOUNTS", shard_accounts):
            engine.execute([AddDomain(DOMAIN), *(AddAccount(address, cheap) for address in (*READERS, *MOVERS, SENDER)),
                            AddAlias(FORWARDED, (FORWARDER, FORWARD_PATH))], 0)
        engine.close()

    @property
    def lmtp(self) -> Path:
        return self.directory / "lmtp.sock"

    def start(self, failpoint: str = "", tracer: tuple[str, ...] = (), within_s: float = READY_S) -> None:
        """Returns at "ready". tracer: a command to run the server under. AssertionError when it ends or takes too long."""
        begun = time.monotonic()
        self.begin(failpoint, tracer)
        assert self.process is not None
        watchdog = threading.Timer(within_s, os.killpg, (self.process.pid, signal.SIGKILL))
        watchdog.start()
        try:
            assert self.process.stdout is not None
            if "ready\n" not in iter(self.process.stdout.readline, ""):
                raise AssertionError(f"the server did not come up\n{self.errors_text()[-3000:]}")
            self.starts.append(time.monotonic() - begun)
        finally:
            watchdog.cancel()

    def begin(self, failpoint: str = "", tracer: tuple[str, ...] = ()) -> None:
        """Starts it and does not wait."""
        with self.errors_path.open("ab") as errors:
            self.process = subprocess.Popen(
                [*tracer, *self.program, "serve", "--data", str(self.directory)], text=True, stdout=subprocess.PIPE,
                stderr=errors, env={**_environment(), "FUMIBAKO_FAILPOINT": failpoint}, start_new_session=True,
                preexec_fn=die_with_tests)  # noqa: PLW1509 (it takes no lock)

    def kill_all(self) -> None:
        """SIGKILL to every process at once; returns when the supervisor is gone."""
        if self.process is None:
            return
        group = self.process.pid
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None
        eventually(lambda: not _lives_in_group(group), "every process of a killed server ends")

    def storage(self) -> int:
        """The process that holds DIR/LOCK; 0 while there is none."""
        holder = _holder(self.directory / "LOCK")
        return holder if holder in self.children() else 0

    def others(self) -> list[int]:
        """Jobs and workers."""
        storage = self.storage()
        return [child for child in self.children() if child != storage]


def _holder(lock: Path) -> int:
    """Who has it by flock(2). Not from /proc/PID/fd: what our processes have open is for root's eyes only."""
    inode = str(lock.stat().st_ino)
    for line in Path("/proc/locks").read_text().splitlines():       # 1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == inode:
            return int(fields[4])
    return 0


def _lives_in_group(group: int) -> bool:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                return True
    return False
