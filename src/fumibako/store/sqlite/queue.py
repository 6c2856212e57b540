"""Queue operations: enqueue, lease, settle, and the administrator's hand.

Specification: RFC 5321 §4.5.4.1 (sending strategy); DESIGN §6.
Contract: see store.sqlite.unit. A lease is due_ms := now + lease, so a crash needs no clean-up: the recipient becomes due
    again, at the latest when the lease runs out, and one that ended unsettled counts as a crash. A message goes, with its
    blob, when its last open recipient ends; its trace_id stays known so that a repeated hand-over is recognised.
Failure: StoreRefused.
"""

# ruff: noqa: S608 - what is put into the text of a statement is always a constant of ours

from __future__ import annotations

import logging
from itertools import chain, zip_longest

import msgspec

from fumibako.model.address import domain_of
from fumibako.model.change import Rang
from fumibako.model.envelope import Envelope
from fumibako.model.ids import QueueId, TraceId
from fumibako.model.ops import (
    ChangeQueue,
    Counted,
    Done,
    Enqueue,
    Lease,
    Leased,
    QueueAction,
    Queued,
    RecipientOutcome,
    ReclaimLeases,
    Settle,
    ShiftQueue,
)
from fumibako.model.queue import (
    LIFETIME_MS,
    LONGEST_WAIT_MS,
    MAX_CRASHES,
    Outcome,
    OutcomeKind,
    QueuedRecipient,
    QueueItem,
    RecipientState,
)
from fumibako.store.failpoint import reach
from fumibako.store.sqlite.database import Database, Row
from fumibako.store.sqlite.unit import Executed, Unit, add_blob, pack, release_blob

_log = logging.getLogger("fumibako.store")

RECIPIENT_COLUMNS = ("id, forward_path, domain, state, due_ms, attempts, notify, original_recipient, last, crashes, delay_warned")
MESSAGE_COLUMNS = "id, trace_id, envelope, prefix, size_octets, created_ms, expires_ms"
_OPEN = "state NOT IN ('delivered', 'failed')"
_SET_ASIDE = "UPDATE q_recipient SET state = 'poison', leased = 0 WHERE message_id = ? AND state = 'queued'"
# due_ms 0: the administrator wants it tried at once, though its destination rests.
_NOT_BUSY = "(domain NOT IN (SELECT value FROM json_each(?)) OR due_ms = 0)"

parse_envelope = msgspec.msgpack.Decoder(Envelope).decode
parse_outcome = msgspec.msgpack.Decoder(Outcome).decode


def queue_item(message: Row, recipients: list[Row]) -> QueueItem:
    """A row of MESSAGE_COLUMNS and rows of RECIPIENT_COLUMNS as a value."""
    queue_id, trace_id, envelope, prefix, size, created, expires = message
    found = tuple(
        QueuedRecipient(id_, path, domain, _state(state), due, attempts, notify, original,
                        parse_outcome(last) if last is not None else None, crashes, bool(warned))
        for id_, path, domain, state, due, attempts, notify, original, last, crashes, warned in recipients)
    return QueueItem(QueueId(queue_id), TraceId(trace_id), parse_envelope(envelope), prefix, size, created, expires, found)


def shown_item(message: Row, recipients: list[Row]) -> QueueItem:
    """For people: of a message that can't be read any more, what is left of it."""
    try:
        return queue_item(message, recipients)
    except ValueError:
        left = [(*row[:3], RecipientState.POISON, *row[4:8], None, *row[9:]) for row in recipients]
        return queue_item((*message[:2], pack(Envelope("", ())), *message[3:]), left)


def _state(word: str) -> RecipientState:
    """A damaged word is for the administrator to see (`check` finds it), and no reason to hide all other mail."""
    try:
        return RecipientState(word)
    except ValueError:
        return RecipientState.POISON


def enqueue(unit: Unit, operation: Enqueue, now_ms: int) -> Executed:
    database = unit.database
    if is_known(database, operation.trace_id):
        known = database.row("SELECT id FROM q_message WHERE trace_id = ?", operation.trace_id)
        return Queued(QueueId(known[0] if known else 0), duplicate=True), ()
    blob = add_blob(unit, operation.body, operation.trace_id, (), 1)
    return Queued(insert_message(database, operation, blob)), () if operation.held else (Rang(),)


def is_known(database: Database, trace_id: bytes) -> bool:
    """Whether a message of that trace_id waits here or has been through."""
    return database.row("SELECT 1 FROM q_message WHERE trace_id = ?1 UNION ALL SELECT 1 FROM q_finished WHERE trace_id = ?1",
                        trace_id) is not None


