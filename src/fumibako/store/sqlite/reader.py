"""Everything that is read: each read method of the contract, synchronous, on read-only connections.

Contract: usable from several threads (`directory_version`: from one); a call takes a set of connections for itself
    and gives it back. Answers are fetched whole. A statement that runs longer than 5 s is interrupted.
Failure: apsw.Error of a damaged database; StoreUnavailable where its file can't be opened or read; OSError for a blob that is
    damaged or gone.
"""

# ruff: noqa: S608 - what is put into the text of a statement is always a constant of ours

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import apsw
import msgspec

from fumibako.model.account import Account, Alias, Domain, Hold, PasswordRecord, Setting
from fumibako.model.change import Change
from fumibako.model.ids import AccountId, DomainId, EmailId, MailboxId, ModSeq, QueueId, Uid
from fumibako.model.mailbox import INBOX, Entry, Mailbox, Quota, Recoverable
from fumibako.model.ops import Body, Refusal
from fumibako.model.queue import QueueItem
from fumibako.model.view import View
from fumibako.store.base import INLINE_OCTETS, StoreUnavailable
from fumibako.store.disk import DiskIO
from fumibako.store.segment import SegmentReader, segment_path
from fumibako.store.sqlite.database import Database, Row, open_reader
from fumibako.store.sqlite.directory import (
    ACCOUNT_COLUMNS,
    DOMAIN_COLUMNS,
    RECORD_COLUMNS,
    account_value,
    alias_key,
    read_alias,
    read_holds,
)
from fumibako.store.sqlite.layout import CONTROL, QUEUE, SPOOL, shard_directory
from fumibako.store.sqlite.queue import MESSAGE_COLUMNS, RECIPIENT_COLUMNS, shown_item
from fumibako.store.sqlite.recovery import read_recoverable
from fumibako.store.sqlite.unit import json_list
from fumibako.store.trouble import refusal_of, tell

STATEMENT_S = 5.0
_VIEW_ROWS = 10_000
_STEPS = 200_000        # of SQLite's machine between two looks at the clock

parse_change = msgspec.msgpack.Decoder(Change).decode
_parse_numbers = msgspec.json.Decoder(list[int]).decode
_parse_uids = msgspec.msgpack.Decoder(list[int]).decode
_MAILBOX_COLUMNS = ("account_id, id, name, uid_validity, uid_next, highest_modseq, total, unseen, deleted, size_octets, "
                    "special_use, no_select")


class _Pool:
    """Read-only connections of one file, each with one thread at a time."""

    def __init__(self, path: Path, disk: DiskIO) -> None:
        self._path, self._disk = path, disk
        self._idle: list[tuple[Database, list[float]]] = []

    def take(self) -> _Taken:
        return _Taken(self)

    def lend(self) -> tuple[Database, list[float]]:
        try:
            database, deadline = self._idle.pop()
        except IndexError:
            database, deadline = _opened(self._path, self._disk.vfs)
        deadline[0] = time.monotonic() + STATEMENT_S
        return database, deadline

    def give_back(self, lent: tuple[Database, list[float]]) -> None:
        self._idle.append(lent)

    def complain(self, error: BaseException | None) -> None:
        """What the file system did, not what stands in the database, makes the store unavailable."""
        if isinstance(error, (apsw.CantOpenError, apsw.IOError)) and self._path.exists():
            tell(str(self._path), Refusal.NO_FILES if isinstance(error, apsw.CantOpenError) else Refusal.DISK_ERROR, error)
            raise StoreUnavailable(f"{self._path}: {error}") from error

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[0].close()


class _Taken:
    """A connection for the time of a `with`. A class: a generator would cost as much as the statement."""

    __slots__ = ("_lent", "_pool")

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool

    def __enter__(self) -> Database:
        try:
            self._lent = self._pool.lend()
        except apsw.Error as error:
            self._pool.complain(error)
            raise
        return self._lent[0]

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._pool.give_back(self._lent)
        if error is not None:
            self._pool.complain(error)


def _opened(path: Path, vfs: str) -> tuple[Database, list[float]]:
    database, deadline = open_reader(path, vfs), [0.0]
    database.connection.set_progress_handler(lambda: time.monotonic() > deadline[0], _STEPS)
    return database, deadline


