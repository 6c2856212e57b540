"""Mailboxes of any size, made through the store's own Append in batches of 1,000.

Contract: bodies are small (about 600 octets) and of 100 kinds, each indexed once: the rows, segments and caches are those of
    an APPEND of that message, only the work of the IMAP face and of the indexer is left out. Every tenth message is unseen.
Failure: RuntimeError when the store refuses.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator

from bench.size.place import execute, now_ms
from fumibako.model.ids import AccountId, MailboxId
from fumibako.model.ops import Append, Appended, Body
from fumibako.proto.message.cache import pack_index
from fumibako.proto.message.index import Indexer
from fumibako.store.sqlite.engine import Engine

AT_ONCE = 1_000
_KINDS = 100


def message(number: int) -> bytes:
    text = "".join(f"Line {line} of message {number}, which says little and is soon read.\r\n" for line in range(5))
    return (f"From: Sender {number % 50} <sender{number % 50}@example.org>\r\nTo: reader@example.test\r\n"
            f"Subject: Re: weekly meeting {number}\r\nDate: Tue, 24 Nov 2026 09:{number % 60:02}:00 +0900\r\n"
            f"Message-ID: <{number}@example.org>\r\n\r\n{text}").encode()


def _appended(number: int, *, seen: bool) -> Appended:
    octets = message(number)
    indexer = Indexer()
    indexer.feed(octets)
    body = Body(len(octets), hashlib.sha256(octets).digest(), zlib.crc32(octets), octets)
    return Appended(body, pack_index(indexer.close()), ("\\Seen",) if seen else (), now_ms())


def fill(engine: Engine, account_id: AccountId, messages: int) -> None:
    """INBOX of an account that is open gets so many more."""
    mailbox_id = MailboxId(1)       # the first one that OpenAccount makes is INBOX
    for operation in _appends(account_id, mailbox_id, messages):
        execute(engine, [operation])


def _appends(account_id: AccountId, mailbox_id: MailboxId, messages: int) -> Iterator[Append]:
    kinds = [_appended(number, seen=number % 10 != 9) for number in range(_KINDS)]
    page = tuple(kinds[number % _KINDS] for number in range(AT_ONCE))
    for start in range(0, messages, AT_ONCE):
        yield Append(account_id, mailbox_id, os.urandom(16), page[: min(AT_ONCE, messages - start)])     # type: ignore[arg-type]
