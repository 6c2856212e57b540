"""Messages a second, from the first connection until all of them are in their mailboxes.

Contract: smtp-source of Postfix sends for everybody: 20 sessions, 4 KB a message, a connection each. Servers take turns
    (A B C A B C ...), so that what else the machine does meets all of them; medians are compared.
Failure: RuntimeError when messages are missing.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bench.machine import cpu_s, wait_until
from bench.servers import DOMAIN, SMTP_PORT, Server

SESSIONS = 20
MESSAGE_OCTETS = 4096
WARM_UP = 200


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of one server. cpu_ms: of all its processes, a message."""

    server: str
    messages_per_s: float
    accepted_per_s: float
    cpu_ms: float


def measure(servers: Sequence[Server], users: Sequence[str], messages: int, rounds: int) -> list[dict[str, object]]:
    """Every server gets `rounds` turns of `messages`."""
    for server in servers:
        _turn(server, users, WARM_UP)
    found: list[dict[str, object]] = []
    for number in range(rounds):
        for server in servers:
            turn = _turn(server, users, messages)
            rate, cpu = f"{turn.messages_per_s:7.0f} messages/s", f"{turn.cpu_ms:5.2f} ms CPU"
            print(f"  {number + 1}. {turn.server:24} {rate}  {cpu}", flush=True)
            found.append(asdict(turn))
    return found


def _turn(server: Server, users: Sequence[str], messages: int) -> Round:
    roots = getattr(server, "pids", (server.pid,))
    before, cpu_before, begun = server.delivered(), sum(map(cpu_s, roots)), time.monotonic()
    sent = _send(server.host, users, messages)
    accepted_s = time.monotonic() - begun
    wait_until(lambda: server.delivered() >= before + sent, f"{server.name} delivers")
    elapsed_s = time.monotonic() - begun
    if (surplus := server.delivered() - before - sent) > 0:
        raise RuntimeError(f"{server.name} delivered {surplus} messages that nobody sent")
    cpu_ms = (sum(map(cpu_s, roots)) - cpu_before) * 1000 / sent
    return Round(server.name, sent / elapsed_s, sent / accepted_s, cpu_ms)


def _send(host: str, users: Sequence[str], messages: int) -> int:
    """One smtp-source a mailbox, 20 sessions together."""
    each, sessions = messages // len(users), SESSIONS // len(users)
    generators = [subprocess.Popen([
        "smtp-source", "-s", str(sessions), "-m", str(each), "-l", str(MESSAGE_OCTETS),
        "-f", "sender@example.org", "-t", f"{user}@{DOMAIN}", f"{host}:{SMTP_PORT}",
    ]) for user in users]
    if any([generator.wait() for generator in generators]):     # a list: wait for all of them
        raise RuntimeError(f"smtp-source failed against {host}")
    return each * len(users)
