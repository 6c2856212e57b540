"""The envelope of a mail: who sends, to whom, and what was asked about delivery status.

Specification: RFC 5321 §2.3.1; RFC 3461 §4 (ORCPT, NOTIFY), §5 (RET, ENVID); RFC 6531 §3.4; RFC 6152 (8BITMIME).
Contract: paths are text in wire form without angle brackets; the null reverse_path is "".
"""

from __future__ import annotations

import enum

import msgspec


class Notify(enum.IntFlag):
    """When the sender wants a DSN. UNSPECIFIED means: as if FAILURE (RFC 3461 §4.1)."""

    UNSPECIFIED = 0
    NEVER = 1
    SUCCESS = 2
    FAILURE = 4
    DELAY = 8


class Recipient(msgspec.Struct, frozen=True):
    """forward_path and its DSN parameters; original_recipient is the ORCPT value, "rfc822;a@b" or ""."""

    forward_path: str
    notify: int = 0
    original_recipient: str = ""


class Envelope(msgspec.Struct, frozen=True):
    """One mail transaction. body: "7BIT" or "8BITMIME"; ret: "", "FULL" or "HDRS"."""

    reverse_path: str
    recipients: tuple[Recipient, ...]
    body: str = "7BIT"
    smtputf8: bool = False
    ret: str = ""
    envelope_id: str = ""


class Peer(msgspec.Struct, frozen=True):
    """Who handed the mail over: what Received says and what policy looks at.

    protocol: "SMTP", "ESMTP", "ESMTPS", "ESMTPA", "ESMTPSA", "LMTP", "UTF8SMTPS"...  (RFC 3848 §1, RFC 6531 §4.3).
    account_id: 0 when not logged in.
    """

    address: str
    helo: str = ""
    name: str = ""
    protocol: str = "SMTP"
    tls: str = ""
    account_id: int = 0
    login: str = ""
