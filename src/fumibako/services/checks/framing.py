"""Octets that two mail servers may read as two different messages.

Specification: RFC 5321 §2.3.8 (CR and LF only as CRLF), §4.1.1.4 (only CRLF.CRLF ends the data); RFC 5322 §2.2 (no NUL).
Contract: see services.checks; the protocol has found such octets, this names them.
Failure: none.
"""

from __future__ import annotations

from fumibako.model.verdict import Finding
from fumibako.services.checks import Facts


async def line_ends(facts: Facts) -> Finding | None:
    """CR or LF outside CRLF (SMTP smuggling, CVE-2023-51764), or an octet zero."""
    if facts.message is None:
        return None
    if facts.message.bare_newline:
        return Finding("framing", "bare-newline")
    return Finding("framing", "nul-octet") if facts.message.nul else None
