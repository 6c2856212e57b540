"""The judge of a round looks everywhere mail may have gone astray."""

from __future__ import annotations

import random

import pytest

from tests.crash.clients import dotted, smtp_peer
from tests.crash.drain import Reading
from tests.crash.machine import READERS, SENDER, Machine
from tests.support.ledger import Entry, Fault, make_letter

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]


async def test_a_notice_that_nobody_has_earned_is_a_phantom(machine: Machine) -> None:
    machine.make(workers=0)
    machine.start()
    letter = make_letter("1", 2_000, random.Random(1))
    notice = b"Subject: not delivered\r\n\r\n--part\r\n\r\n" + letter.octets
    async with smtp_peer(machine.place.endpoint("smtp")) as peer:
        for reverse_path, recipient, octets in (("a@b.example", READERS[0], letter.octets), ("", SENDER, notice)):
            await peer.demand(f"MAIL FROM:<{reverse_path}>", "250")
            await peer.demand(f"RCPT TO:<{recipient}>", "250")
            await peer.demand("DATA", "354")
            await peer.send(dotted(octets))
            assert (await peer.reply()).startswith("250")
    verdicts = await Reading(machine).drain([Entry("1", "data", READERS[:1], letter.sha256, "250")])
    assert verdicts.faults == [(Fault.PHANTOM, f"without mark at {SENDER}")]
