"""May this program open that data directory? Asked before the server's processes start, where an answer still has a reader.

Contract: only reads; the server may be up, and what an `init` that was cut off left is fine: the next start completes it.
Failure: SchemaError; DirectoryDamaged for a database that is missing or can't be read.
"""

from __future__ import annotations

from pathlib import Path

import apsw

from fumibako.store.disk import DiskIO
from fumibako.store.schema import verify
from fumibako.store.sqlite.database import open_reader
from fumibako.store.sqlite.engine import DirectoryDamaged
from fumibako.store.sqlite.layout import CONTROL, QUEUE


def demand_usable(directory: Path, disk: DiskIO | None = None) -> None:
    """Every database is there and of a schema that this program knows."""
    disk = disk or DiskIO()
    shards = _look(directory / CONTROL, "control", disk)
    if shards:
        _look(directory / f"{QUEUE}.db", "queue", disk)
    for shard in shards:
        _look(directory / shard / "mail.db", "mail", disk)


def _look(path: Path, kind: str, disk: DiskIO) -> list[str]:
    """Of control.db: the directories of its shards."""
    try:
        if not disk.size_octets(path):
            return []       # the engine knows whether it may be
        database = open_reader(path, disk.vfs)
        try:
            version = verify(database, kind)
            return [row[0] for row in database.rows("SELECT directory FROM shard")] if version and kind == "control" else []
        finally:
            database.close()
    except FileNotFoundError:
        raise DirectoryDamaged(f"{path} is missing: restore it from a backup") from None
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, UnicodeDecodeError) as error:
        raise DirectoryDamaged(f"{path} cannot be read: {error}; fumibako check names what is damaged") from error
