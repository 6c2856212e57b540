"""A queue that has been waiting for a while: messages for one domain, tried before, made through the store's own operations."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

from fumibako.model.envelope import Envelope, Recipient
from fumibako.model.ids import TraceId
from fumibako.model.ops import Body, Enqueue, Lease, Leased, RecipientOutcome, Refused, Settle
from fumibako.model.queue import HOUR_MS, Outcome, OutcomeKind
from fumibako.store.sqlite.engine import Engine

AT_ONCE = 500
_OCTETS = b"Subject: it waits\r\n\r\n" + b"One line of a letter that nobody takes.\r\n" * 10
_BODY = Body(len(_OCTETS), hashlib.sha256(_OCTETS).digest(), zlib.crc32(_OCTETS), _OCTETS)
_TRIED = Outcome(OutcomeKind.DEFERRED, "4.4.1", "nobody answers", "", "mx.dead.example")


def fill_queue(directory: Path, domain: str, messages: int, now_ms: int) -> None:
    """So many messages, an hour old, tried once and all due again. While no server runs."""
    engine = Engine(directory, now_ms=now_ms)
    try:
        for first in range(0, messages, AT_ONCE):
            _defer(engine, domain, min(AT_ONCE, messages - first), now_ms - HOUR_MS, now_ms)
    finally:
        engine.close()


def _defer(engine: Engine, domain: str, count: int, then_ms: int, due_ms: int) -> None:
    execute(engine, [Enqueue(TraceId(os.urandom(16)), Envelope("bob@neighbour.example", (Recipient(f"user{number}@{domain}"),)),
                             b"Received: by example\r\n", _BODY, then_ms) for number in range(count)], then_ms)
    [leased] = execute(engine, [Lease(then_ms, 1, count)], then_ms)
    assert isinstance(leased, Leased) and len(leased.items) == count
    execute(engine, [Settle(item.id, tuple(RecipientOutcome(one.id, 0, _TRIED, due_ms) for one in item.recipients))
                     for item in leased.items], then_ms)


def execute(engine: Engine, operations: Sequence[object], now_ms: int) -> list[object]:
    results = [result for result, _ in engine.execute(operations, now_ms)]      # type: ignore[arg-type]
    assert not any(isinstance(result, Refused | Exception) for result in results), results
    return results      # type: ignore[return-value]
