"""How long a client waits for 250 behind the end of its message, with 64 and with 256 of them at it, and who else waits.

Contract: a closed loop over persistent connections (MAIL, RCPT and DATA in one packet, 4 KB, the next message at once), by
    one client process that shares the processors. How late the event loops are is told by the workers themselves
    (SIGUSR1); the storage process has none: a Ping of it every 50 ms says how long its turn lasts.
Failure: RuntimeError on any other reply than the wanted one.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.delivery import MESSAGE_OCTETS
from bench.machine import wait_until
from bench.servers import DOMAIN, SMTP_PORT, Fumibako
from bench.size.timing import spread
from fumibako.app.storage import STORAGE_SOCKET
from fumibako.model.ops import Ping
from fumibako.net.ipc import StorageCall

SESSIONS = (64, 256)
_WARM_UP_S, _PING_S = 1.0, 0.05
_HEADER = b"From: sender@example.org\r\nSubject: latency\r\n\r\n"
_DATA = _HEADER + (b"X" * 78 + b"\r\n") * ((MESSAGE_OCTETS - len(_HEADER)) // 80) + b".\r\n"


# -- the server's side --


def measure(servers: Sequence[Fumibako], users: Sequence[str], seconds: float, rounds: int) -> list[dict[str, Any]]:
    """Rounds in turns: one row a server, a round and a number of sessions."""
    found = []
    for sessions in SESSIONS:
        for _ in range(rounds):
            for server in servers:
                found.append({"server": server.name, "sessions": sessions, **_turn(server, users, sessions, seconds)})
                row = found[-1]
                print(f"  {server.name:24} {sessions:4} sessions  {row['messages_per_s']:6.0f} messages/s  250 after "
                      f"{row['reply']['p50_ms']:.1f} / {row['reply']['p99_ms']:.1f} ms  loops late {row['loop_p99_ms']} ms  "
                      f"storage {row['storage']['p99_ms']:.1f} ms", flush=True)
    return found


def _turn(server: Fumibako, users: Sequence[str], sessions: int, seconds: float) -> dict[str, Any]:
    _lag(server)        # from now on
    with _asking_storage(server.directory) as asked:
        done = subprocess.run([sys.executable, "-m", "bench.latency", server.host, str(sessions), str(seconds), *users],
                              stdout=subprocess.PIPE, text=True, check=True)
    late = [line for line in _lag(server) if line["role"].startswith("worker")]
    worst = max(late, key=lambda line: line["p99_ms"])
    return {**json.loads(done.stdout), "loop_p99_ms": worst["p99_ms"], "loop_max_ms": max(line["max_ms"] for line in late),
            "storage": spread(asked)}


def _lag(server: Fumibako) -> list[dict[str, Any]]:
    """What every event loop says about the time since it was last asked."""
    begin = len(server.log)
    roles = server.loops()

    def told() -> list[dict[str, Any]]:
        lines = server.log[begin:].split("\n")[:-1]
        return [found for line in lines if '"fumibako.lag"' in line and (found := json.loads(line))]
    server.signal(signal.SIGUSR1)
    wait_until(lambda: len(told()) >= roles, f"{server.name} tells its lag")
    return told()


@contextmanager
def _asking_storage(directory: Path) -> Iterator[list[float]]:
    """Milliseconds from question to answer, as they come; full when the block is over."""
    over, taken = threading.Event(), []
    call = StorageCall(str(directory / STORAGE_SOCKET))

    def ask() -> None:
        while not over.wait(_PING_S):
            begun = time.perf_counter()
            call.ask(Ping())
            taken.append((time.perf_counter() - begun) * 1000)
    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield taken
    finally:
        over.set()
        thread.join()
        call.close()


# -- the clients' side, a process of its own --


class _Session(asyncio.Protocol):
    """One connection that sends message after message until `over`; taken: seconds from the end of data to 250."""

    def __init__(self, user: str, taken: list[float]) -> None:
        self._envelope = f"MAIL FROM:<sender@example.org>\r\nRCPT TO:<{user}@{DOMAIN}>\r\nDATA\r\n".encode()
        self._taken, self._buffer, self._wanted, self._then = taken, b"", [b"220"], self._greet
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        *lines, self._buffer = (self._buffer + data).split(b"\r\n")
        for line in lines:
            if line[3:4] == b"-":
                continue
            if line[:3] != self._wanted.pop(0):
                self._fail(RuntimeError(f"unexpected {line!r}"))
                return
            if not self._wanted:
                self._then(now)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or RuntimeError("the server closed the connection"))

    def _fail(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)

    def _send(self, octets: bytes, wanted: Sequence[bytes], then: Any) -> None:
        self._wanted, self._then = list(wanted), then
        self._transport.write(octets)

    def _greet(self, now: float) -> None:
        self._send(b"EHLO client.example.org\r\n", [b"250"], self._begin)

    def _begin(self, now: float) -> None:
        if self.over:
            if not self.ended.done():
                self.ended.set_result(None)
            self._transport.close()
            return
        self._send(self._envelope, [b"250", b"250", b"354"], self._body)

    def _body(self, now: float) -> None:
        self._send(_DATA, [b"250"], self._done)
        self._sent = time.perf_counter()

    def _done(self, now: float) -> None:
        self._taken.append(now - self._sent)
        self._begin(now)


async def _load(host: str, sessions: int, seconds: float, users: Sequence[str]) -> dict[str, Any]:
    taken: list[float] = []
    loop = asyncio.get_running_loop()
    clients = []
    for number in range(sessions):
        user = users[number % len(users)]
        clients.append((await loop.create_connection(lambda user=user: _Session(user, taken), host, SMTP_PORT))[1])
    await asyncio.sleep(_WARM_UP_S)
    first, begun = len(taken), time.perf_counter()
    await asyncio.sleep(seconds)
    measured, elapsed_s = taken[first:], time.perf_counter() - begun
    for client in clients:
        client.over = True
    await asyncio.gather(*(client.ended for client in clients))
    return {"messages_per_s": len(measured) / elapsed_s, "reply": spread([one * 1000 for one in measured])}


def main() -> None:
    host, sessions, seconds, *users = sys.argv[1:]
    print(json.dumps(asyncio.run(_load(host, int(sessions), float(seconds), users))))


if __name__ == "__main__":
    main()
