"""What a backup reads of the databases: all of them as they were at one moment, while the writer goes on.

Contract: `begin` opens a read transaction on every database; called while nothing commits (Freeze, or DIR/LOCK held) they
    are all of one moment, and stay so until `close`: a copy in steps never starts again, because the transaction holds the
    place in the log. The log of a database can't be cut meanwhile.
Failure: BackupFault, OSError; apsw.Error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import apsw

from fumibako.store.disk import DiskIO
from fumibako.store.manifest import plain_errors
from fumibako.store.segment import HEADER_OCTETS
from fumibako.store.sqlite.database import Database, open_reader
from fumibako.store.sqlite.layout import CONTROL, QUEUE, shard_directory

_STEP_PAGES = 1_024


@dataclass(frozen=True, slots=True)
class KeptSegment:
    """A segment in which something lives. end: behind its last record; sealed: its file doesn't change any more."""

    number: int
    end: int
    sealed: bool


class Snapshot:
    """One database. name: relative to DIR; segments_name: the directory of its bodies, "" for none."""

    def __init__(self, directory: Path, name: str, segments_name: str, disk: DiskIO) -> None:
        self.name, self.segments_name = name, segments_name
        self._vfs = disk.vfs
        self._path = directory / name
        with plain_errors(self._path):
            self._database = open_reader(self._path, disk.vfs)

    def begin(self) -> None:
        with plain_errors(self._path):
            self._database.run("BEGIN")
            self._database.row("SELECT count(*) FROM sqlite_schema")    # the transaction begins with the first read

    def end(self) -> None:
        if self._database.in_transaction:
            self._database.run("COMMIT")

    def count(self, table: str) -> int:
        return int(self._database.row(f"SELECT count(*) FROM {table}")[0])  # noqa: S608 - our own names

    @property
    def size_octets(self) -> int:
        return int(self._database.row("PRAGMA page_count")[0] * self._database.row("PRAGMA page_size")[0])

    def shards(self) -> list[int]:
        """Of control.db."""
        with plain_errors(self._path):
            return [row[0] for row in self._database.rows("SELECT id FROM shard ORDER BY id")]

    def segments(self) -> list[KeptSegment]:
        """A segment without a body is not kept: its rows go at the restore, and its number is never used again anyway."""
        if not self.segments_name:
            return []
        rows = self._database.rows(
            f"SELECT b.segment_id, max(b.offset + {HEADER_OCTETS} + b.size_octets), s.sealed "  # noqa: S608
            "FROM blob b JOIN segment s ON s.id = b.segment_id GROUP BY b.segment_id ORDER BY b.segment_id")
        return [KeptSegment(number, end, bool(sealed)) for number, end, sealed in rows]

    def copy(self, target: Path, progress: Callable[[int], None]) -> None:
        """As a file of its own without a log. target: an empty file. progress: octets done since the last call."""
        connection = apsw.Connection(str(target), flags=apsw.SQLITE_OPEN_READWRITE, vfs=self._vfs or None)
        try:
            Database(target, connection).run("PRAGMA synchronous = OFF")    # whoever asked for the copy makes it durable
            page_octets = self._database.row("PRAGMA page_size")[0]
            with connection.backup("main", self._database.connection, "main") as backup:
                before = 0
                while not backup.done:
                    backup.step(_STEP_PAGES)
                    done = backup.page_count - backup.remaining
                    progress((done - before) * page_octets)
                    before = done
            # A reader of the backup then needs no log and no right to write beside it.
            Database(target, connection).run("PRAGMA journal_mode = DELETE")
        finally:
            connection.close()

    def close(self) -> None:
        self._database.close()


class Snapshots:
    """Every database of a data directory."""

    def __init__(self, directory: Path, disk: DiskIO) -> None:
        self._directory, self._disk = directory, disk
        self.control = Snapshot(directory, CONTROL, "", disk)
        self.queue = Snapshot(directory, f"{QUEUE}.db", QUEUE, disk)
        self.shards: dict[int, Snapshot] = {}
        self._open_shards()

    def _open_shards(self) -> None:
        for shard_id in self.control.shards():
            if shard_id not in self.shards:
                name = shard_directory(shard_id)
                self.shards[shard_id] = Snapshot(self._directory, f"{name}/mail.db", f"{name}/seg", self._disk)

    def all(self) -> list[Snapshot]:
        return [self.control, self.queue, *self.shards.values()]

    def begin(self) -> None:
        """One moment for all, as long as nothing commits meanwhile."""
        self.control.begin()
        self._open_shards()     # one may have come since they were opened
        for snapshot in self.all()[1:]:
            snapshot.begin()

    def end(self) -> None:
        """Give the moment up; `begin` may come again."""
        for snapshot in self.all():
            snapshot.end()

    def close(self) -> None:
        for snapshot in self.all():
            snapshot.close()
