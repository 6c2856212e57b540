"""Views of mailboxes, one per (process, mailbox), shared by its sessions and kept up to date by Change rows.

Specification: RFC 9051 §5.5, §7.5.1 (when an EXPUNGE may be told); DESIGN §3 Views.
Contract: `LiveView` holds the newest generation; a `Tracker` is what one session has been told. Flags and arrivals
    reach every generation somebody still looks at; an expunge makes the next generation. An account is watched
    while somebody is in it, a view is kept while somebody has it selected.
Failure: StoreUnavailable and StoreRefused of the store pass through; a view that differs from its mailbox row is
    logged and loaded again, and the sessions that had it must close.
"""

from __future__ import annotations

import asyncio
import logging
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import reduce
from operator import or_

from fumibako.model.change import Arrived, Change, FlagsChanged, Notice, Rang, Revoked
from fumibako.model.ids import AccountId, MailboxId, ModSeq
from fumibako.model.mailbox import Mailbox
from fumibako.model.ops import OpenAccount, Ping, Watch
from fumibako.model.view import View
from fumibako.store.base import Store, StoreUnavailable

_log = logging.getLogger(__name__)
_CHECK_TRIES = 3


@dataclass(frozen=True, slots=True)
class News:
    """What a session may be told now, in this order. expunged: sequence numbers, each valid after the one before it
    was taken away; exists: None when unchanged; changed: uids whose flags others changed."""

    expunged: tuple[int, ...] = ()
    exists: int | None = None
    changed: tuple[int, ...] = ()


