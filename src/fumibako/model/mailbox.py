"""Mailboxes and what lies in them, as the store tells it.

Specification: RFC 9051 §2.3 (UID, sequence numbers, flags), §7.2 (LIST attributes); RFC 6154 §2 (special use).
Contract: names are UTF-8 text in NFC with "/" between levels; flags are one 63-bit integer (DESIGN §3):
    bits 0..4 are the system flags below, bits 5..62 the account's keywords.
"""

from __future__ import annotations

import enum

import msgspec

from fumibako.model.ids import AccountId, EmailId, MailboxId, ModSeq, Uid

DELIMITER = "/"
INBOX = "INBOX"


class Flag(enum.IntFlag):
    SEEN = 1
    ANSWERED = 2
    FLAGGED = 4
    DELETED = 8
    DRAFT = 16


SYSTEM_FLAGS: dict[str, int] = {
    "\\Seen": Flag.SEEN, "\\Answered": Flag.ANSWERED, "\\Flagged": Flag.FLAGGED,
    "\\Deleted": Flag.DELETED, "\\Draft": Flag.DRAFT,
}
FIRST_KEYWORD_BIT = 5
KEYWORD_BITS = 58

# Made when the account is first used; (name, special_use).
DEFAULT_MAILBOXES: tuple[tuple[str, str], ...] = (
    (INBOX, ""), ("Drafts", "\\Drafts"), ("Sent", "\\Sent"), ("Junk", "\\Junk"),
    ("Trash", "\\Trash"), ("Archive", "\\Archive"),
)


class Mailbox(msgspec.Struct, frozen=True):
    """One mailbox row with its counters. special_use: "" or "\\Sent"...; no_select: RFC 9051 §7.3.1 \\Noselect."""

    account_id: AccountId
    id: MailboxId
    name: str
    uid_validity: int
    uid_next: int
    highest_modseq: ModSeq
    total: int
    unseen: int
    deleted: int
    size_octets: int
    special_use: str = ""
    no_select: bool = False


class Entry(msgspec.Struct, frozen=True):
    """A message in a mailbox. size_octets = len(prefix) + blob; times are ms UTC; guid is EMAILID (16 octets)."""

    uid: Uid
    email_id: EmailId
    size_octets: int
    prefix_octets: int
    internal_date: int
    saved_at: int
    guid: bytes
    thread_id: int


class Recoverable(msgspec.Struct, frozen=True):
    """An expunged message that is still kept. entry: with uid and saved_at 0; a hold may keep it beyond purge_after_ms."""

    entry: Entry
    expunged_ms: int
    purge_after_ms: int


class Quota(msgspec.Struct, frozen=True):
    """limit 0: none."""

    used_octets: int
    limit_octets: int
    messages: int
