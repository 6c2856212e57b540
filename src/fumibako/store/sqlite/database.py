"""A connection to one database file, with the few ways in which this store talks SQL.

Contract: apsw only (DESIGN §3: its bundled SQLite has the WAL-reset fix). The writer is WAL and synchronous=FULL;
    readers open mode=ro and so can neither write nor checkpoint.
Failure: apsw.Error.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apsw

from fumibako.store.trouble import passing_refusal

Row = tuple[Any, ...]

_STATEMENTS = 256
_WRITES = frozenset({apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_SHMSIZE, apsw.SQLITE_IOERR_SHMMAP, apsw.SQLITE_IOERR_SHMOPEN,
                     apsw.SQLITE_IOERR_TRUNCATE})
_LOG_OCTETS = 1 << 20
_LOCKED_MS = 1_000      # nobody but us may write; a program that does all the same is given this long
_WRITER = ("journal_mode = WAL", "synchronous = FULL", "cache_size = -65536", "temp_store = MEMORY",
           "wal_autocheckpoint = 2000")


class Database:
    """One connection. Statements are prepared once and found again by their text."""

    __slots__ = ("_cursor", "_execute", "connection", "path")

    def __init__(self, path: Path, connection: apsw.Connection) -> None:
        self.path, self.connection = path, connection
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute

    def rows(self, sql: str, *values: Any) -> list[Any]:
        return self._execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> Any:
        """The first row, or None."""
        found = self._execute(sql, values).fetchall()
        return found[0] if found else None

    def run(self, sql: str, *values: Any) -> None:
        self._execute(sql, values)

    def run_named(self, sql: str, values: dict[str, Any]) -> None:
        """values may hold more names than the statement asks for."""
        self._execute(sql, values)

    def many(self, sql: str, rows: Iterable[Row]) -> None:
        self._cursor.executemany(sql, rows)

    def script(self, sql: str) -> None:
        self._execute(sql)

    @property
    def changes(self) -> int:
        """Rows changed by the last statement."""
        return self.connection.changes()

    @property
    def system_errno(self) -> int:
        """Of the last call on its files that failed."""
        return self.connection.system_errno

    @property
    def in_transaction(self) -> bool:
        return self.connection.in_transaction

    def close(self) -> None:
        self.connection.close()

    def keep_log(self) -> None:
        """After a failure: `close` then leaves the log to the next one who opens it. To merge it would sync a second time."""
        self.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)

    def abandon(self) -> None:
        """Close after a failure."""
        self.keep_log()
        self.connection.close()


def may_pass(error: BaseException) -> bool:
    """Whether the errno of an error of SQLite may be one that passes and leaves everything as it was.

    SQLite says FULL for ENOSPC of a write alone: a quota, or no room for the index of a log, is an I/O error with an errno. A
    sync is not among them: whatever its errno, nobody knows what the disk holds.
    """
    return isinstance(error, apsw.FullError | apsw.CantOpenError) or (
        isinstance(error, apsw.IOError) and getattr(error, "extendedresult", 0) in _WRITES)


def as_os_error(error: BaseException, database: Database) -> BaseException:
    """What passes as the kernel said it, with the file's name; else the error as it is. Before `database` is closed."""
    number = errno.ENOSPC if isinstance(error, apsw.FullError) else database.system_errno
    if may_pass(error) and passing_refusal(number):
        return OSError(number, os.strerror(number), str(database.path))
    return error


def open_writer(path: Path, vfs: str = "") -> Database:
    """Makes the file where it is missing."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, vfs=vfs or None,
                                 statementcachesize=_STATEMENTS)
    database = Database(path, connection)
    connection.set_busy_timeout(_LOCKED_MS)
    try:
        for setting in _WRITER:
            database.run(f"PRAGMA {setting}")
    except BaseException as error:
        error = as_os_error(error, database)
        database.abandon()
        raise error from None
    _keep_room(path)
    return database


def _keep_room(path: Path) -> None:
    """The log gets blocks before it needs them: on a disk that others fill, flags, expunging and outcomes go on for a while.

    What stands behind the last commit of a log means nothing. No lock of SQLite's is on this file, so it may be closed.
    """
    with contextlib.suppress(OSError):      # a file system that can't, or a disk that is full already
        descriptor = os.open(f"{path}-wal", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.posix_fallocate(descriptor, 0, _LOG_OCTETS)
        finally:
            os.close(descriptor)


def open_reader(path: Path, vfs: str = "") -> Database:
    connection = apsw.Connection(f"{path.absolute().as_uri()}?mode=ro", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
                                 vfs=vfs or None, statementcachesize=_STATEMENTS)
    database = Database(path, connection)
    database.connection.set_busy_timeout(5_000)
    database.run("PRAGMA query_only = ON")
    database.run("PRAGMA cache_size = -16384")
    return database
