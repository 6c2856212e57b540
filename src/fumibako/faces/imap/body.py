"""Parts of a message as FETCH sends them: BODY[...], BINARY[...], RFC822...

Specification: RFC 9051 §6.4.5.1 (sections), §7.5.2 (literals); RFC 3501 §6.4.5; RFC 3516 §4.2 (literal8), §4.3 (UNKNOWN-CTE).
Contract: a `Literal` has its first piece at hand and gives the rest as it is asked for; only the octets needed are read,
    and at most 64 KiB of them at a time. The size is known before anything is sent.
Failure: OSError: the message can't be read. `Unreadable`: a transfer encoding that isn't known.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from fumibako.model.ids import EmailId
from fumibako.model.mailbox import Entry
from fumibako.proto.imap.commands import FetchItem, FetchKind, Section
from fumibako.proto.message.cache import CachedMessage, SectionText, section_span
from fumibako.proto.message.header import select_fields
from fumibako.proto.message.transfer import decoder
from fumibako.services.message_access import MessageAccess, Octets


class Unreadable(Exception):
    """The part's content transfer encoding is unknown (RFC 3516 §4.3)."""


@dataclass(frozen=True, slots=True)
class Literal:
    """head: label and `{n}` CRLF, or the whole item; first: the first octets; rest: the others."""

    head: bytes
    first: bytes = b""
    rest: AsyncIterator[bytes] | None = None


_RFC822 = {
    FetchKind.RFC822: Section(),
    FetchKind.RFC822_HEADER: Section((), "HEADER"),
    FetchKind.RFC822_TEXT: Section((), "TEXT"),
}


Ahead = Mapping[tuple[EmailId, int, int], bytes]        # (message, start, end) of what was read already
AHEAD_OCTETS = 16 * 1024        # a larger header section is read by itself: memory stays bounded


async def read_headers(
    items: Iterable[FetchItem], entries: Iterable[Entry], indexes: Mapping[EmailId, CachedMessage], messages: MessageAccess
) -> Ahead:
    """The header sections the items ask for, of all the messages at once: a message list wants a little of each."""
    sections = [section for item in items if (section := _section_of(item)).text.startswith("HEADER")]
    wanted = set()
    for entry in entries:
        for section in sections:
            span = _span(section, entry, indexes[entry.email_id])
            if span is not None and span[1] - span[0] <= AHEAD_OCTETS:
                wanted.add((entry.email_id, *span))
    return await messages.pieces(wanted)


def _section_of(item: FetchItem) -> Section:
    return _RFC822.get(item.kind, item.section)


def _span(section: Section, entry: Entry, index: CachedMessage) -> tuple[int, int] | None:
    text = "HEADER" if section.text.startswith("HEADER.FIELDS") else section.text
    return section_span(index, section.part, cast("SectionText", text), entry.prefix_octets)


async def body_literal(item: FetchItem, entry: Entry, index: CachedMessage, messages: Octets, ahead: Ahead) -> Literal:
    """What `item` asks of one message."""
    if item.kind in (FetchKind.BINARY, FetchKind.BINARY_SIZE):
        return await _binary(item, entry, index, messages)
    section = _section_of(item)
    span = _span(section, entry, index)
    if span is None:
        # A part that has no header or text of its own, not being a message, has empty ones.
        return Literal(item.label + b" NIL") if index.section(section.part) is None else _in_memory(item, b"")
    block = ahead.get((entry.email_id, *span))
    if section.fields:
        if block is None:
            block = await messages.whole(entry, *span)
        octets = select_fields(block, section.fields, negate=section.text.endswith(".NOT"))
        return _in_memory(item, octets)
    if block is not None:
        return _in_memory(item, block)
    start, end = _cut(span, item.partial)
    pieces = messages.octets(entry, start, end)
    return Literal(b"%b {%d}\r\n" % (item.label, end - start), await anext(pieces, b""), pieces)


def _cut(span: tuple[int, int], partial: tuple[int, int] | None) -> tuple[int, int]:
    """RFC 9051 §6.4.5: beyond the end a partial fetch is empty."""
    start, end = span
    if partial is None:
        return start, end
    first = min(start + partial[0], end)
    return first, min(first + partial[1], end)


def _in_memory(item: FetchItem, octets: bytes) -> Literal:
    start, end = _cut((0, len(octets)), item.partial)
    return Literal(b"%b {%d}\r\n" % (item.label, end - start), octets[start:end])


async def _binary(item: FetchItem, entry: Entry, index: CachedMessage, messages: Octets) -> Literal:
    """The decoded content of a part: once through to count it, once more to send it."""
    part = index.section(item.section.part)
    span = section_span(index, item.section.part, "", entry.prefix_octets)
    if part is None or span is None:
        return Literal(item.label + b" NIL")
    is_leaf = bool(item.section.part) and not part.children
    encoding = part.encoding if is_leaf else ""
    if decoder(encoding) is None:
        raise Unreadable(encoding)
    size_octets = 0
    async for piece in _decoded(entry, span, encoding, messages):
        size_octets += len(piece)
    if item.kind is FetchKind.BINARY_SIZE:
        return Literal(b"%b %d" % (item.label, size_octets))
    start, end = _cut((0, size_octets), item.partial)
    pieces = _slice(_decoded(entry, span, encoding, messages), start, end)
    return Literal(b"%b ~{%d}\r\n" % (item.label, end - start), await anext(pieces, b""), pieces)


async def _decoded(entry: Entry, span: tuple[int, int], encoding: str, messages: Octets) -> AsyncIterator[bytes]:
    decoding = decoder(encoding)
    if decoding is None:
        raise Unreadable(encoding)
    async for piece in messages.octets(entry, *span):
        yield decoding.feed(piece)
    yield decoding.close()


async def _slice(pieces: AsyncIterator[bytes], start: int, end: int) -> AsyncIterator[bytes]:
    """Octets start..end of the pieces, without empty pieces."""
    at = 0
    async for piece in pieces:
        if kept := piece[max(start - at, 0) : max(end - at, 0)]:
            yield kept
        at += len(piece)
        if at >= end:
            return
