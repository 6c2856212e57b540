"""The storage process dies while a message is on its way: 451 for that one, and the same session hands in the next."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.crash.clients import SmtpPeer, dotted, imap_peer, smtp_peer
from tests.crash.machine import READERS, Machine
from tests.support.ledger import Letter, make_letter
from tests.support.server import eventually

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]

NO_ANSWER = "451 4.3.0 Temporary failure, try again later"
GONE = "the storage process is gone"


@contextmanager
def kept_away(machine: Machine) -> Iterator[None]:
    """Storage is killed, and nobody starts it again until the block ends."""
    assert machine.process is not None
    told_before, supervisor, storage = machine.errors_text().count(GONE), machine.process.pid, machine.storage()
    assert storage > 0      # 0 would be everybody in our own process group
    os.kill(supervisor, signal.SIGSTOP)
    try:
        os.kill(storage, signal.SIGKILL)
        # The worker and the jobs process.
        eventually(lambda: machine.errors_text().count(GONE) == told_before + 2, "the others notice that storage is gone")
        yield
    finally:
        os.kill(supervisor, signal.SIGCONT)
    eventually(lambda: machine.storage() not in (0, storage), "storage is started again")


async def begin(peer: SmtpPeer, *readers: str) -> None:
    await peer.demand("MAIL FROM:<ledger@sender.example>", "250")
    for reader in readers:
        await peer.demand(f"RCPT TO:<{reader}>", "250")
    await peer.demand("DATA", "354")


async def until_taken(peer: SmtpPeer, letter: Letter) -> None:
    """The same session, as often as need be."""
    for _ in range(200):
        await begin(peer, READERS[0])
        await peer.send(dotted(letter.octets))
        if (reply := await peer.reply()).startswith("250"):
            return
        assert reply == NO_ANSWER
        await asyncio.sleep(0.05)
    raise AssertionError("storage does not come back")


async def stored(machine: Machine, reader: str) -> Counter[str]:
    async with imap_peer(machine.place.endpoint("imap"), reader) as peer:
        state = await peer.state("INBOX")
    return Counter(letter_id for letter_id, _, _ in state.messages.values())


@pytest.mark.parametrize("size", [2_000, 300_000])
async def test_storage_dies_between_data_and_the_final_dot(machine: Machine, size: int) -> None:
    """300,000 octets: the body waits in DIR/spool, and recovery must not take it away from the session that writes it."""
    machine.make(workers=1)
    machine.start()
    lost, next_one = (make_letter(name, size, random.Random(name)) for name in ("lost", "next"))
    async with smtp_peer(machine.place.endpoint("smtp")) as peer, smtp_peer(machine.lmtp, "LHLO") as local:
        for one in (peer, local):
            await begin(one, *READERS[:2])
            await one.send(dotted(lost.octets)[:-3])
        with kept_away(machine):
            for one, replies in ((peer, 1), (local, 2)):
                await one.send(b".\r\n")
                assert [await one.reply() for _ in range(replies)] == [NO_ANSWER] * replies
                await one.demand("NOOP", "250")
        await until_taken(peer, next_one)
        await until_taken(local, next_one)
        for one in (peer, local):
            await one.demand("QUIT", "221")
    assert await stored(machine, READERS[0]) == {"next": 2}
    assert await stored(machine, READERS[1]) == {}


@pytest.mark.parametrize("place", ["before-commit", "before-answer"])
async def test_storage_dies_in_the_commit(machine: Machine, place: str) -> None:
    """It may be durable or not, the client is told the same: at most it comes twice."""
    machine.make(workers=1)
    machine.start(failpoint=f"{place}:2")       # every new storage process dies at its second visit
    letter = make_letter("again", 2_000, random.Random(1))
    replies = []
    async with smtp_peer(machine.place.endpoint("smtp")) as peer:
        for _ in range(200):
            await begin(peer, READERS[0])
            await peer.send(dotted(letter.octets))
            replies.append(await peer.reply())
            if NO_ANSWER in replies and replies[-1].startswith("250"):
                break
            await asyncio.sleep(0.05)
    taken = sum(reply.startswith("250") for reply in replies)
    assert {reply for reply in replies if not reply.startswith("250")} == {NO_ANSWER}
    machine.kill_all()
    machine.start()
    found = (await stored(machine, READERS[0]))["again"]
    assert taken <= found <= len(replies)
