"""What nobody waits for: purge what was expunged long ago, trim logs, unlink dead segments and forgotten spool files.

Contract: every function does a bounded piece; rows that refer to octets go first, durably, files after them. Nothing here is
    needed for correctness of what is served.
Failure: apsw.Error, OSError.
"""

from __future__ import annotations

from pathlib import Path

from fumibako.store.disk import DiskIO
from fumibako.store.failpoint import reach
from fumibako.store.segment import HEADER_OCTETS, segment_path
from fumibako.store.sqlite.database import Database
from fumibako.store.sqlite.mail import RECOVERABLE_MS
from fumibako.store.sqlite.unit import Unit, json_list, release_blob

_DAY_MS = 24 * 60 * 60 * 1000
KEYS_MS = 30 * _DAY_MS              # longer than any hand-over is repeated: the queue gives up after 5 days
CHANGES_MS = 30 * _DAY_MS
CHANGES_ROWS = 100_000
SPOOL_MS = 60 * 60 * 1000
_PIECE = 500
_ACCOUNTS = 50

_ACCOUNT_TABLES = ("keyword", "mailbox", "subscription", "entry", "change", "vanished", "delivered", "thread_ref", "pop3_uidl")


def seal_segments(database: Database, disk: DiskIO, directory: Path, existing: set[int]) -> None:
    """At start: what stands behind the last record of a segment was never answered; cut it off."""
    for (number,) in database.rows("SELECT id FROM segment WHERE sealed = 0"):
        last = database.row("SELECT id, size_octets FROM blob WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1",
                            number << 32, (number << 32) | 0xFFFFFFFF)
        end = (last[0] & 0xFFFFFFFF) + HEADER_OCTETS + last[1] if last else 0
        if number in existing and disk.size_octets(segment_path(directory, number)) > end:
            disk.truncate(segment_path(directory, number), end)
            reach("mid-recovery")
        database.run("UPDATE segment SET sealed = 1 WHERE id = ?", number)


def tidy_queue(queue: Unit, now_ms: int) -> None:
    queue.database.run("DELETE FROM q_finished WHERE at_ms < ?", now_ms - KEYS_MS)


def tidy_shard(unit: Unit, control: Database, now_ms: int) -> None:
    """The next few accounts."""
    database = unit.database
    accounts = database.rows("SELECT id, removed_ms, modseq FROM account WHERE id > ? ORDER BY id LIMIT ?",
                             unit.tidied, _ACCOUNTS)
    unit.tidied = accounts[-1][0] if len(accounts) == _ACCOUNTS else 0
    database.run("BEGIN IMMEDIATE")
    try:
        for account_id, removed_ms, modseq in accounts:
            if not control.row("SELECT 1 FROM principal WHERE id = ?", account_id):
                _remove(database, account_id, removed_ms, now_ms)
            else:
                _purge_expunged(database, account_id, now_ms)
                _trim(database, account_id, modseq, now_ms)
        database.run("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.run("ROLLBACK")
        raise


def _remove(database: Database, account_id: int, removed_ms: int, now_ms: int) -> None:
    """An account whose principal is gone: its mail stays as long as an expunged message does."""
    if not removed_ms:
        database.run("UPDATE account SET removed_ms = ? WHERE id = ?", now_ms, account_id)
    elif removed_ms + RECOVERABLE_MS <= now_ms:
        _purge_account(database, account_id)


def _purge_expunged(database: Database, account_id: int, now_ms: int) -> None:
    rows = database.rows("SELECT id, blob_id FROM email WHERE account_id = ? AND purge_after_ms > 0 AND purge_after_ms <= ? "
                         "AND entries = 0 LIMIT ?", account_id, now_ms, _PIECE)
    for email_id, blob in rows:
        database.run("DELETE FROM email WHERE account_id = ? AND id = ?", account_id, email_id)
        if release_blob(database, blob):
            database.run("DELETE FROM email_cache WHERE blob_id = ?", blob)


def _trim(database: Database, account_id: int, modseq: int, now_ms: int) -> None:
    """Forget the oldest changes; who asks for them is told that the log no longer reaches back."""
    old = database.row("SELECT max(modseq) FROM change WHERE account_id = ? AND (modseq <= ? OR at_ms < ?)",
                       account_id, modseq - CHANGES_ROWS, now_ms - CHANGES_MS)[0]
    if old:
        database.run("DELETE FROM change WHERE account_id = ? AND modseq <= ?", account_id, old)
        database.run("DELETE FROM vanished WHERE account_id = ? AND modseq <= ?", account_id, old)
        database.run("UPDATE account SET log_floor = ? WHERE id = ?", old, account_id)
    database.run("DELETE FROM delivered WHERE account_id = ? AND at_ms < ?", account_id, now_ms - KEYS_MS)


def _purge_account(database: Database, account_id: int) -> None:
    for email_id, blob in database.rows("SELECT id, blob_id FROM email WHERE account_id = ? LIMIT ?", account_id, _PIECE):
        database.run("DELETE FROM email WHERE account_id = ? AND id = ?", account_id, email_id)
        if release_blob(database, blob):
            database.run("DELETE FROM email_cache WHERE blob_id = ?", blob)
    if not database.row("SELECT 1 FROM email WHERE account_id = ? LIMIT 1", account_id):
        for table in _ACCOUNT_TABLES:
            database.run(f"DELETE FROM {table} WHERE account_id = ?", account_id)  # noqa: S608 - our own names
        database.run("DELETE FROM account WHERE id = ?", account_id)


def tidy_segments(unit: Unit, disk: DiskIO, directory: Path) -> None:
    """Unlink segments in which no blob lives any more; readers that hold one open finish in peace."""
    dead = [row[0] for row in unit.database.rows(
        "SELECT id FROM segment WHERE sealed = 1 AND NOT EXISTS("
        "SELECT 1 FROM blob WHERE blob.id BETWEEN segment.id << 32 AND (segment.id << 32) | 4294967295)")]
    for number in dead:
        try:
            disk.unlink(segment_path(directory, number))
        except FileNotFoundError:
            pass        # a crash came between file and row
    if dead:
        disk.fsync_directory(directory)     # no file may come back that has no row
        reach("segment-unlinked")
        unit.database.run("DELETE FROM segment WHERE id IN (SELECT value FROM json_each(?))", json_list(dead))


def tidy_spool(disk: DiskIO, spool: Path, now_ms: int) -> None:
    """Files whose writer is gone: nobody writes on one message for an hour without a pause."""
    for name in disk.names(spool):
        try:
            if disk.modified_ms(spool / name) < now_ms - SPOOL_MS:
                disk.unlink(spool / name)
        except FileNotFoundError:
            pass
