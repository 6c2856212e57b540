"""A data directory that is filled before its server starts, and the processes that serve it.

Contract: filling goes through the store's own operations (Engine.execute), only without a server and in large batches; every
    account has one password record made once, since Argon2 is not what is measured. Clients are those of bench.imap.
Failure: RuntimeError with the last lines of the server's log.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from bench.imap import ImapClient
from bench.machine import memory_octets, wait_until
from bench.servers import DOMAIN, FUMIBAKO, IMAP_PORT, IMAPS_PORT, PASSWORD, make_directory, run_fumibako
from fumibako.model.ids import AccountId
from fumibako.model.ops import AddAccount, AddDomain, OpenAccount, Refused, Result, SetSetting
from fumibako.services.login import make_password_record
from fumibako.store.sqlite.engine import Engine

RECORD = make_password_record(PASSWORD, b"bench-argon2-slt", b"bench--scram-slt")
BATCH = 128


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Place:
    """directory: made by `init`, with one domain; host: loopback address of its own."""

    def __init__(self, directory: Path, host: str, *, workers: int = 2, loop: str = "asyncio") -> None:
        self.directory, self.host = directory, host
        make_directory(directory, host, workers=str(workers), loop=loop)
        with self.engine() as engine:
            execute(engine, [AddDomain(DOMAIN)])

    def command(self, *words: str) -> str:
        return run_fumibako(self.directory, *words)

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """Only while nothing serves."""
        engine = Engine(self.directory, now_ms=now_ms())
        try:
            yield engine
        finally:
            engine.close()

    def allow(self, connections: int) -> None:
        with self.engine() as engine:
            execute(engine, [SetSetting("limits.connections", "", str(connections)),
                             SetSetting("limits.connections_per_address", "", str(connections))])

    def serve(self, prefix: Sequence[str] = ()) -> Serving:
        return Serving(self, prefix)

    def client(self, user: str, *, tls: bool = False, source: str = "") -> ImapClient:
        port = IMAPS_PORT if tls else IMAP_PORT
        return ImapClient((self.host, port), f"{user}@{DOMAIN}", PASSWORD, tls=tls, source=source)


def execute(engine: Engine, operations: Sequence[object]) -> list[Result]:
    """All of them in one batch; RuntimeError when one is refused."""
    results = [result for result, _ in engine.execute(operations, now_ms())]    # type: ignore[arg-type]
    for result in results:
        if isinstance(result, Refused | Exception):
            raise RuntimeError(f"{result!r}")
    return results          # type: ignore[return-value]


def add_accounts(engine: Engine, users: Sequence[str], *, opened: bool = False) -> list[AccountId]:
    """Ids in order. opened: with their mailboxes, as after a first login."""
    for start in range(0, len(users), BATCH):
        execute(engine, [AddAccount(f"{user}@{DOMAIN}", RECORD) for user in users[start : start + BATCH]])
    ids = []
    reader = engine._control.database       # the writer is the only one here
    for user in users if opened else users[:1]:
        ids.append(AccountId(reader.row("SELECT id FROM principal WHERE address_key = ?", f"{user}@{DOMAIN}")[0]))
    if opened:
        for start in range(0, len(ids), BATCH):
            execute(engine, [OpenAccount(account_id) for account_id in ids[start : start + BATCH]])
    return ids


class Serving:
    """`fumibako serve` until the end of the with block. prefix: a command that runs the one behind it."""

    def __init__(self, place: Place, prefix: Sequence[str] = ()) -> None:
        self._log = place.directory / "bench.log"
        begun = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*prefix, str(FUMIBAKO), "serve", "--data", str(place.directory)], stdout=log, stderr=log,
                env=os.environ | {"PYTHONUNBUFFERED": "1"})
        self.pid = self._process.pid
        wait_until(self._is_ready, "fumibako serve", 300)
        self.start_s = time.monotonic() - begun

    def _is_ready(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(self._log.read_text()[-2000:])
        return b"\nready\n" in self._log.read_bytes()

    @property
    def roles(self) -> dict[str, int]:
        """Process ids; roles start in this order: storage, jobs, workers."""
        children = sorted(map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()))
        return dict(zip(("storage", "jobs", *(f"worker {number}" for number in range(1, 99))), children, strict=False))

    def memory(self, role: str = "") -> int:
        """Octets: proportional set size of one process, or of all."""
        return memory_octets(self.roles[role] if role else self.pid)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
