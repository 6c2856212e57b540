"""A database that another program has locked, and a disk that takes its time: nothing breaks, nobody waits for ever.

spec/reliability.md §5.2, check 20. Seconds in `make test`, a minute with --long.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from fumibako.proto.imap.client import Literal
from fumibako.store.check import check
from tests.crash.clients import ImapPeer, dotted, imap_peer, smtp_peer
from tests.crash.machine import MOVERS, READERS, Machine
from tests.support.ledger import Letter, make_letter
from tests.support.server import die_with_tests, needs
from tests.support.strace import injecting

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]

HELD_S, HELD_LONG_S = 0.1, 60.0
ANSWER_S, BACK_S = 10.0, 5.0
# The module of the standard library, as an administrator's tool would use it.
_HOLD = ("import sqlite3, sys, time\n"
         "held = [sqlite3.connect(path, isolation_level=None) for path in sys.argv[1:]]\n"
         "[one.execute('BEGIN IMMEDIATE') for one in held]\n"
         "print('held', flush=True)\ntime.sleep(600)\n")


@contextmanager
def locked(*databases: Path) -> Iterator[None]:
    """While the block runs another process holds them."""
    holder = subprocess.Popen([sys.executable, "-c", _HOLD, *map(str, databases)], stdout=subprocess.PIPE,
                              preexec_fn=die_with_tests)  # noqa: PLW1509 (it takes no lock)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        yield
    finally:
        holder.kill()
        holder.wait()


class Sender:
    """Letters by SMTP and, in one session, by APPEND; what was acknowledged, and how long the slowest answer took."""

    def __init__(self, machine: Machine, peer: ImapPeer) -> None:
        self.machine, self.peer, self.taken, self.said = machine, peer, Counter[str](), Counter[str]()
        self.slowest_s = 0.0
        self._count = 0

    async def smtp(self) -> bool:
        letter, asked_s = self._letter(), time.monotonic()
        async with smtp_peer(self.machine.place.endpoint("smtp")) as peer:
            await peer.demand("MAIL FROM:<ledger@sender.example>", "250")
            await peer.demand(f"RCPT TO:<{READERS[0]}>", "250")
            await peer.demand("DATA", "354")
            await peer.send(dotted(letter.octets))
            return self._note(letter, asked_s, (await peer.reply())[:9])

    async def append(self) -> bool:
        letter, asked_s = self._letter(), time.monotonic()
        tagged, _ = await self.peer.answer("APPEND", "INBOX", Literal(letter.octets))
        return self._note(letter, asked_s, f"{tagged.status} {tagged.code.partition(' ')[0]}")

    def _letter(self) -> Letter:
        self._count += 1
        return make_letter(f"slow-{self._count}.", 2_000, random.Random(self._count))

    def _note(self, letter: Letter, asked_s: float, answer: str) -> bool:
        self.slowest_s = max(self.slowest_s, time.monotonic() - asked_s)
        self.said[answer] += 1
        self.taken[letter.id] += answer.startswith(("250", "OK"))
        return bool(self.taken[letter.id])

    async def back_to_work(self) -> float:
        """Seconds until five letters in a row are taken on both ways."""
        begun, row = time.monotonic(), 0
        while row < 5:
            row = row + 1 if await self.smtp() and await self.append() else 0
        return time.monotonic() - begun

    async def judge(self) -> None:
        """Every acknowledged letter is there once, no other, and the store is sound."""
        found = Counter[str]()
        for account in (READERS[0], MOVERS[0]):
            async with imap_peer(self.machine.place.endpoint("imap"), account) as peer:
                found += Counter(letter_id for letter_id, _, _ in (await peer.state("INBOX")).messages.values())
        assert found == +self.taken
        self.machine.stop()
        assert not [one for one in check(self.machine.directory).findings if not one.repaired]


@asynccontextmanager
async def sending(machine: Machine) -> AsyncIterator[Sender]:
    """A server that works; it is judged at the end."""
    machine.start()
    async with imap_peer(machine.place.endpoint("imap"), MOVERS[0]) as peer:
        sender = Sender(machine, peer)
        assert await sender.smtp() and await sender.append()
        yield sender
        await sender.judge()


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.long), 1])
async def test_a_database_that_another_program_holds(machine: Machine, workers: int, long: bool) -> None:
    machine.make(workers=workers)
    async with sending(machine) as sender:
        await _beside_another_program(machine, sender, long)


async def _beside_another_program(machine: Machine, sender: Sender, long: bool) -> None:
    with locked(*(machine.directory / name for name in ("shard-001/mail.db", "queue.db", "control.db"))):
        end_s = time.monotonic() + (HELD_LONG_S if long else HELD_S)
        while time.monotonic() < end_s:
            assert not await sender.smtp() and not await sender.append()
    assert await sender.back_to_work() < BACK_S
    assert sender.slowest_s < ANSWER_S
    assert {answer for answer in sender.said if answer[0] not in "2O"} == {"451 4.3.0", "NO UNAVAILABLE"}
    assert "another program holds a lock on it" in machine.errors_text() and "mail.db" in machine.errors_text()
    assert '"traceback"' not in machine.errors_text()


@pytest.mark.root
async def test_a_disk_that_takes_its_time(machine: Machine, long: bool, tmp_path: Path) -> None:
    """200 ms more for every sync: it gets slow, and that is all."""
    needs("strace")
    machine.make(workers=1)
    async with sending(machine) as sender:
        await _on_a_slow_disk(machine, sender, long, tmp_path)


async def _on_a_slow_disk(machine: Machine, sender: Sender, long: bool, tmp_path: Path) -> None:
    with injecting(machine.storage(), "fsync,fdatasync", "delay_enter=200000", tmp_path / "trace"):
        end_s = time.monotonic() + (HELD_LONG_S if long else HELD_S)
        while time.monotonic() < end_s:
            async with asyncio.TaskGroup() as group:
                for _ in range(4):
                    group.create_task(sender.smtp())
        assert await sender.append()
    assert "(DELAYED)" in (tmp_path / "trace").read_text()
    assert sender.slowest_s < ANSWER_S and set(sender.said) == {"250 2.0.0", "OK APPENDUID"}
    assert await sender.back_to_work() < BACK_S
