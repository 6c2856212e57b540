"""After a restore no number that was given between the backup and the loss is given again.

Specification: RFC 9051 §2.3.1.1 (UIDVALIDITY, UIDNEXT); RFC 7162 §3.1.1 (mod-sequences); DESIGN §3 Epoch.
Contract: every counter jumps, in one transaction a database. The jump also grows with the age of the backup, because the
    same backup may be restored again after the first restore has lived for a while: what was given in that life is not
    given again either, as long as no mailbox gets UIDS_A_SECOND on average. Every message gets the new modseq and the log
    of changes ends there: whoever knew a modseq of the lost time asks for what changed since then and gets everything.
Failure: apsw.Error; nothing is changed then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fumibako.model.ids import AccountId
from fumibako.store.sqlite.account import new_account_write
from fumibako.store.sqlite.database import Database

UIDS = 1 << 20
UIDS_A_SECOND = 16
COUNTS = 1 << 32
COUNTS_A_SECOND = 1 << 16
SEGMENTS = 1 << 20                  # the number is the upper half of a blob's id: it has 31 bits
SEGMENTS_A_SECOND = 4
UID_VALIDITIES = 1 << 16            # beyond the clock: several mailboxes may be made in one second
SERIALS = 1 << 30                   # RFC 1982 §3.2: a serial may rise by less than 2^31
SERIALS_A_SECOND = 16
LAST_UID = (1 << 32) - (1 << 24)    # a mailbox whose next UID lies beyond begins anew


@dataclass(frozen=True, slots=True)
class Jump:
    """How far the counters go."""

    uids: int
    counts: int
    segments: int
    now_s: int
    directory: int


def jump(backup_ms: int, now_ms: int) -> Jump:
    age_s = max(0, now_ms - backup_ms) // 1000
    counts = COUNTS + COUNTS_A_SECOND * age_s
    serials = min(SERIALS + SERIALS_A_SECOND * age_s, (1 << 31) - 1)
    return Jump(UIDS + UIDS_A_SECOND * age_s, counts, SEGMENTS + SEGMENTS_A_SECOND * age_s, now_ms // 1000,
                (-(-counts // COUNTS) * COUNTS) + serials)


def begin_epoch(database: Database, kind: str, by: Jump, owners: Sequence[int] = ()) -> None:
    """kind: as in store.schema; owners: ids of the accounts that belong to this shard."""
    database.run("BEGIN IMMEDIATE")
    try:
        _raise_sequences(database, by)
        if kind == "control":
            _raise_serials(database, by)
        else:
            # Their files are in no backup, and a number is never used twice.
            database.run("DELETE FROM segment WHERE id NOT IN (SELECT segment_id FROM blob)")
            database.run("UPDATE segment SET sealed = 1")
        if kind == "mail":
            _raise_accounts(database, by)
            _open_accounts(database, by, owners)
            for row in database.rows("SELECT account_id, id FROM mailbox WHERE uid_next > ?", LAST_UID):
                _renumber(database, *row)
        database.run("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.run("ROLLBACK")
        raise


def _raise_sequences(database: Database, by: Jump) -> None:
    """AUTOINCREMENT, also of tables that were empty then: SQLite has no row for those yet."""
    for (table,) in database.rows("SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%'"):
        before = database.row("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = ?", table)[0]
        database.run("DELETE FROM sqlite_sequence WHERE name = ?", table)
        after = before + (by.segments if table == "segment" else by.counts)
        database.run("INSERT INTO sqlite_sequence VALUES(?, ?)", table, after)


def _raise_serials(database: Database, by: Jump) -> None:
    """A zone's serial is the lower half of its domain's modseq: that half rises, too, and not by so much that it seems to
    fall. Every zone has it at once, for what secondaries have may be of the lost time."""
    modseq = database.row("UPDATE counter SET value = value + ? WHERE name = 'modseq' RETURNING value", by.directory)[0]
    database.run("UPDATE domain SET modseq = ?", modseq)


def _raise_accounts(database: Database, by: Jump) -> None:
    database.run("DELETE FROM change")
    database.run("DELETE FROM vanished")
    database.run("UPDATE account SET modseq = modseq + ?1, log_floor = modseq + ?1, next_email_id = next_email_id + ?1, "
                 "next_mailbox_id = next_mailbox_id + ?1, uid_validity = max(uid_validity, ?2) + ?3",
                 by.counts, by.now_s, UID_VALIDITIES)
    database.run("UPDATE mailbox SET uid_next = uid_next + ?, "
                 "highest_modseq = (SELECT modseq FROM account WHERE id = account_id)", by.uids)
    database.run("UPDATE entry SET modseq = (SELECT modseq FROM account WHERE id = account_id)")


def _open_accounts(database: Database, by: Jump, owners: Sequence[int]) -> None:
    """An account makes its mailboxes when it is first used. Where that was in the lost time, it must not happen again with
    the same numbers: so it happens now, above them."""
    known = {row[0] for row in database.rows("SELECT id FROM account")}
    for account_id in owners:
        if account_id not in known:
            new_account_write(database, AccountId(account_id), by.now_s * 1000, by.counts, by.now_s + UID_VALIDITIES).save()


def _renumber(database: Database, account_id: int, mailbox_id: int) -> None:
    """A new UIDVALIDITY, and the UIDs from 1 on in their order: a new number is never above the old one."""
    uids = [row[0] for row in database.rows("SELECT uid FROM entry WHERE account_id = ? AND mailbox_id = ? ORDER BY uid",
                                            account_id, mailbox_id)]
    for table in ("entry", "pop3_uidl"):
        database.many(f"UPDATE {table} SET uid = ? WHERE account_id = ? AND mailbox_id = ? AND uid = ?",  # noqa: S608
                      [(new, account_id, mailbox_id, old) for new, old in enumerate(uids, 1)])
    database.run("UPDATE account SET uid_validity = uid_validity + 1 WHERE id = ?", account_id)
    database.run("UPDATE mailbox SET uid_next = ?, uid_validity = (SELECT uid_validity FROM account WHERE id = account_id) "
                 "WHERE account_id = ? AND id = ?", len(uids) + 1, account_id, mailbox_id)
