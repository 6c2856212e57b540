r"""A selected mailbox: what one session sees of it, and what it does to its messages.

Specification: RFC 9051 §6.4 (STORE, MOVE, EXPUNGE), RFC 7162 §3.1.3 (UNCHANGEDSINCE), RFC 3501 §2.3.2 (\Recent).
Contract: positions are 0-based places in `view`; only the first `told` of them may be named to the client. Changes
    of flags, moves and expunges are cut into operations of at most PIECE_UIDS messages, others run in between.
Failure: StoreRefused and StoreUnavailable pass through; what was done before stays done.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fumibako.model.ids import Uid
from fumibako.model.mailbox import Flag, Mailbox
from fumibako.model.ops import ClaimRecent, Copied, Expunge, Expunged, FlagMode, FlagsSet, Move, Recent, SetFlags
from fumibako.model.view import View
from fumibako.proto.imap.commands import STAR, SequenceSet
from fumibako.services.views import News, Tracker, recent_count
from fumibako.store.base import PIECE_UIDS, Store, StoreRefused, expect


@dataclass(frozen=True, slots=True)
class FlagsOutcome:
    """modified: uids that UNCHANGEDSINCE kept from being changed."""

    changed: dict[int, int]
    modified: tuple[int, ...]


class Selection:
    """The mailbox a session has selected."""

    def __init__(self, store: Store, mailbox: Mailbox, tracker: Tracker, *, read_only: bool, wants_recent: bool) -> None:
        self.mailbox = mailbox
        self.tracker = tracker
        self.read_only = read_only
        self.recent: list[tuple[int, int]] = []     # half-open spans of uids that are \Recent to this session
        self.saved: list[int] = []                  # uids of the last SEARCH with SAVE (RFC 9051 §6.4.4.1)
        self._wants_recent = wants_recent
        self._claimed_to = 0
        self._store = store

    @property
    def view(self) -> View:
        return self.tracker.view

    @property
    def told(self) -> int:
        """How many messages the client knows of."""
        return self.tracker.told_exists

    @property
    def used_flags(self) -> int:
        """Every flag bit in use in this mailbox."""
        return self.tracker.live.used_flags

    @property
    def gone(self) -> bool:
        """The view proved wrong: the session must end."""
        return self.tracker.live.wrong

    @property
    def row_changed(self) -> bool:
        """The mailbox was renamed or deleted: `Visit.exists` tells which."""
        return self.tracker.row_changed

    def row_is_known(self) -> None:
        self.tracker.row_changed = False

    @property
    def expunge_waits(self) -> bool:
        """Messages are gone and the client may not be told yet."""
        return self.view is not self.tracker.live.view

    @property
    def has_news(self) -> bool:
        return self.tracker.has_news or self.gone or self.row_changed

    def positions(self, numbers: SequenceSet, *, uid: bool) -> list[int]:
        """The messages a sequence set names, ascending; ValueError for a sequence number the mailbox doesn't have.

        RFC 9051 §9 seq-number: "*" is the last message; a uid that isn't there names nothing.
        """
        return [at for low, high in self.spans(numbers, uid=uid) for at in range(low, high)]

    def pieces(self, numbers: SequenceSet, *, uid: bool) -> Iterator[list[int]]:
        """`positions` in pieces of at most PIECE_UIDS, each made when it is asked for."""
        return _pieces(self.spans(numbers, uid=uid))

    def spans(self, numbers: SequenceSet, *, uid: bool) -> list[tuple[int, int]]:
        """The same as half-open spans: what a set costs then does not depend on the size of the mailbox."""
        if numbers.saved:
            found = sorted(at for saved in self.saved if 0 <= (at := self.view.index(saved)) < self.told)
            return _merged([(at, at + 1) for at in found])
        uids, told = self.view.uids, self.told
        spans = []
        for span in numbers.ranges:
            low, high = self._bounds(span, uid=uid)
            if uid:
                spans.append((bisect_left(uids, low, 0, told), bisect_right(uids, high, 0, told)))
            elif high > told:
                raise ValueError(high)
            else:
                spans.append((max(low - 1, 0), high))
        return _merged(spans)

    def _bounds(self, span: tuple[int, int], *, uid: bool) -> tuple[int, int]:
        """Both ends as numbers, the smaller first."""
        last = (self.view.uids[self.told - 1] if self.told else 0) if uid else self.told
        if not self.told and STAR in span:
            # Deviation: RFC 9051 §9 would have "*" refused in an empty mailbox; clients ask FETCH 1:* all the same.
            return 0, 0
        low, high = (last if number == STAR else number for number in span)
        return min(low, high), max(low, high)

    # -- what to tell --

    async def claim_recent(self) -> None:
        r"""Messages that no other session has been told of are \Recent to this one; EXAMINE leaves them so."""
        if not self._wants_recent or self.tracker.live.view.uid_next <= self._claimed_to:
            return
        claim = ClaimRecent(self.mailbox.account_id, self.mailbox.id, peek=self.read_only)
        try:
            first = expect(await self._store.commit(claim), Recent).first_uid
        except StoreRefused:
            return      # the mailbox is gone, which `row_changed` tells
        end = self._claimed_to = self.tracker.live.view.uid_next
        if self.recent and self.recent[-1][1] >= first:
            self.recent[-1] = (min(self.recent[-1][0], first), max(self.recent[-1][1], end))
        elif first < end:
            self.recent.append((first, end))

    async def news(self, *, expunge: bool) -> News:
        r"""What to tell now; arrivals are claimed as \Recent first, so that no two sessions call them so."""
        await self.claim_recent()
        return self.tracker.take(expunge=expunge)

    def is_recent(self, uid: int) -> bool:
        return any(low <= uid < high for low, high in self.recent)

    @property
    def recent_count(self) -> int:
        return recent_count(self.view.uids, self.recent, self.told)

    def first_unseen(self) -> int:
        """Position of the first message without \\Seen, or -1."""
        return self.view.first_without(Flag.SEEN)

    def deleted(self) -> list[int]:
        """uids with \\Deleted."""
        uids = self.view.uids
        return [uids[at] for at in self.view.each_with(Flag.DELETED)]

    # -- what to do --

    async def set_flags(
        self, uids: Sequence[int], mode: FlagMode, flags: tuple[str, ...], unchanged_since: int = -1
    ) -> FlagsOutcome:
        """The caller tells the changed ones itself; what others changed meanwhile stays to be told."""
        changed: dict[int, int] = {}
        modified: list[int] = []
        for batch in batches(uids):
            operation = SetFlags(self.mailbox.account_id, self.mailbox.id, batch, mode, flags, unchanged_since)
            done = expect(await self._store.commit(operation), FlagsSet)
            changed.update(done.changed)
            modified += done.modified
        self._mark_told(changed)
        return FlagsOutcome(changed, tuple(modified))

    def _mark_told(self, changed: dict[int, int]) -> None:
        """Our own changes are not news, unless somebody has overtaken them."""
        view = self.view
        for uid, flags in changed.items():
            if (at := view.index(uid)) >= 0 and view.flags[at] == flags:
                self.tracker.changed.discard(uid)

    async def mark_seen(self, positions: Iterable[int]) -> set[int]:
        r"""Fetching a body sets \Seen (RFC 9051 §6.4.5): the uids that really changed."""
        view = self.view
        unseen = [view.uids[at] for at in positions if not view.flags[at] & Flag.SEEN]
        if not unseen or self.read_only:
            return set()
        return set((await self.set_flags(unseen, FlagMode.ADD, ("\\Seen",))).changed)

    async def move(self, uids: Sequence[int], target: Mailbox) -> Copied:
        """RFC 6851 §3.3: each operation moves its messages wholly; the parts' answers joined."""
        parts = [
            expect(await self._store.commit(Move(self.mailbox.account_id, self.mailbox.id, batch, target.id)), Copied)
            for batch in batches(uids)
        ]
        if not parts:
            return Copied(target.uid_validity, (), (), self.view.highest_modseq)
        return Copied(
            parts[-1].uid_validity,
            tuple(uid for part in parts for uid in part.source_uids),
            tuple(uid for part in parts for uid in part.target_uids),
            parts[-1].modseq,
        )

    async def expunge(self, uids: Sequence[int], *, only_deleted: bool = True) -> None:
        """Removes those of the uids that have \\Deleted when the operation runs."""
        for batch in batches(uids):
            operation = Expunge(self.mailbox.account_id, self.mailbox.id, batch, only_deleted)
            expect(await self._store.commit(operation), Expunged)


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Half-open spans in order; where they touch, they are one; without those that hold nothing."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(spans):
        if found and low <= found[-1][1]:
            found[-1] = found[-1][0], max(high, found[-1][1])
        elif low < high:
            found.append((low, high))
    return found


def _pieces(spans: Iterable[tuple[int, int]]) -> Iterator[list[int]]:
    piece: list[int] = []
    for low, high in spans:
        while low < high:
            end = min(high, low + PIECE_UIDS - len(piece))
            piece += range(low, end)
            low = end
            if len(piece) == PIECE_UIDS:
                yield piece
                piece = []
    if piece:
        yield piece


def batches(uids: Sequence[int]) -> Iterator[tuple[Uid, ...]]:
    """What one operation may name."""
    for start in range(0, len(uids), PIECE_UIDS):
        yield tuple(Uid(uid) for uid in uids[start : start + PIECE_UIDS])
