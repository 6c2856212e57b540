"""A message as the text a person searches: decoded header fields and decoded text parts.

Specification: RFC 9051 §6.4.4 (BODY, TEXT, HEADER); RFC 2047 (encoded words); RFC 2045 §6 (transfer encodings).
Contract: text parts, names of attachments, headers of parts and of messages inside are the text of a body, nothing else. A
    part is looked at in lumps that end with a line where there are any, so memory stays bounded; texts compare piece by
    piece and every piece is told to the search's Pace, so the event loop runs in between.
Failure: what can't be read holds no text.
"""

from __future__ import annotations

import html
import re
import unicodedata
from codecs import IncrementalDecoder
from collections.abc import AsyncIterator, Iterator

from fumibako.model.mailbox import Entry
from fumibako.proto.message.cache import CachedMessage
from fumibako.proto.message.charset import cut_text, decode_text, wide_decoder
from fumibako.proto.message.header import field_values, fields
from fumibako.proto.message.index import Part
from fumibako.proto.message.transfer import decoder
from fumibako.proto.message.words import decode_words
from fumibako.services.message_access import PIECE_OCTETS, MessageAccess
from fumibako.services.pace import Pace

LUMP_OCTETS = 64 * 1024         # decoded at once; no charset of mail but UTF-16 and UTF-32 has LF inside a character
PIECE_CHARACTERS = 4096         # normalised at once: NFKC takes the square of a run of combining characters
OVERLAP = 256                   # characters that are looked at again with the next piece; more for a long needle
OVERLAP_MAX = 4096
HEADER_OCTETS = 256 * 1024
_TAG = re.compile(r"<[^<>]*>")
_BREAK = re.compile(r"\r?\n")


def fold_text(text: str) -> str:
    """The form in which texts are compared: NFKC, casefolded."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


class MessageText:
    """One message of a search. index: None where its octets can't be read."""

    def __init__(self, messages: MessageAccess, entry: Entry, index: CachedMessage | None, pace: Pace) -> None:
        self._messages, self._entry, self._index, self._pace = messages, entry, index, pace
        self._piece = (0, b"")          # what was read last, and where it begins

    async def field_has(self, name: str, needle: str) -> bool:
        """Whether a header field (`name` in lower case) holds the folded text; "": whether there is such a field."""
        if self._index is None:
            return False
        if needle and name in self._index.field_names:
            return await self._holds(self._index.text(name), needle)
        header = await self._messages.whole(self._entry, 0, self._header_end(0, self._index.body_offset))
        for value in field_values(header, name.encode("utf-8")):
            if await self._holds(decode_words(value), needle):
                return True
        return False

    async def contains(self, needle: str, *, body_only: bool) -> bool:
        """needle: folded by `fold_text`. A word that is broken over two lines, as Japanese mail does, is found as well."""
        if self._index is None:
            return False
        try:
            async for text in self._texts(self._index, body_only=body_only):
                if await self._holds(text, needle):
                    return True
        except OSError:
            return False
        return False

    async def _holds(self, text: str, needle: str) -> bool:
        overlap = min(max(OVERLAP, 2 * len(needle)), OVERLAP_MAX)
        size = max(PIECE_CHARACTERS, 2 * overlap)
        for start in range(0, max(1, len(text) - overlap), size - overlap):
            folded = fold_text(text[start : start + size])
            if needle in folded or ("\n" in folded and needle in _BREAK.sub("", folded)):
                return True
            await self._pace.spend(len(folded))
        return False

    async def _texts(self, index: CachedMessage, *, body_only: bool) -> AsyncIterator[str]:
        if not body_only:
            for text in _header_texts(await self._header(0, index.body_offset)):
                yield text
        root = index.root
        for part in root.walk():
            if part is not root:    # the MIME header of a part, or the header of a message inside
                for text in _header_texts(await self._header(part.header_offset, part.body_offset)):
                    yield text
                yield part.file_name or ""
            if part.media_type.startswith("text/"):
                async for text in self._body(part):
                    yield text

    async def _header(self, start: int, end: int) -> bytes:
        """Octets of the blob; what stands in front of it belongs to the message's own header."""
        first = start + self._entry.prefix_octets if start else 0
        return b"".join([piece async for piece in self._octets(first, self._header_end(first, end))])

    def _header_end(self, first: int, end: int) -> int:
        return min(end + self._entry.prefix_octets, first + HEADER_OCTETS)

    async def _octets(self, start: int, end: int) -> AsyncIterator[bytes]:
        """Octets start..end of prefix + blob. A piece is kept once it is read: thousands of small parts cost no read each."""
        while start < min(end, self._entry.size_octets):
            first, piece = self._piece
            if not first <= start < first + len(piece):
                first, piece = self._piece = start, await self._messages.whole(self._entry, start, start + PIECE_OCTETS)
            taken = piece[start - first : end - first]
            yield taken
            start += len(taken)

    async def _body(self, part: Part) -> AsyncIterator[str]:
        """The decoded text of a part, lump by lump, each with the end of the one before."""
        before, content, charset = "", self._content(part), part.charset
        if wide := wide_decoder(charset or ""):
            content, charset = _as_utf8(content, wide), "utf-8"
        async for lump in _lumps(content):
            text = decode_text(lump, charset)
            if part.media_type == "text/html":
                text = html.unescape(_TAG.sub("", text))
            yield before + text
            before = text[-OVERLAP:]

    async def _content(self, part: Part) -> AsyncIterator[bytes]:
        decoding, shift = decoder(part.encoding), self._entry.prefix_octets
        if decoding is None:
            return
        async for piece in self._octets(part.body_offset + shift, part.end_offset + shift):
            yield decoding.feed(piece)
        yield decoding.close()


async def _as_utf8(pieces: AsyncIterator[bytes], decoder: IncrementalDecoder) -> AsyncIterator[bytes]:
    async for piece in pieces:
        yield decoder.decode(piece).encode("utf-8", "replace")


async def _lumps(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The octets in lumps that end with LF, or where `cut_text` says so."""
    waiting = b""
    async for piece in pieces:
        waiting += piece
        if len(waiting) >= LUMP_OCTETS:
            cut = waiting.rfind(b"\n") + 1 or cut_text(waiting)
            yield waiting[:cut]
            waiting = waiting[cut:]
    yield waiting


def _header_texts(block: bytes) -> Iterator[str]:
    """A header as text, some fields at a time."""
    lines: list[str] = []
    size = 0
    for field in fields(block):
        lines.append(f"{field.name.decode('latin-1')}: {decode_words(field.value_raw)}")
        size += len(lines[-1])
        if size >= PIECE_CHARACTERS:
            yield "\n".join(lines)
            lines, size = [], 0
    yield "\n".join(lines)
