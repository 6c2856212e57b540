"""From a shard's outbox to the queue, exactly once.

Contract: the queue's commit comes first, then the rows go; a crash between is harmless, because a row that is moved
    again is recognised by its trace_id (DESIGN §3 Outbox).
Failure: as the engine's commits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fumibako.model.ids import TraceId
from fumibako.model.ops import Body, Counted, DrainOutbox, Enqueue, Refusal, Refused, Result
from fumibako.store.failpoint import reach
from fumibako.store.segment import SegmentReader
from fumibako.store.sqlite.queue import enqueue, parse_envelope
from fumibako.store.sqlite.unit import Unit, release_blob


@dataclass(frozen=True, slots=True)
class Outboxes:
    """shards: each with the reader of its bodies; commit: a unit's transaction, False when the disk is full."""

    queue: Unit
    shards: list[tuple[Unit, SegmentReader]]
    commit: Callable[[Unit, int], bool]


def drain_outbox(outboxes: Outboxes, operation: DrainOutbox, now_ms: int) -> tuple[Result, tuple[()]]:
    moved, queue, commit = 0, outboxes.queue, outboxes.commit
    for shard, reader in outboxes.shards:
        rows = shard.database.rows("SELECT id, trace_id, envelope, prefix, blob_id, created_ms FROM outbox ORDER BY id LIMIT ?",
                                   operation.limit - moved)
        if not rows:
            continue
        _begin(queue)
        for _, trace_id, envelope, prefix, blob, created_ms in rows:
            body = _body(shard, reader, blob)
            enqueue(queue, Enqueue(TraceId(trace_id), parse_envelope(envelope), prefix, body, created_ms), now_ms)
        if not commit(queue, now_ms):
            return Refused(Refusal.DISK_FULL, queue.name), ()
        reach("mid-outbox")
        _begin(shard)
        for row in rows:
            shard.database.run("DELETE FROM outbox WHERE id = ?", row[0])
            release_blob(shard.database, row[4])
        if not commit(shard, now_ms):
            return Refused(Refusal.DISK_FULL, shard.name), ()
        moved += len(rows)
    return Counted(moved), ()


def _begin(unit: Unit) -> None:
    unit.database.run("BEGIN IMMEDIATE")
    unit.active = True


def _body(shard: Unit, reader: SegmentReader, blob: int) -> Body:
    number, offset, size = shard.database.row("SELECT segment_id, offset, size_octets FROM blob WHERE id = ?", blob)
    header = reader.header(number, offset)
    return Body(size, header.sha256, header.crc32, reader.read(number, offset, 0, size))
