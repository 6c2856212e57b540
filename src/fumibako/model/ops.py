"""What a store can be told: operations, each one transaction, and what it answers.

Contract: an operation is a value, so it crosses a process border, is logged and model-tested. It names the account
    or the queue it belongs to and is executed where the data lives. `commit` returns its Result only when durable.
Failure: a refusal of the store's own is `Refused`, a value of the answer; everything else is an exception there.
"""

from __future__ import annotations

import enum

import msgspec

from fumibako.model.account import Account, AccountStatus, Alias, Domain, PasswordRecord, Setting
from fumibako.model.envelope import Envelope
from fumibako.model.ids import AccountId, EmailId, MailboxId, ModSeq, QueueId, TraceId, Uid
from fumibako.model.queue import Outcome, QueueItem, RecipientState

# -- bodies --


class Body(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The octets of a message as received, minus dot-stuffing: inline below 256 KB, else a finished file of DIR/spool.

    sha256: 32 octets over the body; crc32: zlib.crc32; spool: file name without a path, "" when inline.
    """

    size_octets: int
    sha256: bytes
    crc32: int
    octets: bytes = b""
    spool: str = ""


class Threading(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """63-bit keyed hashes: own Message-ID, then References newest first, and the base subject (DESIGN §3 Threads)."""

    message_id: int = 0
    references: tuple[int, ...] = ()
    subject: int = 0


# -- mail --


class LocalRecipient(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """address: after alias expansion; with trace_id it is the exactly-once key. mailbox: name, INBOX if it is gone.

    prefix: header octets put before the body for this recipient; flags: names ("\\Seen", "$Forwarded").
    """

    account_id: AccountId
    address: str
    prefix: bytes
    mailbox: str = "INBOX"
    flags: tuple[str, ...] = ()
    quota_limit_octets: int = 0


class Outgoing(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What a delivery causes for others: its body, with an envelope and a prefix of its own, queued under this trace_id."""

    trace_id: TraceId
    envelope: Envelope
    prefix: bytes


class Deliver(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Put one body into the mailboxes of recipients of one shard, all or nothing. cache: packed index, opaque here.

    outgoing: as durable as the mail itself when this is answered, on its way to the queue; nothing of it happens again where
    every recipient was delivered before.
    """

    trace_id: TraceId
    body: Body
    cache: bytes
    recipients: tuple[LocalRecipient, ...]
    internal_date: int
    threading: Threading = Threading()
    outgoing: tuple[Outgoing, ...] = ()


class Appended(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """One message of an APPEND. email.guid is made from the operation's trace_id and its place."""

    body: Body
    cache: bytes
    flags: tuple[str, ...]
    internal_date: int
    threading: Threading = Threading()


class Append(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """IMAP APPEND and imports; several messages are MULTIAPPEND, all or nothing."""

    account_id: AccountId
    mailbox_id: MailboxId
    trace_id: TraceId
    messages: tuple[Appended, ...]
    quota_limit_octets: int = 0


class FlagMode(enum.StrEnum):
    ADD = "add"
    REMOVE = "remove"
    REPLACE = "replace"


class SetFlags(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """At most 2,000 uids. unchanged_since: RFC 7162 §3.1.3, -1 when not given."""

    account_id: AccountId
    mailbox_id: MailboxId
    uids: tuple[Uid, ...]
    mode: FlagMode
    flags: tuple[str, ...]
    unchanged_since: int = -1


class Copy(msgspec.Struct, frozen=True, tag=True, array_like=True):
    account_id: AccountId
    mailbox_id: MailboxId
    uids: tuple[Uid, ...]
    target_id: MailboxId
    quota_limit_octets: int = 0


class Move(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """At most 2,000 uids."""

    account_id: AccountId
    mailbox_id: MailboxId
    uids: tuple[Uid, ...]
    target_id: MailboxId


class Expunge(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """At most 2,000 uids. only_deleted: skip those without \\Deleted at commit time."""

    account_id: AccountId
    mailbox_id: MailboxId
    uids: tuple[Uid, ...]
    only_deleted: bool = True


class Recover(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Give expunged messages that are still kept an entry again, without flags; the mailbox is made where it is missing.

    At most 2,000 email_ids; empty: the first 2,000 there are. Those that have an entry, or are gone, are left out.
    """

    account_id: AccountId
    email_ids: tuple[EmailId, ...]
    mailbox: str
    quota_limit_octets: int = 0


class OpenAccount(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Make the account's rows and default mailboxes in its shard where they are missing; idempotent."""

    account_id: AccountId


class CreateMailbox(msgspec.Struct, frozen=True, tag=True, array_like=True):
    account_id: AccountId
    name: str
    special_use: str = ""


class DeleteMailbox(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A mailbox with children keeps its row as \\Noselect (RFC 9051 §6.3.4)."""

    account_id: AccountId
    mailbox_id: MailboxId


class RenameMailbox(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Children move along; renaming INBOX moves its messages and leaves it empty (RFC 9051 §6.3.6)."""

    account_id: AccountId
    mailbox_id: MailboxId
    name: str


class Subscribe(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """on=False unsubscribes; a subscription outlives its mailbox (RFC 9051 §6.3.7)."""

    account_id: AccountId
    name: str
    on: bool = True


# -- queue --


class Enqueue(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Accept a mail for the queue. not_before_ms: 0 for now; held: waits for the administrator."""

    trace_id: TraceId
    envelope: Envelope
    prefix: bytes
    body: Body
    created_ms: int
    held: bool = False


class Lease(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Take up to `limit` items with due recipients: their due_ms becomes now + lease. Newest items first."""

    now_ms: int
    lease_ms: int
    limit: int
    busy_domains: tuple[str, ...] = ()


class RecipientOutcome(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """attempts: how many came before this one; due_ms: the next one of a deferred recipient; delay_warned: a delay DSN goes
    along."""

    recipient_id: int
    attempts: int
    outcome: Outcome
    due_ms: int = 0
    delay_warned: bool = False


class Settle(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Record the outcomes of one attempt and enqueue what they cause (DSNs), in one transaction.

    Keyed: an outcome counts where its recipient is open and, if it is a deferral, has been tried `attempts` times. A Settle
    that is sent again changes nothing, and one that records no outcome causes no DSN either.
    """

    queue_id: QueueId
    outcomes: tuple[RecipientOutcome, ...]
    notifications: tuple[Enqueue, ...] = ()


class QueueAction(enum.StrEnum):
    RETRY = "retry"
    HOLD = "hold"
    RELEASE = "release"
    DELETE = "delete"


class ChangeQueue(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The administrator's hand; queue_ids empty: all. Answer: Counted."""

    action: QueueAction
    queue_ids: tuple[QueueId, ...]
    now_ms: int


class ReclaimLeases(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A queue runner begins, the one before it is dead: what that one had in hand is due at once, as after a crash, and so is
    what would wait longer than anything has to: the clock was set back meanwhile.

    Answer: Counted recipients.
    """

    now_ms: int


class ShiftQueue(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Somebody has set the wall clock by so much, at most unsure_ms ago, and now it is now_ms: what waits goes on waiting as
    long as before, and is no older. Answer: Counted recipients.
    """

    by_ms: int
    now_ms: int
    unsure_ms: int


class DrainOutbox(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Move outbox rows of every shard to the queue under their trace_id, exactly once. Answer: Counted."""

    limit: int = 100


# -- directory --


class AddDomain(msgspec.Struct, frozen=True, tag=True, array_like=True):
    name: str


class RemoveDomain(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Refused IN_USE while it has accounts or aliases."""

    name: str


class Publish(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What the server puts into every zone. digest: of it, 48 bits; where it isn't the last one, every domain's modseq rises."""

    digest: int


class AddAccount(msgspec.Struct, frozen=True, tag=True, array_like=True):
    address: str
    password: PasswordRecord
    quota_limit_octets: int = 0
    display_name: str = ""


class SetPassword(msgspec.Struct, frozen=True, tag=True, array_like=True):
    address: str
    password: PasswordRecord


class SetAccountStatus(msgspec.Struct, frozen=True, tag=True, array_like=True):
    address: str
    status: AccountStatus


class RemoveAccount(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The address is free again, the id never; its mail is purged later."""

    address: str


class AddHold(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """From now on nothing of the account is purged, not even when it is removed. One hold a reason; idempotent."""

    address: str
    reason: str = ""


class RemoveHold(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """reason None: every hold; for an address without a held account: those of removed accounts that had it. Answer: Counted."""

    address: str
    reason: str | None = None


class AddAlias(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Adds the targets to those the alias has."""

    address: str
    targets: tuple[str, ...]


class RemoveAlias(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """targets empty: the whole alias."""

    address: str
    targets: tuple[str, ...] = ()


class SetSetting(msgspec.Struct, frozen=True, tag=True, array_like=True):
    key: str
    scope: str
    value: str


class UnsetSetting(msgspec.Struct, frozen=True, tag=True, array_like=True):
    key: str
    scope: str


# -- what lives in the storage process's memory: never durable --


class Charge(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A token bucket shared by all workers: spend `cost` of `burst` tokens, refilled with per_minute. Answer: Charged."""

    key: str
    cost: int
    per_minute: float
    burst: int
    now_ms: int


class Enter(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Count a holder of `key` up to `limit` (connections of an address, logins). Released by Leave or when the worker goes."""

    key: str
    limit: int


class Leave(msgspec.Struct, frozen=True, tag=True, array_like=True):
    key: str


class LockMaildrop(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """RFC 1939 §3: exclusive access. Refused IN_USE when another session has it."""

    account_id: AccountId


class UnlockMaildrop(msgspec.Struct, frozen=True, tag=True, array_like=True):
    account_id: AccountId


class ClaimRecent(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """RFC 3501 §2.3.2 \\Recent: uids from first_uid on are recent to this session only. Answer: Recent."""

    account_id: AccountId
    mailbox_id: MailboxId
    peek: bool = False      # EXAMINE and STATUS look, and leave them recent


class Watch(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """From now on this worker is told every Change of the account."""

    account_id: AccountId
    on: bool = True


class WatchQueue(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """From now on this worker is told by Rang when something in the queue becomes due by an operation; idempotent."""

    on: bool = True


class Ping(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Answer: Done, after the Changes of everything that was answered before it."""


class Pin(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A backup begins: until Unpin, or until the connection ends, no segment file is unlinked or cut."""


class Unpin(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Takes off one Pin of this connection; without one nothing happens."""


class Freeze(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Nothing durable happens from the answer on, until Thaw, the connection's end, or half a second: one moment for all
    databases. Refused IN_USE while another connection freezes, NOT_ALLOWED where the asker has the store to himself."""


class Thaw(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Work goes on. Answer: Thawed."""


MailOperation = (
    Deliver | Append | SetFlags | Copy | Move | Expunge | Recover | OpenAccount | CreateMailbox | DeleteMailbox | RenameMailbox
    | Subscribe
)
QueueOperation = Enqueue | Lease | Settle | ChangeQueue | ReclaimLeases | ShiftQueue | DrainOutbox
DirectoryOperation = (
    AddDomain | RemoveDomain | Publish | AddAccount | SetPassword | SetAccountStatus | RemoveAccount
    | AddHold | RemoveHold | AddAlias | RemoveAlias | SetSetting | UnsetSetting
)
MemoryOperation = (
    Charge | Enter | Leave | LockMaildrop | UnlockMaildrop | ClaimRecent | Watch | WatchQueue | Ping | Pin | Unpin | Freeze | Thaw
)
Operation = MailOperation | QueueOperation | DirectoryOperation | MemoryOperation


# -- results --


class Refusal(enum.StrEnum):
    NO_SUCH_ACCOUNT = "no such account"
    NO_SUCH_MAILBOX = "no such mailbox"
    NO_SUCH_DOMAIN = "no such domain"
    NO_SUCH_ADDRESS = "no such address"
    NO_SUCH_SETTING = "no such setting"
    NO_SUCH_HOLD = "no such hold"
    EXISTS = "exists already"
    IN_USE = "in use"
    BAD_NAME = "not a valid name"
    OVER_QUOTA = "over quota"
    LIMIT = "limit reached"             # e.g. the 59th keyword
    FROZEN = "account is being moved"
    NOT_ALLOWED = "not allowed"         # e.g. deleting INBOX
    DISK_FULL = "disk full"             # or the quota of the server's user on it
    NO_FILES = "too many open files"
    LOCKED = "database locked"          # by a program that is none of ours
    DISK_ERROR = "disk error"           # and nothing was done


# These pass: the same operation may be tried again later.
PASSING = frozenset({Refusal.DISK_FULL, Refusal.NO_FILES, Refusal.LOCKED, Refusal.DISK_ERROR})


class Refused(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """detail: for the administrator's log, English."""

    refusal: Refusal
    detail: str = ""


class Done(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Nothing more to say."""


class Placed(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Where a message went. duplicate: the key was delivered before, nothing was written."""

    account_id: AccountId
    mailbox_id: MailboxId
    uid_validity: int
    uid: Uid
    email_id: EmailId
    modseq: ModSeq
    duplicate: bool = False


class Delivered(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Deliver: one Placed a recipient in order; Append: one a message in order."""

    placed: tuple[Placed, ...]


class FlagsSet(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """changed: (uid, flag word) of rows that really changed; modified: uids refused by unchanged_since."""

    modseq: ModSeq
    changed: tuple[tuple[Uid, int], ...]
    modified: tuple[Uid, ...] = ()


class Copied(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Copy and Move: parallel uids, of those that still existed."""

    uid_validity: int
    source_uids: tuple[Uid, ...]
    target_uids: tuple[Uid, ...]
    modseq: ModSeq


class Expunged(msgspec.Struct, frozen=True, tag=True, array_like=True):
    uids: tuple[Uid, ...]
    modseq: ModSeq


class Recovered(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """email_ids and uids are parallel."""

    mailbox_id: MailboxId
    uid_validity: int
    email_ids: tuple[EmailId, ...]
    uids: tuple[Uid, ...]
    modseq: ModSeq


class MailboxMade(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """CreateMailbox and RenameMailbox; existed: OpenAccount-like idempotence is never applied here, so always new."""

    mailbox_id: MailboxId
    uid_validity: int


class Queued(msgspec.Struct, frozen=True, tag=True, array_like=True):
    queue_id: QueueId
    duplicate: bool = False


class Leased(msgspec.Struct, frozen=True, tag=True, array_like=True):
    items: tuple[QueueItem, ...]
    next_due_ms: int        # when the earliest other recipient becomes due; 0: none


class Counted(msgspec.Struct, frozen=True, tag=True, array_like=True):
    count: int


class DomainMade(msgspec.Struct, frozen=True, tag=True, array_like=True):
    domain: Domain


class AccountMade(msgspec.Struct, frozen=True, tag=True, array_like=True):
    account: Account


class AliasMade(msgspec.Struct, frozen=True, tag=True, array_like=True):
    alias: Alias


class SettingMade(msgspec.Struct, frozen=True, tag=True, array_like=True):
    setting: Setting


class Charged(msgspec.Struct, frozen=True, tag=True, array_like=True):
    allowed: bool
    retry_after_ms: int


class Recent(msgspec.Struct, frozen=True, tag=True, array_like=True):
    first_uid: Uid


class Thawed(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """stood: nothing durable happened since the Freeze of this connection."""

    stood: bool


Result = (
    Refused | Done | Delivered | FlagsSet | Copied | Expunged | Recovered | MailboxMade | Queued | Leased
    | Counted | DomainMade | AccountMade | AliasMade | SettingMade | Charged | Recent | Thawed
)

TERMINAL = (RecipientState.DELIVERED, RecipientState.FAILED)
