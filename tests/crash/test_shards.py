"""Three shards, two workers, one kill: mail for all of them, forwards and DSNs end once, whoever dies at which write."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from tests.crash.clients import Broken, dotted, imap_peer, log_in, smtp_peer
from tests.crash.drain import faults_of_the_store
from tests.crash.machine import FORWARD_PATH, FORWARDED, FORWARDER, READERS, SENDER, Machine
from tests.crash.outbound import Outbound
from tests.crash.rounds import Campaign
from tests.crash.sink import Sink, running_sink
from tests.support.ledger import Entry, Ledger, make_letter

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]

PER_SHARD = 20
SINK_PORT = 2_628
LETTERS = 45
SEVERAL = (READERS[0], READERS[20], READERS[40])        # one in each shard
NOTICED = READERS[1]


@dataclass(slots=True)
class Mixed:
    """Letters of three kinds in turn. doubtful: forwards that were in the queue at the kill, and so perhaps taken already."""

    machine: Machine
    sink: Sink
    ledger: Ledger
    outbound: Outbound = field(init=False)
    doubtful: int = 0

    def __post_init__(self) -> None:
        self.outbound = Outbound(self.machine, self.sink, self.ledger, random.Random(0))

    async def hand_in_until(self, died: asyncio.Event, first: int) -> int:
        """Letters from number `first` on until somebody died or all are out; the next number."""
        for number in range(first, LETTERS):
            if died.is_set():
                return number
            try:
                await self._hand_in(number)
            except Broken:
                await asyncio.sleep(0.02)
        return LETTERS

    async def _hand_in(self, number: int) -> None:
        kind = ("several", "forward", "notice")[number % 3]
        sender = SENDER if kind == "notice" else "ledger@sender.example"
        recipients = {"several": SEVERAL, "forward": (FORWARDED,), "notice": (NOTICED, f"fail-{number}@d{number}.example")}[kind]
        letter = make_letter(f"{kind}-{number}", 300_000 if number % 10 == 1 else 3_000, random.Random(number), SENDER)
        async with smtp_peer(self.machine.place.endpoint("submission" if kind == "notice" else "smtp")) as peer:
            if kind == "notice":
                await log_in(peer, SENDER)
            await peer.demand(f"MAIL FROM:<{sender}>", "250")
            for recipient in recipients:
                await peer.demand(f"RCPT TO:<{recipient}>", "250")
            await peer.demand("DATA", "354")
            self.ledger.attempt(Entry(letter.id, kind, recipients, letter.sha256))
            await peer.send(dotted(letter.octets))
            reply = await peer.reply()
            self.ledger.ack(letter.id, reply[:3], reply[4:])

    async def somebody_dies(self, died: asyncio.Event) -> None:
        machine = self.machine
        born = set(machine.children())
        while machine.process is not None and machine.process.poll() is None and born <= set(machine.children()):
            await asyncio.sleep(0.01)
        died.set()

    def after_kill(self) -> None:
        self.doubtful += sum(path == FORWARD_PATH for path in self.outbound._waiting())
        self.outbound.after_kill()

    # -- at the end --

    async def faults(self) -> list[str]:
        held = {holder: await self._letters_of(holder) for holder in (*SEVERAL, FORWARDER, NOTICED)}
        notices = await self.outbound.notices()
        found, extra = [], 0
        for entry in self.ledger.entries.values():
            holders = {"several": SEVERAL, "forward": (FORWARDER,), "notice": (NOTICED,)}[entry.kind]
            counts = [held[holder][entry.id, entry.sha256] for holder in holders]
            if entry.kind == "forward":
                taken = self.sink.taken[entry.id, FORWARD_PATH]
                counts.append(min(taken, 1))
                extra += max(0, taken - 1)
            elif entry.kind == "notice":
                counts.append(notices[entry.args[1]])
            if counts != [1] * len(counts) and (entry.acknowledged or any(counts)):
                found.append(f"{entry.id} {entry.code}: {counts}")
        if extra > self.doubtful:
            found.append(f"{extra} forwards were taken twice, {self.doubtful} were in doubt")
        return found + await asyncio.to_thread(faults_of_the_store, self.machine)

    async def _letters_of(self, holder: str) -> Counter[tuple[str, str]]:
        async with imap_peer(self.machine.place.endpoint("imap"), holder) as peer:
            facts = await peer.select("INBOX")
            return Counter((await peer.letters("1:*")).values()) if facts["EXISTS"] else Counter()


@pytest.mark.parametrize("failpoint", [
    "before-request@Settle:8",      # jobs, with mail delivered or taken by another server
    "after-response@Lease:4",       # jobs, with everything in hand
    "before-commit@Settle:9",       # storage
    "after-commit@Settle:10",
    "after-commit@Enqueue:5",       # storage, a mail for three shards is accepted, its sender does not know
    "before-answer@Deliver:20",     # storage, mailbox and outbox are written
    "mid-outbox:4",                 # storage
])
async def test_mail_between_shards_ends_once(machine: Machine, failpoint: str) -> None:
    machine.make(workers=2, smarthost=f"{machine.place.address}:{SINK_PORT}", shard_accounts=PER_SHARD)
    async with running_sink(machine.place.address, SINK_PORT) as sink:
        mixed, died = Mixed(machine, sink, Ledger(machine.directory.with_name("ledger"))), asyncio.Event()
        await asyncio.to_thread(machine.start, failpoint)
        watching = asyncio.create_task(mixed.somebody_dies(died))
        number = await mixed.hand_in_until(died, 0)
        async with asyncio.timeout(20):
            await watching
        await asyncio.to_thread(machine.kill_all)
        mixed.after_kill()
        await asyncio.to_thread(machine.start)
        await mixed.hand_in_until(asyncio.Event(), max(number, LETTERS // 2))
        await mixed.outbound.quiet()
        assert await mixed.faults() == []
        assert mixed.ledger.acknowledged > 10


async def test_a_killed_server_of_three_shards_has_every_acknowledged_mail_once(machine: Machine) -> None:
    machine.make(workers=2, shard_accounts=PER_SHARD)
    campaign = Campaign(machine, Ledger(machine.directory.with_name("ledger")), random.Random(3), 300, 2)
    result = await campaign.round("storage")
    assert result.is_clean, (result.verdicts.faults[:10], result.store_faults)
    assert result.verdicts.counts["acknowledged"] > 150, result