class LiveView:
    """One mailbox: the newest View and the sessions that look at it."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.trackers: set[Tracker] = set()
        self.used_flags = view.any_flags()      # every flag bit seen since it was loaded
        self.applied = 0                # how many changes were applied: tells a reader whether it was overtaken
        self.wrong = False              # it differed from its row: nobody may rely on its sequence numbers
        self._gone: list[tuple[int, array[int]]] = []   # (generation made, uids that went)

    def _generations(self) -> Iterable[View]:
        return {id(view): view for view in (self.view, *(tracker.view for tracker in self.trackers))}.values()

    def arrive(self, arrived: Iterable[Arrived], modseq: ModSeq) -> None:
        for new in arrived:
            self.used_flags |= new.flags
            for view in self._generations():
                if new.uid >= view.uid_next:
                    view.uids.append(new.uid)
                    view.flags.append(new.flags)
                    view.modseqs.append(modseq)
                    view.uid_next = new.uid + 1

    def set_flags(self, changed: FlagsChanged, modseq: ModSeq) -> None:
        self.used_flags = reduce(or_, set(changed.flags), self.used_flags)
        for view in self._generations():
            for uid, flags in zip(changed.uids, changed.flags, strict=True):
                if (at := view.index(uid)) >= 0:
                    view.flags[at], view.modseqs[at] = flags, modseq
        for tracker in self.trackers:
            tracker.changed.update(changed.uids)

    def expunge(self, uids: Iterable[int]) -> None:
        """Makes the next generation, without these."""
        old = self.view
        gone = sorted(at for uid in uids if (at := old.index(uid)) >= 0)
        if not gone:
            return
        self._gone.append((old.generation + 1, array("I", (old.uids[at] for at in gone))))
        self.view = View(_without(old.uids, gone), _without(old.flags, gone), _without(old.modseqs, gone),
                         uid_validity=old.uid_validity, uid_next=old.uid_next, highest_modseq=old.highest_modseq)
        self.view.generation = old.generation + 1

    def changed_at(self, modseq: ModSeq) -> None:
        """One Change is applied: wakes the sessions."""
        self.applied += 1
        for view in self._generations():
            view.highest_modseq = max(view.highest_modseq, modseq)
        for tracker in self.trackers:
            tracker.wake()

    def give_up(self) -> None:
        self.wrong = True
        for tracker in self.trackers:
            tracker.wake()

    def gone_since(self, generation: int) -> list[int]:
        """uids expunged by the generations after this one, ascending."""
        return sorted(uid for made, uids in self._gone if made > generation for uid in uids)

    def forget_told(self) -> None:
        """Drops what every session has been told."""
        oldest = min((tracker.view.generation for tracker in self.trackers), default=self.view.generation)
        self._gone = [(made, uids) for made, uids in self._gone if made > oldest]


class Tracker:
    """What one session has been told of a mailbox: its generation and how many messages exist."""

    def __init__(self, live: LiveView, wake: Callable[[], None]) -> None:
        self.live = live
        self.view = live.view
        self.told_exists = len(live.view)
        self.changed: set[int] = set()      # uids with new flags not yet told
        self.row_changed = False            # renamed or deleted: the row has to be looked at again
        self.wake = wake

    @property
    def has_news(self) -> bool:
        return bool(self.changed) or self.told_exists != len(self.view) or self.view is not self.live.view

    def take(self, *, expunge: bool) -> News:
        """Moves on and says what to tell. expunge False: sequence numbers stay as they are (RFC 9051 §7.5.1)."""
        before = self.told_exists
        expunged = self._take_expunged() if expunge and self.view is not self.live.view else ()
        exists = len(self.view) if len(self.view) != before - len(expunged) else None
        known = before - len(expunged)
        changed = tuple(sorted(uid for uid in self.changed if 0 <= self.view.index(uid) < known))
        self.changed.clear()
        self.told_exists = len(self.view)
        return News(expunged, exists, changed)

    def _take_expunged(self) -> tuple[int, ...]:
        positions = (self.view.index(uid) for uid in self.live.gone_since(self.view.generation))
        told = [at for at in positions if 0 <= at < self.told_exists]
        self.view = self.live.view
        self.live.forget_told()
        return tuple(at + 1 - before for before, at in enumerate(told))

    def close(self) -> None:
        self.live.trackers.discard(self)
        self.live.forget_told()


def _without(values: array[int], gone: list[int]) -> array[int]:
    """A copy without the places `gone` (ascending): whole runs are copied, never single elements."""
    kept, start = array(values.typecode), 0
    for at in gone:
        kept.extend(values[start:at])
        start = at + 1
    kept.extend(values[start:])
    return kept


@dataclass(slots=True)
class AccountViews:
    """An account somebody is in. keywords: bit -> name."""

    account_id: AccountId
    keywords: dict[int, str] = field(default_factory=dict)
    live: dict[MailboxId, LiveView] = field(default_factory=dict)
    stays: list[Stay] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    watched: bool = False
    modseq: int = 0             # every change up to this one has been applied
    loading: dict[MailboxId, list[Change]] = field(default_factory=dict)


class Stay:
    """One login's presence in an account, from `Views.enter` to `end`."""

    def __init__(self, views: Views, account: AccountViews, wake: Callable[[], None]) -> None:
        self.revoked = False        # the account's credentials or status changed: the session must end
        self.wake = wake
        self.account = account
        self._views = views

    @property
    def keywords(self) -> dict[int, str]:
        """bit -> name; grows while somebody stays."""
        return self.account.keywords

    async def track(self, mailbox_id: MailboxId) -> Tracker | None:
        """Look at a mailbox from now on; None when it is gone."""
        return await self._views.track(self.account, mailbox_id, self.wake)

    def untrack(self, mailbox_id: MailboxId, tracker: Tracker) -> None:
        self._views.untrack(self.account, mailbox_id, tracker)

    async def catch_up(self) -> None:
        """What anybody has been told is done, in this process or another, is in the views now."""
        await self._views.catch_up(self.account)

    async def end(self) -> None:
        await self._views.leave(self)


