"""What happened to a message, as lines that say it: every message has one trace_id from acceptance to its last recipient.

Contract: `event` never raises and never waits; it is called once the fact it reports is durable, never before (DESIGN §3).
Failure: none.
"""

from __future__ import annotations

from typing import Protocol

from fumibako.model.ids import TraceId


class Trace(Protocol):
    """Where events go; the program writes JSON lines. Field values are str, int, float, bool or tuples of str."""

    def event(self, trace_id: TraceId, kind: str, **fields: object) -> None: ...


class NoTrace:
    """Forgets everything."""

    def event(self, trace_id: TraceId, kind: str, **fields: object) -> None: ...
