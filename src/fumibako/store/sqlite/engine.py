"""The writer: the one owner of a data directory, executing operations in batches with one commit a database.

Contract: `execute` runs each operation in a savepoint of its database's transaction, makes the segments durable, then
    commits (DESIGN §3: segment fdatasync, COMMIT, reply). What it returns is durable. Whoever holds the Engine holds
    DIR/LOCK; all calls come from one thread.
Failure: a refusal of our own undoes its operation alone. When SQLite has ended a transaction, every operation in it
    fails: by DISK_FULL where the disk is full, else by EngineFailed, after which the process must go (exit 70) and
    start again through recovery; a failed fsync is never repeated. DirectoryInUse: another process holds the lock.
"""

from __future__ import annotations

import errno
import fcntl
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import apsw

from fumibako.model import ops
from fumibako.model.account import AccountStatus
from fumibako.model.change import Notice
from fumibako.model.frames import Command, MakeSecret, PutCache
from fumibako.model.ids import AccountId, MailboxId
from fumibako.model.ops import Done, Refusal, Refused, Result
from fumibako.store.base import StoreRefused, StoreUnavailable
from fumibako.store.disk import DiskIO
from fumibako.store.failpoint import reach
from fumibako.store.room import has_room, reserve_octets
from fumibako.store.schema import migrate
from fumibako.store.segment import SegmentReader, SegmentWriter, SyncFailed, segment_numbers, settle_names
from fumibako.store.sqlite import directory, housekeeping, mail, mailboxes, queue
from fumibako.store.sqlite.database import Database, open_writer
from fumibako.store.sqlite.layout import CONTROL, LOCK, QUEUE, SPOOL, make_directories, shard_directory
from fumibako.store.sqlite.outbox import Outboxes, drain_outbox
from fumibako.store.sqlite.unit import Executed, Unit

_log = logging.getLogger(__name__)

SHARD_ACCOUNTS = 2_000
SHARD_OCTETS = 20 * 1024**3

Outcome = tuple[Result | StoreUnavailable, tuple[Notice, ...]]
_Executor = Callable[[Unit, Any, int], Executed]


class DirectoryInUse(Exception):
    """Another process holds DIR/LOCK."""


class EngineFailed(Exception):
    """The disk or a database failed: what it holds is unknown until the next start."""


class _Stopped(Exception):
    """The transaction of a unit is gone; `result` is what its operations get."""

    def __init__(self, result: Refused) -> None:
        self.result = result


def _put_cache(unit: Unit, operation: PutCache, now_ms: int) -> Executed:
    unit.database.run("INSERT OR REPLACE INTO email_cache SELECT blob_id, ? FROM email WHERE account_id = ? AND id = ?",
                      operation.cache, operation.account_id, operation.email_id)
    return Done(), ()


_MAIL: dict[type, _Executor] = {
    ops.Deliver: mail.deliver, ops.Append: mail.append, ops.SetFlags: mail.set_flags, ops.Copy: mail.copy,
    ops.Move: mail.move, ops.Expunge: mail.expunge, ops.OpenAccount: mailboxes.open_account,
    ops.CreateMailbox: mailboxes.create_mailbox, ops.DeleteMailbox: mailboxes.delete_mailbox,
    ops.RenameMailbox: mailboxes.rename_mailbox, ops.Subscribe: mailboxes.subscribe, PutCache: _put_cache,
}
_QUEUE: dict[type, _Executor] = {
    ops.Enqueue: queue.enqueue, ops.Lease: queue.lease, ops.Settle: queue.settle, ops.ChangeQueue: queue.change_queue,
    ops.ReclaimLeases: queue.reclaim_leases,
}
_DIRECTORY: dict[type, _Executor] = {
    ops.AddDomain: directory.add_domain, ops.RemoveDomain: directory.remove_domain, ops.AddAccount: directory.add_account,
    ops.SetPassword: directory.set_password, ops.SetAccountStatus: directory.set_account_status,
    ops.RemoveAccount: directory.remove_account, ops.AddAlias: directory.add_alias, ops.RemoveAlias: directory.remove_alias,
    ops.SetSetting: directory.set_setting, ops.UnsetSetting: directory.unset_setting, MakeSecret: directory.make_secret,
}
_EXECUTORS = _MAIL | _QUEUE | _DIRECTORY


def create(directory: Path, now_ms: int, disk: DiskIO | None = None) -> None:
    """Make the files of a data directory where they are missing; idempotent."""
    Engine(directory, disk or DiskIO(), now_ms).close()


