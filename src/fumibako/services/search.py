"""Which messages of a selected mailbox match a tree of search keys.

Specification: RFC 9051 §6.4.4 (keys; substrings compare without case), RFC 5032 (OLDER, YOUNGER), RFC 8514 §4 (SAVEDATE),
    RFC 8474 §5.3 (EMAILID, THREADID), RFC 7162 §3.1.5 (MODSEQ).
Contract: flags, uids and modseqs come from the view's arrays, sizes and dates from rows, usual header fields from the
    index, everything else from the message's octets; each only for messages that cheaper keys left. Work is cut into
    slices, and whatever is done is told to a Pace, so the event loop runs in between however many keys there are. Text
    compares after NFKC and casefolding, so ｶﾅ finds カナ.
Failure: a message whose octets can't be read matches no text; TookTooLong after SEARCH_S; store failures pass through.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar, cast

from fumibako.model.ids import EmailId
from fumibako.model.mailbox import SYSTEM_FLAGS, Entry
from fumibako.net.clock import Clock
from fumibako.proto.imap.commands import (
    All,
    And,
    DateIs,
    HasFlag,
    HeaderHas,
    IdIs,
    IsRecent,
    ModSeqIs,
    Not,
    Numbers,
    Or,
    SaveDateSupported,
    SearchKey,
    SizeIs,
    TextHas,
    Within,
)
from fumibako.proto.message.cache import CachedMessage
from fumibako.proto.message.header import parse_date
from fumibako.services.message_access import MessageAccess
from fumibako.services.message_ids import email_id_of, thread_id_of
from fumibako.services.message_text import MessageText, fold_text
from fumibako.services.pace import Pace
from fumibako.services.selection import Selection

T = TypeVar("T")

SEARCH_S = 60.0             # in all
SLICE_ARRAYS = 20_000       # messages looked at together when only arrays are needed
SLICE_ROWS = 500            # of which rows are held
SLICE_INDEXES = 100         # of which indexes are held, each of up to some 100 KB
ROW_UNITS, TEXT_UNITS = 10, 50      # of Pace: what one message costs beyond its characters
DAY_MS = 86_400_000

_CLOCK_TIME = re.compile(rb"\d{1,2}:\d\d(?::\d\d)?")
_ARRAY_KEYS = (All, HasFlag, IsRecent, Numbers, ModSeqIs, SaveDateSupported)
_ROW_KEYS = (SizeIs, Within, IdIs)


def cost_of(key: SearchKey) -> int:
    """0: arrays, 1: rows, 2: indexes, 3: octets of the message."""
    match key:
        case Not():
            return cost_of(key.key)
        case And():
            return max(map(cost_of, key.keys), default=0)
        case Or():
            return max(cost_of(key.left), cost_of(key.right))
        case DateIs():
            return 2 if key.what == "sent" else 1
        case TextHas():
            return 3
        case HeaderHas():
            return 2
    return 0 if isinstance(key, _ARRAY_KEYS) else 1


class Search:
    """One SEARCH over one selection."""

    def __init__(self, selection: Selection, messages: MessageAccess, clock: Clock, keywords: dict[int, str]) -> None:
        self._selection = selection
        self._view = selection.view
        self._clock = clock
        self._now_ms = clock.now_ms()
        self._bits = {name.lower(): bit for name, bit in SYSTEM_FLAGS.items()}
        self._bits |= {name.lower(): 1 << bit for bit, name in keywords.items()}
        self._messages = messages
        self._rows = _Rows(selection, messages)
        self._pace = Pace(clock, SEARCH_S)

    async def run(self, key: SearchKey) -> list[int]:
        """Positions of the messages that match, ascending.

        ValueError: a sequence number the mailbox doesn't have. TookTooLong: nothing is known.
        """
        found: list[int] = []
        cost = cost_of(key)
        told = self._selection.told
        size = (SLICE_ARRAYS, SLICE_ROWS, SLICE_INDEXES, SLICE_INDEXES)[cost]
        for start in range(0, told, size):
            self._rows.forget()
            found += await self._match(key, list(range(start, min(start + size, told))))
            await self._pace.turn()
        return found

    async def _match(self, key: SearchKey, among: list[int]) -> list[int]:
        """Those `among` the positions that match, in order."""
        match key:
            case And():
                for part in self._rows.once(id(key), lambda: sorted(key.keys, key=cost_of)):
                    among = await self._match(part, among) if among else among
                return among
            case Or():
                left = set(await self._match(key.left, among))
                left.update(await self._match(key.right, [at for at in among if at not in left]))
                return [at for at in among if at in left]
            case Not():
                out = set(await self._match(key.key, among))
                return [at for at in among if at not in out]
            case DateIs() | SizeIs() | Within() | IdIs() | HeaderHas() | TextHas():
                return await self._by_message(key, among)
        await self._pace.spend(1 + len(among))
        return self._by_arrays(key, among)

    def _by_arrays(self, key: SearchKey, among: list[int]) -> list[int]:
        view = self._view
        match key:
            case HasFlag():
                bit = self._bits.get(key.flag.lower(), 0)
                return [at for at in among if bool(view.flags[at] & bit) is key.present]
            case IsRecent():
                return [at for at in among if self._selection.is_recent(view.uids[at]) is key.present]
            case Numbers():
                ends, inside = self._named(key)
                return [at for at in among if inside[bisect_right(ends, at)]]
            case ModSeqIs():
                return [at for at in among if view.modseqs[at] >= key.modseq]
        return among    # ALL, SAVEDATESUPPORTED

    def _named(self, key: Numbers) -> tuple[list[int], list[bool]]:
        """Where spans begin and end, alternately, and whether what lies in front of each, and behind the last, is named."""
        def make() -> tuple[list[int], list[bool]]:
            ends = [end for span in self._selection.spans(key.numbers, uid=key.uid) for end in span]
            return ends, [at % 2 == 1 for at in range(len(ends) + 1)]
        return self._rows.once(("$",) if key.numbers.saved else id(key), make)     # "$" is the same however often it is named

    async def _by_message(self, key: SearchKey, among: list[int]) -> list[int]:
        if not among:
            return []
        cost = cost_of(key)
        await self._rows.load(among, with_indexes=cost > 1)
        matches, units, found = self._matcher(key), TEXT_UNITS if cost > 1 else ROW_UNITS, []
        for at in among:
            if at in self._rows.entries and await matches(at):
                found.append(at)
            await self._pace.spend(units)
        return found

    def _matcher(self, key: SearchKey) -> Callable[[int], Awaitable[bool]]:
        match key:
            case HeaderHas():
                return lambda at: self._header_has(at, key)
            case TextHas():
                return lambda at: self._text_has(at, key)
        return lambda at: self._row_is(at, key)

    async def _row_is(self, at: int, key: SearchKey) -> bool:
        entry = self._rows.entries[at]
        match key:
            case SizeIs():
                return entry.size_octets > key.octets if key.larger else entry.size_octets < key.octets
            case Within():
                return (entry.internal_date > self._now_ms - key.seconds * 1000) is key.younger
            case IdIs():
                return key.id == (email_id_of(entry) if key.kind == "email" else thread_id_of(entry))
            case DateIs():
                return self._date_is(key, entry, self._rows.indexes.get(entry.email_id))
        raise TypeError(key)

    def _date_is(self, key: DateIs, entry: Entry, index: CachedMessage | None) -> bool:
        """Days are those the client is shown: INTERNALDATE and SAVEDATE are told in UTC."""
        match key.what:
            case "internal":
                day = entry.internal_date // DAY_MS
            case "saved":
                day = entry.saved_at // DAY_MS
            case _:
                sent = _written_day(index.field("date")) if index is not None else None
                if sent is None:
                    return False
                day = sent
        match key.how:
            case "before":
                return day < key.day
            case "since":
                return day >= key.day
        return day == key.day

    async def _header_has(self, at: int, key: HeaderHas) -> bool:
        text = MessageText(self._messages, self._rows.entries[at], self._rows.index(at), self._pace)
        needle = self._rows.once(key.text, lambda: fold_text(key.text))
        return await text.field_has(key.field, needle)

    async def _text_has(self, at: int, key: TextHas) -> bool:
        text = MessageText(self._messages, self._rows.entries[at], self._rows.index(at), self._pace)
        needle = self._rows.once(key.text, lambda: fold_text(key.text))
        return await text.contains(needle, body_only=key.body_only)


class _Rows:
    """Rows and indexes of the slice at hand, and values made once for the whole search."""

    def __init__(self, selection: Selection, messages: MessageAccess) -> None:
        self._selection, self._messages = selection, messages
        self._made: dict[object, object] = {}
        self.entries: dict[int, Entry] = {}
        self.indexes: dict[EmailId, CachedMessage] = {}

    def forget(self) -> None:
        self.entries, self.indexes = {}, {}

    def index(self, at: int) -> CachedMessage | None:
        return self.indexes.get(self.entries[at].email_id)

    def once(self, name: object, make: Callable[[], T]) -> T:
        """`name` always goes with the same kind of value."""
        if name not in self._made:
            self._made[name] = make()
        return cast("T", self._made[name])

    async def load(self, among: Iterable[int], *, with_indexes: bool) -> None:
        view, wanted = self._selection.view, [at for at in among if at not in self.entries]
        position = {view.uids[at]: at for at in wanted}
        for entry in await self._messages.entries(self._selection.mailbox.id, list(position)):
            self.entries[position[entry.uid]] = entry
        if with_indexes:
            missing = [self.entries[at] for at in among if at in self.entries and self.entries[at].email_id not in self.indexes]
            self.indexes |= await self._messages.indexes(missing) if missing else {}


def _written_day(value: bytes) -> int | None:
    """The day a Date field names, whatever its time zone (RFC 9051 §6.4.4 SENTON)."""
    if (time := _CLOCK_TIME.search(value)) is None:
        return None
    written = parse_date(value[: time.end()] + b" +0000")
    return None if written is None else written // DAY_MS
