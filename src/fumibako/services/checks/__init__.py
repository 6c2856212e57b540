"""Checks find facts about a mail and decide nothing; one file a kind.

Contract: a check is an async function from what is known so far to a Finding, or None when it has nothing to say.
Failure: StoreUnavailable passes through; a check that can not find out is a Finding of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fumibako.model.envelope import Peer
from fumibako.model.verdict import Finding
from fumibako.net.clock import Clock
from fumibako.services.directory import Resolution
from fumibako.services.policy import Policy
from fumibako.store.base import Store


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """What the octets of the message showed. hops: Received fields; header_cut: the header section was beyond its limit."""

    size_octets: int
    hops: int = 0
    bare_newline: bool = False
    nul: bool = False
    too_big: bool = False
    header_cut: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known so far; later stages know more. recipient: who the forward_path at hand is."""

    peer: Peer
    policy: Policy
    store: Store
    clock: Clock
    reverse_path: str = ""
    declared_octets: int = 0
    recipient: Resolution | None = None
    message: MessageFacts | None = None

    def knowing(self, *, recipient: Resolution | None = None, message: MessageFacts | None = None) -> Facts:
        """The same at a later stage. Not dataclasses.replace: that costs as much as the checks."""
        return Facts(self.peer, self.policy, self.store, self.clock, self.reverse_path, self.declared_octets, recipient, message)


Check = Callable[[Facts], Awaitable[Finding | None]]
