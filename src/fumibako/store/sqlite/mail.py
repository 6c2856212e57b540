"""Mail operations on messages: deliver, append, flags, copy, move, expunge.

Specification: RFC 9051 §6.3.12 (APPEND), §6.4.6 (STORE), §6.4.7 (COPY), §6.4.8 (MOVE), §6.4.3 (EXPUNGE);
    RFC 7162 §3.1.3 (UNCHANGEDSINCE); RFC 8514 (SAVEDATE); RFC 8474 §5.1 (EMAILID).
Contract: see store.sqlite.unit. A message is one row of email and an entry a mailbox that holds it; quota counts entries.
Failure: StoreRefused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fumibako.model.change import Arrived, Change, FlagsChanged, Notice, Rang
from fumibako.model.ids import AccountId, EmailId, MailboxId, ModSeq, Uid
from fumibako.model.mailbox import INBOX, Flag
from fumibako.model.ops import (
    Append,
    Appended,
    Copied,
    Copy,
    Deliver,
    Delivered,
    Expunge,
    Expunged,
    FlagMode,
    FlagsSet,
    LocalRecipient,
    Move,
    Placed,
    SetFlags,
    Threading,
)
from fumibako.store.sqlite.account import AccountWrite, MailboxRow, open_account_write
from fumibako.store.sqlite.database import Database
from fumibako.store.sqlite.outbox import put_outgoing
from fumibako.store.sqlite.unit import Executed, Unit, add_blob, json_list

RECOVERABLE_MS = 14 * 24 * 60 * 60 * 1000       # how long a message without entries keeps its octets
_MAX_REFERENCES = 20
_DELETED = int(Flag.DELETED)

_INSERT_EMAIL = "INSERT INTO email VALUES(?, ?, ?, ?, ?, ?, ?, ?, 1, 0, 0)"


# -- arrivals --


def deliver(unit: Unit, operation: Deliver, now_ms: int) -> Executed:
    """One body into the mailboxes of its recipients and, for others, the outbox: all of it or, by an exception, nothing."""
    placed = [_delivered_before(unit.database, operation.trace_id, recipient) for recipient in operation.recipients]
    fresh = [recipient for recipient, known in zip(operation.recipients, placed, strict=True) if known is None]
    if not fresh:
        return Delivered(tuple(known for known in placed if known)), ()
    owners = [recipient.account_id for recipient in fresh]
    blob = add_blob(unit, operation.body, operation.trace_id, owners, len(fresh) + len(operation.outgoing))
    _add_cache(unit.database, blob, operation.cache)
    writes: dict[AccountId, AccountWrite] = {}
    for at, recipient in enumerate(operation.recipients):
        if placed[at] is None:
            write = writes.get(recipient.account_id)
            if write is None:
                write = writes[recipient.account_id] = open_account_write(unit.database, recipient.account_id, now_ms)
            placed[at] = _deliver_one(write, operation, recipient, blob)
    put_outgoing(unit.database, owners[0], operation.outgoing, blob, now_ms)
    changes: tuple[Notice, ...] = _saved(writes.values())
    return Delivered(tuple(known for known in placed if known)), (*changes, Rang()) if operation.outgoing else changes


def _deliver_one(write: AccountWrite, operation: Deliver, recipient: LocalRecipient, blob: int) -> Placed:
    size = len(recipient.prefix) + operation.body.size_octets
    mailbox = write.mailbox_named(recipient.mailbox)
    if mailbox is None or mailbox.no_select:
        mailbox = write.mailbox_named(INBOX)
    assert mailbox is not None      # INBOX can't be deleted
    write.charge(size, 1, recipient.quota_limit_octets)
    flags = write.flag_word(recipient.flags, full_is_error=False) if recipient.flags else 0
    guid = _guid(operation.trace_id, recipient.address)
    email_id = _add_email(write, (guid, blob, size, operation.internal_date, recipient.prefix), operation.threading)
    uid = write.arrive(mailbox, email_id, flags, size)
    write.database.run("INSERT INTO delivered VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)", write.id, operation.trace_id, recipient.address,
                       write.now_ms, mailbox.id, mailbox.uid_validity, uid, email_id, write.modseq)
    return Placed(write.id, mailbox.id, mailbox.uid_validity, uid, email_id, ModSeq(write.modseq))


def _delivered_before(database: Database, trace_id: bytes, recipient: LocalRecipient) -> Placed | None:
    row = database.row("SELECT account_id, mailbox_id, uid_validity, uid, email_id, modseq FROM delivered "
                       "WHERE account_id = ? AND trace_id = ? AND address = ?", recipient.account_id, trace_id, recipient.address)
    if row is None:
        return None
    owner, mailbox_id, uid_validity, uid, email_id, modseq = row
    return Placed(owner, mailbox_id, uid_validity, uid, email_id, modseq, duplicate=True)


def append(unit: Unit, operation: Append, now_ms: int) -> Executed:
    write = open_account_write(unit.database, operation.account_id, now_ms)
    mailbox = write.mailbox(operation.mailbox_id)
    placed = tuple(_append_one(unit, write, mailbox, operation, place) for place in range(len(operation.messages)))
    return Delivered(placed), _saved([write])


def _append_one(unit: Unit, write: AccountWrite, mailbox: MailboxRow, operation: Append, place: int) -> Placed:
    message: Appended = operation.messages[place]
    size = message.body.size_octets
    write.charge(size, 1, operation.quota_limit_octets)
    flags = write.flag_word(message.flags)
    blob = add_blob(unit, message.body, operation.trace_id, [write.id], 1)
    _add_cache(unit.database, blob, message.cache)
    facts = (_guid(operation.trace_id, str(place)), blob, size, message.internal_date, b"")
    email_id = _add_email(write, facts, message.threading)
    uid = write.arrive(mailbox, email_id, flags, size)
    return Placed(write.id, mailbox.id, mailbox.uid_validity, uid, email_id, ModSeq(write.modseq))


def _guid(trace_id: bytes, place: str) -> bytes:
    return hashlib.blake2b(place.encode(), key=trace_id, digest_size=16).digest()


def _add_cache(database: Database, blob: int, cache: bytes) -> None:
    if cache:
        database.run("INSERT INTO email_cache VALUES(?, ?)", blob, cache)


def _add_email(write: AccountWrite, facts: tuple[bytes, int, int, int, bytes], threading: Threading) -> EmailId:
    """facts: guid, blob id, size in octets, internal date, prefix."""
    email_id = EmailId(write.next_email_id)
    write.next_email_id += 1
    guid, blob, size, internal_date, prefix = facts
    thread_id = _thread(write.database, write.id, email_id, threading)
    write.database.run(_INSERT_EMAIL, write.id, email_id, guid, thread_id, blob, size, internal_date, prefix)
    return email_id


def _thread(database: Database, account_id: AccountId, email_id: EmailId, threading: Threading) -> int:
    """DESIGN §3: own Message-ID, then References newest first, with an equal base subject; threads are never merged."""
    wanted = [hash_ for hash_ in (threading.message_id, *threading.references[:_MAX_REFERENCES]) if hash_]
    if not wanted:
        return email_id
    known = {}
    for hash_ in wanted:
        row = database.row("SELECT thread_id, subject FROM thread_ref WHERE account_id = ? AND hash = ?", account_id, hash_)
        if row:
            known[hash_] = row[0]
            if row[1] == threading.subject:
                break
    else:
        row = None
    thread_id = row[0] if row else email_id
    # A new thread also names what it refers to: the answered message may come later.
    missing = [hash_ for hash_ in (wanted[:1] if row else wanted) if hash_ not in known]
    for hash_ in missing:
        database.run("INSERT OR IGNORE INTO thread_ref VALUES(?, ?, ?, ?)", account_id, hash_, thread_id, threading.subject)
    return int(thread_id)


# -- changes --


class _Found(NamedTuple):
    uid: Uid
    flags: int
    modseq: int
    email_id: EmailId
    size_octets: int


def _find(write: AccountWrite, mailbox_id: MailboxId, uids: Sequence[Uid]) -> list[_Found]:
    """Those of the uids that exist, in order."""
    rows = write.database.rows(
        "SELECT e.uid, e.flags, e.modseq, e.email_id, m.size_octets FROM json_each(?1) j "
        "CROSS JOIN entry e ON e.account_id = ?2 AND e.mailbox_id = ?3 AND e.uid = j.value "
        "CROSS JOIN email m ON m.account_id = ?2 AND m.id = e.email_id",
        json_list(sorted(set(uids))), write.id, mailbox_id)
    return list(map(_Found._make, rows))


class _Flagged(NamedTuple):
    uid: Uid
    flags: int
    modseq: int


def _find_flags(write: AccountWrite, mailbox_id: MailboxId, uids: Sequence[Uid]) -> list[_Flagged]:
    """The same without their messages' rows: those lie elsewhere and have nothing to say about flags."""
    rows = write.database.rows(
        "SELECT e.uid, e.flags, e.modseq FROM json_each(?1) j "
        "CROSS JOIN entry e ON e.account_id = ?2 AND e.mailbox_id = ?3 AND e.uid = j.value",
        json_list(sorted(set(uids))), write.id, mailbox_id)
    return list(map(_Flagged._make, rows))


