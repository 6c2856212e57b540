"""A disk that does not confirm: no 250, exit 70, a fresh start through recovery, and the mail is taken once when it comes again.

spec/reliability.md §5.1, check 5; strace injects EIO into the K-th fsync or fdatasync of the running server.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from fumibako.store.check import check
from tests.crash.clients import Broken, dotted, imap_peer, smtp_peer
from tests.crash.machine import READERS, Machine
from tests.support.ledger import Letter, make_letter
from tests.support.server import eventually, needs
from tests.support.strace import injecting

pytestmark = [pytest.mark.crash, pytest.mark.root, pytest.mark.timeout(120)]


async def hand_in(machine: Machine, letter: Letter) -> str:
    """The final reply, "" when the connection ends before it."""
    try:
        async with smtp_peer(machine.place.endpoint("smtp")) as peer:
            await peer.demand("MAIL FROM:<ledger@sender.example>", "250")
            await peer.demand(f"RCPT TO:<{READERS[0]}>", "250")
            await peer.demand("DATA", "354")
            await peer.send(dotted(letter.octets))
            return await peer.reply()
    except Broken:
        return ""


async def hand_in_until_taken(machine: Machine, letter: Letter) -> None:
    """As any client does: again and again, until there is a 250."""
    for _ in range(200):
        if (await hand_in(machine, letter)).startswith("250"):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the server does not come back")


async def stored(machine: Machine) -> Counter[str]:
    async with imap_peer(machine.place.endpoint("imap"), READERS[0]) as peer:
        state = await peer.state("INBOX")
    return Counter(letter_id for letter_id, _, _ in state.messages.values())


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_failed_sync_stops_the_store_and_nothing_is_promised(machine: Machine, workers: int, tmp_path: Path) -> None:
    needs("strace")
    machine.make(workers=workers)
    machine.start()
    failures: dict[str, str] = {}
    for at in range(1, 20):
        letter = make_letter(f"eio-{at}", 300_000 if at % 2 else 2_000, random.Random(at))
        output = tmp_path / f"trace-{at}"
        assert machine.process is not None
        victim = machine.storage() if workers else machine.process.pid
        with injecting(victim, "fsync,fdatasync", f"error=EIO:when={at}", output):
            reply = await hand_in(machine, letter)
        seen = output.read_text()
        if "(INJECTED)" not in seen:
            assert reply.startswith("250")
            break
        assert reply[:3] in ("", "421", "451", "452"), reply
        failures[letter.id] = seen
        if "exited with" in seen:
            assert "exited with 70" in seen
            _await_restart(machine, workers)
        await hand_in_until_taken(machine, letter)
    assert len(failures) >= 2
    found = await stored(machine)
    for letter_id in failures:
        # Rows that were written and not confirmed may be there after all: the client got no answer, so it may have two.
        assert 1 <= found[letter_id] <= 2, found
    assert sum(found[letter_id] == 2 for letter_id in failures) <= sum("-wal" in seen for seen in failures.values())
    assert not [one for one in check(machine.directory).findings if not one.repaired]


def _await_restart(machine: Machine, workers: int) -> None:
    """The supervisor starts the storage process again; where everything was one process, we do."""
    if workers:
        eventually(machine.storage, "storage is started again")
        return
    assert machine.process is not None
    assert machine.process.wait(10) == 70
    machine.kill_all()
    machine.start()
