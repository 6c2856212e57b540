"""A hundred thousand messages wait for a dead domain: fresh mail for another one passes them (reliability.md, check 22)."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fumibako.store.sqlite.database import open_reader
from tests.support.backlog import fill_queue
from tests.support.clients import WIRE_S, letter, trusting
from tests.support.mx import OtherServer, in_a_thread
from tests.support.server import PASSWORD, LiveServer, Place, eventually

pytestmark = pytest.mark.system
MIB = 1 << 20
START_S, FRESH_S, GROWN_OCTETS = 10.0, 2.0, 100 * MIB
LETTERS, EVERY_S = 40, 0.02


class Timed(OtherServer):
    """When each letter had arrived, by its subject."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived_s: dict[str, float] = {}

    async def _take_message(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        taken = await super()._take_message(reader, writer)
        subject = self.messages[-1].partition(b"Subject: ")[2].partition(b"\r\n")[0].decode()
        self.arrived_s[subject] = time.monotonic()
        return taken


@contextmanager
def dead(kind: str, address: str, port: int) -> Iterator[None]:
    """Nobody listens, or somebody who never says a word."""
    with socket.socket() as mute:
        mute.bind((address, port))
        if kind == "mute":
            mute.listen(1024)
        yield


def _send_fresh(server: LiveServer, domain: str) -> dict[str, float]:
    """Subject -> when the server had said 250."""
    accepted_s = {}
    with smtplib.SMTP(*server.place.endpoint("submission"), local_hostname="client.example.jp", timeout=WIRE_S) as client:
        client._host = server.hostname      # what the certificate has to say
        client.starttls(context=trusting(server))
        client.login("alice@example.jp", PASSWORD)
        for number in range(LETTERS):
            subject = f"fresh {number}"
            client.send_message(letter(subject, sender="alice@example.jp"), "alice@example.jp", [f"bob@{domain}"])
            accepted_s[subject] = time.monotonic()
            time.sleep(EVERY_S)
    return accepted_s


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", [pytest.param("refusing", marks=pytest.mark.long), "mute"])
def test_fresh_mail_passes_a_backlog(fresh: LiveServer, place: Place, network: str, kind: str, long: bool) -> None:
    waiting, port = 100_000 if long else 5_000, place.ports["smtp"]
    fresh.init()
    fresh.populate("example.jp", "alice")
    fresh.start()
    idle_octets = fresh.resident_octets(of_all=True)
    fresh.stop()
    fill_queue(fresh.directory, f"[{network}.66]", waiting, time.time_ns() // 1_000_000)
    with dead(kind, f"{network}.66", port), in_a_thread(Timed(), f"{network}.67", port) as other:
        begun_s = time.monotonic()
        fresh.start()
        start_s = time.monotonic() - begun_s
        accepted_s = _send_fresh(fresh, f"[{network}.67]")
        eventually(lambda: len(other.arrived_s) == LETTERS, "every fresh letter arrives", 60)
        grown_octets = fresh.resident_octets(of_all=True) - idle_octets
        tried = _tried_again(fresh)
        fresh.stop()
    waits_s = sorted(other.arrived_s[subject] - said_s for subject, said_s in accepted_s.items())
    p95_s = waits_s[LETTERS * 95 // 100]
    print(f"22 {waiting} deferred for a {kind} domain: start {start_s:.1f} s, fresh mail p95 {p95_s * 1000:.0f} ms, "
          f"RSS + {grown_octets / MIB:.1f} MB, {tried} tried again meanwhile")
    assert start_s <= START_S
    assert p95_s <= FRESH_S
    assert grown_octets <= GROWN_OCTETS
    assert tried, "nobody tried the backlog: it was no load"


def _tried_again(server: LiveServer) -> int:
    """Messages of the backlog that are in hand, or have been tried since the start."""
    database = open_reader(server.directory / "queue.db")
    try:
        return int(database.row("SELECT count(*) FROM q_recipient WHERE attempts > 1 OR leased")[0])
    finally:
        database.close()