def set_flags(unit: Unit, operation: SetFlags, now_ms: int) -> Executed:
    write = open_account_write(unit.database, operation.account_id, now_ms)
    mailbox = write.mailbox(operation.mailbox_id)
    word = write.flag_word(operation.flags, grow=operation.mode is not FlagMode.REMOVE)
    found = _find_flags(write, mailbox.id, operation.uids)
    limit = operation.unchanged_since
    modified = tuple(row.uid for row in found if limit >= 0 and row.modseq > limit)
    refused = set(modified)
    changed: list[tuple[Uid, int]] = []
    for row in found:
        after = _combined(operation.mode, row.flags, word)
        if after != row.flags and row.uid not in refused:
            changed.append((row.uid, after))
            mailbox.recount(row.flags, after)
    if changed:
        modseq = write.touch_mailbox(mailbox)
        write.database.many("UPDATE entry SET flags = ?, modseq = ? WHERE account_id = ? AND mailbox_id = ? AND uid = ?",
                            [(after, modseq, write.id, mailbox.id, uid) for uid, after in changed])
        uids, words = zip(*changed, strict=True)
        write.flags_changed.append(FlagsChanged(mailbox.id, uids, words))
    changes = _saved([write])
    return FlagsSet(ModSeq(write.modseq), tuple(changed), modified), changes