class Reader:
    """directory: DIR, which an Engine (here or in the storage process) holds open."""

    def __init__(self, directory: Path, disk: DiskIO | None = None) -> None:
        self.directory, self._disk = directory, disk or DiskIO()
        self._control = _Pool(directory / CONTROL, self._disk)
        self._watch: Database | None = None
        self._queue = _Pool(directory / f"{QUEUE}.db", self._disk)
        self._queue_segments = SegmentReader(self._disk, directory / QUEUE)
        self._shards: dict[int, tuple[_Pool, SegmentReader]] = {}
        self._places: dict[AccountId, int] = {}

    def close(self) -> None:
        self._control.close()
        if self._watch:
            self._watch.close()
        for pool, segments in [(self._queue, self._queue_segments), *self._shards.values()]:
            pool.close()
            segments.close()

    # -- directory --

    def directory_version(self) -> int:
        """SQLite counts the commits a connection comes to see, so this connection is always the same one."""
        if self._watch is None:
            self._watch = open_reader(self.directory / CONTROL, self._disk.vfs)
        return int(self._watch.row("PRAGMA data_version")[0])

    def domains(self) -> list[Domain]:
        with self._control.take() as database:
            rows = database.rows(f"SELECT {DOMAIN_COLUMNS} FROM domain ORDER BY name")
            return [Domain(DomainId(row[0]), *row[1:]) for row in rows]

    def domain(self, name: str) -> Domain | None:
        with self._control.take() as database:
            row = database.row(f"SELECT {DOMAIN_COLUMNS} FROM domain WHERE name = ?", name.lower())
            return Domain(DomainId(row[0]), *row[1:]) if row else None

    def accounts(self, domain: str = "") -> list[Account]:
        where = "WHERE domain_id = (SELECT id FROM domain WHERE name = ?1)" if domain else "WHERE ?1 = ''"
        with self._control.take() as database:
            rows = database.rows(f"SELECT {ACCOUNT_COLUMNS} FROM principal {where} ORDER BY address_key", domain.lower())
            return [account_value(row) for row in rows]

    def account(self, address: str) -> Account | None:
        return self._account("address_key", address)

    def account_by_id(self, account_id: AccountId) -> Account | None:
        return self._account("id", account_id)

    def _account(self, column: str, value: object) -> Account | None:
        with self._control.take() as database:
            row = database.row(f"SELECT {ACCOUNT_COLUMNS} FROM principal WHERE {column} = ?", value)
            return account_value(row) if row else None

    def password(self, account_id: AccountId) -> PasswordRecord | None:
        with self._control.take() as database:
            row = database.row(f"SELECT {RECORD_COLUMNS} FROM principal WHERE id = ?", account_id)
            return PasswordRecord(*row) if row else None

    def aliases(self, domain: str = "") -> list[Alias]:
        where = "WHERE domain_id = (SELECT id FROM domain WHERE name = ?1)" if domain else "WHERE ?1 = ''"
        with self._control.take() as database:
            keys = database.rows(f"SELECT DISTINCT address_key FROM alias {where} ORDER BY address_key", domain.lower())
            return [alias for (key,) in keys if (alias := read_alias(database, key))]

    def alias(self, address: str) -> Alias | None:
        with self._control.take() as database:
            return read_alias(database, alias_key(address))

    def holds(self) -> list[Hold]:
        with self._control.take() as database:
            return read_holds(database)

    def settings(self, scope: str | None = None) -> list[Setting]:
        with self._control.take() as database:
            rows = database.rows("SELECT key, scope, value FROM setting WHERE ?1 IS NULL OR scope = ?1 "
                                 "ORDER BY key, scope", scope)
            return [Setting(*row) for row in rows]

    def secret(self, name: str) -> bytes | None:
        with self._control.take() as database:
            row = database.row("SELECT value FROM secret WHERE name = ?", name)
            return bytes(row[0]) if row else None

    # -- mail --

    def _shard(self, account_id: AccountId) -> tuple[_Pool, SegmentReader]:
        """An account that nobody knows is looked for in the first shard, where nothing of it is found."""
        place = self._places.get(account_id)
        if place is None:
            account = self.account_by_id(account_id)
            place = account.shard if account else 1
            if account:
                self._places[account_id] = place
        found = self._shards.get(place)
        if found is None:
            directory = self.directory / shard_directory(place)
            found = (_Pool(directory / "mail.db", self._disk), SegmentReader(self._disk, directory / "seg"))
            found = self._shards.setdefault(place, found)
        return found

    def _mail(self, account_id: AccountId) -> _Pool:
        return self._shard(account_id)[0]

    def mailboxes(self, account_id: AccountId) -> list[Mailbox]:
        with self._mail(account_id).take() as database:
            rows = database.rows(f"SELECT {_MAILBOX_COLUMNS} FROM mailbox WHERE account_id = ? ORDER BY name <> '{INBOX}', name",
                                 account_id)
            return [_mailbox(row) for row in rows]

    def subscriptions(self, account_id: AccountId) -> list[str]:
        with self._mail(account_id).take() as database:
            rows = database.rows("SELECT name FROM subscription WHERE account_id = ? ORDER BY name", account_id)
            return [row[0] for row in rows]

    def keywords(self, account_id: AccountId) -> dict[int, str]:
        with self._mail(account_id).take() as database:
            return dict(database.rows("SELECT bit, name FROM keyword WHERE account_id = ? ORDER BY bit", account_id))

    def quota(self, account_id: AccountId) -> Quota:
        account = self.account_by_id(account_id)
        with self._mail(account_id).take() as database:
            row = database.row("SELECT used_octets, messages FROM account WHERE id = ?", account_id) or (0, 0)
        return Quota(row[0], account.quota_limit_octets if account else 0, row[1])

    def modseq(self, account_id: AccountId) -> int:
        with self._mail(account_id).take() as database:
            row = database.row("SELECT modseq FROM account WHERE id = ?", account_id)
            return int(row[0]) if row else 0

    def view(self, account_id: AccountId, mailbox_id: MailboxId) -> View | None:
        with self._mail(account_id).take() as database:
            with _snapshot(database):
                found = _read_view(database, account_id, mailbox_id)
            if found is not None and len(found) > _VIEW_ROWS:
                # Its rows are read once and have filled the connection's whole cache, which then is worth nothing to others.
                database.run("PRAGMA shrink_memory")
        return found

    def entries(self, account_id: AccountId, mailbox_id: MailboxId, uids: Sequence[Uid]) -> list[Entry]:
        with self._mail(account_id).take() as database:
            rows = database.rows(
                "SELECT e.uid, e.email_id, m.size_octets, length(m.prefix), m.internal_date, e.saved_at, m.guid, m.thread_id "
                "FROM json_each(?1) j CROSS JOIN entry e ON e.account_id = ?2 AND e.mailbox_id = ?3 AND e.uid = j.value "
                "CROSS JOIN email m ON m.account_id = ?2 AND m.id = e.email_id",
                json_list(sorted(set(uids))), account_id, mailbox_id)
        return [Entry(*row) for row in rows]

    def caches(self, account_id: AccountId, email_ids: Sequence[EmailId]) -> dict[EmailId, bytes]:
        with self._mail(account_id).take() as database:
            return dict(database.rows(
                "SELECT m.id, c.data FROM json_each(?1) j CROSS JOIN email m ON m.account_id = ?2 AND m.id = j.value "
                "CROSS JOIN email_cache c ON c.blob_id = m.blob_id", json_list(email_ids), account_id))

    def read(self, account_id: AccountId, email_id: EmailId, start: int, end: int) -> bytes:
        pool, segments = self._shard(account_id)

        def place(database: Database) -> Row | None:
            row: Row | None = database.row("SELECT m.prefix, b.segment_id, b.offset, b.size_octets FROM email m "
                                           "JOIN blob b ON b.id = m.blob_id WHERE m.account_id = ? AND m.id = ?",
                                           account_id, email_id)
            return row
        with _final():
            return _read_octets(pool, segments, place, start, end)

    def read_many(self, account_id: AccountId, wanted: Sequence[tuple[EmailId, int, int]]) -> list[bytes | None]:
        """One statement for all places. What is not where it stood a moment ago is read anew by itself."""
        pool, segments = self._shard(account_id)
        with pool.take() as database:
            rows = database.rows(
                "SELECT m.id, m.prefix, b.segment_id, b.offset, b.size_octets FROM json_each(?1) j "
                "CROSS JOIN email m ON m.account_id = ?2 AND m.id = j.value CROSS JOIN blob b ON b.id = m.blob_id",
                json_list({email_id for email_id, _, _ in wanted}), account_id)
        places = {row[0]: row[1:] for row in rows}

        def piece(email_id: EmailId, start: int, end: int) -> bytes | None:
            try:
                return _piece(segments, places[email_id], start, end)
            except (KeyError, OSError):
                pass
            try:
                return self.read(account_id, email_id, start, end)
            except OSError:
                return None
        return [piece(*one) for one in wanted]

    def recoverable(self, account_id: AccountId) -> list[Recoverable]:
        with self._mail(account_id).take() as database:
            return read_recoverable(database, account_id)

    def changes(self, account_id: AccountId, since: int) -> list[Change] | None:
        with self._mail(account_id).take() as database, _snapshot(database):
            if not _log_reaches(database, account_id, since):
                return None
            rows = database.rows("SELECT data FROM change WHERE account_id = ? AND modseq > ? ORDER BY modseq", account_id, since)
        return [parse_change(row[0]) for row in rows]

    def vanished(self, account_id: AccountId, mailbox_id: MailboxId, since: int) -> array[int] | None:
        with self._mail(account_id).take() as database, _snapshot(database):
            if not _log_reaches(database, account_id, since):
                return None
            rows = database.rows("SELECT uids FROM vanished WHERE account_id = ? AND mailbox_id = ? AND modseq > ?",
                                 account_id, mailbox_id, since)
        return array("I", sorted(uid for row in rows for uid in _parse_uids(row[0])))

    def unique_ids(self, account_id: AccountId, mailbox_id: MailboxId) -> dict[Uid, str]:
        with self._mail(account_id).take() as database:
            return dict(database.rows("SELECT uid, unique_id FROM pop3_uidl WHERE account_id = ? AND mailbox_id = ?",
                                      account_id, mailbox_id))

    # -- queue --

    def queue_items(self, domain: str = "", limit: int = 1_000) -> list[QueueItem]:
        with self._queue.take() as database, _snapshot(database):
            ids = database.rows("SELECT DISTINCT message_id FROM q_recipient WHERE state NOT IN ('delivered', 'failed') "
                                "AND (?1 = '' OR domain = ?1) ORDER BY message_id LIMIT ?2", domain.lower(), limit)
            return [item for (queue_id,) in ids if (item := _item(database, queue_id))]

    def queue_item(self, queue_id: QueueId) -> QueueItem | None:
        with self._queue.take() as database, _snapshot(database):
            return _item(database, queue_id)

    def read_queued(self, queue_id: QueueId, start: int, end: int) -> bytes:
        def place(database: Database) -> Row | None:
            return _queued_place(database, queue_id)
        with _final():
            return _read_octets(self._queue, self._queue_segments, place, start, end)

    def queued_body(self, queue_id: QueueId, spool_name: str) -> Body:
        """A large body gets `spool_name` as another name in the spool, which the delivery uses up."""
        with _final():
            try:
                return self._queued_body(queue_id, spool_name)
            except FileNotFoundError:       # it went to another place meanwhile, or is gone
                return self._queued_body(queue_id, spool_name)

    def _queued_body(self, queue_id: QueueId, spool_name: str) -> Body:
        with self._queue.take() as database:
            row = _queued_place(database, queue_id)
        if row is None:
            raise FileNotFoundError(f"queue item {queue_id} is gone")
        _, number, offset, size = row
        header = self._queue_segments.header(number, offset)
        if size <= INLINE_OCTETS:
            return Body(size, header.sha256, header.crc32, self._queue_segments.read(number, offset, 0, size))
        self._disk.link(segment_path(self.directory / QUEUE, number), self.directory / SPOOL / spool_name)
        return Body(size, header.sha256, header.crc32, spool=spool_name)


