"""The storage process is away when another server says 250: the mail is not sent a second time."""

from __future__ import annotations

import asyncio
import random

import pytest

from fumibako.store.sqlite.database import open_reader
from tests.crash.clients import dotted, log_in, smtp_peer
from tests.crash.machine import SENDER, Machine
from tests.crash.sink import running_sink
from tests.crash.test_outbound import SINK_PORT
from tests.crash.test_storage_away import kept_away
from tests.support.ledger import make_letter
from tests.support.server import eventually

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]

RECIPIENT = "ok-1@d1.example"


def waiting(machine: Machine) -> int:
    database = open_reader(machine.directory / "queue.db")
    try:
        return int(database.row("SELECT count(*) FROM q_message")[0])
    finally:
        database.close()


async def test_an_outcome_outlives_storage(machine: Machine) -> None:
    machine.make(workers=1, smarthost=f"{machine.place.address}:{SINK_PORT}")
    machine.start()
    letter = make_letter("once", 2_000, random.Random(1), SENDER)
    async with running_sink(machine.place.address, SINK_PORT) as sink:
        sink.gate.clear()
        async with smtp_peer(machine.place.endpoint("submission")) as peer:
            await log_in(peer, SENDER)
            await peer.demand(f"MAIL FROM:<{SENDER}>", "250")
            await peer.demand(f"RCPT TO:<{RECIPIENT}>", "250")
            await peer.demand("DATA", "354")
            await peer.send(dotted(letter.octets))
            assert (await peer.reply()).startswith("250")
        await sink.changed.wait()
        with kept_away(machine):
            sink.gate.set()
            await asyncio.to_thread(eventually, lambda: "its outcome waits for the store" in machine.errors_text(),
                                    "the runner has the answer and nowhere to put it")
            assert waiting(machine) == 1
        await asyncio.to_thread(eventually, lambda: not waiting(machine), "the outcome is recorded")
        assert sink.taken == {("once", RECIPIENT): 1}
