"""A connection to one database file, with the few ways in which this store talks SQL.

Contract: apsw only (DESIGN §3: its bundled SQLite has the WAL-reset fix). The writer is WAL and synchronous=FULL;
    readers open mode=ro and so can neither write nor checkpoint.
Failure: apsw.Error.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apsw

Row = tuple[Any, ...]

_STATEMENTS = 256
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


def open_writer(path: Path, vfs: str = "") -> Database:
    """Makes the file where it is missing."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, vfs=vfs or None,
                                 statementcachesize=_STATEMENTS)
    database = Database(path, connection)
    try:
        for setting in _WRITER:
            database.run(f"PRAGMA {setting}")
    except BaseException:
        database.abandon()
        raise
    return database


def open_reader(path: Path, vfs: str = "") -> Database:
    connection = apsw.Connection(f"{path.absolute().as_uri()}?mode=ro", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
                                 vfs=vfs or None, statementcachesize=_STATEMENTS)
    database = Database(path, connection)
    database.connection.set_busy_timeout(5_000)
    database.run("PRAGMA query_only = ON")
    database.run("PRAGMA cache_size = -16384")
    return database
