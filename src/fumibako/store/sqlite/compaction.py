"""The end of a segment: it thins out, what still lives in it moves on, and its file goes an hour after the last blob left.

Contract: every function does a bounded piece and can be broken off anywhere. A blob's id stays what it was at birth; only
    its place changes. A record moves when its header, CRC32 and SHA-256 are right; a segment with one that isn't is left
    alone, for `check` to name. A file is unlinked, durably, before its row goes: what comes back after a power cut has a row.
Failure: apsw.Error, OSError, SyncFailed; DamagedRecord (an OSError) from `read_piece`.
"""

# ruff: noqa: S608 - what is put into the text of a statement is always a constant of ours

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fumibako.model.ops import Body
from fumibako.store.disk import DiskIO
from fumibako.store.failpoint import reach
from fumibako.store.segment import HEADER_OCTETS, DamagedRecord, RecordHeader, SegmentReader, segment_path, sync_directory
from fumibako.store.sqlite.database import Database
from fumibako.store.sqlite.unit import Unit, json_list

REPLACED_MS = 60 * 60 * 1000        # DESIGN §3: for readers that hold an old place
# Copied at once: a batch waits for no more than that.
PIECE_OCTETS = 2 * 1024 * 1024
_RECORDS = 200
_SEGMENTS = 200                     # looked at in one survey
_COUNTED = 20_000                   # blobs counted in one survey
_UNLINKED = 20

_BORN_HERE = "id BETWEEN ?1 << 32 AND (?1 << 32) | 4294967295 AND segment_id = ?1"
_MOVED_HERE = "segment_id = ?1 AND segment_id <> id >> 32"
_LIVE = (f"SELECT id, offset, size_octets FROM blob WHERE {_BORN_HERE} "
         f"UNION ALL SELECT id, offset, size_octets FROM blob WHERE {_MOVED_HERE}")


@dataclass(frozen=True, slots=True)
class Survey:
    """thin: a segment of which more than half is dead, 0 where none was met; marked: how many were found empty."""

    thin: int
    marked: int


@dataclass(frozen=True, slots=True)
class Moving:
    """A record on its way: the blob and what its new record says."""

    blob: int
    header: RecordHeader
    octets: bytes


def end_of_records(database: Database, number: int) -> int:
    """Where the last living record of a segment ends."""
    return int(database.row(f"SELECT coalesce(max(offset + size_octets + {HEADER_OCTETS}), 0) FROM ({_LIVE})", number)[0])


def survey(unit: Unit, disk: DiskIO, directory: Path, now_ms: int, *, compacting: bool) -> Survey:
    """Look at the next sealed segments: mark those in which nothing lives; compacting: stop at the first that is thin."""
    database, empty, thin, counted = unit.database, [], 0, 0
    rows = database.rows("SELECT id, own FROM segment WHERE id > ? AND sealed = 1 AND replaced_ms = 0 ORDER BY id LIMIT ?",
                         unit.surveyed, _SEGMENTS)
    for number, own in rows:
        blobs, octets = database.row(
            f"SELECT count(*), coalesce(sum(size_octets + {HEADER_OCTETS}), 0) FROM ({_LIVE})", number)
        counted += blobs
        if not blobs:
            empty.append(number)
        elif compacting and not own and number not in unit.left_alone and 2 * octets < _size_octets(disk, directory, number):
            thin = number
            break
        unit.surveyed = number
        if counted >= _COUNTED:
            break
    else:
        unit.surveyed = unit.surveyed if len(rows) == _SEGMENTS else 0
    if empty:
        _mark(database, empty, now_ms)
    return Survey(thin, len(empty))


def _size_octets(disk: DiskIO, directory: Path, number: int) -> int:
    try:
        return disk.size_octets(segment_path(directory, number))
    except FileNotFoundError:
        return 0        # lost: there is nothing to copy, and `check` names it


def _is_alive(database: Database, number: int) -> bool:
    return database.row(f"{_LIVE} LIMIT 1", number) is not None


def _mark(database: Database, numbers: Sequence[int], now_ms: int) -> None:
    database.run("UPDATE segment SET replaced_ms = ? WHERE id IN (SELECT value FROM json_each(?))",
                 max(1, now_ms), json_list(numbers))


def read_piece(unit: Unit, reader: SegmentReader, number: int) -> list[Moving]:
    """The next records that live in a segment, each as it was stored."""
    piece: list[Moving] = []
    octets = 0
    for blob, offset, size in unit.database.rows(f"{_LIVE} LIMIT {_RECORDS}", number):
        piece.append(_read_record(reader, number, blob, offset, size))
        octets += size + HEADER_OCTETS
        if octets >= PIECE_OCTETS:
            break
    return piece


def _read_record(reader: SegmentReader, number: int, blob: int, offset: int, size: int) -> Moving:
    header, octets = reader.header(number, offset), reader.read(number, offset, 0, size)
    if header.size_octets != size or zlib.crc32(octets) != header.crc32 or hashlib.sha256(octets).digest() != header.sha256:
        raise DamagedRecord(f"the octets of blob {blob} are not those that were stored")
    return Moving(blob, header, octets)


def move_piece(unit: Unit, number: int, piece: Sequence[Moving], now_ms: int) -> None:
    """Note the records in the segment being filled and write down their places: within the unit's transaction."""
    assert unit.segments is not None
    for one in piece:
        body = Body(one.header.size_octets, one.header.sha256, one.header.crc32, one.octets)
        place = unit.segments.append(body, one.header.trace_id, one.header.owners)
        unit.database.run("UPDATE blob SET segment_id = ?, offset = ? WHERE id = ?", place >> 32, place & 0xFFFFFFFF, one.blob)
    if not _is_alive(unit.database, number):
        _mark(unit.database, [number], now_ms)
    reach("blobs-moved")


def unlink_replaced(database: Database, disk: DiskIO, directory: Path, now_ms: int) -> int:
    """Unlink files nobody should read any more; a reader that holds one open finishes in peace. How many went."""
    old = [row[0] for row in database.rows("SELECT id FROM segment WHERE replaced_ms > 0 AND replaced_ms <= ? LIMIT ?",
                                           now_ms - REPLACED_MS, _UNLINKED)]
    # Nothing lives there by construction; whether it is so is asked where it would cost mail.
    gone = [number for number in old if not _is_alive(database, number)]
    if gone:
        reach("segment-condemned")
        for number in gone:
            try:
                disk.unlink(segment_path(directory, number))
            except FileNotFoundError:
                pass        # a crash came between file and row
        reach("segment-unlinked")
        sync_directory(disk, directory)
        reach("unlink-synced")
        database.run("DELETE FROM segment WHERE id IN (SELECT value FROM json_each(?))", json_list(gone))
    return len(gone)