class Views:
    """Every view of this process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._accounts: dict[AccountId, AccountViews] = {}
        self._stop = store.listen(self._on_change)

    def close(self) -> None:
        self._stop()

    async def enter(self, account_id: AccountId, wake: Callable[[], None]) -> Stay:
        """The first one in makes the account's rows and watches it. wake: called when there may be something to tell."""
        account = self._accounts.setdefault(account_id, AccountViews(account_id))
        stay = Stay(self, account, wake)
        account.stays.append(stay)
        try:
            async with account.lock:
                if not account.watched:
                    await self._store.commit(OpenAccount(account_id))
                    await self._store.commit(Watch(account_id))
                    account.keywords = await self._store.keywords(account_id) | account.keywords
                    account.watched = True
        except BaseException:
            account.stays.remove(stay)
            raise
        return stay

    async def leave(self, stay: Stay) -> None:
        """The last one out ends the watch."""
        account = stay.account
        account.stays.remove(stay)
        async with account.lock:
            if account.stays or not account.watched:
                return
            account.watched = False
            account.live.clear()
            try:
                await self._store.commit(Watch(account.account_id, on=False))
            except StoreUnavailable:
                pass        # the watches of a lost connection ended with it
            if not account.stays:
                self._accounts.pop(account.account_id, None)

    async def catch_up(self, account: AccountViews) -> None:
        """A change that is committed may still be on its way here: then an answer from storage comes after it."""
        modseq = await self._store.modseq(account.account_id)
        if modseq > account.modseq:
            await self._store.commit(Ping())
            account.modseq = max(account.modseq, modseq)

    async def track(self, account: AccountViews, mailbox_id: MailboxId, wake: Callable[[], None]) -> Tracker | None:
        """A session looks at the mailbox from now on; None when the mailbox is gone."""
        async with account.lock:
            live = account.live.get(mailbox_id)
            if live is None or not await self._agrees(account, mailbox_id, live):
                if (fresh := await self._load(account, mailbox_id)) is None:
                    return None
                live = account.live[mailbox_id] = fresh
            tracker = Tracker(live, wake)
            live.trackers.add(tracker)
            return tracker

    def untrack(self, account: AccountViews, mailbox_id: MailboxId, tracker: Tracker) -> None:
        tracker.close()
        if not tracker.live.trackers and account.live.get(mailbox_id) is tracker.live:
            del account.live[mailbox_id]

    async def _load(self, account: AccountViews, mailbox_id: MailboxId) -> LiveView | None:
        missed = account.loading[mailbox_id] = []
        try:
            view = await self._store.view(account.account_id, mailbox_id)
        finally:
            del account.loading[mailbox_id]
        if view is None:
            return None
        live = LiveView(view)
        loaded_at = view.highest_modseq
        for change in missed:
            if change.modseq > loaded_at:
                _apply(live, mailbox_id, change)
        return live

    async def _agrees(self, account: AccountViews, mailbox_id: MailboxId, live: LiveView) -> bool:
        """Compares count, next uid and modseq with the mailbox row (DESIGN §3); True also while changes keep coming."""
        for _ in range(_CHECK_TRIES):
            applied = live.applied
            row = next((row for row in await self._store.mailboxes(account.account_id) if row.id == mailbox_id), None)
            await self.catch_up(account)
            if live.applied != applied:
                continue
            if row is not None and _matches(row, live.view):
                return True
            _log.error("view of mailbox %d of account %d differs from its row: loaded again", mailbox_id, account.account_id)
            live.give_up()
            return False
        return True

    def _on_change(self, change: Notice) -> None:
        if isinstance(change, Rang):
            return      # the queue's
        account = self._accounts.get(change.account_id)
        if account is None:
            return
        if isinstance(change, Revoked):
            for stay in account.stays:
                stay.revoked = True
                stay.wake()
            return
        account.keywords.update(change.keywords)
        account.modseq = max(account.modseq, change.modseq)
        for mailbox_id in _touched(change):
            if (live := account.live.get(mailbox_id)) is not None:
                _apply(live, mailbox_id, change)
            elif (missed := account.loading.get(mailbox_id)) is not None:
                missed.append(change)


def _touched(change: Change) -> Iterator[MailboxId]:
    found = {part.mailbox_id for parts in (change.arrived, change.flags, change.vanished) for part in parts}
    yield from found.union(change.mailboxes)


def _apply(live: LiveView, mailbox_id: MailboxId, change: Change) -> None:
    live.arrive((new for new in change.arrived if new.mailbox_id == mailbox_id), change.modseq)
    for flags in change.flags:
        if flags.mailbox_id == mailbox_id:
            live.set_flags(flags, change.modseq)
    for vanished in change.vanished:
        if vanished.mailbox_id == mailbox_id:
            live.expunge(vanished.uids)
    if mailbox_id in change.mailboxes:
        for tracker in live.trackers:
            tracker.row_changed = True
    live.changed_at(change.modseq)


def _matches(row: Mailbox, view: View) -> bool:
    return (row.total, row.uid_next) == (len(view), view.uid_next) and row.highest_modseq <= view.highest_modseq


def recent_count(uids: array[int], spans: Iterable[tuple[int, int]], told: int) -> int:
    """How many of the first `told` uids lie in the half-open spans."""
    return sum(bisect_left(uids, high, 0, told) - bisect_left(uids, low, 0, told) for low, high in spans)
