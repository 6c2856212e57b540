"""What nobody waits for: purge what was expunged long ago, trim logs, remove forgotten spool files, cut tails at start.

Contract: every function does a bounded piece; rows that refer to octets go first, durably, files after them (compaction).
    Nothing is purged while a hold covers its account. Nothing here is needed for correctness of what is served.
Failure: apsw.Error, OSError.
"""

from __future__ import annotations

from pathlib import Path

from fumibako.store.disk import DiskIO
from fumibako.store.failpoint import reach
from fumibako.store.segment import segment_path
from fumibako.store.sqlite.compaction import end_of_records
from fumibako.store.sqlite.database import Database, Row
from fumibako.store.sqlite.mail import RECOVERABLE_MS
from fumibako.store.sqlite.unit import Unit, begin, release_blob

_DAY_MS = 24 * 60 * 60 * 1000
KEYS_MS = 30 * _DAY_MS              # longer than any hand-over is repeated: the queue gives up after 5 days
CHANGES_MS = 30 * _DAY_MS
CHANGES_ROWS = 100_000
SPOOL_MS = 60 * 60 * 1000
_PIECE = 200            # messages purged at once: a batch waits for no more than that
_ACCOUNTS = 50

_ACCOUNT_TABLES = ("keyword", "mailbox", "subscription", "entry", "change", "vanished", "delivered", "thread_ref", "pop3_uidl")


def seal_segments(database: Database, disk: DiskIO, directory: Path, existing: set[int]) -> None:
    """At start: what stands behind the last record of a segment was never answered; cut it off."""
    for (number,) in database.rows("SELECT id FROM segment WHERE sealed = 0"):
        end = end_of_records(database, number)
        if number in existing and disk.size_octets(segment_path(directory, number)) > end:
            disk.truncate(segment_path(directory, number), end)
            reach("mid-recovery")
        database.run("UPDATE segment SET sealed = 1 WHERE id = ?", number)


def tidy_queue(queue: Unit, now_ms: int) -> None:
    queue.database.run("DELETE FROM q_finished WHERE at_ms < ?", now_ms - KEYS_MS)


def tidy_shard(unit: Unit, control: Database, now_ms: int) -> bool:
    """The next few accounts; True when something was there to do."""
    database = unit.database
    before = database.connection.total_changes()
    accounts = database.rows("SELECT id, removed_ms, modseq FROM account WHERE id > ? ORDER BY id LIMIT ?",
                             unit.tidied, _ACCOUNTS)
    left, tidied = _PIECE, 0
    begin(database)
    try:
        for account_id, removed_ms, modseq in accounts:
            left -= _tidy_account(database, control, (account_id, removed_ms, modseq), now_ms, left)
            if left <= 0:
                tidied = account_id - 1     # there is more of it
                break
        else:
            tidied = accounts[-1][0] if len(accounts) == _ACCOUNTS else 0
        database.run("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.run("ROLLBACK")
        raise
    unit.tidied = tidied
    return database.connection.total_changes() > before


def _tidy_account(database: Database, control: Database, account: tuple[int, int, int], now_ms: int, limit: int) -> int:
    """account: id, removed_ms, modseq. How many messages were purged, at most `limit`; none while a hold covers it."""
    account_id, removed_ms, modseq = account
    held = control.row("SELECT 1 FROM hold WHERE account_id = ? LIMIT 1", account_id)
    if not control.row("SELECT 1 FROM principal WHERE id = ?", account_id):
        return _remove(database, account_id, removed_ms, now_ms, 0 if held else limit)
    _trim(database, account_id, modseq, now_ms)
    return 0 if held else _purge_expunged(database, account_id, now_ms, limit)


def _remove(database: Database, account_id: int, removed_ms: int, now_ms: int, limit: int) -> int:
    """An account whose principal is gone: its mail stays as long as an expunged message does."""
    if not removed_ms:
        database.run("UPDATE account SET removed_ms = ? WHERE id = ?", now_ms, account_id)
    elif limit and removed_ms + RECOVERABLE_MS <= now_ms:
        return _purge_account(database, account_id, limit)
    return 0


def _purge_expunged(database: Database, account_id: int, now_ms: int, limit: int) -> int:
    rows = database.rows("SELECT id, blob_id FROM email WHERE account_id = ? AND purge_after_ms > 0 AND purge_after_ms <= ? "
                         "AND entries = 0 LIMIT ?", account_id, now_ms, limit)
    _purge(database, account_id, rows)
    return len(rows)


def _purge(database: Database, account_id: int, rows: list[Row]) -> None:
    """rows: email id and blob id."""
    for email_id, blob in rows:
        database.run("DELETE FROM email WHERE account_id = ? AND id = ?", account_id, email_id)
        if release_blob(database, blob):
            database.run("DELETE FROM email_cache WHERE blob_id = ?", blob)


def _trim(database: Database, account_id: int, modseq: int, now_ms: int) -> None:
    """Forget the oldest changes; who asks for them is told that the log no longer reaches back."""
    known, since_ms = modseq - CHANGES_ROWS, now_ms - CHANGES_MS
    first = database.row("SELECT modseq, at_ms FROM change WHERE account_id = ? ORDER BY modseq LIMIT 1", account_id)
    if first and (first[0] <= known or first[1] < since_ms):
        old = database.row("SELECT max(modseq) FROM (SELECT modseq, at_ms FROM change WHERE account_id = ? ORDER BY modseq "
                           "LIMIT ?) WHERE modseq <= ? OR at_ms < ?", account_id, _PIECE, known, since_ms)[0]
        database.run("DELETE FROM change WHERE account_id = ? AND modseq <= ?", account_id, old)
        database.run("DELETE FROM vanished WHERE account_id = ? AND modseq <= ?", account_id, old)
        database.run("UPDATE account SET log_floor = ? WHERE id = ?", old, account_id)
    database.run("DELETE FROM delivered WHERE account_id = ? AND at_ms < ?", account_id, now_ms - KEYS_MS)


def _purge_account(database: Database, account_id: int, limit: int) -> int:
    rows = database.rows("SELECT id, blob_id FROM email WHERE account_id = ? LIMIT ?", account_id, limit)
    _purge(database, account_id, rows)
    if len(rows) < limit:
        for table in _ACCOUNT_TABLES:
            database.run(f"DELETE FROM {table} WHERE account_id = ?", account_id)  # noqa: S608 - our own names
        database.run("DELETE FROM account WHERE id = ?", account_id)
    return len(rows)


def tidy_spool(disk: DiskIO, spool: Path, now_ms: int) -> None:
    """Files whose writer is gone: nobody writes on one message for an hour without a pause, or needs that long to deliver
    an old one that got a second name here."""
    for name in disk.names(spool):
        try:
            if disk.touched_ms(spool / name) < now_ms - SPOOL_MS:
                disk.unlink(spool / name)
        except FileNotFoundError:
            pass