class Engine:
    """directory: DIR; it and its databases are made where they are missing."""

    def __init__(self, directory: Path, disk: DiskIO | None = None, now_ms: int = 0) -> None:
        self.directory, self.disk = directory, disk or DiskIO()
        make_directories(self.disk, directory)
        self._lock = _lock(self.disk, directory / LOCK)
        try:
            self._control = Unit("control.db", self._open(directory / CONTROL, "control", now_ms))
            self._queue = Unit("queue.db", self._open(directory / f"{QUEUE}.db", "queue", now_ms))
            self._queue.segments = self._open_segments(self._queue.database, directory / QUEUE)
            self._shards: dict[int, Unit] = {}
            for shard_id, name in self._control.database.rows("SELECT id, directory FROM shard ORDER BY id"):
                self._open_shard(shard_id, name, now_ms)
            if not self._shards:
                self._new_shard(now_ms)
        except BaseException:
            self.disk.close(self._lock)
            raise
        reach("recovered")
        self._places: dict[AccountId, int] = {}     # account -> shard; this process alone changes it
        self._free_octets = 0
        self._reserve_octets = reserve_octets(self.disk, directory)

    def close(self) -> None:
        for unit in self._units():
            try:
                unit.database.close()
            except apsw.Error as error:     # after a failure: its log stays and is read by the next start
                _log.error("%s is not closed in order: %s", unit.name, error)
            if unit.segments:
                unit.segments.close()
        self.disk.close(self._lock)

    def give_up(self) -> None:
        """After EngineFailed: `close` then leaves the logs to the next start. To merge them would sync a second time."""
        for unit in self._units():
            unit.database.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)

    def _units(self) -> list[Unit]:
        """In the order in which they commit."""
        return [self._control, self._queue, *self._shards.values()]

    # -- opening --

    def _open(self, path: Path, kind: str, now_ms: int) -> Database:
        self.disk.close(self.disk.open_write(path))     # SQLite would make it readable for others
        database = open_writer(path, self.disk.vfs)
        migrate(database, kind, now_ms)
        return database

    def _open_segments(self, database: Database, directory: Path) -> SegmentWriter:
        """Segments left open by the last process are cut behind their last record and take no more."""
        settle_names(self.disk, directory, {row[0] for row in database.rows("SELECT id FROM segment")})
        numbers = segment_numbers(self.disk, directory)
        housekeeping.seal_segments(database, self.disk, directory, set(numbers))
        used = database.row("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'segment'")[0]
        return SegmentWriter(self.disk, directory, self.directory / SPOOL, max([used, *numbers]) + 1)

    def _open_shard(self, shard_id: int, name: str, now_ms: int) -> None:
        place = self.directory / name
        unit = Unit(f"{name}/mail.db", self._open(place / "mail.db", "mail", now_ms))
        unit.segments = self._open_segments(unit.database, place / "seg")
        self._shards[shard_id] = unit

    def _segments_of(self, shard_id: int) -> Path:
        return self.directory / shard_directory(shard_id) / "seg"

    def _new_shard(self, now_ms: int) -> None:
        """The files first, then the row: a crash between leaves an empty shard that the next try takes over."""
        shard_id = max(self._shards, default=0) + 1
        name = shard_directory(shard_id)
        make_directories(self.disk, self.directory, name)
        self._open_shard(shard_id, name, now_ms)
        self._control.database.run("INSERT INTO shard VALUES(?, ?, ?)", shard_id, name, now_ms)

    # -- a batch --

    def execute(self, batch: Sequence[Command], now_ms: int) -> list[Outcome]:
        """Outcomes in the order of the operations; notices in the order in which they are to be told."""
        outcomes: list[Outcome] = [(Done(), ())] * len(batch)
        self._free_octets = -1
        for unit in self._units():
            unit.failed = None
        drains = []
        try:
            for index, operation in enumerate(batch):
                if isinstance(operation, ops.DrainOutbox):
                    drains.append(index)
                else:
                    outcomes[index] = self._run(index, operation, now_ms, outcomes)
            for unit in self._units():
                if unit.active:
                    self._commit(unit, now_ms, outcomes)
            for index in drains:
                outcomes[index] = self._drain(batch[index], now_ms)
        except (apsw.Error, SyncFailed, OSError) as error:
            raise EngineFailed(f"{type(error).__name__}: {error}") from error
        return outcomes

    def _run(self, index: int, operation: Command, now_ms: int, outcomes: list[Outcome]) -> Outcome:
        """One operation in its savepoint; a full disk takes the earlier ones of its transaction along."""
        try:
            unit = self._unit_for(operation, now_ms)
            self._check_space(unit, operation)
        except StoreRefused as refused:
            return Refused(refused.refusal, refused.detail), ()
        if unit.failed:
            return unit.failed, ()
        if not unit.active:
            unit.database.run("BEGIN IMMEDIATE")
            unit.active = True
            reach("batch-begun")
        try:
            outcome = self._in_savepoint(unit, operation, now_ms)
        except _Stopped as stopped:
            self._fail(unit, stopped.result, outcomes)
            return stopped.result, ()
        unit.members.append(index)
        return outcome

    def _in_savepoint(self, unit: Unit, operation: Command, now_ms: int) -> Outcome:
        database = unit.database
        mark = unit.segments.mark() if unit.segments else None
        database.run("SAVEPOINT operation")
        try:
            outcome: Outcome = _EXECUTORS[type(operation)](unit, operation, now_ms)
            database.run("RELEASE operation")
            reach("operation-done")
            return outcome
        except StoreRefused as refused:
            outcome = Refused(refused.refusal, refused.detail), ()
        except Exception as error:
            _raise_if_fatal(error)
            # A bug or a value SQLite refuses: this operation is undone, the others must not suffer for it.
            _log.exception("%s failed", type(operation).__name__)
            outcome = StoreUnavailable(f"{type(error).__name__}: {error}"), ()
        if not database.in_transaction:
            raise EngineFailed(f"{unit.name}: the transaction is gone")
        database.run("ROLLBACK TO operation")
        database.run("RELEASE operation")
        if unit.segments and mark:
            unit.segments.rewind(mark)
        return outcome

    def _commit(self, unit: Unit, now_ms: int, outcomes: list[Outcome]) -> None:
        try:
            if unit.segments:
                _register(unit.database, unit.segments, now_ms)
                unit.segments.flush()
            reach("before-commit")
            unit.database.run("COMMIT")
            reach("after-commit")
        except (apsw.Error, OSError) as error:
            try:
                _raise_if_fatal(error)
            except _Stopped as stopped:
                self._fail(unit, stopped.result, outcomes)
                return
            raise
        if unit.segments:
            unit.segments.keep()
        unit.active = False
        unit.members.clear()

    def _fail(self, unit: Unit, result: Refused, outcomes: list[Outcome]) -> None:
        """Undo the unit's transaction; all its operations of this batch, also those that would come yet, get `result`."""
        unit.failed = result
        if unit.database.in_transaction:
            unit.database.run("ROLLBACK")
        if unit.segments:
            unit.segments.drop()
        for index in unit.members:
            outcomes[index] = result, ()
        unit.members.clear()
        unit.active = False
        self._places.clear()

    def _drain(self, operation: Command, now_ms: int) -> Outcome:
        assert isinstance(operation, ops.DrainOutbox)
        shards = [(unit, SegmentReader(self.disk, self._segments_of(shard_id))) for shard_id, unit in self._shards.items()]
        try:
            return drain_outbox(Outboxes(self._queue, shards, self._commit_alone), operation, now_ms)
        except (apsw.Error, OSError) as error:
            return self._undone(error), ()

    def _undone(self, error: Exception) -> Refused:
        """What was under way outside a batch is undone where the disk is full; raises where it is anything else."""
        try:
            _raise_if_fatal(error)
        except _Stopped as stopped:
            for unit in self._units():
                if unit.active:
                    self._fail(unit, stopped.result, [])
            return stopped.result
        raise error

    def _commit_alone(self, unit: Unit, now_ms: int) -> bool:
        """Commit a transaction outside a batch; False when the disk is full."""
        outcomes: list[Outcome] = [(Done(), ())]
        unit.members.append(0)
        self._commit(unit, now_ms, outcomes)
        return isinstance(outcomes[0][0], Done)

    # -- where an operation belongs --

    def _unit_for(self, operation: Command, now_ms: int) -> Unit:
        kind = type(operation)
        if kind in _MAIL:
            return self._shards[self._shard_of(_accounts_of(operation))]
        if kind in _QUEUE:
            return self._queue
        if isinstance(operation, ops.AddAccount):
            self._make_room(now_ms)
        elif isinstance(operation, ops.RemoveAccount | ops.SetAccountStatus):
            self._places.clear()
        return self._control

    def _shard_of(self, account_ids: Iterable[AccountId]) -> int:
        shards = {self._place(account_id) for account_id in account_ids}
        if len(shards) != 1:
            raise StoreRefused(Refusal.NOT_ALLOWED, "the recipients live in more than one shard")
        return shards.pop()

    def _place(self, account_id: AccountId) -> int:
        place = self._places.get(account_id)
        if place is None:
            row = self._control.database.row("SELECT shard, status FROM principal WHERE id = ?", account_id)
            if row is None:
                raise StoreRefused(Refusal.NO_SUCH_ACCOUNT, f"account {account_id}")
            if row[1] == AccountStatus.FROZEN.value:
                raise StoreRefused(Refusal.FROZEN, f"account {account_id}")
            place = self._places[account_id] = int(row[0])
        return place

    def _make_room(self, now_ms: int) -> None:
        """DESIGN §3: a new shard at 2,000 accounts or 20 GB of mail.db."""
        newest = max(self._shards)
        accounts = self._control.database.row("SELECT count(*) FROM principal WHERE shard = ?", newest)[0]
        if accounts >= SHARD_ACCOUNTS or self.disk.size_octets(self._shards[newest].database.path) >= SHARD_OCTETS:
            self._new_shard(now_ms)

    def _check_space(self, unit: Unit, operation: Command) -> None:
        size = sum(body.size_octets for body in _bodies_of(operation))
        if size:
            if self._free_octets < 0:       # once a batch
                self._free_octets = self.disk.free_octets(self.directory)
            if not has_room(self._free_octets, self._reserve_octets, size):
                raise StoreRefused(Refusal.DISK_FULL, f"{self._free_octets} octets are free")
            self._free_octets -= size

    # -- beside the batches --

    def uid_next(self, account_id: AccountId, mailbox_id: MailboxId) -> int:
        """What \\Recent is counted from; StoreRefused when the mailbox is gone."""
        unit = self._shards[self._place(account_id)]
        row = unit.database.row("SELECT uid_next FROM mailbox WHERE account_id = ? AND id = ?", account_id, mailbox_id)
        if row is None:
            raise StoreRefused(Refusal.NO_SUCH_MAILBOX, f"account {account_id} mailbox {mailbox_id}")
        return int(row[0])

    def housekeep(self, now_ms: int, *, pinned: bool = False) -> None:
        """A short piece of the work that nobody waits for: purging, trimming, unlinking; call it when idle.

        pinned: a backup reads the segments, so that their files stay as they are.
        """
        try:
            housekeeping.tidy_queue(self._queue, now_ms)
            for unit in self._shards.values():
                housekeeping.tidy_shard(unit, self._control.database, now_ms)
            if not pinned:
                housekeeping.tidy_segments(self._queue, self.disk, self.directory / QUEUE)
                for shard_id, unit in self._shards.items():
                    housekeeping.tidy_segments(unit, self.disk, self._segments_of(shard_id))
            housekeeping.tidy_spool(self.disk, self.directory / SPOOL, now_ms)
        except (apsw.Error, SyncFailed, OSError) as error:
            try:
                refused = self._undone(error)
            except (apsw.Error, OSError):
                raise EngineFailed(f"{type(error).__name__}: {error}") from error
            _log.warning("nothing is tidied: %s", refused.detail)


