"""A message that has been going round.

Specification: RFC 5321 §6.3 (counting Received fields; the limit should be 100 at least).
Contract: see services.checks.
Failure: none.
"""

from __future__ import annotations

from fumibako.model.verdict import Finding
from fumibako.services.checks import Facts

# Deviation: RFC 5321 §6.3 asks for 100; 50 is what Postfix has used for decades, and it halves the cost of a loop.
HOPS_MAX = 50


async def hops(facts: Facts) -> Finding | None:
    """Received fields at acceptance."""
    if facts.message is None or facts.message.hops < HOPS_MAX:
        return None
    return Finding("loop", "mail-loop", (("hops", str(facts.message.hops)),))
