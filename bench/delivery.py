"""Messages a second, from the first connection until all of them are in their mailboxes.

Contract: smtp-source of Postfix sends for everybody: 20 sessions, a connection each message where the load does not keep them.
    Servers take turns (A B C A B C ...), so that what else the machine does meets all of them; medians are compared.
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
class Load:
    """What one table is about. users: how many mailboxes; kept: many messages a connection; share: of the messages of a turn."""

    title: str
    users: int = 1
    octets: int = MESSAGE_OCTETS
    kept: bool = False
    share: float = 1.0


LOADS = (Load("one mailbox"), Load("10 mailboxes", users=10), Load("one mailbox, connections kept", kept=True),
         Load("one mailbox, 50 KB", octets=50 * 1024, share=1 / 3))


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of one server. cpu_ms: of all its processes, a message."""

    server: str
    messages_per_s: float
    accepted_per_s: float
    cpu_ms: float


def measure(servers: Sequence[Server], users: Sequence[str], load: Load, messages: int, rounds: int) -> list[dict[str, object]]:
    """Every server gets `rounds` turns of `messages` times the load's share."""
    users, messages = users[: load.users], round(messages * load.share)
    for server in servers:
        _turn(server, users, load, WARM_UP)
    found: list[dict[str, object]] = []
    for number in range(rounds):
        for server in servers:
            turn = _turn(server, users, load, messages)
            rate, cpu = f"{turn.messages_per_s:7.0f} messages/s", f"{turn.cpu_ms:5.2f} ms CPU"
            print(f"  {number + 1}. {turn.server:24} {rate}  {cpu}", flush=True)
            found.append(asdict(turn))
    return found


def _turn(server: Server, users: Sequence[str], load: Load, messages: int) -> Round:
    roots = getattr(server, "pids", (server.pid,))
    before, cpu_before, begun = server.delivered(), sum(map(cpu_s, roots)), time.monotonic()
    sent = _send(server.host, users, load, messages)
    accepted_s = time.monotonic() - begun
    wait_until(lambda: server.delivered() >= before + sent, f"{server.name} delivers")
    elapsed_s = time.monotonic() - begun
    if (surplus := server.delivered() - before - sent) > 0:
        raise RuntimeError(f"{server.name} delivered {surplus} messages that nobody sent")
    cpu_ms = (sum(map(cpu_s, roots)) - cpu_before) * 1000 / sent
    return Round(server.name, sent / elapsed_s, sent / accepted_s, cpu_ms)


def _send(host: str, users: Sequence[str], load: Load, messages: int) -> int:
    """One smtp-source a mailbox, 20 sessions together."""
    each, sessions = messages // len(users), SESSIONS // len(users)
    generators = [subprocess.Popen([
        "smtp-source", *(["-d"] if load.kept else []), "-s", str(sessions), "-m", str(each), "-l", str(load.octets),
        "-f", "sender@example.org", "-t", f"{user}@{DOMAIN}", f"{host}:{SMTP_PORT}",
    ]) for user in users]
    if any([generator.wait() for generator in generators]):     # a list: wait for all of them
        raise RuntimeError(f"smtp-source failed against {host}")
    return each * len(users)