def _lock(disk: DiskIO, path: Path) -> int:
    descriptor = disk.open_write(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        disk.close(descriptor)
        raise DirectoryInUse(f"{path.parent} is in use by another process: stop it, or give another --data DIR") from error
    return descriptor


def _register(database: Database, segments: SegmentWriter, now_ms: int) -> None:
    """Rows of new segments go with the first transaction that uses them."""
    for number, own in segments.unregistered:
        database.run("INSERT INTO segment VALUES(?, ?, ?, ?)", number, int(own), int(own), now_ms)
    for number in segments.sealed:
        database.run("UPDATE segment SET sealed = 1 WHERE id = ?", number)


def _raise_if_fatal(error: Exception) -> None:
    """_Stopped where the disk is full, EngineFailed where nothing is sure any more; returns for everything else."""
    full = isinstance(error, apsw.FullError) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT))
    if full:
        raise _Stopped(Refused(Refusal.DISK_FULL, str(error))) from error
    if isinstance(error, apsw.IOError | apsw.CorruptError | apsw.NotADBError | apsw.NoMemError | SyncFailed | EngineFailed):
        raise EngineFailed(f"{type(error).__name__}: {error}") from error


def _accounts_of(operation: Any) -> list[AccountId]:
    if isinstance(operation, ops.Deliver):
        return [recipient.account_id for recipient in operation.recipients]
    return [operation.account_id]


def _bodies_of(operation: Command) -> list[ops.Body]:
    match operation:
        case ops.Deliver(body=body) | ops.Enqueue(body=body):
            return [body]
        case ops.Append(messages=messages):
            return [message.body for message in messages]
        case ops.Settle(notifications=notifications):
            return [notification.body for notification in notifications]
        case _:
            return []
