"""Whether we are the one to take mail for this recipient from this peer.

Specification: RFC 5321 §3.6.1, §7.9 (a server may refuse to relay); RFC 3463 §3.2 (X.1.1), §3.3 (X.2.1), §3.8 (X.7.1).
Contract: only a login gives the right to send elsewhere; no network, name or address form does.
Failure: none.
"""

from __future__ import annotations

from fumibako.model.verdict import Finding
from fumibako.services.checks import Facts
from fumibako.services.directory import Absence, Nobody, Remote

_ABSENT = {
    Absence.NO_SUCH_MAILBOX: "no-such-mailbox",
    Absence.DISABLED: "mailbox-disabled",
    Absence.FROZEN: "mailbox-frozen",
    Absence.ALIAS_LOOP: "alias-loop",
    Absence.BAD_ADDRESS: "bad-address",
}


async def recipient(facts: Facts) -> Finding | None:
    """The recipient at hand: ours and alive, or elsewhere with a login."""
    match facts.recipient:
        case Nobody(why):
            return Finding("relaying", _ABSENT[why])
        case Remote(address) if not facts.peer.account_id:
            return Finding("relaying", "relaying-denied", (("address", address),))
    return None
