r"""FETCH and UID FETCH: chunk by chunk, whole columns at a time; bodies flow through in pieces.

Specification: RFC 9051 §6.4.5, §7.5.2; RFC 3501 §6.4.5 (RFC822 items); RFC 7162 §3.1.4 (CHANGEDSINCE); RFC 3516 §4 (BINARY);
    RFC 8474 §5; RFC 8514 §4.1; RFC 8970 §3; RFC 6858 §2, §3 (a client that has not enabled UTF-8 gets a surrogate of a message
    whose header needs it).
Contract: memory holds one chunk of rows and one piece of a body; the client's slowness stops the work. Fetching a body
    sets \Seen first, so that the flags told are those that hold.
Failure: a message that others expunged, or whose blob is damaged, is left out and the answer is NO; a blob that breaks off
    while it is being sent ends the session, since its literal can't be finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from fumibako.faces.imap.body import Ahead, Literal, Unreadable, body_literal, read_headers
from fumibako.faces.imap.conversation import CHUNK_MESSAGES, Answer, Conversation, Declined
from fumibako.model.ids import EmailId
from fumibako.model.mailbox import Entry
from fumibako.proto.imap import commands as c
from fumibako.proto.imap.commands import FetchItem, FetchKind
from fumibako.proto.imap.dates import format_date_time
from fumibako.proto.imap.format import format_fetch, format_string
from fumibako.proto.imap.numbers import format_uid_set
from fumibako.proto.imap.render import FLAGS, MODSEQ, UID, Column, render_fetch
from fumibako.proto.message.cache import CachedMessage
from fumibako.services.message_access import Octets, SurrogateAccess
from fumibako.services.message_ids import email_id_of, thread_id_of

_ARRAYS = frozenset({FetchKind.UID, FetchKind.FLAGS, FetchKind.MODSEQ})
_ARRAY_TEMPLATES = {FetchKind.UID: UID, FetchKind.FLAGS: FLAGS, FetchKind.MODSEQ: MODSEQ}
_CACHED = frozenset({FetchKind.ENVELOPE, FetchKind.BODY, FetchKind.BODYSTRUCTURE, FetchKind.PREVIEW})
_BODIES = frozenset({
    FetchKind.SECTION, FetchKind.BINARY, FetchKind.BINARY_SIZE,
    FetchKind.RFC822, FetchKind.RFC822_HEADER, FetchKind.RFC822_TEXT,
})
# What looks different in a surrogate. Its size is exact, too: clients fetch by it in pieces.
_HEADERS = frozenset({FetchKind.ENVELOPE, FetchKind.BODY, FetchKind.BODYSTRUCTURE, FetchKind.SIZE}) | _BODIES
MAX_DOWNGRADED = 100        # uids told; RFC 6858 §3 lets the list be incomplete
_UID_ITEM = FetchItem(FetchKind.UID, label=b"UID")
_FLAGS_ITEM = FetchItem(FetchKind.FLAGS, label=b"FLAGS")
_MODSEQ_ITEM = FetchItem(FetchKind.MODSEQ, label=b"MODSEQ")


async def fetch(talk: Conversation, command: c.Fetch) -> Answer:
    if command.vanished:
        raise Declined("VANISHED needs QRESYNC, which is not offered", status="BAD")      # RFC 7162 §3.2.6
    positions = talk.positions(command.numbers, uid=command.uid)
    if command.changed_since is not None:
        modseqs = talk.selected.view.modseqs
        positions = [at for at in positions if modseqs[at] > command.changed_since]
    work = _Fetch(talk, _items(command))
    for start in range(0, len(positions), CHUNK_MESSAGES):
        await work.chunk(positions[start : start + CHUNK_MESSAGES])
        await talk.drain()
    return work.answer(command)


def _items(command: c.Fetch) -> tuple[FetchItem, ...]:
    """What is asked for, and what goes with it: UID with UID FETCH, MODSEQ with CHANGEDSINCE."""
    kinds = {item.kind for item in command.items}
    first = (_UID_ITEM,) if command.uid and FetchKind.UID not in kinds else ()
    last = (_MODSEQ_ITEM,) if command.changed_since is not None and FetchKind.MODSEQ not in kinds else ()
    return (*first, *command.items, *last)


class _Fetch:
    """One FETCH on its way."""

    def __init__(self, talk: Conversation, items: tuple[FetchItem, ...]) -> None:
        self._talk = talk
        self._items = items
        kinds = {item.kind for item in items}
        self._only_arrays = kinds <= _ARRAYS
        self._downgrades = not talk.core.utf8 and bool(kinds & _HEADERS)
        self._needs_index = self._downgrades or bool(kinds & (_CACHED | _BODIES))
        self._bodies = [item for item in items if item.kind in _BODIES]
        self._sets_seen = any(item.kind in _BODIES and not item.peek for item in items)
        self._tells_flags = FetchKind.FLAGS in kinds
        self._expunged = self._damaged = False
        self._unknown_encoding = False
        self._downgraded: list[int] = []

    def answer(self, command: c.Fetch) -> Answer:
        if self._unknown_encoding:
            return Answer("A part's transfer encoding is unknown", b"UNKNOWN-CTE", "NO")
        if self._damaged:
            return Answer("Some messages can't be read; the administrator has to look at them", b"CORRUPTION", "NO")
        if self._expunged:
            # RFC 5530 §3; asked by UID, a message that is gone is no failure.
            return Answer("Some messages are expunged", b"EXPUNGEISSUED", "OK" if command.uid else "NO")
        if self._downgraded:
            return Answer("FETCH completed", b"DOWNGRADED " + format_uid_set(self._downgraded))
        return Answer("FETCH completed")

    async def chunk(self, positions: list[int]) -> None:
        if self._only_arrays:
            self._from_arrays(positions)
            return
        selection = self._talk.selected
        view = selection.view
        messages = self._talk.visit.messages
        entries = await messages.entries(selection.mailbox.id, [view.uids[at] for at in positions])
        self._expunged |= len(entries) < len(positions)
        indexes: dict[EmailId, CachedMessage] = {}
        if self._needs_index:
            indexes = await messages.indexes(entries)
            self._damaged |= len(indexes) < len({entry.email_id for entry in entries})
            entries = [entry for entry in entries if entry.email_id in indexes]
        kept = [view.index(entry.uid) for entry in entries]
        newly_seen = await selection.mark_seen(kept) if self._sets_seen else set()
        rows = zip(kept, entries, strict=True)
        for is_looked_at, run in groupby(rows, lambda row: self._downgrades and indexes[row[1].email_id].may_be_international):
            positions, entries = map(list, zip(*run, strict=True))
            if is_looked_at:
                for at, entry in zip(positions, entries, strict=True):
                    await self._tell_surrogate(at, entry, indexes[entry.email_id], newly_seen)
            else:
                await self._tell(positions, entries, indexes, newly_seen)

    def _from_arrays(self, positions: list[int]) -> None:
        columns: list[Column] = [(_ARRAY_TEMPLATES[item.kind], self._array(item.kind, positions)) for item in self._items]
        for lines in render_fetch([at + 1 for at in positions], columns):
            self._talk.core.send(lines)

    def _array(self, kind: FetchKind, positions: list[int]) -> Sequence[object]:
        view = self._talk.selected.view
        match kind:
            case FetchKind.UID:
                return [view.uids[at] for at in positions]
            case FetchKind.MODSEQ:
                return [view.modseqs[at] for at in positions]
        lists = self._talk.flag_lists
        return [lists[word] for word in self._talk.flag_words(positions)]

    async def _tell_surrogate(self, at: int, entry: Entry, index: CachedMessage, newly_seen: set[int]) -> None:
        """One message whose header may need UTF-8: one at a time, so that memory holds the headers of one."""
        try:
            surrogate = await self._talk.visit.messages.surrogate(entry, index)
        except OSError:
            self._damaged = True
            return
        if surrogate is None:
            await self._tell([at], [entry], {entry.email_id: index}, newly_seen)
            return
        if len(self._downgraded) < MAX_DOWNGRADED:
            self._downgraded.append(entry.uid)
        await self._tell([at], [surrogate.entry], {entry.email_id: surrogate.index}, newly_seen, surrogate)

    async def _tell(
        self, positions: list[int], entries: list[Entry], indexes: dict[EmailId, CachedMessage], newly_seen: set[int],
        surrogate: SurrogateAccess | None = None,
    ) -> None:
        """Rows made of columns: one list an item, one entry a message. surrogate: what the one message is served from."""
        simple = [item for item in self._items if item.kind not in _BODIES]
        columns = [self._column(item, positions, entries, indexes) for item in simple]
        if newly_seen and not self._tells_flags:
            columns.insert(0, self._seen_column(positions, newly_seen))
        rows = zip(*columns, strict=True) if columns else ((),) * len(positions)
        if not self._bodies:
            for at, row in zip(positions, rows, strict=True):
                self._talk.core.untagged(format_fetch(at + 1, row))
            return
        messages = self._talk.visit.messages
        ahead = {} if surrogate else await read_headers(self._bodies, entries, indexes, messages)
        for at, entry, row in zip(positions, entries, rows, strict=True):
            literals = await self._open(entry, indexes[entry.email_id], surrogate or messages, ahead)
            if literals is not None:
                await self._tell_with_bodies(at, [item for item in row if item], literals)

    def _seen_column(self, positions: list[int], newly_seen: set[int]) -> list[bytes]:
        """FLAGS of the messages that fetching has just made \\Seen, b"" for the others (RFC 9051 §6.4.5)."""
        view = self._talk.selected.view
        told = self._column(_FLAGS_ITEM, positions, (), {})
        if self._talk.core.condstore:
            modseqs = self._column(_MODSEQ_ITEM, positions, (), {})
            told = [flags + b" " + modseq for flags, modseq in zip(told, modseqs, strict=True)]
        return [text if view.uids[at] in newly_seen else b"" for at, text in zip(positions, told, strict=True)]

    def _column(
        self, item: FetchItem, positions: list[int], entries: Sequence[Entry], indexes: dict[EmailId, CachedMessage]
    ) -> list[bytes]:
        """`LABEL value` of each message."""
        if item.kind in _ARRAYS:
            template = _ARRAY_TEMPLATES[item.kind]
            return [(template % value).encode("ascii") for value in self._array(item.kind, positions)]
        if item.kind in _CACHED:
            values = _cached_values(item.kind, [indexes[entry.email_id] for entry in entries], utf8=self._talk.core.utf8)
        else:
            values = _row_values(item.kind, entries)
        label = item.label + b" "
        return [label + value for value in values]

    async def _open(self, entry: Entry, index: CachedMessage, messages: Octets, ahead: Ahead) -> list[Literal] | None:
        """Literals are opened before the line begins, so that an unreadable message is left out whole: None."""
        try:
            return [await body_literal(item, entry, index, messages, ahead) for item in self._bodies]
        except OSError:
            self._damaged = True
        except Unreadable:
            self._unknown_encoding = True
        return None

    async def _tell_with_bodies(self, at: int, row: list[bytes], literals: list[Literal]) -> None:
        send = self._talk.core.send
        send(b"* %d FETCH (%b" % (at + 1, b" ".join(row)))
        for number, literal in enumerate(literals):
            send(b" " + literal.head if row or number else literal.head)
            send(literal.first)
            while literal.rest is not None and (piece := await anext(literal.rest, b"")):
                await self._talk.drain()
                send(piece)
        send(b")\r\n")


def _cached_values(kind: FetchKind, indexes: list[CachedMessage], *, utf8: bool) -> list[bytes]:
    match kind:
        case FetchKind.ENVELOPE:
            return [index.envelope for index in indexes]
        case FetchKind.BODYSTRUCTURE:
            return [index.bodystructure for index in indexes]
        case FetchKind.BODY:
            return [index.body for index in indexes]
    return [format_string(index.preview.encode("utf-8"), utf8=utf8) for index in indexes]


def _row_values(kind: FetchKind, entries: Sequence[Entry]) -> list[bytes]:
    match kind:
        case FetchKind.SIZE:
            return [b"%d" % entry.size_octets for entry in entries]
        case FetchKind.INTERNALDATE:
            return [format_date_time(entry.internal_date) for entry in entries]
        case FetchKind.SAVEDATE:
            return [format_date_time(entry.saved_at) for entry in entries]
        case FetchKind.EMAILID:
            return [b"(%b)" % email_id_of(entry).encode("ascii") for entry in entries]
        case FetchKind.THREADID:
            return [b"(%b)" % thread_id_of(entry).encode("ascii") for entry in entries]
    raise ValueError(kind)
