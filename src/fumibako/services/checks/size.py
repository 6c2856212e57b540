"""Too big for us, or for the mailbox it is meant for.

Specification: RFC 1870 §6.1 (declared size), §6.3; RFC 3463 §3.3 (X.2.2 mailbox full), §3.4 (X.3.4).
Contract: see services.checks; sizes are octets as received, quotas as the store counts them.
Failure: StoreUnavailable passes through.
"""

from __future__ import annotations

from fumibako.model.verdict import Finding
from fumibako.services.checks import Facts
from fumibako.services.directory import Hosted, Local


async def declared_size(facts: Facts) -> Finding | None:
    """SIZE= of MAIL against the limit."""
    limit = facts.policy.number("limits.message_size")
    return _too_big(limit) if facts.declared_octets > limit else None


async def disk_space(facts: Facts) -> Finding | None:
    """Whether the disk has room for what was declared: said before the octets travel (RFC 1870 §6.1)."""
    return None if await facts.store.has_room(facts.declared_octets) else Finding("size", "system-full")


async def message_size(facts: Facts) -> Finding | None:
    """The message as received against the limits."""
    if facts.message is None:
        return None
    if facts.message.header_cut:
        return Finding("size", "header-too-big")
    limit = facts.policy.number("limits.message_size")
    return _too_big(limit) if facts.message.too_big or facts.message.size_octets > limit else None


async def mailbox_space(facts: Facts) -> Finding | None:
    """Whether the recipient's quota has room: said at RCPT, so that no DSN is needed later."""
    if not isinstance(facts.recipient, Hosted):
        return None
    for target in facts.recipient.targets:
        if isinstance(target, Local) and (limit := target.account.quota_limit_octets):
            used = (await facts.store.quota(target.account.id)).used_octets
            if used >= limit or used + facts.declared_octets > limit:
                return Finding("size", "mailbox-full", (("address", target.address),))
    return None


def _too_big(limit_octets: int) -> Finding:
    return Finding("size", "message-too-big", (("limit", str(limit_octets)),))
