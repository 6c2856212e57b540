"""The outbound queue as values: what waits, for whom, since when, and when it is tried again.

Specification: RFC 5321 §4.5.4 (retry strategies); RFC 3461 §5.2 and RFC 3464 §2.3 (what a DSN reports).
Contract: every recipient ends in exactly one of delivered, failed, deleted; `next_attempt_ms` is the only schedule.
"""

from __future__ import annotations

import enum

import msgspec

from fumibako.model.envelope import Envelope
from fumibako.model.ids import QueueId, TraceId

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

# RFC 5321 §4.5.4.1 asks for at least 30 minutes between later attempts and 4-5 days before giving up;
# the first steps are shorter because most deferrals (greylisting) end within minutes.
RETRY_AFTER_MS = (5 * MINUTE_MS, 10 * MINUTE_MS, 20 * MINUTE_MS, 40 * MINUTE_MS, HOUR_MS, 2 * HOUR_MS, 4 * HOUR_MS)
SPREAD = 0.2
LONGEST_WAIT_MS = int(RETRY_AFTER_MS[-1] * (1 + SPREAD))        # nobody waits longer for the next attempt
LIFETIME_MS = 5 * DAY_MS
DELAY_WARNING_MS = 4 * HOUR_MS
MAX_CRASHES = 3


class RecipientState(enum.StrEnum):
    QUEUED = "queued"           # due at due_ms; a lease is due_ms := now + lease
    HELD = "held"               # waits for the administrator
    DELIVERED = "delivered"
    FAILED = "failed"
    POISON = "poison"           # was in hand during MAX_CRASHES crashes; set aside


class OutcomeKind(enum.StrEnum):
    DELIVERED = "delivered"
    RELAYED = "relayed"         # handed to a host that keeps no DSN promise (RFC 3461 §5.2.4 "relayed")
    DEFERRED = "deferred"
    FAILED = "failed"


class Outcome(msgspec.Struct, frozen=True):
    """How one delivery attempt ended for one recipient.

    status: "5.1.1"; reply: the remote's own words, as one line, "" for our own findings; remote: "mx.b.example [192.0.2.1]".
    """

    kind: OutcomeKind
    status: str
    text: str
    reply: str = ""
    remote: str = ""


class QueuedRecipient(msgspec.Struct, frozen=True):
    id: int
    forward_path: str
    domain: str
    state: RecipientState
    due_ms: int
    attempts: int
    notify: int = 0
    original_recipient: str = ""
    last: Outcome | None = None
    crashes: int = 0
    delay_warned: bool = False


class QueueItem(msgspec.Struct, frozen=True):
    """One queued message with those of its recipients the question was about. size_octets = prefix + blob."""

    id: QueueId
    trace_id: TraceId
    envelope: Envelope
    prefix: bytes
    size_octets: int
    created_ms: int
    expires_ms: int
    recipients: tuple[QueuedRecipient, ...]


def next_attempt_ms(attempts: int, now_ms: int, spread: float) -> int:
    """When to try again after `attempts` failed attempts; spread in 0..1 moves it by up to +20 %."""
    wait = RETRY_AFTER_MS[min(max(attempts, 1), len(RETRY_AFTER_MS)) - 1]
    return now_ms + wait + int(wait * SPREAD * spread)