@contextmanager
def _final() -> Iterator[None]:
    """What goes wrong in here is told; a lack of descriptors is no damage, but a store that can't be asked now."""
    try:
        yield
    except OSError as error:
        tell(str(error.filename or "a segment"), refusal_of(error), error)
        if refusal_of(error) is Refusal.NO_FILES:
            raise StoreUnavailable(str(error)) from error
        raise


def _read_view(database: Database, account_id: AccountId, mailbox_id: MailboxId) -> View | None:
    box = database.row("SELECT uid_validity, uid_next, highest_modseq, total FROM mailbox WHERE account_id = ? AND id = ?",
                       account_id, mailbox_id)
    if box is None:
        return None
    uid_validity, uid_next, highest_modseq, total = box
    # As long as they will be from the beginning: arrays that grow beside each other leave holes of their own size.
    columns = array("I", [0]) * total, array("Q", [0]) * total, array("Q", [0]) * total
    count = 0
    while (came := _read_rows(database, account_id, mailbox_id, columns, count)) > 0:
        count += came
    for column in columns:
        del column[count:]
    return View(*columns, uid_validity=uid_validity, uid_next=uid_next, highest_modseq=ModSeq(highest_modseq))


def _read_rows(
    database: Database, account_id: AccountId, mailbox_id: MailboxId, columns: tuple[array[int], ...], count: int
) -> int:
    """The next rows of a view, behind the first `count` that are there; how many came.

    One JSON text a column is the fastest way from rows to arrays. By pieces, because the texts and Python's integers are
    several times the arrays, and no other thread runs while one is parsed.
    """
    texts = database.row(
        "SELECT json_group_array(uid), json_group_array(flags), json_group_array(modseq) FROM "
        "(SELECT uid, flags, modseq FROM entry WHERE account_id = ? AND mailbox_id = ? AND uid > ? ORDER BY uid LIMIT ?)",
        account_id, mailbox_id, columns[0][count - 1] if count else 0, _VIEW_ROWS)
    came = 0
    for column, text in zip(columns, texts, strict=True):
        numbers = _parse_numbers(text)
        came = len(numbers)
        column[count : count + came] = array(column.typecode, numbers)
    return came


