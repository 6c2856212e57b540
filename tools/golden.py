"""A small data directory with something of everything, kept for ever: later versions must open it and find it as it was.

Contract: `make` fills a directory through the public store contract with a clock that stands still; `picture` is everything a
    person could miss, as JSON values. `python -m tools.golden` writes tests/golden/VERSION.{tar.gz,json}, once a release.
Failure: FileExistsError: what was released is never made anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

import fumibako
from fumibako.model.account import Account, AccountStatus, PasswordRecord
from fumibako.model.envelope import Envelope, Recipient
from fumibako.model.ids import MailboxId, QueueId, TraceId, Uid
from fumibako.model.ops import (
    AccountMade,
    AddAccount,
    AddAlias,
    AddDomain,
    AddHold,
    Append,
    Appended,
    Body,
    Copy,
    CreateMailbox,
    DeleteMailbox,
    Deliver,
    Enqueue,
    Expunge,
    FlagMode,
    Lease,
    Leased,
    LocalRecipient,
    MailboxMade,
    Move,
    Outgoing,
    RecipientOutcome,
    RenameMailbox,
    SetAccountStatus,
    SetFlags,
    SetSetting,
    Settle,
    Subscribe,
    Threading,
)
from fumibako.model.queue import DAY_MS, Outcome, OutcomeKind
from fumibako.store.base import Store, expect
from fumibako.store.local import LocalStore
from fumibako.store.sqlite import engine as engine_module
from fumibako.store.sqlite.compaction import REPLACED_MS
from fumibako.store.sqlite.engine import Engine

NOW_MS = 1_750_000_000_000
GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
PASSWORD = PasswordRecord("$argon2id$golden", b"salt", 4096, b"stored key", b"server key")
PREFIX = b"Return-Path: <sender@example.net>\r\n"


def _trace(number: int) -> TraceId:
    return TraceId(hashlib.blake2b(b"%d" % number, digest_size=16).digest())


def _message(number: int, size_octets: int = 0) -> bytes:
    header = f"Message-ID: <{number}@example.net>\r\nSubject: =?utf-8?B?6KaL56mN?= {number}\r\n\r\n".encode()
    line = b"%06d The quick brown fox jumps over the lazy dog.\r\n"
    return header + b"".join(line % at for at in range(max(2, size_octets // 54)))


async def _body(store: Store, number: int, size_octets: int = 0) -> Body:
    writer = store.body_writer()
    writer.write(_message(number, size_octets))
    return await writer.finish(_trace(number))


async def make(directory: Path) -> None:
    """Everything a store can hold, in a directory that is empty."""
    store = LocalStore(directory, lambda: NOW_MS)
    try:
        alice, bob = await _people(store)
        await _mail(store, alice, bob)
        await _queue(store)
        await store.secret("thread")
    finally:
        await store.close()
    _compact(directory)
    with mock.patch.object(engine_module, "SHARD_ACCOUNTS", 3):
        store = LocalStore(directory, lambda: NOW_MS)
        try:
            await _second_shard(store, alice)
        finally:
            await store.close()


def _compact(directory: Path) -> None:
    """What was expunged is purged three weeks later; what is left of its segment moves on."""
    engine = Engine(directory, now_ms=NOW_MS)
    for later_ms in (0, REPLACED_MS):
        while engine.housekeep(NOW_MS + 21 * DAY_MS + later_ms):
            pass
    engine.close()


async def _second_shard(store: Store, alice: Account) -> None:
    """A fourth account; recoverable mail and holds in both shards; a mail for others that is still in its outbox."""
    carol = expect(await store.commit(AddAccount("carol@example.jp", PASSWORD)), AccountMade).account
    for number, account in ((50, carol), (51, carol), (52, alice)):
        outgoing = (Outgoing(_trace(number), Envelope("a@example.net", (Recipient("x@one.example"),)), b"Received: here\r\n"),)
        await store.commit(Deliver(_trace(number), await _body(store, number, 300_000 if number == 51 else 0), b"cache",
                                   (LocalRecipient(account.id, account.address, PREFIX),), NOW_MS, Threading(number, (), 5),
                                   outgoing if number == 50 else ()))
    inbox = {box.name: box.id for box in await store.mailboxes(alice.id)}["INBOX"]
    view = await store.view(alice.id, inbox)
    assert view is not None
    await store.commit(Expunge(alice.id, inbox, (Uid(view.uids[-1]),), only_deleted=False))
    await store.commit(Expunge(carol.id, MailboxId(1), (Uid(2),), only_deleted=False))
    await store.commit(AddHold("carol@example.jp", "audit"))
    await store.commit(AddHold("gone@xn--wgv71a119e.jp"))


async def _people(store: Store) -> tuple[Account, Account]:
    for domain in ("example.jp", "xn--wgv71a119e.jp"):
        await store.commit(AddDomain(domain))
    made = [expect(await store.commit(AddAccount(address, PASSWORD, quota, name)), AccountMade).account
            for address, quota, name in (("alice@example.jp", 10_000_000, "見本 太郎"), ("Bob@example.jp", 0, ""),
                                         ("gone@xn--wgv71a119e.jp", 0, ""))]
    await store.commit(SetAccountStatus("gone@xn--wgv71a119e.jp", AccountStatus.DISABLED))
    await store.commit(AddAlias("team@example.jp", ("alice@example.jp", "bob@example.jp")))
    await store.commit(AddAlias("@example.jp", ("bob@example.jp",)))
    await store.commit(SetSetting("limits.message_size", "", "20M"))
    await store.commit(SetSetting("account.quota", "domain:example.jp", "1G"))
    return made[0], made[1]


async def _mail(store: Store, alice: Account, bob: Account) -> None:
    for number in range(1, 9):
        size = 300_000 if number == 4 else 0        # one that is a segment of its own
        both = tuple(LocalRecipient(one.id, one.address, PREFIX, flags=("$Forwarded",) if number == 2 else (),
                                    quota_limit_octets=one.quota_limit_octets) for one in (alice, bob))
        await store.commit(Deliver(_trace(number), await _body(store, number, size), b"cache", both, NOW_MS + number,
                                   Threading(number if number < 8 else 7, (1,) if number == 3 else (), 5)))
    boxes = {box.name: box.id for box in await store.mailboxes(alice.id)}
    inbox, archive = boxes["INBOX"], boxes["Archive"]
    for uids, flags in (((1, 2), ("\\Seen",)), ((2, 3), ("\\Flagged", "重要", "$Junk")), ((5,), ("\\Deleted",))):
        await store.commit(SetFlags(alice.id, inbox, tuple(map(Uid, uids)), FlagMode.ADD, flags))
    await store.commit(Copy(alice.id, inbox, (Uid(1), Uid(4)), archive))
    await store.commit(Move(alice.id, inbox, (Uid(6),), archive))
    await store.commit(Expunge(alice.id, inbox, (Uid(5), Uid(7))))
    await store.commit(Expunge(alice.id, archive, (Uid(1),), only_deleted=False))
    appended = [Appended(await _body(store, number), b"", ("\\Draft",), NOW_MS - 86_400_000) for number in (20, 21)]
    await store.commit(Append(alice.id, boxes["Drafts"], _trace(20), tuple(appended), alice.quota_limit_octets))
    await _mailboxes(store, alice)
    for number in range(60, 80):        # so many that most of the segment is dead once they are purged
        await store.commit(Deliver(_trace(number), await _body(store, number, 3_000), b"", (LocalRecipient(
            bob.id, bob.address, PREFIX),), NOW_MS, Threading(number, (), 5)))
    await store.commit(Expunge(bob.id, MailboxId(1), tuple(map(Uid, range(9, 29))), only_deleted=False))


async def _mailboxes(store: Store, alice: Account) -> None:
    made = [expect(await store.commit(CreateMailbox(alice.id, name)), MailboxMade).mailbox_id
            for name in ("案件/2025", "old", "Lists/python/dev")]
    parents = {box.name: box.id for box in await store.mailboxes(alice.id)}
    await store.commit(DeleteMailbox(alice.id, parents["案件"]))        # has a child: \Noselect
    await store.commit(RenameMailbox(alice.id, made[1], "new"))
    await store.commit(DeleteMailbox(alice.id, made[2]))
    await store.commit(Subscribe(alice.id, "Lists/python/dev"))         # outlives its mailbox


async def _queue(store: Store) -> None:
    for number, held, paths in ((30, False, ("a@one.example", "b@two.example")), (31, True, ("c@three.example",)),
                                (32, False, ("d@one.example",))):
        envelope = Envelope("alice@example.jp", tuple(Recipient(path, 4, f"rfc822;{path}") for path in paths), "8BITMIME",
                            True, "HDRS", "golden")
        size = 300_000 if number == 32 else 0
        body = await _body(store, number, size)
        await store.commit(Enqueue(_trace(number), envelope, b"Received: here\r\n", body, NOW_MS, held))
    for item in expect(await store.commit(Lease(NOW_MS, 60_000, 10, ("two.example",))), Leased).items:
        kind = OutcomeKind.RELAYED if item.trace_id == _trace(30) else OutcomeKind.DEFERRED
        outcome = Outcome(kind, "4.4.1", "did not answer", "", "mx.one.example [192.0.2.1]")
        await store.commit(Settle(item.id, tuple(RecipientOutcome(one.id, 0, outcome, NOW_MS + 300_000, True)
                                                 for one in item.recipients)))


async def picture(store: Store) -> dict[str, Any]:
    """Whatever of a store somebody could miss."""
    accounts = await store.accounts()
    queue = await store.queue_items()
    found: dict[str, Any] = msgspec.to_builtins({
        "domains": await store.domains(), "accounts": accounts, "aliases": await store.aliases(),
        "settings": await store.settings(), "thread secret": (await store.secret("thread")).hex(),
        "passwords": [await store.password(one.id) for one in accounts],
        "holds": await store.holds(), "recoverable": {one.address: await store.recoverable(one.id) for one in accounts},
        "mail": {one.address: await account_picture(store, one) for one in accounts},
        "queue": [{"item": item, "sha256": await _queued_sha256(store, item.id, item.size_octets)} for item in queue],
    }, str_keys=True)
    return found


async def account_picture(store: Store, account: Account) -> dict[str, Any]:
    mailboxes = await store.mailboxes(account.id)
    return {
        "mailboxes": mailboxes, "subscriptions": await store.subscriptions(account.id),
        "keywords": await store.keywords(account.id), "quota": await store.quota(account.id),
        "modseq": await store.modseq(account.id), "changes": await store.changes(account.id, 0),
        "vanished": {box.name: list(await store.vanished(account.id, box.id, 0) or ()) for box in mailboxes},
        "messages": {box.name: await _messages(store, account, box.id) for box in mailboxes},
    }


async def _messages(store: Store, account: Account, mailbox_id: MailboxId) -> list[dict[str, Any]]:
    view = await store.view(account.id, mailbox_id)
    assert view is not None
    entries = await store.entries(account.id, mailbox_id, [Uid(uid) for uid in view.uids])
    found = []
    for at, entry in enumerate(entries):
        octets = await store.read(account.id, entry.email_id, 0, entry.size_octets)
        found.append({"entry": entry, "flags": view.flags[at], "modseq": view.modseqs[at],
                      "sha256": hashlib.sha256(octets).hexdigest()})
    return found


async def _queued_sha256(store: Store, queue_id: QueueId, size_octets: int) -> str:
    return hashlib.sha256(await store.read_queued(queue_id, 0, size_octets)).hexdigest()


async def picture_of(directory: Path) -> dict[str, Any]:
    """The picture of a data directory that nobody has open."""
    store = LocalStore(directory, lambda: NOW_MS)
    try:
        return await picture(store)
    finally:
        await store.close()


def main() -> int:
    archive, told = GOLDEN / f"{fumibako.__version__}.tar.gz", GOLDEN / f"{fumibako.__version__}.json"
    if archive.exists():
        raise FileExistsError(f"{archive}: a released data directory is never made anew")
    GOLDEN.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / "data"
        asyncio.run(make(directory))
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(directory, "data", filter=_anonymous)
        seen = asyncio.run(picture_of(directory))
        told.write_text(json.dumps(seen, ensure_ascii=False, indent=1, sort_keys=True) + "\n", "utf-8")
    return 0


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nothing of the machine it was made on."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = NOW_MS // 1000
    return member


if __name__ == "__main__":
    sys.exit(main())
