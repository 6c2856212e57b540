"""What a client does with a mailbox it opens: FETCH of UID FLAGS ENVELOPE BODYSTRUCTURE over all its messages.

Contract: the same messages are appended to both servers; the first FETCH of each is told apart (Dovecot makes its
    cache then), later ones are taken in turns, each on a connection of its own.
Failure: RuntimeError when a server tells fewer messages.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.imap import ImapClient
from bench.machine import cpu_s
from bench.mail import corpus
from bench.servers import DOMAIN, IMAP_PORT, PASSWORD, Server

_FETCH = "FETCH 1:* (UID FLAGS ENVELOPE BODYSTRUCTURE)"


def measure(servers: Sequence[Server], user: str, messages: int, rounds: int) -> list[dict[str, object]]:
    """first: whether it is the first FETCH of that server."""
    for server in servers:
        _append(server, user, messages)
    found: list[dict[str, object]] = []
    for number in range(rounds + 1):
        for server in servers:
            cpu_before = cpu_s(server.pid)
            elapsed_s, octets = _fetch(server, user, messages)
            cpu = cpu_s(server.pid) - cpu_before
            print(f"  {number or 'first'}. {server.name:24} {elapsed_s * 1000:7.0f} ms  {cpu * 1000:5.0f} ms CPU", flush=True)
            found.append({"server": server.name, "first": number == 0, "elapsed_ms": elapsed_s * 1000, "cpu_ms": cpu * 1000,
                          "octets": octets})
    return found


def _append(server: Server, user: str, messages: int) -> None:
    client = _client(server, user)
    begun = time.monotonic()
    for message in corpus(messages):
        client.command("APPEND INBOX", literal=message)
    print(f"  {server.name}: {messages / (time.monotonic() - begun):.0f} APPENDs/s", flush=True)
    client.close()


def _fetch(server: Server, user: str, messages: int) -> tuple[float, int]:
    client = _client(server, user)
    client.command("EXAMINE INBOX")
    begun = time.monotonic()
    answer = client.command(_FETCH)
    elapsed_s = time.monotonic() - begun
    client.close()
    if (told := answer.count(b" FETCH (UID ")) != messages:
        raise RuntimeError(f"{server.name} tells {told} of {messages} messages")
    return elapsed_s, len(answer)


def _client(server: Server, user: str) -> ImapClient:
    return ImapClient((server.host, IMAP_PORT), f"{user}@{DOMAIN}", PASSWORD)
