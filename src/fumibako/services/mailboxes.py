"""What an action of IMAP, POP3, JMAP or webmail does to an account's mailboxes, said once and without a protocol.

Specification: RFC 9051 §6.3 (mailboxes), §6.4 (messages); DESIGN §1, §3.
Contract: `Mailboxes` is one per process; a `Visit` is one login's stay in an account. Names are resolved as
    `mailbox_names` says; deleting and renaming takes exact names only.
Failure: `StoreRefused` with the store's reason (a mailbox that is absent and one that is forbidden are one answer);
    `StoreUnavailable` when no answer is known.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from fumibako.model.account import Account
from fumibako.model.ids import MailboxId, Uid
from fumibako.model.mailbox import Flag, Mailbox, Quota
from fumibako.model.ops import (
    ClaimRecent,
    Copied,
    Copy,
    CreateMailbox,
    DeleteMailbox,
    MailboxMade,
    Recent,
    Refusal,
    RenameMailbox,
    Subscribe,
)
from fumibako.net.clock import Clock
from fumibako.services.appending import Appending
from fumibako.services.mailbox_names import resolve_name
from fumibako.services.maildrop import Maildrop, open_maildrop
from fumibako.services.message_access import MessageAccess
from fumibako.services.search_places import SearchPlaces
from fumibako.services.selection import Selection
from fumibako.services.views import Stay, Views
from fumibako.store.base import Store, StoreRefused, StoreUnavailable, expect

__all__ = ["Mailboxes", "StoreRefused", "StoreUnavailable", "Visit"]


class Mailboxes:
    """The way in to every account's mail."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.views = Views(store)
        self.searches = SearchPlaces()

    async def visit(self, account: Account, wake: Callable[[], None]) -> Visit:
        """Begin a stay. wake: called, from the loop, whenever there may be something to tell."""
        return Visit(self, account, await self.views.enter(account.id, wake))

    async def open_maildrop(self, account: Account, wake: Callable[[], None]) -> Maildrop:
        """INBOX for one POP3 session; StoreRefused(IN_USE) when another one has it."""
        return await open_maildrop(self.store, account, await self.views.enter(account.id, wake))

    def close(self) -> None:
        self.views.close()


