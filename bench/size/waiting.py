"""Connections that wait in IDLE over TLS, as many as 10,000, on asyncio and on uvloop.

Contract: two workers; clients come from several loopback addresses, 100 accounts take them in turn, each has an INBOX selected.
    Memory is the growth of all processes of the server, divided by the connections. What a client is costs nothing here: it
    lives in the bench's own process.
Failure: RuntimeError; fewer connections than asked for where the limit of open files is lower.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

from bench.size.place import Place, add_accounts
from bench.size.timing import load, spread, timed_ms

HOST = "127.78.0.4"
_ACCOUNTS, _WARM_UP, _SPARE_FILES, _SETTLE_S = 100, 200, 500, 3.0


def measure(directory: Path, loop: str, connections: int) -> dict[str, object]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    connections = min(connections, hard - _SPARE_FILES)
    directory.parent.mkdir(parents=True, exist_ok=True)
    place = Place(directory, HOST, loop=loop)
    with place.engine() as engine:
        add_accounts(engine, [f"waiter{number}" for number in range(_ACCOUNTS)], opened=True)
    place.allow(connections + _WARM_UP)
    with place.serve() as serving:
        waiting = [_wait(place, number) for number in range(_WARM_UP)]
        time.sleep(_SETTLE_S)
        before, begun = serving.memory(), time.monotonic()
        waiting += [_wait(place, number) for number in range(connections)]
        opened_s = time.monotonic() - begun
        time.sleep(_SETTLE_S)
        octets = (serving.memory() - before) / connections
        asking = place.client("waiter0")
        found = {"loop": loop, "connections": connections, "octets_each": octets, "all_octets": serving.memory(),
                 "opened_per_s": connections / opened_s,
                 "noop": spread([timed_ms(lambda: asking.command("NOOP")) for _ in range(200)]), "load": load()}
        print(f"  {found}", flush=True)
        for client in waiting:
            client.close()
        return found


def _wait(place: Place, number: int):   # type: ignore[no-untyped-def]
    client = place.client(f"waiter{number % _ACCOUNTS}", tls=True, source=f"127.78.1.{1 + number % 50}")
    client.command("SELECT INBOX")
    client.idle()
    return client
