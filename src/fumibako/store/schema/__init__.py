"""The tables of each database file, as numbered steps that are applied once and never edited.

Contract: a step's SHA-256 is kept with it; user_version is the number of the last step, written in its transaction: a
    migration that is broken off goes on behind the last step that is whole.
Failure: SchemaError in plain words where the file was written by a newer program or by altered steps.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from pathlib import Path

import apsw

from fumibako.store.failpoint import reach
from fumibako.store.sqlite.database import Database

_MIGRATION = "CREATE TABLE migration(number INTEGER PRIMARY KEY, checksum TEXT NOT NULL, at_ms INTEGER NOT NULL) STRICT"


class SchemaError(Exception):
    """The database does not fit this program."""


class NewerSchema(SchemaError):
    """path was written by a newer program: schema `found`, and this program knows `known` at most."""

    def __init__(self, path: Path, found: int, known: int) -> None:
        super().__init__(f"{path} was written by a newer Fumibako (schema {found}, this one knows {known}); "
                         "going back is not possible: install the newer version again or restore a backup")
        self.path, self.found, self.known = path, found, known


def steps(kind: str) -> list[tuple[int, str]]:
    """kind: "control", "queue" or "mail"; (number, SQL) in order."""
    found = []
    for file in resources.files(__name__).iterdir():
        name, _, number = file.name.removesuffix(".sql").rpartition("-")
        if name == kind and file.name.endswith(".sql"):
            found.append((int(number), file.read_text("utf-8")))
    return sorted(found)


def migrate(database: Database, kind: str, now_ms: int) -> None:
    """Bring a database to the newest step, each step in a transaction of its own."""
    known, version = steps(kind), verify(database, kind)
    for number, sql in known[version:]:
        database.run("BEGIN IMMEDIATE")
        try:
            if number == 1:
                database.run(_MIGRATION)
            database.script(sql)
            database.run("INSERT INTO migration VALUES(?, ?, ?)", number, _checksum(sql), now_ms)
            database.run(f"PRAGMA user_version = {number}")
            reach("mid-migration")
            database.run("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.run("ROLLBACK")
            raise


def verify(database: Database, kind: str) -> int:
    """The number of the database's last step; SchemaError where this program must not touch it."""
    known = steps(kind)
    version: int = database.row("PRAGMA user_version")[0]
    if version > known[-1][0]:
        raise NewerSchema(database.path, version, known[-1][0])
    if version:
        checksums = dict(database.rows("SELECT number, checksum FROM migration"))
        for number, sql in known[:version]:
            if checksums.get(number) != _checksum(sql):
                raise SchemaError(f"step {number} of {database.path} is not the one this Fumibako knows: "
                                  "it was written by another build; use that one, or restore a backup")
    return version


@cache
def shape(kind: str, version: int) -> frozenset[tuple[str, ...]]:
    """(type, name, table, SQL) of everything in a database of that version, as far as SQL of ours made it."""
    database = Database(Path(":memory:"), apsw.Connection(":memory:"))
    try:
        for sql in (_MIGRATION, *(sql for _, sql in steps(kind)[:version])):
            database.script(sql)
        return frozenset(shape_of(database))
    finally:
        database.close()


def shape_of(database: Database) -> set[tuple[str, ...]]:
    return set(database.rows("SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL"))


def _checksum(sql: str) -> str:
    return hashlib.sha256(sql.encode()).hexdigest()