@contextmanager
def _snapshot(database: Database) -> Iterator[None]:
    """Several statements that see one state."""
    database.run("BEGIN")
    try:
        yield
    finally:
        if database.in_transaction:
            database.run("COMMIT")


def _mailbox(row: Row) -> Mailbox:
    (account_id, mailbox_id, name, uid_validity, uid_next, highest_modseq, total, unseen, deleted, size_octets,
     special_use, no_select) = row
    return Mailbox(account_id, mailbox_id, name, uid_validity, uid_next, highest_modseq, total, unseen, deleted, size_octets,
                   special_use, bool(no_select))


def _log_reaches(database: Database, account_id: AccountId, since: int) -> bool:
    row = database.row("SELECT log_floor FROM account WHERE id = ?", account_id)
    return row is None or since >= row[0]


def _item(database: Database, queue_id: int) -> QueueItem | None:
    message = database.row(f"SELECT {MESSAGE_COLUMNS} FROM q_message WHERE id = ?", queue_id)
    if message is None:
        return None
    try:
        recipients = database.rows(f"SELECT {RECIPIENT_COLUMNS} FROM q_recipient WHERE message_id = ? ORDER BY id", queue_id)
    except UnicodeDecodeError:      # a text that is none any more: the list of all others is worth more than this one's
        recipients = []
    return shown_item(message, recipients)