def insert_message(database: Database, operation: Enqueue, blob: int) -> QueueId:
    envelope = pack(msgspec.structs.replace(operation.envelope, recipients=()))
    database.run("INSERT INTO q_message(trace_id, envelope, prefix, blob_id, size_octets, created_ms, expires_ms) "
                 "VALUES(?, ?, ?, ?, ?, ?, ?)", operation.trace_id, envelope, operation.prefix, blob,
                 len(operation.prefix) + operation.body.size_octets, operation.created_ms, operation.created_ms + LIFETIME_MS)
    queue_id = database.connection.last_insert_rowid()
    state = RecipientState.HELD if operation.held else RecipientState.QUEUED
    database.many("INSERT INTO q_recipient(message_id, forward_path, domain, state, due_ms, notify, original_recipient) "
                  "VALUES(?, ?, ?, ?, ?, ?, ?)",
                  [(queue_id, one.forward_path, _domain(one.forward_path), state.value, operation.created_ms, one.notify,
                    one.original_recipient) for one in operation.envelope.recipients])
    return QueueId(queue_id)


def _domain(forward_path: str) -> str:
    try:
        return domain_of(forward_path)
    except ValueError:
        return ""       # "postmaster" alone is a valid recipient (RFC 5321 §4.5.1)


# -- leases --


def lease(unit: Unit, operation: Lease, now_ms: int) -> Executed:
    database, busy = unit.database, msgspec.json.encode(operation.busy_domains).decode()
    items = []
    for queue_id in _due(database, operation, busy):
        try:
            recipients = _take(database, queue_id, operation, busy)
            if recipients:
                message = database.row(f"SELECT {MESSAGE_COLUMNS} FROM q_message WHERE id = ?", queue_id)
                items.append(queue_item(message, recipients))
                reach("mid-lease")
        except ValueError as error:     # damaged: it waits for the administrator, and holds up nobody else's mail
            _log.error("message %d of the queue can't be read and is set aside: %s", queue_id, error)
            database.run(_SET_ASIDE, queue_id)
    return Leased(tuple(items), _next_due_ms(database, busy)), ()


def _due(database: Database, operation: Lease, busy: str) -> list[int]:
    """Messages in the order they are taken: half newest first, so that fresh mail never waits behind a backlog; a
    quarter each for the oldest fresh ones and for those tried before, so that neither waits for ever."""
    def lane(tried: int, order: str) -> list[int]:
        rows = database.rows(
            "SELECT DISTINCT message_id FROM (SELECT message_id FROM q_recipient WHERE state = 'queued' "
            f"AND (attempts > 0) = ? AND due_ms <= ? AND {_NOT_BUSY} ORDER BY due_ms {order}, "
            f"id {order} LIMIT ?)", tried, operation.now_ms, busy, operation.limit)
        return [row[0] for row in rows]

    newest, oldest, retries = lane(0, "DESC"), lane(0, "ASC"), lane(1, "ASC")
    turns = zip_longest(newest[0::2], retries, newest[1::2], oldest)
    wanted = dict.fromkeys(queue_id for queue_id in chain.from_iterable(turns) if queue_id is not None)
    return list(wanted)[:operation.limit]


def _take(database: Database, queue_id: int, operation: Lease, busy: str) -> list[Row]:
    """Lease the due recipients of a message; those in hand during too many crashes are set aside instead."""
    due = f"message_id = ? AND state = 'queued' AND due_ms <= ? AND {_NOT_BUSY}"
    bound = (queue_id, operation.now_ms, busy)
    database.run(f"UPDATE q_recipient SET crashes = crashes + 1 WHERE leased AND {due}", *bound)
    database.run(f"UPDATE q_recipient SET state = 'poison', leased = 0 WHERE crashes >= ? AND {due}", MAX_CRASHES, *bound)
    return database.rows(f"UPDATE q_recipient SET due_ms = ?, leased = 1 WHERE {due} RETURNING {RECIPIENT_COLUMNS}",
                         operation.now_ms + operation.lease_ms, *bound)


def reclaim_leases(unit: Unit, operation: ReclaimLeases, now_ms: int) -> Executed:
    """Whether it was in hand during a crash is counted by the lease that follows."""
    unit.database.run("UPDATE q_recipient SET due_ms = ?1 WHERE state = 'queued' AND (leased AND due_ms > ?1 OR due_ms > ?2)",
                      operation.now_ms, operation.now_ms + LONGEST_WAIT_MS)
    return Counted(unit.database.changes), ()


