"""The writer: the one owner of a data directory, executing operations in batches with one commit a database.

Contract: `execute` runs each operation in a savepoint of its database's transaction, makes the segments durable, then
    commits (DESIGN §3: segment fdatasync, COMMIT, reply). What it returns is durable. Whoever holds the Engine holds
    DIR/LOCK; all calls come from one thread.
Failure: a refusal of our own undoes its operation alone. When SQLite has ended a transaction, every operation in it
    fails: by DISK_FULL or the like where that passes (store.trouble), else by EngineFailed, after which the process must go
    (exit 70) and start again through recovery; a failed fsync is never repeated. DirectoryInUse: another process holds the lock.
    DirectoryDamaged, SchemaError: the databases can't be opened.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import apsw

from fumibako.model import ops
from fumibako.model.account import AccountStatus
from fumibako.model.change import Notice, Rang
from fumibako.model.frames import Command, MakeSecret, PutCache
from fumibako.model.ids import AccountId, MailboxId
from fumibako.model.ops import Counted, Done, Refusal, Refused, Result
from fumibako.store.base import StoreRefused, StoreUnavailable
from fumibako.store.disk import DiskIO
from fumibako.store.failpoint import reach
from fumibako.store.room import has_room, reserve_octets
from fumibako.store.schema import migrate
from fumibako.store.segment import SegmentReader, SegmentWriter, SyncFailed, segment_numbers, settle_names
from fumibako.store.sqlite import compaction, directory, housekeeping, mail, mailboxes, queue, recovery
from fumibako.store.sqlite.database import Database, as_os_error, may_pass, open_writer
from fumibako.store.sqlite.layout import CONTROL, LOCK, QUEUE, SPOOL, make_directories, shard_directory
from fumibako.store.sqlite.outbox import Outbox, drain_outbox
from fumibako.store.sqlite.unit import Executed, Unit
from fumibako.store.trouble import passing_refusal, tell

_log = logging.getLogger(__name__)

SHARD_ACCOUNTS = 2_000
SHARD_OCTETS = 20 * 1024**3
_TIDIED_AT_ONCE = 4     # shards looked at for something to tidy

_DAMAGE = (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, UnicodeDecodeError)

Outcome = tuple[Result | StoreUnavailable, tuple[Notice, ...]]
_Executor = Callable[[Unit, Any, int], Executed]


class DirectoryInUse(Exception):
    """Another process holds DIR/LOCK."""


class DirectoryDamaged(Exception):
    """A database is missing or cannot be read. Nothing was made in its place: an empty one would look like lost mail."""


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
    ops.Move: mail.move, ops.Expunge: mail.expunge, ops.Recover: recovery.recover, ops.OpenAccount: mailboxes.open_account,
    ops.CreateMailbox: mailboxes.create_mailbox, ops.DeleteMailbox: mailboxes.delete_mailbox,
    ops.RenameMailbox: mailboxes.rename_mailbox, ops.Subscribe: mailboxes.subscribe, PutCache: _put_cache,
}
_QUEUE: dict[type, _Executor] = {
    ops.Enqueue: queue.enqueue, ops.Lease: queue.lease, ops.Settle: queue.settle, ops.ChangeQueue: queue.change_queue,
    ops.ReclaimLeases: queue.reclaim_leases, ops.ShiftQueue: queue.shift_queue,
}
_DIRECTORY: dict[type, _Executor] = {
    ops.AddDomain: directory.add_domain, ops.RemoveDomain: directory.remove_domain,
    ops.Publish: directory.publish, ops.AddAccount: directory.add_account,
    ops.SetPassword: directory.set_password, ops.SetAccountStatus: directory.set_account_status,
    ops.RemoveAccount: directory.remove_account, ops.AddHold: directory.add_hold, ops.RemoveHold: directory.remove_hold,
    ops.AddAlias: directory.add_alias, ops.RemoveAlias: directory.remove_alias,
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
        self._shards: dict[int, Unit] = {}
        try:
            self._open_all(now_ms)
        except _DAMAGE as error:
            self.disk.close(self._lock)
            raise DirectoryDamaged(f"{directory} cannot be opened: {error}; fumibako check names what is damaged") from error
        except apsw.BusyError as error:
            self.disk.close(self._lock)
            raise DirectoryInUse(f"a database of {directory} is locked by another program: end it") from error
        except (apsw.Error, SyncFailed) as error:
            self.disk.close(self._lock)
            raise EngineFailed(f"{directory}: {error}") from error
        except BaseException:
            self.disk.close(self._lock)
            raise
        reach("recovered")
        self._places: dict[AccountId, int] = {}     # account -> shard; this process alone changes it
        self._free_octets = 0
        self._tidied = 0                            # the unit that housekeeping saw last
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
            unit.database.keep_log()

    def _units(self) -> list[Unit]:
        """In the order in which they commit."""
        return [self._control, self._queue, *self._shards.values()]

    # -- opening --

    def _open_all(self, now_ms: int) -> None:
        """The shard's row is the last thing a new directory gets: with it everything else is there, or was lost."""
        directory = self.directory
        if any(self._is_there(directory / name) for name in (f"{QUEUE}.db", f"{shard_directory(1)}/mail.db")):
            self._demand(directory / CONTROL)
        self._control = Unit("control.db", self._open(directory / CONTROL, "control", now_ms))
        shards = self._control.database.rows("SELECT id, directory FROM shard ORDER BY id")
        for name in [f"{QUEUE}.db", *(f"{name}/mail.db" for _, name in shards)] if shards else []:
            self._demand(directory / name)
        self._queue = Unit("queue.db", self._open(directory / f"{QUEUE}.db", "queue", now_ms))
        self._queue.segments = self._open_segments(self._queue.database, directory / QUEUE)
        for shard_id, name in shards:
            self._open_shard(shard_id, name, now_ms)
        if not shards:
            self._new_shard(1, now_ms)

    def _is_there(self, path: Path) -> bool:
        try:
            return self.disk.size_octets(path) > 0
        except FileNotFoundError:
            return False

    def _demand(self, path: Path) -> None:
        if not self._is_there(path):
            raise DirectoryDamaged(f"{path} is missing or empty: restore it from a backup")

    def _open(self, path: Path, kind: str, now_ms: int) -> Database:
        self.disk.close(self.disk.open_write(path))     # SQLite would make it readable for others
        database = open_writer(path, self.disk.vfs)
        reach("database-opened")
        try:
            migrate(database, kind, now_ms)
        except BaseException as error:
            error = as_os_error(error, database)
            database.abandon()
            raise error from None
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

    def _new_shard(self, shard_id: int, now_ms: int) -> None:
        """The files first, then the row: a crash or a refusal between leaves an empty shard that the next try takes over."""
        name = shard_directory(shard_id)
        if shard_id not in self._shards:
            make_directories(self.disk, self.directory, name)
            reach("shard-directory")
            self._open_shard(shard_id, name, now_ms)
            reach("shard-opened")
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
            unit = self._unit_for(operation)
            self._check_space(unit, operation)
        except StoreRefused as refused:
            return Refused(refused.refusal, refused.detail), ()
        if unit.failed:
            return unit.failed, ()
        try:
            if not unit.active:
                _begin(unit)
                reach("batch-begun")
            outcome = self._in_savepoint(unit, operation, now_ms)
        except _Stopped as stopped:
            self._fail(unit, stopped.result, outcomes)
            return stopped.result, ()
        unit.members.append(index)
        unit.kinds.add(type(operation))
        return outcome

    def _in_savepoint(self, unit: Unit, operation: Command, now_ms: int) -> Outcome:
        database = unit.database
        mark = unit.segments.mark() if unit.segments else None
        database.run("SAVEPOINT operation")
        try:
            if isinstance(operation, ops.AddAccount):
                self._make_room(now_ms)
            outcome: Outcome = _EXECUTORS[type(operation)](unit, operation, now_ms)
            database.run("RELEASE operation")
            reach("operation-done")
            return outcome
        except StoreRefused as refused:
            outcome = Refused(refused.refusal, refused.detail), ()
        except Exception as error:
            _raise_if_fatal(error, unit)
            outcome = _undone_alone(operation, error), ()
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
            reach("before-commit", unit.kinds)
            unit.database.run("COMMIT")
            reach("after-commit", unit.kinds)
        except (apsw.Error, OSError) as error:
            try:
                _raise_if_fatal(error, unit)
            except _Stopped as stopped:
                self._fail(unit, stopped.result, outcomes)
                return
            raise
        if unit.segments:
            unit.segments.keep()
        unit.end()

    def _fail(self, unit: Unit, result: Refused, outcomes: list[Outcome]) -> None:
        """Undo the unit's transaction; all its operations of this batch, also those that would come yet, get `result`."""
        unit.failed = result
        if unit.database.in_transaction:
            unit.database.run("ROLLBACK")
        if unit.segments:
            unit.segments.drop()
        for index in unit.members:
            outcomes[index] = result, ()
        unit.end()
        self._places.clear()

    def _drain(self, operation: Command, now_ms: int) -> Outcome:
        """Shard by shard; one whose disk is full holds up no other."""
        assert isinstance(operation, ops.DrainOutbox)
        moved, full = 0, None
        for shard_id, unit in self._shards.items():
            outbox = Outbox(self._queue, unit, self._segments_of(shard_id), self.disk, self.directory / SPOOL, self._commit_alone)
            try:
                moved += drain_outbox(outbox, operation.limit - moved, now_ms)
            except StoreRefused as refused:
                full = Refused(refused.refusal, refused.detail)
            except (apsw.Error, OSError) as error:
                full = self._undone(error)
        return full or Counted(moved), (Rang(),) if moved or full else ()

    def _undone(self, error: Exception) -> Refused:
        """What was under way outside a batch is undone where that passes, a full disk say; raises where it is anything else."""
        struck = next((unit for unit in self._units() if passing_refusal(unit.database.system_errno)), self._control)
        try:
            _raise_if_fatal(error, struck)
        except _Stopped as stopped:
            for unit in self._units():
                if unit.active:
                    self._fail(unit, stopped.result, [])
            return stopped.result
        raise error

    def _commit_alone(self, unit: Unit, now_ms: int, kind: type = ops.DrainOutbox) -> None:
        """Commit a transaction outside a batch; StoreRefused when the disk is full. kind: what it is for."""
        outcomes: list[Outcome] = [(Done(), ())]
        unit.members.append(0)
        unit.kinds.add(kind)
        self._commit(unit, now_ms, outcomes)
        if isinstance(outcomes[0][0], Refused):
            raise StoreRefused(outcomes[0][0].refusal, f"{unit.name}: {outcomes[0][0].detail}")

    # -- where an operation belongs --

    def _unit_for(self, operation: Command) -> Unit:
        kind = type(operation)
        if kind in _MAIL:
            return self._shards[self._shard_of(_accounts_of(operation))]
        if kind in _QUEUE:
            return self._queue
        if isinstance(operation, ops.RemoveAccount | ops.SetAccountStatus):
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
        """DESIGN §3: a new shard at 2,000 accounts or 20 GB of mail.db; its row is part of the account's own operation."""
        newest, accounts = self._control.database.row(
            "SELECT max(id), (SELECT count(*) FROM principal WHERE shard = (SELECT max(id) FROM shard)) FROM shard")
        if accounts < SHARD_ACCOUNTS and self.disk.size_octets(self._shards[newest].database.path) < SHARD_OCTETS:
            return
        free_octets = self.disk.free_octets(self.directory)
        if not has_room(free_octets, self._reserve_octets, 0):
            raise StoreRefused(Refusal.DISK_FULL, f"{free_octets} octets are free: too few for another shard")
        try:
            self._new_shard(newest + 1, now_ms)
        except (OSError, apsw.Error) as error:
            if _refusal(error, self._control):
                raise
            raise EngineFailed(f"shard {newest + 1}: {error}") from error

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

    def housekeep(self, now_ms: int, *, pinned: bool = False) -> bool:
        """A short piece of the work that nobody waits for: purging, trimming, compacting, unlinking.

        pinned: a backup reads the segments, so no file of theirs goes. True: something was done, there may be more.
        """
        try:
            housekeeping.tidy_queue(self._queue, now_ms)
            housekeeping.tidy_spool(self.disk, self.directory / SPOOL, now_ms)
            units = [self._queue, *self._shards.values()]
            for _ in units[:_TIDIED_AT_ONCE]:
                self._tidied = (self._tidied + 1) % len(units)
                if self._tidy(units[self._tidied], now_ms, pinned=pinned):
                    return True
        except StoreRefused as refused:
            _log.warning("nothing is tidied: %s", refused.detail)
        except (apsw.Error, SyncFailed, OSError) as error:
            try:
                _log.warning("nothing is tidied: %s", self._undone(error).detail)
            except (apsw.Error, OSError):
                raise EngineFailed(f"{type(error).__name__}: {error}") from error
        return False

    def _tidy(self, unit: Unit, now_ms: int, *, pinned: bool) -> bool:
        """One piece of one kind, the first there is. True when there was one."""
        is_queue = unit is self._queue
        if not is_queue and housekeeping.tidy_shard(unit, self._control.database, now_ms):
            return True
        directory = self.directory / QUEUE if is_queue else unit.database.path.parent / "seg"
        # Bodies of the queue come and go in order: whole segments die, none needs compaction.
        found = compaction.survey(unit, self.disk, directory, now_ms, compacting=not is_queue)
        if found.marked:
            return True
        if found.thin:
            if self._move_piece(unit, directory, found.thin, now_ms):
                return True
            unit.surveyed = found.thin      # those behind it get their turn
        return not pinned and compaction.unlink_replaced(unit.database, self.disk, directory, now_ms) > 0

    def _move_piece(self, unit: Unit, directory: Path, number: int, now_ms: int) -> bool:
        if not has_room(self.disk.free_octets(self.directory), self._reserve_octets, compaction.PIECE_OCTETS):
            return False
        reader = SegmentReader(self.disk, directory)
        try:
            piece = compaction.read_piece(unit, reader, number)
        except OSError as error:
            if passing_refusal(error.errno or 0):
                raise
            unit.left_alone.add(number)
            _log.error("segment %d of %s is not compacted: %s; fumibako check names what is damaged", number, unit.name, error)
            return False
        finally:
            reader.close()
        unit.begin()
        compaction.move_piece(unit, number, piece, now_ms)
        self._commit_alone(unit, now_ms, compaction.Moving)
        return True


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
        database.run("INSERT INTO segment(id, own, sealed, created_ms) VALUES(?, ?, ?, ?)", number, int(own), int(own), now_ms)
    for number in segments.sealed:
        database.run("UPDATE segment SET sealed = 1 WHERE id = ?", number)


