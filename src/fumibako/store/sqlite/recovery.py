r"""Expunged messages that are still kept: what there is, and the way back into a mailbox.

Contract: see store.sqlite.unit. A recovered message is the same email (EMAILID) under a new UID, with the flags of its last
    entry but \Deleted; it counts in the quota again.
Failure: StoreRefused.
"""

# ruff: noqa: S608 - what is put into the text of a statement is always a constant of ours

from __future__ import annotations

from fumibako.model.change import Change
from fumibako.model.ids import EmailId, MailboxId, ModSeq, Uid
from fumibako.model.mailbox import Entry, Recoverable
from fumibako.model.ops import Recover, Recovered
from fumibako.store.base import BATCH_UIDS
from fumibako.store.sqlite.account import AccountWrite, MailboxRow, open_account_write
from fumibako.store.sqlite.database import Database
from fumibako.store.sqlite.mail import RECOVERABLE_MS
from fumibako.store.sqlite.mailboxes import mailbox_name, make_mailbox
from fumibako.store.sqlite.unit import Executed, Unit, json_list

# An email is recoverable from its last expunge until housekeeping purges it, not only until purge_after_ms.
_WAITING = "account_id = ?1 AND purge_after_ms > 0 AND entries = 0"


def recover(unit: Unit, operation: Recover, now_ms: int) -> Executed:
    """No entry, no mailbox and no change where none of them is there any more."""
    write = open_account_write(unit.database, operation.account_id, now_ms)
    name = mailbox_name(operation.mailbox)
    rows = _wanted(unit.database, operation)
    mailbox = write.mailbox_named(name)
    if not rows:
        found = (mailbox.id, mailbox.uid_validity) if mailbox else (MailboxId(0), 0)
        return Recovered(*found, (), (), ModSeq(write.modseq)), _changes(write)
    write.charge(sum(size for _, size, _ in rows), len(rows), operation.quota_limit_octets)
    if mailbox is None or mailbox.no_select:
        mailbox = _made(write, name)
    unit.database.many("UPDATE email SET entries = 1, purge_after_ms = 0 WHERE account_id = ? AND id = ?",
                       [(write.id, email_id) for email_id, _, _ in rows])
    uids = tuple(write.arrive(mailbox, email_id, flags, size) for email_id, size, flags in rows)
    changes = _changes(write)
    return Recovered(mailbox.id, mailbox.uid_validity, tuple(row[0] for row in rows), uids, ModSeq(write.modseq)), changes


def _changes(write: AccountWrite) -> tuple[Change, ...]:
    change = write.save()
    return (change,) if change else ()


def _made(write: AccountWrite, name: str) -> MailboxRow:
    """Subscribed, too: clients that show only what is subscribed would hide what was recovered."""
    mailbox = make_mailbox(write, name)
    write.database.run("INSERT OR IGNORE INTO subscription VALUES(?, ?)", write.id, name)
    return mailbox


def _wanted(database: Database, operation: Recover) -> list[tuple[EmailId, int, int]]:
    """Email ids in order, each with its size in octets and its flags."""
    chosen = "" if not operation.email_ids else "AND id IN (SELECT value FROM json_each(?2))"
    rows: list[tuple[EmailId, int, int]] = database.rows(
        f"SELECT id, size_octets, expunged_flags FROM email WHERE {_WAITING} {chosen} ORDER BY id LIMIT {BATCH_UIDS}",
        operation.account_id, *([json_list(operation.email_ids)] if chosen else []))
    return rows


def read_recoverable(database: Database, account_id: int) -> list[Recoverable]:
    """In the order of their expunging."""
    rows = database.rows(
        "SELECT id, size_octets, length(prefix), internal_date, guid, thread_id, purge_after_ms FROM email "
        f"WHERE {_WAITING} ORDER BY purge_after_ms, id", account_id)
    return [Recoverable(Entry(Uid(0), email_id, size, prefix, internal_date, 0, guid, thread_id), later - RECOVERABLE_MS, later)
            for email_id, size, prefix, internal_date, guid, thread_id, later in rows]
