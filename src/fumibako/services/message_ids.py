"""The names under which a message, its thread and its mailbox are known outside.

Specification: RFC 8474 §4 (MAILBOXID), §5.1 (EMAILID), §5.2 (THREADID), §7 (objectid: letters, digits, "_", "-").
Contract: an EMAILID follows the message through COPY and MOVE; none is ever used again.
"""

from __future__ import annotations

from fumibako.model.mailbox import Entry, Mailbox


def email_id_of(entry: Entry) -> str:
    return f"M{entry.guid.hex()}"


def thread_id_of(entry: Entry) -> str:
    return f"T{entry.thread_id:x}"


def mailbox_id_of(mailbox: Mailbox) -> str:
    return f"F{mailbox.account_id}-{mailbox.id}"
