"""How fast one peer, or one login, sends.

Specification: RFC 3463 §3.8 (X.7.1: delivery not authorized, here for now).
Contract: token buckets live in the storage process and count for all workers; networks of `limits.exempt` are not counted.
Failure: StoreUnavailable passes through.
"""

from __future__ import annotations

import ipaddress

from fumibako.model.ops import Charge, Charged
from fumibako.model.verdict import Finding
from fumibako.services.checks import Facts
from fumibako.store.base import expect

# A company's mail server sends bursts of hundreds; a flood is thousands.
MESSAGES_PER_MINUTE, MESSAGES_BURST = 300, 600
# A newsletter to all customers fits the burst; a stolen password is noticed before it has sent much more.
RECIPIENTS_PER_MINUTE, RECIPIENTS_BURST = 60, 2_000


async def messages(facts: Facts) -> Finding | None:
    """One message more from this address."""
    if facts.peer.account_id or not facts.peer.address or facts.policy.exempt(facts.peer.address):
        return None
    key = f"mail:{address_block(facts.peer.address)}"
    return await _charge(facts, Charge(key, 1, MESSAGES_PER_MINUTE, MESSAGES_BURST, facts.clock.now_ms()))


async def recipients(facts: Facts) -> Finding | None:
    """One recipient more from this login."""
    if not facts.peer.account_id or facts.policy.exempt(facts.peer.address):
        return None
    key = f"send:{facts.peer.account_id}"
    return await _charge(facts, Charge(key, 1, RECIPIENTS_PER_MINUTE, RECIPIENTS_BURST, facts.clock.now_ms()))


def address_block(address: str) -> str:
    """What counts as one peer: an IPv4 address, or the /64 an IPv6 customer has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.IPv6Network((int(parsed), 64), strict=False)) if parsed.version == 6 else str(parsed)


async def _charge(facts: Facts, charge: Charge) -> Finding | None:
    charged = expect(await facts.store.commit(charge), Charged)
    if charged.allowed:
        return None
    return Finding("rate", "too-fast", (("seconds", str(charged.retry_after_ms // 1000 + 1)),))