def shift_queue(unit: Unit, operation: ShiftQueue, now_ms: int) -> Executed:
    """What bears a time of the last moments came after the jump, and stays. So does a due time that the clock could not give
    before it: an outcome has just been recorded."""
    database, by, now = unit.database, operation.by_ms, operation.now_ms
    fresh = "BETWEEN ?2 - ?3 AND ?2"
    database.run("UPDATE q_message SET created_ms = created_ms + ?1, expires_ms = expires_ms + ?1 "
                 f"WHERE created_ms NOT {fresh}", by, now, operation.unsure_ms)
    given = "due_ms <= ?2 - ?1 + ?4" if by > 0 else "due_ms > ?2"
    database.run(f"UPDATE q_recipient SET due_ms = min(due_ms + ?1, ?2 + ?4) WHERE state IN ('queued', 'held') AND due_ms > 0 "
                 f"AND due_ms NOT {fresh} AND {given}", by, now, operation.unsure_ms, LONGEST_WAIT_MS)
    return Counted(database.changes), ()


def _next_due_ms(database: Database, busy: str) -> int:
    return min((row[0] for tried in (0, 1) if (row := database.row(
        "SELECT due_ms FROM q_recipient WHERE state = 'queued' AND (attempts > 0) = ? "
        "AND domain NOT IN (SELECT value FROM json_each(?)) ORDER BY due_ms LIMIT 1", tried, busy))), default=0)


# -- outcomes --


def settle(unit: Unit, operation: Settle, now_ms: int) -> Executed:
    """The outcomes and the notifications they cause stand or fall together."""
    recorded = sum([_record(unit.database, operation.queue_id, outcome) for outcome in operation.outcomes])
    notifications = operation.notifications if recorded else ()
    reach("mid-settle")
    for notification in notifications:
        enqueue(unit, notification, now_ms)
    finish(unit.database, operation.queue_id, now_ms)
    return Done(), (Rang(),) if notifications else ()


def _record(database: Database, queue_id: QueueId, settled: RecipientOutcome) -> int:
    """How many rows it changed: 0 or 1. What has ended has ended; an attempt that was counted is not counted again."""
    kind, last = settled.outcome.kind, pack(settled.outcome)
    if kind is OutcomeKind.DEFERRED:
        # The administrator may have held it meanwhile: state stays as it is.
        database.run("UPDATE q_recipient SET attempts = attempts + 1, due_ms = ?, last = ?, crashes = 0, leased = 0, "
                     f"delay_warned = max(delay_warned, ?) WHERE id = ? AND message_id = ? AND attempts = ? AND {_OPEN}",
                     settled.due_ms, last, int(settled.delay_warned), settled.recipient_id, queue_id, settled.attempts)
    else:
        state = RecipientState.FAILED if kind is OutcomeKind.FAILED else RecipientState.DELIVERED
        database.run("UPDATE q_recipient SET state = ?, attempts = attempts + 1, last = ?, leased = 0 "
                     f"WHERE id = ? AND message_id = ? AND {_OPEN}", state.value, last, settled.recipient_id, queue_id)
    return database.changes


def finish(database: Database, queue_id: int, now_ms: int) -> None:
    """A message whose recipients have all ended is deleted with its blob."""
    if database.row(f"SELECT 1 FROM q_recipient WHERE message_id = ? AND {_OPEN} LIMIT 1", queue_id):
        return
    gone = database.row("DELETE FROM q_message WHERE id = ? RETURNING trace_id, blob_id", queue_id)
    if gone:
        database.run("DELETE FROM q_recipient WHERE message_id = ?", queue_id)
        database.run("INSERT OR IGNORE INTO q_finished VALUES(?, ?)", gone[0], now_ms)
        release_blob(database, gone[1])


# -- the administrator --

_NOT_IN_HAND = "NOT (leased AND state = 'queued' AND due_ms > :now)"
_ACTIONS = {
    QueueAction.RETRY: ("UPDATE q_recipient SET due_ms = 0, state = 'queued', crashes = 0, leased = 0 "
                        f"WHERE state IN ('queued', 'poison') AND {_NOT_IN_HAND} AND message_id = :id"),
    QueueAction.HOLD: "UPDATE q_recipient SET state = 'held' WHERE state = 'queued' AND message_id = :id",
    QueueAction.RELEASE: ("UPDATE q_recipient SET state = 'queued', due_ms = 0, crashes = 0, leased = 0 "
                          "WHERE state IN ('held', 'poison') AND message_id = :id"),
    QueueAction.DELETE: f"DELETE FROM q_recipient WHERE {_OPEN} AND message_id = :id",
}


def change_queue(unit: Unit, operation: ChangeQueue, now_ms: int) -> Executed:
    """Counts messages that were changed."""
    database, count = unit.database, 0
    ids = operation.queue_ids or [row[0] for row in database.rows("SELECT id FROM q_message")]
    for queue_id in ids:
        database.run_named(_ACTIONS[operation.action], {"now": operation.now_ms, "id": queue_id})
        count += bool(database.changes)
        if operation.action is QueueAction.DELETE:
            finish(database, queue_id, now_ms)
    rings = count and operation.action in (QueueAction.RETRY, QueueAction.RELEASE)
    return Counted(count), (Rang(),) if rings else ()
