"""What a connection costs that only waits: IMAP over TLS, logged in, a mailbox selected, in IDLE.

Contract: memory is the proportional set size of all processes of the server, its growth divided by the connections.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.imap import ImapClient
from bench.machine import memory_octets
from bench.servers import DOMAIN, IMAPS_PORT, PASSWORD, Server

_WARM_UP = 20
_SETTLE_S = 1.0     # handshakes leave buffers that are freed a moment later


def measure(servers: Sequence[Server], user: str, connections: int) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for server in servers:
        waiting = [_waiting(server, user) for _ in range(_WARM_UP)]
        time.sleep(_SETTLE_S)
        before = memory_octets(server.pid)
        waiting += [_waiting(server, user) for _ in range(connections)]
        time.sleep(_SETTLE_S)
        octets = (memory_octets(server.pid) - before) / connections
        for client in waiting:
            client.close()
        print(f"     {server.name:24} {octets / 1024:7.1f} KB a connection", flush=True)
        found.append({"server": server.name, "connections": connections, "octets_each": octets})
    return found


def _waiting(server: Server, user: str) -> ImapClient:
    client = ImapClient((server.host, IMAPS_PORT), f"{user}@{DOMAIN}", PASSWORD, tls=True)
    client.command("SELECT INBOX")
    client.idle()
    return client
