"""What clients did and were told, each with the place in the disk's log where that was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.load import Content
from tests.crash.machine import READERS
from tests.support.ledger import Entry, MailboxState

NEVER = 1 << 62


@dataclass(slots=True)
class Sent:
    """A message handed in. entry.args: its recipients; answered: NEVER without a yes."""

    entry: Entry
    attempted: int
    answered: int = NEVER


@dataclass(slots=True)
class Step:
    """A change that somebody made of their own mailboxes by IMAP. after: what they hold then; uids below 0 aren't known yet."""

    kind: str
    attempted: int
    after: Content
    answered: int = NEVER


@dataclass(frozen=True, slots=True)
class Told:
    """A look at a mailbox by IMAP."""

    position: int
    address: str
    mailbox: str
    state: MailboxState


@dataclass(frozen=True, slots=True)
class QueueSeen:
    """A look at the queue, begun and ended at these positions. attempts: of each recipient that waits."""

    begun: int
    ended: int
    attempts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Done:
    """A command of the administrator that ended with 0; holds: asked of the data directory of a state, "" or what is wrong."""

    position: int
    holds: Callable[..., str]


@dataclass(slots=True)
class Removed:
    """Deliveries that their holder expunged."""

    address: str
    letters: frozenset[str]
    attempted: int
    answered: int = NEVER


@dataclass(slots=True)
class Diary:
    """position: asks the disk. sums: letter id -> SHA-256; taken: where another server had taken mail for a recipient; probe:
    an account that takes one more message after the cut, "" for none. afterwards: what a state must still be good for, given its
    data directory, which nobody holds any more, and the cut; each gives what is wrong."""

    position: Callable[[], int]
    probe: str = READERS[-1]    # nobody else's mail goes there
    sums: dict[str, str] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    steps: dict[str, list[Step]] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    queue: list[QueueSeen] = field(default_factory=list)
    taken: dict[str, int] = field(default_factory=dict)
    done: list[Done] = field(default_factory=list)
    removed: list[Removed] = field(default_factory=list)
    afterwards: list[Callable[[Path, int], list[str]]] = field(default_factory=list)

    @property
    def acks(self) -> list[int]:
        """Positions of all that was said to be so, sorted and each once."""
        steps = [step.answered for mine in self.steps.values() for step in mine]
        found = {*(one.answered for one in self.sent), *(one.answered for one in self.removed), *steps,
                 *(one.position for one in self.done)}
        return sorted(found - {NEVER})
