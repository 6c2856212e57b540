"""What checks found about a mail and what was decided from it.

Specification: RFC 3463 §2 (the status that goes with a decision).
Contract: a Finding states, a Verdict decides; both are explained: `explanation` is an id the texts know, `facts` fill it.
Failure: ValueError for a Verdict whose status is of another class than its action.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from fumibako.model import status as statuses
from fumibako.model.status import Status


class Action(enum.StrEnum):
    """Ordered by how much they say no: of several, the last in this order wins."""

    ACCEPT = "accept"
    QUARANTINE = "quarantine"
    HOLD = "hold"
    DISCARD = "discard"
    DEFER = "defer"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Finding:
    """check: which check; explanation: what it found ("relaying-denied"); facts: (name, value) pairs for the texts."""

    check: str
    explanation: str
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """text: English, for the peer, without status. findings: all that were looked at, the deciding one first."""

    action: Action = Action.ACCEPT
    status: Status = statuses.OK
    text: str = "ok"
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        if self.status.klass != (4 if self.action is Action.DEFER else 5 if self.action is Action.REJECT else 2):
            raise ValueError(f"{self.action} does not go with status {self.status}")

    @property
    def refused(self) -> bool:
        """The peer keeps the mail."""
        return self.action in (Action.DEFER, Action.REJECT)


ACCEPTED = Verdict()
