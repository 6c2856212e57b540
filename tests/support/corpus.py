"""A corpus of awkward mail for exports and imports: odd line ends, NUL, From lines, attachments, Japanese, keywords."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from fumibako.model.account import Account
from fumibako.model.ids import Uid
from fumibako.model.mailbox import SYSTEM_FLAGS
from fumibako.model.ops import CreateMailbox, DeleteMailbox, OpenAccount, Subscribe
from fumibako.services.appending import Appending
from fumibako.store.base import Store

HEAD = b"From: bob@example.net\r\nSubject: =?utf-8?B?5pel5pys6Kqe?=\r\n"
ODD = (
    b"", b"\r\n", b"\n", b"\r", b"no header at all", b"From me\r\n\r\nFrom you\r\n", b"\r\nFrom the start\r\n",
    HEAD + b"\r\nFrom the start of a line\r\n>From once\r\n>>From twice\r\n From with a space\r\nfrom\r\nFrom\r\n",
    HEAD + b"\r\nbare\nline\nfeeds\r\nFrom x\nFrom y\r\n", HEAD + b"\r\nbare\rreturns\r\r\n", HEAD + b"\r\n\r",
    HEAD + b"\r\nnul \0 octets \0\0\r\n", HEAD + b"\r\nno line end at the end", HEAD + b"\r\nempty lines\r\n\r\n\r\n\r\n",
    HEAD + b"\r\nFrom MAILER-DAEMON Thu Nov 24 18:22:48 1986\r\n\r\nFrom MAILER-DAEMON Thu Nov 24 18:22:48 1986\r\n",
    HEAD + b"Status: RO\r\nX-Status: AF\r\nX-Keywords: mine\r\nX-UID: 7\r\n\r\nits own fields\r\n",
    HEAD + b"\r\n" + b">" * 70_000 + b"From far away\r\n", HEAD + b"\r\n" + b"x" * 200_000 + b"\r\nFrom afar",
    HEAD + b"\r\n" + "件名：日本語の本文です。\r\n".encode("iso-2022-jp") * 30, HEAD + b"\r\n" + bytes(range(256)) * 40,
)
MAILBOXES = ("INBOX", "Sent", "仕事/2024年/請求書", "a.b", "a_b", "R&D", "x" * 200, "仕事" * 60, ".hidden", "Work/..",
             "INBOX/below", "x.mbox/y", "x", "unfinished/y", "cur", ".unfinished")
KEYWORDS = ("$Forwarded", "$Junk", "Wichtig", "todo/later", *(f"k{number}" for number in range(28)))


@dataclass(frozen=True, slots=True)
class Held:
    """A message as an account holds it."""

    sha256: str
    flags: tuple[str, ...]
    internal_date: int


@dataclass(frozen=True, slots=True)
class Holding:
    """What must be the same after an export and an import: name -> (special use, messages in order), and the subscriptions."""

    mailboxes: dict[str, tuple[str, tuple[Held, ...]]]
    subscriptions: tuple[str, ...]


def messages(count: int = 320) -> list[bytes]:
    """The odd ones, three attachments of 1 MB, and ordinary mail."""
    chance = random.Random(7)
    large = [HEAD + b"\r\n" + chance.randbytes(750_000) + b"\r\nFrom \r\n", HEAD + b"\r\n" + b"QUJD" * 19 * 14_000 + b"\r\n",
             HEAD + b"\r\n" + (b">From x" * 10 + b"\r\nFrom y\r\n") * 14_000]
    plain = [HEAD + b"Message-ID: <%d@example.net>\r\n\r\n" % number + b"From line\r\nbody\r\n" * chance.randrange(9)
             for number in range(count - len(ODD) - len(large))]
    return [*ODD, *large, *plain]


async def fill(store: Store, clock, account: Account, count: int = 320) -> None:
    """Spread over MAILBOXES, with flags, keywords and dates; Archive is gone, Sent is 送信済み."""
    chance = random.Random(5)
    await store.commit(OpenAccount(account.id))
    rows = {one.name: one for one in await store.mailboxes(account.id)}
    await store.commit(DeleteMailbox(account.id, rows["Archive"].id))
    await store.commit(DeleteMailbox(account.id, rows["Sent"].id))
    await store.commit(CreateMailbox(account.id, "送信済み", "\\Sent"))
    for name in MAILBOXES[1:]:
        await store.commit(CreateMailbox(account.id, name))
    for name, on in (("仕事/2024年/請求書", True), ("a.b", True), ("Trash", False), ("gone long ago", True)):
        await store.commit(Subscribe(account.id, name, on))
    boxes = [one for one in await store.mailboxes(account.id) if one.name in (*MAILBOXES, "送信済み")]
    for mailbox in boxes:
        appending = Appending(store, clock, account, mailbox)
        for number, octets in enumerate(messages(count) if mailbox.name == "INBOX" else messages(30)):
            flags = [name for name in (*SYSTEM_FLAGS, *KEYWORDS) if chance.random() < 0.1]
            appending.begin(tuple(flags), 1_000 * (1_000_000_000 - 7 * number) + chance.randrange(1000))
            appending.write(octets)
            await appending.end()
        await appending.commit()


async def holding(store: Store, account: Account) -> Holding:
    keywords = await store.keywords(account.id)
    names = {int(value): name for name, value in SYSTEM_FLAGS.items()} | {1 << bit: name for bit, name in keywords.items()}
    found = {}
    for row in await store.mailboxes(account.id):
        view = await store.view(account.id, row.id)
        assert view is not None
        held = []
        for uid, word in zip(view.uids, view.flags, strict=True):
            (entry,) = await store.entries(account.id, row.id, [Uid(uid)])
            octets = await store.read(account.id, entry.email_id, 0, entry.size_octets)
            flags = tuple(sorted(name for value, name in names.items() if word & value))
            held.append(Held(hashlib.sha256(octets).hexdigest(), flags, entry.internal_date))
        found[row.name] = (row.special_use, tuple(held))
    return Holding(found, tuple(sorted(await store.subscriptions(account.id))))