class Visit:
    """One login's stay in an account; `leave` ends it."""

    def __init__(self, mailboxes: Mailboxes, account: Account, stay: Stay) -> None:
        self.account = account
        self.store = mailboxes.store
        self.clock = mailboxes.clock
        self.messages = MessageAccess(mailboxes.store, account.id)
        self._stay = stay

    async def leave(self) -> None:
        await self._stay.end()

    @property
    def revoked(self) -> bool:
        """The account's credentials or status changed: the session must end now."""
        return self._stay.revoked

    @property
    def keywords(self) -> dict[int, str]:
        """bit -> name; grows while the visit lasts."""
        return self._stay.keywords

    async def catch_up(self) -> None:
        """The selected mailboxes show all that anybody has been told is done."""
        await self._stay.catch_up()

    # -- mailboxes --

    async def mailboxes(self) -> list[Mailbox]:
        """By name, INBOX first."""
        return await self.store.mailboxes(self.account.id)

    async def find(self, name: str) -> Mailbox:
        """The mailbox a name means; NO_SUCH_MAILBOX also for one that can't be selected."""
        rows = await self.mailboxes()
        resolved = resolve_name(name, rows)
        for row in rows:
            if row.name == resolved and not row.no_select:
                return row
        raise StoreRefused(Refusal.NO_SUCH_MAILBOX)

    async def create(self, name: str, special_use: str = "") -> Mailbox:
        """A name that means a role's mailbox gives that one, so that clients don't make a second Sent beside it."""
        rows = await self.mailboxes()
        resolved = resolve_name(name, rows)
        if resolved != name and (row := _named(resolved, rows)) is not None and not special_use:
            return row
        made = expect(await self.store.commit(CreateMailbox(self.account.id, resolved, special_use)), MailboxMade)
        return await self._row(made.mailbox_id)

    async def delete(self, name: str) -> MailboxId:
        row = await self._exact(name)
        await self.store.commit(DeleteMailbox(self.account.id, row.id))
        return row.id

    async def rename(self, name: str, new_name: str) -> None:
        row = await self._exact(name)
        await self.store.commit(RenameMailbox(self.account.id, row.id, new_name))

    async def subscribe(self, name: str, on: bool) -> None:
        """The name needs no mailbox (RFC 9051 §6.3.7); another name of a role is kept under the mailbox's own."""
        await self.store.commit(Subscribe(self.account.id, resolve_name(name, await self.mailboxes()), on))

    async def subscriptions(self) -> set[str]:
        return set(await self.store.subscriptions(self.account.id))

    async def quota(self) -> Quota:
        return await self.store.quota(self.account.id)

    async def recent_count(self, mailbox: Mailbox) -> int:
        r"""How many messages no session has been told of yet (RFC 3501 §6.3.10 RECENT); they stay \Recent."""
        claim = ClaimRecent(self.account.id, mailbox.id, peek=True)
        first = expect(await self.store.commit(claim), Recent).first_uid
        view = await self.store.view(self.account.id, mailbox.id)
        return 0 if view is None else len(view) - bisect_left(view.uids, first)

    async def deleted_octets(self, mailbox: Mailbox) -> int:
        """What an expunge would free (RFC 9208 §5.1 DELETED-STORAGE)."""
        view = await self.store.view(self.account.id, mailbox.id)
        if view is None:
            return 0
        uids = [view.uids[at] for at in view.each_with(Flag.DELETED)]
        return sum(entry.size_octets for entry in await self.messages.entries(mailbox.id, uids))

    async def select(
        self, name: str, *, read_only: bool, wants_recent: bool = True, before: Selection | None = None
    ) -> Selection:
        """before: what this session had selected until now, which is unselected in any case; its \\Recent messages stay so."""
        try:
            row = await self.find(name)
            tracker = await self._stay.track(row.id)
        finally:
            if before is not None:
                self.unselect(before)       # not earlier: the same mailbox once more needs no other view
        if tracker is None:
            raise StoreRefused(Refusal.NO_SUCH_MAILBOX)
        selection = Selection(self.store, row, tracker, read_only=read_only, wants_recent=wants_recent)
        if before is not None and before.mailbox.id == row.id:
            selection.recent = before.recent
        try:
            await selection.claim_recent()
        except BaseException:
            self.unselect(selection)
            raise
        return selection

    def unselect(self, selection: Selection) -> None:
        self._stay.untrack(selection.mailbox.id, selection.tracker)

    async def exists(self, mailbox_id: MailboxId) -> bool:
        """Whether a selected mailbox is still there to be selected."""
        return any(row.id == mailbox_id and not row.no_select for row in await self.mailboxes())

    # -- messages --

    def append(self, mailbox: Mailbox) -> Appending:
        """Begin to append one or several messages; nothing is there before its commit()."""
        return Appending(self.store, self.clock, self.account, mailbox)

    async def copy(self, selection: Selection, uids: tuple[Uid, ...], target: Mailbox) -> Copied:
        """All or nothing (RFC 9051 §6.4.7)."""
        copy = Copy(self.account.id, selection.mailbox.id, uids, target.id, self.account.quota_limit_octets)
        return expect(await self.store.commit(copy), Copied)

    async def _exact(self, name: str) -> Mailbox:
        if (row := _named(name, await self.mailboxes())) is None:
            raise StoreRefused(Refusal.NO_SUCH_MAILBOX)
        return row

    async def _row(self, mailbox_id: MailboxId) -> Mailbox:
        for row in await self.mailboxes():
            if row.id == mailbox_id:
                return row
        raise StoreRefused(Refusal.NO_SUCH_MAILBOX)


def _named(name: str, rows: list[Mailbox]) -> Mailbox | None:
    return next((row for row in rows if row.name == name), None)
