"""One life of a store, step by step, and what it must look like after each: the yardstick for crashes and failing disks.

The story is deterministic, so a store that was cut off in step k is either as after step k-1 or as after step k.
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from fumibako.model import ops
from fumibako.model.account import PasswordRecord
from fumibako.model.envelope import Envelope, Recipient
from fumibako.model.frames import Command
from fumibako.model.ids import AccountId, MailboxId, QueueId, TraceId, Uid
from fumibako.model.ops import Done, Refused
from fumibako.model.queue import DAY_MS, MINUTE_MS, Outcome, OutcomeKind
from fumibako.store.base import StoreRefused, StoreUnavailable
from fumibako.store.check import check
from fumibako.store.disk import DiskIO
from fumibako.store.spool import SpoolWriter
from fumibako.store.sqlite.compaction import REPLACED_MS
from fumibako.store.sqlite.database import open_reader
from fumibako.store.sqlite.engine import Engine

NOW_MS = 1_750_000_000_000
ALICE, BOB = AccountId(1), AccountId(2)
INBOX, TRASH = MailboxId(1), MailboxId(2)
SMALL, LARGE = 4_000, 270_000
RECORD = PasswordRecord("$argon2id$", b"salt", 4096, b"stored", b"server")
DELAYED = Outcome(OutcomeKind.DEFERRED, "4.4.1", "later")
FAILED = Outcome(OutcomeKind.FAILED, "5.1.1", "nobody")


def make(directory: Path) -> None:
    """Two accounts."""
    directory.mkdir(mode=0o700)
    engine = Engine(directory, now_ms=NOW_MS)
    accounts = [ops.AddAccount(address, RECORD) for address in ("alice@a.example", "bob@a.example")]
    engine.execute([ops.AddDomain("a.example"), *accounts], NOW_MS)
    engine.close()


def trace(number: int) -> TraceId:
    return TraceId(number.to_bytes(16, "big"))


def octets(number: int, size: int) -> bytes:
    text = b"X-Ledger: story-%d\r\n\r\n" % number
    return (text + bytes(range(256)) * (size // 256))[:size]


def inline(number: int) -> ops.Body:
    text = octets(number, SMALL)
    return ops.Body(len(text), hashlib.sha256(text).digest(), zlib.crc32(text), text)


def deliver(number: int, body: ops.Body, *accounts: AccountId) -> ops.Deliver:
    recipients = tuple(ops.LocalRecipient(account, f"{account}@a.example", b"Return-Path: <>\r\n") for account in accounts)
    return ops.Deliver(trace(number), body, b"cache", recipients, NOW_MS)


def enqueue(number: int, body: ops.Body, *recipients: str) -> ops.Enqueue:
    return ops.Enqueue(trace(number), Envelope("alice@a.example", tuple(map(Recipient, recipients))), b"", body, NOW_MS)


def forward(number: int, body: ops.Body) -> ops.Deliver:
    """For Bob, and on to somebody else."""
    outgoing = ops.Outgoing(trace(number), Envelope("a@c.example", (Recipient("x@b.example"),)), b"Received: here\r\n")
    return msgspec.structs.replace(deliver(number, body, BOB), outgoing=(outgoing,))


class Teller:
    """Tells the story to an engine. disk: of the engine and of what is spooled."""

    def __init__(self, directory: Path, disk: DiskIO) -> None:
        self.directory, self.disk = directory, disk
        self.engine = Engine(directory, disk, NOW_MS)

    def spooled(self, number: int) -> ops.Body:
        (self.directory / "spool" / f"body-{number}").unlink(missing_ok=True)       # of an attempt that was refused
        writer = SpoolWriter(self.disk, self.directory / "spool", f"body-{number}", self._at_once)
        try:
            writer.write(octets(number, LARGE))
            return asyncio.run(writer.finish(trace(number)))
        except StoreRefused:
            writer.abandon()
            raise

    @staticmethod
    async def _at_once(function: Callable[..., object], *arguments: object) -> object:
        return function(*arguments)

    def steps(self) -> list[Callable[[], list[Command]]]:
        """Each gives the operations of one batch."""
        return [
            lambda: [deliver(1, inline(1), ALICE, BOB), deliver(2, inline(2), ALICE)],
            lambda: [deliver(3, self.spooled(3), ALICE)],
            lambda: [ops.Append(ALICE, INBOX, trace(4), (ops.Appended(inline(4), b"", ("\\Seen",), NOW_MS),))],
            lambda: [enqueue(5, inline(5), "x@b.example", "y@b.example"), deliver(6, inline(6), BOB)],
            lambda: [enqueue(7, self.spooled(7), "z@b.example")],
            lambda: [ops.Lease(NOW_MS, 15 * MINUTE_MS, 10)],
            lambda: [ops.Settle(QueueId(1), (ops.RecipientOutcome(1, 0, FAILED),), (enqueue(8, inline(8), "alice@a.example"),))],
            lambda: [ops.Settle(QueueId(1), (ops.RecipientOutcome(2, 0, DELAYED, NOW_MS + 1),)),
                     ops.Settle(QueueId(2), (ops.RecipientOutcome(3, 0, FAILED),),
                                (enqueue(9, self.spooled(9), "bob@a.example"),))],
            lambda: [forward(10, inline(10)), forward(11, self.spooled(11))],
            lambda: [ops.DrainOutbox()],
            lambda: [ops.Move(ALICE, INBOX, (Uid(1), Uid(2)), TRASH),
                     ops.SetFlags(ALICE, INBOX, (Uid(3),), ops.FlagMode.ADD, ("\\Deleted",))],
            lambda: [ops.Copy(ALICE, TRASH, (Uid(1),), INBOX), ops.Expunge(ALICE, INBOX, (Uid(3),))],
        ]

    def tell(self, step: Callable[[], list[Command]]) -> bool:
        """One batch; False when the disk is full, or did not make a file, for one of it. EngineFailed passes through."""
        try:
            batch = step()
        except StoreRefused:
            return False
        results = [result for result, _ in self.engine.execute(batch, NOW_MS)]
        assert not any(isinstance(result, Refused) and result.refusal not in ops.PASSING for result in results), results
        return not any(isinstance(result, Refused | StoreUnavailable) for result in results)

    def tidy(self) -> None:
        """Three weeks later, and again when replaced segments may go."""
        for later_ms in (0, REPLACED_MS):
            while self.engine.housekeep(NOW_MS + 21 * DAY_MS + later_ms):
                pass

    def thin_out(self) -> None:
        """Nearly everything is expunged; six weeks later what is left of the segment moves on, then its file goes."""
        every = tuple(map(Uid, range(1, 10)))
        self.engine.execute([ops.Expunge(account, box, uids, only_deleted=False) for account, box, uids in (
            (ALICE, INBOX, every), (ALICE, TRASH, every), (BOB, INBOX, (Uid(2),)))], NOW_MS)
        for later_ms in (0, REPLACED_MS):
            while self.engine.housekeep(NOW_MS + 42 * DAY_MS + later_ms):
                pass

    def drain(self) -> None:
        assert not isinstance(self.engine.execute([ops.DrainOutbox()], NOW_MS)[0][0], Refused | StoreUnavailable | Done)


_LOOKS = {
    "shard-001/mail.db": ("SELECT account_id, mailbox_id, uid, email_id, flags FROM entry ORDER BY 1, 2, 3",
                          "SELECT account_id, id, hex(guid), size_octets, entries FROM email ORDER BY 1, 2",
                          "SELECT account_id, hex(trace_id), address FROM delivered ORDER BY 1, 2",
                          "SELECT id, modseq, used_octets, messages, next_email_id FROM account ORDER BY 1",
                          "SELECT hex(trace_id) FROM outbox ORDER BY 1"),
    "queue.db": ("SELECT hex(trace_id), size_octets FROM q_message ORDER BY 1",
                 "SELECT message_id, forward_path, state, due_ms, attempts, crashes, leased FROM q_recipient ORDER BY 1, 2",
                 "SELECT hex(trace_id) FROM q_finished ORDER BY 1"),
}


Picture = dict[str, list[list[object]]]     # database -> answers to its looks
_OUTBOX = 4


def picture(directory: Path) -> Picture:
    """Everything that anybody could notice of a store."""
    found = {}
    for name, queries in _LOOKS.items():
        database = open_reader(directory / name)
        found[name] = [database.rows(query) for query in queries]
        database.close()
    return found


def is_after(directory: Path, before: list[Picture], step: int) -> bool:
    """True for a store that is as before `step` or as after it; a batch of two databases may have reached one of them.

    A message that is in outbox and queue at once is on its way: the next drain ends that without doubling it.
    """
    teller = Teller(directory, DiskIO())
    teller.drain()
    teller.engine.close()
    found = picture(directory)
    either = [_drained(before, step), _drained(before, step + 1)]
    return all(found[name] in [one[name] for one in either] for name in _LOOKS)


def _drained(pictures: list[Picture], step: int) -> Picture:
    """The picture after a step; the one with a full outbox looks, once drained, like its successor."""
    return pictures[step + 1] if pictures[step]["shard-001/mail.db"][_OUTBOX] else pictures[step]


def faults(directory: Path) -> list[str]:
    """What does not hold together; every body is read."""
    return [f"{one.kind} in {one.place}: {one.examples}" for one in check(directory).findings if not one.repaired]


def pictures(directory: Path) -> list[Picture]:
    """The undisturbed story in an empty directory: before it, and after each step."""
    make(directory)
    teller = Teller(directory, DiskIO())
    found = [picture(directory)]
    for step in teller.steps():
        assert teller.tell(step), "the undisturbed story is refused"
        found.append(picture(directory))
    teller.engine.close()
    return found
