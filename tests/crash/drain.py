"""Everything a server holds, by IMAP, by POP3 and in its queue, against everything that was ever sent to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from fumibako.store.check import check
from fumibako.store.sqlite.database import open_reader
from tests.crash.clients import imap_peer, pop3_unique_ids
from tests.crash.machine import READERS, SENDER, Machine
from tests.support.ledger import Entry, Found, MailboxHistory, MailboxState, Verdicts, compare

SESSIONS = 8
ACCEPTED = frozenset({"data", "bdat", "lmtp", "submission"})


@dataclass(slots=True)
class Reading:
    """What was found over the life of one machine. read: (holder, uid) -> the letter, once its octets were read."""

    machine: Machine
    histories: dict[tuple[str, str], MailboxHistory] = field(default_factory=dict)
    read: dict[tuple[str, int], tuple[str, str]] = field(default_factory=dict)

    async def drain(self, entries: Sequence[Entry], *, afresh: bool = False) -> Verdicts:
        """Compare deliveries with the mailboxes of READERS, and that of SENDER, to whom nobody writes but this server: a notice
        there is one that nobody has earned. afresh: read the octets of all messages again, not new ones only."""
        if afresh:
            self.read.clear()
        await self._queue_is_empty()
        turns = asyncio.Semaphore(SESSIONS)
        found: list[Found] = []
        verdicts = Verdicts()
        async with asyncio.TaskGroup() as group:
            for holder in (*READERS, SENDER):
                group.create_task(self._drain_one(turns, holder, found, verdicts))
        letters = compare((entry for entry in entries if entry.kind in ACCEPTED), found)
        letters.faults += verdicts.faults
        return letters

    async def _queue_is_empty(self) -> None:
        """Mail of our own users reaches our own mailboxes through the queue. What was in hand at a kill waits for the end of
        its lease; hold and release, the administrator's way, end that at once."""
        for turn in range(60):
            if not self._queued():
                return
            if turn % 10 == 9:
                for action in ("hold", "release"):
                    await asyncio.to_thread(self.machine.cli, "queue", action, "--all")
            await asyncio.sleep(0.2)
        raise AssertionError(f"the queue does not get empty: {self.machine.json('queue', 'list')[:3]}")

    def _queued(self) -> int:
        database = open_reader(self.machine.directory / "queue.db")
        try:
            return int(database.row("SELECT count(*) FROM q_message")[0])
        finally:
            database.close()

    async def _drain_one(self, turns: asyncio.Semaphore, holder: str, found: list[Found], verdicts: Verdicts) -> None:
        async with turns, imap_peer(self.machine.place.endpoint("imap"), holder) as peer:
            state = await peer.state("INBOX")
            new = [uid for uid in state.messages if (holder, uid) not in self.read]
            for start in range(0, len(new), 50):
                for uid, letter in (await peer.letters(",".join(map(str, new[start:start + 50])))).items():
                    self.read[holder, uid] = letter
        self.observe(holder, "INBOX", state, verdicts)
        found += [Found(*self.read[holder, uid][:1], holder, self.read[holder, uid][1]) for uid in state.messages]
        unique_ids = await pop3_unique_ids(self.machine.place.endpoint("pop3"), holder)
        assert unique_ids == [f"{state.uid_validity}.{uid}" for uid in sorted(state.messages)], (holder, unique_ids, state)

    def observe(self, holder: str, mailbox: str, state: MailboxState, verdicts: Verdicts) -> None:
        history = self.histories.setdefault((holder, mailbox), MailboxHistory())
        history.observe(f"{holder} {mailbox}", state, verdicts)


def faults_of_the_store(machine: Machine) -> list[str]:
    """What `fumibako check` says, but for what the next start mends by itself."""
    findings = check(machine.directory).findings
    return [f"{one.kind} in {one.place}: {one.count} {one.examples}" for one in findings if not one.repaired]
