"""Three sessions in two workers change one mailbox at random; each must see what an IMAP client may rely on, and all the same.

One after the other, a NOOP shows exactly what all the others did; at once, the sessions agree when they come to rest.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fumibako.proto.imap.client import Literal
from tests.crash.clients import ImapPeer, imap_peer, smtp_peer
from tests.crash.machine import MOVERS, Machine
from tests.support.oracle import Believer, BrokenRule, Truth
from tests.support.server import AS_ROOT, Place

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

SESSIONS = 3
FLAGS = (b"\\Seen", b"\\Flagged", b"\\Answered", b"$Later")
COMMANDS = ("append", "store", "store", "uid store", "fetch", "search", "delete", "expunge", "uid move", "noop")


@pytest.fixture(scope="module")
def machine(network: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("oracle") / "data", Place(f"{network}.11"))
    machine.make(workers=2)
    machine.start()
    try:
        yield machine
        machine.stop()
    finally:
        machine.kill_all()


@dataclass(slots=True)
class Session:
    """A real session with its belief."""

    peer: ImapPeer
    belief: Believer
    chance: random.Random

    async def ask(self, name: str, *arguments: bytes | str | int | Literal) -> list[int]:
        """uids or numbers of a SEARCH. A command on messages that others have expunged may be refused."""
        tagged, untagged = await self.peer.answer(name, *arguments)
        assert tagged.status in ("OK", "NO"), tagged
        return self.belief.hear(name, untagged)

    async def step(self) -> None:
        kind, belief = self.chance.choice(COMMANDS), self.belief
        if not belief.uids and kind not in ("append", "noop", "expunge"):
            kind = "append"
        numbers = sorted(self.chance.sample(range(1, len(belief.uids) + 1), min(len(belief.uids), self.chance.randint(1, 4))))
        seqs = b",".join(b"%d" % number for number in numbers)
        uids = b",".join(b"%d" % belief.uids[number - 1] for number in numbers if belief.uids[number - 1]) or b"1"
        change = self.chance.choice((b"+FLAGS", b"-FLAGS")), b"(%b)" % self.chance.choice(FLAGS)
        commands: dict[str, tuple[bytes | str | Literal, ...]] = {
            "append": ("INBOX", Literal(b"Subject: oracle\r\n\r\nx\r\n")),
            "store": (seqs, *change),
            "uid store": (uids, *change),
            "fetch": (seqs, b"(UID FLAGS MODSEQ)"),
            "search": (b"FLAGGED",),
            "delete": (seqs, b"+FLAGS", b"(\\Deleted)"),
            "uid move": (uids, "Trash"),
        }
        for number in await self.ask("STORE" if kind == "delete" else kind.upper(), *commands.get(kind, ())):
            if number > len(belief.uids):
                raise BrokenRule(f"SEARCH told message {number} of {len(belief.uids)}")

    async def rest(self) -> dict[int, tuple[int, frozenset[str]]]:
        """What the session believes once it has heard everything: uid -> (modseq, flags)."""
        await self.ask("NOOP")
        if self.belief.uids:
            await self.ask("FETCH", b"1:*", b"(UID FLAGS MODSEQ)")
        assert 0 not in self.belief.uids
        return {uid: (self.belief.modseqs[uid], self.belief.flags[uid]) for uid in self.belief.uids}


async def agree(found: list[Session]) -> bool:
    """Whether all sessions come to believe the same at the first look, whichever worker they are in."""
    first, *others = [await session.rest() for session in found]
    return all(other == first for other in others)


def workers_in_use(machine: Machine) -> int:
    """How many processes hold a connection to the IMAP port; only root may look, for others it is chance."""
    if not AS_ROOT:
        return 2
    wanted = f":{machine.place.ports['imap']:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().split("\n")[1:-1]]
    inodes = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(wanted) and row[3] == "01"}
    return sum(any(_target(entry.path) in inodes for entry in os.scandir(f"/proc/{child}/fd")) for child in machine.children())


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


@asynccontextmanager
async def sessions(machine: Machine, address: str, seed: int) -> AsyncIterator[list[Session]]:
    """SESSIONS of one account with INBOX open, in both workers: the kernel spreads them, so some are opened until it is so."""
    truth = Truth()
    async with AsyncExitStack() as stack:
        peers: list[ImapPeer] = []
        while len(peers) < SESSIONS or workers_in_use(machine) < 2:
            peers.append(await stack.enter_async_context(imap_peer(machine.place.endpoint("imap"), address)))
            assert len(peers) < 40
        found = [Session(peer, Believer(truth), random.Random(seed + place)) for place, peer in enumerate(peers[-SESSIONS:])]
        for session in found:
            session.belief.hear("SELECT", (await session.peer.command("SELECT", "INBOX", b"(CONDSTORE)"))[1])
        yield found


@pytest.mark.parametrize("seed", [1, 2])
async def test_one_after_the_other(machine: Machine, seed: int) -> None:
    async with sessions(machine, MOVERS[seed], seed) as found:
        chance = random.Random(seed)
        for number in range(250):
            await chance.choice(found).step()
            if number % 10 == 9:
                assert await agree(found), (seed, number)


async def test_all_at_once(machine: Machine) -> None:
    async with sessions(machine, MOVERS[0], 7) as found:
        for round_ in range(25):
            async def some(session: Session) -> None:
                for _ in range(8):
                    await session.step()

            await asyncio.gather(*map(some, found))
            assert await agree(found), round_


async def test_what_smtp_has_taken_the_next_noop_tells(machine: Machine) -> None:
    async with sessions(machine, MOVERS[0], 7) as found, smtp_peer(machine.place.endpoint("smtp")) as sender:
        before = [len(session.belief.uids) for session in found]
        for number in range(1, 101):
            await sender.demand("MAIL FROM:<someone@old.example>", "250")
            await sender.demand(f"RCPT TO:<{MOVERS[0]}>", "250")
            await sender.demand("DATA", "354")
            await sender.send(b"Subject: now\r\n\r\nx\r\n.\r\n")
            assert (await sender.reply()).startswith("250")
            session = found[number % SESSIONS]
            await session.ask("NOOP")
            assert len(session.belief.uids) == before[number % SESSIONS] + number
