"""`make bench`: Fumibako beside Postfix and Dovecot, and the page that says how it went."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import delivery, fetch, idle, latency, report
from bench.machine import description, work_directory
from bench.peers import Dovecot, Postfix
from bench.servers import Fumibako, Server

FETCH_USER = "reader"
MAILBOXES = tuple(f"user{number}" for number in range(10))
LATENCY_ROUNDS = 3
OWN_HOST, MAILDIR_HOST, LMTP_HOST, DOVECOT_HOST = "127.77.0.1", "127.77.0.2", "127.77.0.3", "127.77.0.4"


def main() -> None:
    options = _options()
    results: dict[str, Any] = {
        "begun": datetime.now(UTC).isoformat(timespec="seconds"), "machine": description(), "load": os.getloadavg()[0],
        "delivery": {}, "latency": [], "fetch": [], "fetch_messages": options.fetch_messages, "idle": [],
    }
    with work_directory() as place:
        print("delivery", flush=True)
        with _delivering(place / "delivery", options.uvloop) as servers:
            for load in delivery.LOADS:
                print(f" {load.title}", flush=True)
                results["delivery"][load.title] = delivery.measure(servers, MAILBOXES, load, options.messages, options.rounds)
            print("latency", flush=True)
            own = [server for server in servers if isinstance(server, Fumibako)]
            results["latency"] = latency.measure(own, MAILBOXES, options.seconds, LATENCY_ROUNDS)
        if options.fetch_messages:
            with _reading(place / "reading") as servers:
                print("idle", flush=True)       # first: later on connections would live in what FETCH has left
                results["idle"] = idle.measure(servers, FETCH_USER, options.connections)
                print("fetch", flush=True)
                results["fetch"] = fetch.measure(servers, FETCH_USER, options.fetch_messages, options.rounds)
    print(report.write(results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--messages", type=int, default=2000, help="a turn of delivery")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each server, at least 3")
    parser.add_argument("--seconds", type=float, default=5.0, help="a turn of latency")
    parser.add_argument("--fetch-messages", type=int, default=10_000, help="in the mailbox; 0: delivery only")
    parser.add_argument("--connections", type=int, default=300, help="that wait in IDLE")
    parser.add_argument("--uvloop", action=argparse.BooleanOptionalAction, default=True, help="also measure Fumibako on uvloop")
    options = parser.parse_args()
    if options.rounds < 3:
        parser.error("a median of fewer than 3 rounds says nothing")
    return options


@contextmanager
def _delivering(place: Path, uvloop: bool) -> Iterator[list[Server]]:
    with _stopping() as servers:
        servers.append(Fumibako(place / "fumibako", MAILBOXES, OWN_HOST))
        if uvloop:
            servers.append(Fumibako(place / "uvloop", MAILBOXES, "127.77.0.5", "uvloop"))
        servers.append(Postfix(place / "maildir", MAILBOXES, MAILDIR_HOST))
        servers.append(Postfix(place / "lmtp", MAILBOXES, LMTP_HOST, Dovecot(place / "dovecot", DOVECOT_HOST)))
        yield servers


@contextmanager
def _reading(place: Path) -> Iterator[Sequence[Server]]:
    with _stopping() as servers:
        servers.append(Fumibako(place / "fumibako", [FETCH_USER], OWN_HOST))
        servers.append(Dovecot(place / "dovecot", DOVECOT_HOST, tls=place / "fumibako" / "tls"))
        yield servers


@contextmanager
def _stopping() -> Iterator[list[Server]]:
    """A list whose servers are stopped at the end, whatever happened."""
    servers: list[Server] = []
    try:
        yield servers
    finally:
        for server in servers:
            server.stop()


if __name__ == "__main__":
    main()
