"""One database with its segments as the writer sees it: the place where an operation is executed.

Contract: an operation's function gets the Unit, the operation and the time, changes rows through it and returns its
    result and what is to be told. It raises StoreRefused to say no; the engine then undoes everything it did.
Failure: StoreRefused from begin; apsw.Error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import apsw
import msgspec

from fumibako.model.change import Notice
from fumibako.model.ops import Body, Refusal, Refused, Result
from fumibako.store.base import StoreRefused
from fumibako.store.segment import BlobId, SegmentWriter
from fumibako.store.sqlite.database import Database
from fumibako.store.trouble import tell

Executed = tuple[Result, tuple[Notice, ...]]

pack = msgspec.msgpack.Encoder().encode


@dataclass(slots=True)
class Unit:
    """name: as in messages to the administrator; segments: None for control.db; active: a transaction is open;
    members: indexes of the operations in it, kinds: theirs; failed: what every further operation of this batch
    gets; tidied, surveyed: the account and the segment that housekeeping saw last; left_alone: segments with a record
    that can't be read, so that compaction leaves them; stuck: ids of outbox rows that can't be moved."""

    name: str
    database: Database
    segments: SegmentWriter | None = None
    active: bool = False
    members: list[int] = field(default_factory=list)
    kinds: set[type] = field(default_factory=set)
    failed: Refused | None = None
    tidied: int = 0
    surveyed: int = 0
    left_alone: set[int] = field(default_factory=set)
    stuck: set[int] = field(default_factory=set)

    def begin(self) -> None:
        """StoreRefused: a program that is none of ours holds the database."""
        begin(self.database)
        self.active = True

    def end(self) -> None:
        """Its transaction is over, well or not."""
        self.active = False
        self.members.clear()
        self.kinds.clear()


def begin(database: Database) -> None:
    """BEGIN IMMEDIATE; StoreRefused where a program that is none of ours holds the database."""
    try:
        database.run("BEGIN IMMEDIATE")
    except apsw.BusyError as error:
        tell(str(database.path), Refusal.LOCKED, error)
        raise StoreRefused(Refusal.LOCKED, f"{database.path}: {error}") from None


def add_blob(unit: Unit, body: Body, trace_id: bytes, owners: Sequence[int], refs: int) -> BlobId:
    """Note the body's record and write its row."""
    assert unit.segments is not None
    blob = unit.segments.append(body, trace_id, owners)
    unit.database.run("INSERT INTO blob VALUES(?, ?, ?, ?, ?)", blob, blob >> 32, blob & 0xFFFFFFFF, body.size_octets, refs)
    return blob


def release_blob(database: Database, blob: int) -> bool:
    """One reference less; True when it was the last one and the row is gone."""
    database.run("UPDATE blob SET refs = refs - 1 WHERE id = ?", blob)
    database.run("DELETE FROM blob WHERE id = ? AND refs <= 0", blob)
    return database.changes > 0


def json_list(numbers: Iterable[int]) -> str:
    """Integers for json_each(?)."""
    return "[" + ",".join(map(str, numbers)) + "]"
