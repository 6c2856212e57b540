"""What a committed operation did to one account: the row that feeds IDLE, views, CONDSTORE and the search index.

Contract: one Change per operation and account, exactly the messages that changed (DESIGN §3), in modseq order.
"""

from __future__ import annotations

import msgspec

from fumibako.model.ids import AccountId, EmailId, MailboxId, ModSeq, Uid


class Arrived(msgspec.Struct, frozen=True, array_like=True):
    mailbox_id: MailboxId
    uid: Uid
    email_id: EmailId
    flags: int


class FlagsChanged(msgspec.Struct, frozen=True, array_like=True):
    """Parallel tuples: flags[i] is the whole flag word of uids[i] after the change."""

    mailbox_id: MailboxId
    uids: tuple[Uid, ...]
    flags: tuple[int, ...]


class Vanished(msgspec.Struct, frozen=True, array_like=True):
    mailbox_id: MailboxId
    uids: tuple[Uid, ...]


class Change(msgspec.Struct, frozen=True, array_like=True):
    """mailboxes: ids whose row (name, existence, special use, subscription) changed; keywords: new (bit, name)."""

    account_id: AccountId
    modseq: ModSeq
    at_ms: int
    arrived: tuple[Arrived, ...] = ()
    flags: tuple[FlagsChanged, ...] = ()
    vanished: tuple[Vanished, ...] = ()
    mailboxes: tuple[MailboxId, ...] = ()
    keywords: tuple[tuple[int, str], ...] = ()


class Revoked(msgspec.Struct, frozen=True, array_like=True):
    """The account's credentials or status changed: its sessions must close before the command returns."""

    account_id: AccountId


class Rang(msgspec.Struct, frozen=True, array_like=True):
    """Something in the queue became due: the doorbell of the queue runner. Says no more than that."""


Notice = Change | Revoked | Rang
