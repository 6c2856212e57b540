"""From a shard's outbox to the queue, exactly once.

Contract: a row is written in the transaction of the delivery that causes it. The queue's commit comes first, then the rows go;
    a crash between is harmless, because a row that is moved again is recognised by its trace_id (DESIGN §3 Outbox).
    A large body gets a second name instead of being copied.
Failure: as the engine's commits. A row whose body or envelope can't be read stays, is logged once and holds up nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fumibako.model.ids import AccountId, TraceId
from fumibako.model.ops import Body, Enqueue, Outgoing
from fumibako.store.disk import DiskIO
from fumibako.store.failpoint import reach
from fumibako.store.segment import DamagedRecord, SegmentReader, segment_path
from fumibako.store.sqlite.database import Database, Row
from fumibako.store.sqlite.queue import enqueue, is_known, parse_envelope
from fumibako.store.sqlite.unit import Unit, json_list, pack, release_blob

_ROWS = ("SELECT id, trace_id, envelope, prefix, blob_id, created_ms FROM outbox "
         "WHERE id NOT IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT ?")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outbox:
    """directory: of the shard's segments; spool: of DIR; commit: a transaction, StoreRefused when the disk is full."""

    queue: Unit
    shard: Unit
    directory: Path
    disk: DiskIO
    spool: Path
    commit: Callable[[Unit, int], None]


def put_outgoing(database: Database, account_id: AccountId, outgoing: Iterable[Outgoing], blob: int, now_ms: int) -> None:
    """Rows that each hold one of the blob's references. account_id: whose delivery causes them."""
    database.many("INSERT INTO outbox(account_id, trace_id, envelope, prefix, blob_id, created_ms) VALUES(?, ?, ?, ?, ?, ?)",
                  [(account_id, one.trace_id, pack(one.envelope), one.prefix, blob, now_ms) for one in outgoing])


def drain_outbox(outbox: Outbox, limit: int, now_ms: int) -> int:
    """The queue first, then the rows; how many went."""
    queue, shard = outbox.queue, outbox.shard
    rows = shard.database.rows(_ROWS, json_list(shard.stuck), limit)
    if not rows:
        return 0
    queue.begin()
    taken = [row for row in rows if _take(outbox, row, now_ms)]
    outbox.commit(queue, now_ms)
    reach("mid-outbox")
    shard.begin()
    _delete(shard.database, taken)
    outbox.commit(shard, now_ms)
    return len(taken)


def _take(outbox: Outbox, row: Row, now_ms: int) -> bool:
    """Have the queue know the row; False when its body or its envelope can't be read."""
    row_id, trace_id, envelope, prefix, blob, created_ms = row
    if is_known(outbox.queue.database, trace_id):
        return True
    try:
        handed_over, body = parse_envelope(envelope), _body(outbox, blob)
    except (DamagedRecord, FileNotFoundError, msgspec.DecodeError) as error:
        _log.error("%s: outbox row %d can't be read, nobody gets it: %s", outbox.shard.name, row_id, error)
        outbox.shard.stuck.add(row_id)
        return False
    enqueue(outbox.queue, Enqueue(TraceId(trace_id), handed_over, prefix, body, created_ms), now_ms)
    return True


def _body(outbox: Outbox, blob: int) -> Body:
    place = outbox.shard.database.row("SELECT segment_id, offset, size_octets, own FROM blob "
                                      "JOIN segment ON segment.id = segment_id WHERE blob.id = ?", blob)
    if place is None:
        raise DamagedRecord(f"blob {blob} has no row")
    number, offset, size, own = place
    reader = SegmentReader(outbox.disk, outbox.directory)
    try:
        header = reader.header(number, offset)
        if own:
            name = _second_name(outbox, segment_path(outbox.directory, number))
            return Body(size, header.sha256, header.crc32, spool=name)
        return Body(size, header.sha256, header.crc32, reader.read(number, offset, 0, size))
    finally:
        reader.close()


def _second_name(outbox: Outbox, segment: Path) -> str:
    """In the spool, from where the queue takes it over; what an earlier try left there is of no use to anybody."""
    name = f"outbox-{segment.parent.parent.name}-{segment.stem}"
    try:
        outbox.disk.unlink(outbox.spool / name)
    except FileNotFoundError:
        pass
    outbox.disk.link(segment, outbox.spool / name)
    return name


def _delete(database: Database, rows: list[Row]) -> None:
    for row_id, _, _, _, blob, _ in rows:
        database.run("DELETE FROM outbox WHERE id = ?", row_id)
        if release_blob(database, blob):
            database.run("DELETE FROM email_cache WHERE blob_id = ?", blob)
