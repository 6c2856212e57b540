"""The store as everybody above it knows it: operations in, values out.

Contract: `commit` returns only when the operation is durable and its Change has reached this process's `on_change`
    listeners: whoever was answered can read what was written. Reads return values or packed arrays, fetched whole;
    no cursor stays open across an await.
Failure: `StoreRefused` carries the store's own refusal. `StoreUnavailable` means that nothing is known to have
    happened: the operation may or may not be durable, it is never sent again, and the peer gets no success.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from fumibako.model.account import Account, Alias, Domain, Hold, PasswordRecord, Setting
from fumibako.model.change import Change, Notice
from fumibako.model.ids import AccountId, EmailId, MailboxId, QueueId, TraceId, Uid
from fumibako.model.mailbox import Entry, Mailbox, Quota, Recoverable
from fumibako.model.ops import Body, Operation, Refusal, Result
from fumibako.model.queue import QueueItem
from fumibako.model.view import View

INLINE_OCTETS = 256 * 1024      # a larger body is streamed to DIR/spool and only named in the operation (DESIGN §4)
BATCH_UIDS = 2_000              # what one operation or one read may name
# SetFlags, Move and Expunge are cut into operations of this many: 2 to 3 ms of work, after which others have their turn.
# Smaller ones cost everybody more, for what an operation costs besides its rows; larger ones let others wait longer.
PIECE_UIDS = 500


class StoreRefused(Exception):
    """The store said no. refusal: why, as a value; detail: English, for the log."""

    def __init__(self, refusal: Refusal, detail: str = "") -> None:
        super().__init__(f"{refusal}: {detail}" if detail else str(refusal))
        self.refusal, self.detail = refusal, detail


class StoreUnavailable(Exception):
    """The storage process is away or broke off: no answer is known."""


class BodyWriter(Protocol):
    """Takes a message body as it arrives and makes a Body of it; counts, hashes and spools on the way."""

    size_octets: int

    def write(self, octets: bytes) -> None:
        """Cheap; a body beyond INLINE_OCTETS goes to a file of DIR/spool from here on. StoreRefused: full, or failing."""

    async def finish(self, trace_id: TraceId) -> Body:
        """fdatasync of a spooled body is done (off the loop) when this returns. StoreRefused: the disk is full, or fails."""

    def abandon(self) -> None:
        """Forget the body and remove its file; also right after finish() when nothing was committed. Idempotent."""


Listener = Callable[[Notice], None]
R = TypeVar("R", bound=Result)


class Directory(Protocol):
    """control.db, read at every login and RCPT, never cached (DESIGN §4). Keys are model.address.address_key forms."""

    def directory_version(self) -> int:
        """A number that stays while the directory, settings and secrets included, stays, and rises with each change.

        It has seen every operation whose `commit` returned before the call, in whichever process. Read before other
        reads, it says whether those are still true. Cheap enough for every datagram: microseconds, nothing to wait
        for. It means something to this store object only. Raises StoreUnavailable where it can't be read, and so do
        `domains` and `settings`.
        """

    async def domains(self) -> list[Domain]: ...
    async def domain(self, name: str) -> Domain | None: ...
    async def accounts(self, domain: str = "") -> list[Account]: ...
    async def account(self, address: str) -> Account | None: ...
    async def account_by_id(self, account_id: AccountId) -> Account | None: ...
    async def password(self, account_id: AccountId) -> PasswordRecord | None: ...
    async def aliases(self, domain: str = "") -> list[Alias]: ...

    async def alias(self, address: str) -> Alias | None:
        """The alias of exactly this address; "@example.jp" asks for the catch-all."""

    async def holds(self) -> list[Hold]:
        """Of all accounts, also of removed ones."""

    async def settings(self, scope: str | None = None) -> list[Setting]: ...

    async def secret(self, name: str) -> bytes:
        """A random key of 32 octets made once and kept: "thread", "scram-dummy", ..."""


class Mail(Protocol):
    """mail.db of the account's shard and its segments."""

    async def mailboxes(self, account_id: AccountId) -> list[Mailbox]:
        """By name; INBOX first. An account never opened yet: []."""

    async def subscriptions(self, account_id: AccountId) -> list[str]: ...
    async def keywords(self, account_id: AccountId) -> dict[int, str]: ...
    async def quota(self, account_id: AccountId) -> Quota: ...
    async def modseq(self, account_id: AccountId) -> int: ...

    async def view(self, account_id: AccountId, mailbox_id: MailboxId) -> View | None:
        """None when the mailbox is gone."""

    async def entries(self, account_id: AccountId, mailbox_id: MailboxId, uids: Sequence[Uid]) -> list[Entry]:
        """Those that exist, ordered by uid; ask for at most BATCH_UIDS at once."""

    async def caches(self, account_id: AccountId, email_ids: Sequence[EmailId]) -> dict[EmailId, bytes]:
        """Packed indexes; a missing one is rebuilt by the caller from the blob and given back by `put_cache`."""

    async def put_cache(self, account_id: AccountId, email_id: EmailId, cache: bytes) -> None: ...

    async def read(self, account_id: AccountId, email_id: EmailId, start: int, end: int) -> bytes:
        """Octets start..end of prefix + blob. OSError when the blob is damaged or gone: that message only."""

    async def read_many(self, account_id: AccountId, wanted: Sequence[tuple[EmailId, int, int]]) -> list[bytes | None]:
        """`read` for small pieces of many messages at once: (email_id, start, end) each; None where `read` would fail."""

    async def recoverable(self, account_id: AccountId) -> list[Recoverable]:
        """Expunged messages that are not purged yet, in the order of their expunging."""

    async def changes(self, account_id: AccountId, since: int) -> list[Change] | None:
        """Changes with modseq > since; None when the log no longer reaches back."""

    async def vanished(self, account_id: AccountId, mailbox_id: MailboxId, since: int) -> array[int] | None:
        """uids expunged after modseq `since`; None when the log no longer reaches back."""

    async def unique_ids(self, account_id: AccountId, mailbox_id: MailboxId) -> dict[Uid, str]:
        """POP3 unique-ids that were carried over by a migration; the default is uid_validity.uid."""


class Queue(Protocol):
    """queue.db and its segments."""

    async def queue_items(self, domain: str = "", limit: int = 1_000) -> list[QueueItem]:
        """Items with at least one recipient that isn't terminal, oldest first."""

    async def queue_item(self, queue_id: QueueId) -> QueueItem | None: ...

    async def read_queued(self, queue_id: QueueId, start: int, end: int) -> bytes:
        """Octets start..end of prefix + blob."""

    async def queued_body(self, queue_id: QueueId) -> Body:
        """The blob (without prefix) as a Body again, for a local hand-over."""


class Store(Directory, Mail, Queue, Protocol):
    """One data directory."""

    async def commit(self, operation: Operation) -> Result:
        """Durable when it returns. Raises StoreRefused (never returns Refused) or StoreUnavailable."""

    def body_writer(self) -> BodyWriter: ...

    async def has_room(self, size_octets: int) -> bool:
        """False: the disk is so full that a body of that size would be refused as DISK_FULL."""

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` for every notice that reaches this process; returns the way to stop."""

    async def close(self) -> None: ...


def expect(result: Result, kind: type[R]) -> R:
    """The result as the kind its operation promises; TypeError is a bug of the engine."""
    if not isinstance(result, kind):
        raise TypeError(f"expected {kind.__name__}, got {result!r}")
    return result