def _refusal(error: Exception, unit: Unit) -> Refusal | None:
    """Why, where that passes and leaves everything as it was; None for everything else. unit: whose SQLite it was, if any."""
    match error:
        case apsw.FullError():
            return Refusal.DISK_FULL
        case apsw.BusyError():
            return Refusal.LOCKED
        case apsw.Error() if may_pass(error):
            return passing_refusal(unit.database.system_errno)
        case OSError():
            return passing_refusal(error.errno or 0)
    return None


def _begin(unit: Unit) -> None:
    """The others of this batch don't wait for the lock once more."""
    try:
        unit.begin()
    except StoreRefused as refused:
        raise _Stopped(Refused(refused.refusal, refused.detail)) from None
    except apsw.Error as error:
        _raise_if_fatal(error, unit)
        raise


def _raise_if_fatal(error: Exception, unit: Unit) -> None:
    """_Stopped where it passes, EngineFailed where nothing is sure any more; returns for everything else."""
    if refusal := _refusal(error, unit):
        place = str(error.filename) if isinstance(error, OSError) and error.filename else str(unit.database.path)
        tell(place, refusal, error)
        raise _Stopped(Refused(refusal, f"{unit.name}: {error}")) from error
    if isinstance(error, apsw.IOError | apsw.CorruptError | apsw.NotADBError | apsw.NoMemError | SyncFailed | EngineFailed):
        raise EngineFailed(f"{unit.name}: {type(error).__name__}: {error}") from error


def _undone_alone(operation: Command, error: Exception) -> Refused | StoreUnavailable:
    """A bug, a value SQLite refuses, a file that fails: this operation is undone, the others must not suffer for it."""
    if isinstance(error, OSError) and error.filename and not isinstance(error, FileNotFoundError):
        tell(str(error.filename), Refusal.DISK_ERROR, error)
        return Refused(Refusal.DISK_ERROR, str(error))
    _log.exception("%s failed", type(operation).__name__)
    return StoreUnavailable(f"{type(error).__name__}: {error}")


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
