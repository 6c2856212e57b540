"""Mail on its way out while the server is killed: where each recipient stands at the end, and who may have got it twice."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from dataclasses import dataclass, field

from fumibako.model.ops import ChangeQueue, QueueAction
from fumibako.store.sqlite.database import open_reader
from fumibako.store.sqlite.engine import Engine
from tests.crash.clients import Broken, dotted, imap_peer, log_in, smtp_peer
from tests.crash.machine import SENDER, Machine
from tests.crash.sink import Sink
from tests.support.ledger import Entry, Ledger, letter_size, make_letter

_FINAL = re.compile(rb"^Final-Recipient: rfc822; *(\S+)\r$", re.MULTILINE)
ENDINGS = ("ok", "ok", "ok", "bye", "drop", "silent")
SENDERS = 4


@dataclass(slots=True)
class Outbound:
    """doubtful: recipients whose message another server had taken when the kill came, while the queue still had them."""

    machine: Machine
    sink: Sink
    ledger: Ledger
    chance: random.Random
    doubtful: Counter[str] = field(default_factory=Counter)
    sent: int = 0

    async def submit(self, count: int, up: asyncio.Event) -> None:
        """count messages, each with recipients whose names say what becomes of them, in a domain of its own."""
        end = self.sent + count

        async def one_after_the_other() -> None:
            while self.sent < end:
                await up.wait()
                try:
                    await self._submit_one()
                except Broken:
                    await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            for _ in range(SENDERS):
                group.create_task(one_after_the_other())

    async def _submit_one(self) -> None:
        async with smtp_peer(self.machine.place.endpoint("submission")) as peer:
            await log_in(peer, SENDER)
            self.sent += 1
            number, ending = self.sent, self.chance.choice(ENDINGS)
            # Where the connection breaks off, a refusal before it is final all the same.
            kinds = [ending, *self.chance.choices((ending, "fail", "defer"), k=self.chance.randint(0, 4))]
            recipients = tuple(f"{kind}-{number}-{place}@d{number}.example" for place, kind in enumerate(kinds))
            letter = make_letter(f"out-{number}", min(letter_size(self.chance), 60_000), self.chance, SENDER)
            await peer.demand(f"MAIL FROM:<{SENDER}>", "250")
            for recipient in recipients:
                await peer.demand(f"RCPT TO:<{recipient}>", "250")
            await peer.demand("DATA", "354")
            self.ledger.attempt(Entry(letter.id, "submission", recipients, letter.sha256))
            await peer.send(dotted(letter.octets))
            reply = await peer.reply()
            self.ledger.ack(letter.id, reply[:3], reply[4:])

    # -- at a kill --

    def after_kill(self) -> None:
        """Note who may get it twice, and make everything due: nobody waits for leases of the dead."""
        self.doubtful.update(self._waiting() & {recipient for _, recipient in self.sink.taken})
        engine = Engine(self.machine.directory)
        for action in (QueueAction.HOLD, QueueAction.RELEASE):
            engine.execute([ChangeQueue(action, (), 1)], 1)
        engine.close()

    def _waiting(self) -> set[str]:
        database = open_reader(self.machine.directory / "queue.db")
        try:
            return {row[0] for row in database.rows("SELECT forward_path FROM q_recipient WHERE state = 'queued'")}
        finally:
            database.close()

    def _in_outboxes(self) -> int:
        found = 0
        for path in self.machine.directory.glob("shard-*/mail.db"):
            database = open_reader(path)
            found += database.row("SELECT count(*) FROM outbox")[0]
            database.close()
        return found

    # -- at the end --

    async def quiet(self) -> None:
        """Until only what was deferred by name is left, and all notices have arrived."""
        for _ in range(600):
            left = {recipient.partition("-")[0] for recipient in self._waiting()}
            if left <= {"defer", "drop", "silent"} and not self._in_outboxes():
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"still in the queue: {sorted(self._waiting())[:10]}")

    async def notices(self) -> Counter[str]:
        """Recipients named in the DSNs of the sender."""
        found: Counter[str] = Counter()
        async with imap_peer(self.machine.place.endpoint("imap"), SENDER) as peer:
            if (await peer.select("INBOX"))["EXISTS"]:
                for row in await peer.fetch("1:*", b"(UID BODY.PEEK[])"):
                    octets = row["BODY[]"]
                    assert isinstance(octets, bytes)
                    found.update(path.decode() for path in _FINAL.findall(octets))
        return found

    async def faults(self) -> list[str]:
        """Recipients that are not exactly where they have to be."""
        notices, waiting = await self.notices(), self._waiting()
        taken = Counter({recipient: count for (_, recipient), count in self.sink.taken.items()})
        silent = Counter({recipient: count for (_, recipient), count in self.sink.silent.items()})
        found = []
        for entry in self.ledger.entries.values():
            for recipient in entry.args:
                told = (min(taken[recipient], 1), notices[recipient], int(recipient in waiting))
                if told != (wanted := _wanted(recipient)) and (entry.acknowledged or any(told)):
                    found.append(f"{recipient}: (taken, notices, queued) {told} instead of {wanted}")
                if taken[recipient] > 1 + self.doubtful[recipient] + silent[recipient]:
                    found.append(f"{recipient}: taken {taken[recipient]} times, {self.doubtful[recipient]} in doubt")
        return found


def _wanted(recipient: str) -> tuple[int, int, int]:
    """Taken, told to the sender, or still waiting: exactly one of them."""
    return {"ok": (1, 0, 0), "bye": (1, 0, 0), "fail": (0, 1, 0)}.get(recipient.partition("-")[0], (0, 0, 1))