def _queued_place(database: Database, queue_id: QueueId) -> Row | None:
    row: Row | None = database.row("SELECT m.prefix, b.segment_id, b.offset, b.size_octets FROM q_message m "
                                   "JOIN blob b ON b.id = m.blob_id WHERE m.id = ?", queue_id)
    return row


def _read_octets(pool: _Pool, segments: SegmentReader, place: Callable[[Database], Row | None], start: int, end: int) -> bytes:
    """Octets start..end of prefix + blob; a segment that went meanwhile is looked up once more."""
    try:
        return _read_once(pool, segments, place, start, end)
    except FileNotFoundError:
        return _read_once(pool, segments, place, start, end)


def _read_once(pool: _Pool, segments: SegmentReader, place: Callable[[Database], Row | None], start: int, end: int) -> bytes:
    with pool.take() as database:
        row = place(database)
    if row is None:
        raise FileNotFoundError("the message is gone")
    return _piece(segments, row, start, end)


def _piece(segments: SegmentReader, place: Row, start: int, end: int) -> bytes:
    """place: prefix, segment, offset of the record, octets of the blob."""
    prefix, number, offset, size = place
    end = min(end, len(prefix) + size)
    blob_start, blob_end = max(0, start - len(prefix)), end - len(prefix)
    octets = segments.read(number, offset, blob_start, blob_end) if blob_start < blob_end else b""
    return bytes(prefix[start:end]) + octets