def _combined(mode: FlagMode, before: int, word: int) -> int:
    match mode:
        case FlagMode.ADD:
            return before | word
        case FlagMode.REMOVE:
            return before & ~word
        case FlagMode.REPLACE:
            return word


def copy(unit: Unit, operation: Copy, now_ms: int) -> Executed:
    write = open_account_write(unit.database, operation.account_id, now_ms)
    source, target = write.mailbox(operation.mailbox_id), write.mailbox(operation.target_id)
    found = _find(write, source.id, operation.uids)
    write.charge(sum(row.size_octets for row in found), len(found), operation.quota_limit_octets if found else 0)
    targets = _place_copies(write, target, found)
    write.database.many("UPDATE email SET entries = entries + 1 WHERE account_id = ? AND id = ?",
                        [(write.id, row.email_id) for row in found])
    changes = _saved([write])
    return Copied(target.uid_validity, tuple(row.uid for row in found), targets, ModSeq(write.modseq)), changes


def move(unit: Unit, operation: Move, now_ms: int) -> Executed:
    write = open_account_write(unit.database, operation.account_id, now_ms)
    source, target = write.mailbox(operation.mailbox_id), write.mailbox(operation.target_id)
    found = _find(write, source.id, operation.uids)
    targets = _place_copies(write, target, found)
    _take_out(write, source, found)
    changes = _saved([write])
    return Copied(target.uid_validity, tuple(row.uid for row in found), targets, ModSeq(write.modseq)), changes


def _place_copies(write: AccountWrite, target: MailboxRow, found: list[_Found]) -> tuple[Uid, ...]:
    if not found:
        return ()
    first = target.take_uids(len(found))
    uids = tuple(map(Uid, range(first, first + len(found))))
    modseq = write.touch_mailbox(target)
    write.database.many("INSERT INTO entry VALUES(?, ?, ?, ?, ?, ?, ?)",
                        [(write.id, target.id, uid, row.email_id, row.flags, modseq, write.now_ms)
                         for uid, row in zip(uids, found, strict=True)])
    for uid, row in zip(uids, found, strict=True):
        target.count(row.flags, row.size_octets, 1)
        write.arrived.append(Arrived(target.id, uid, row.email_id, row.flags))
    return uids


def _take_out(write: AccountWrite, mailbox: MailboxRow, found: list[_Found]) -> None:
    if found:
        for row in found:
            mailbox.count(row.flags, row.size_octets, -1)
        write.vanish(mailbox, [row.uid for row in found], [row.email_id for row in found])


def expunge(unit: Unit, operation: Expunge, now_ms: int) -> Executed:
    write = open_account_write(unit.database, operation.account_id, now_ms)
    mailbox = write.mailbox(operation.mailbox_id)
    found = [row for row in _find(write, mailbox.id, operation.uids) if row.flags & _DELETED or not operation.only_deleted]
    _take_out(write, mailbox, found)
    write.charge(-sum(row.size_octets for row in found), -len(found), 0)
    unhold(write.database, write.id, [(row.email_id, row.flags) for row in found], now_ms)
    changes = _saved([write])
    return Expunged(tuple(row.uid for row in found), ModSeq(write.modseq)), changes


def unhold(database: Database, account_id: AccountId, held: Iterable[tuple[int, int]], now_ms: int) -> None:
    """One entry less for each; a message that has none left stays recoverable for a while (DESIGN §3), with the flags of its
    last entry. held: email id and flags."""
    database.many("UPDATE email SET entries = entries - 1, purge_after_ms = CASE WHEN entries = 1 THEN ? ELSE 0 END, "
                  "expunged_flags = ? WHERE account_id = ? AND id = ?",
                  [(now_ms + RECOVERABLE_MS, flags & ~_DELETED, account_id, email_id) for email_id, flags in held])


def _saved(writes: Iterable[AccountWrite]) -> tuple[Change, ...]:
    return tuple(change for write in writes if (change := write.save()) is not None)
