"""A message as the text a person searches: decoded header fields and decoded text parts.

Specification: RFC 9051 §6.4.4 (BODY, TEXT, HEADER); RFC 2047 (encoded words); RFC 2045 §6 (transfer encodings).
Contract: text parts, names of attachments, headers of parts and of messages inside are the text of a body, nothing else. A
    part is looked at in lumps that end with a line, so memory stays bounded and the event loop runs in between.
Failure: what can't be read holds no text.
"""

from __future__ import annotations

import asyncio
import html
import re
import unicodedata
from collections.abc import AsyncIterator

from fumibako.model.mailbox import Entry
from fumibako.proto.message.cache import CachedMessage
from fumibako.proto.message.charset import decode_text
from fumibako.proto.message.header import field_values, fields
from fumibako.proto.message.index import Part
from fumibako.proto.message.transfer import decoder
from fumibako.proto.message.words import decode_words
from fumibako.services.message_access import PIECE_OCTETS, MessageAccess

LUMP_OCTETS = 64 * 1024         # decoded at once; no charset of mail but UTF-16 and UTF-32 has LF inside a character
UNCUT_OCTETS = 4 * 1024 * 1024  # of a part that can't be cut at its lines
OVERLAP = 256                   # characters of a lump that are looked at again with the next
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

    def __init__(self, messages: MessageAccess, entry: Entry, index: CachedMessage | None) -> None:
        self._messages, self._entry, self._index = messages, entry, index
        self._piece = (0, b"")          # what was read last, and where it begins

    async def field_has(self, name: str, needle: str) -> bool:
        """Whether a header field (`name` in lower case) holds the folded text; "": whether there is such a field."""
        if self._index is None:
            return False
        if needle and name in self._index.field_names:
            return needle in fold_text(self._index.text(name))
        header = await self._messages.whole(self._entry, 0, self._header_end(0, self._index.body_offset))
        return any(needle in fold_text(decode_words(value)) for value in field_values(header, name.encode("utf-8")))

    async def contains(self, needle: str, *, body_only: bool) -> bool:
        """needle: folded by `fold_text`. A word that is broken over two lines, as Japanese mail does, is found as well."""
        if self._index is None:
            return False
        try:
            async for text in self._texts(self._index, body_only=body_only):
                folded = fold_text(text)
                if needle in folded or ("\n" in folded and needle in _BREAK.sub("", folded)):
                    return True
                await asyncio.sleep(0)
        except OSError:
            return False
        return False

    async def _texts(self, index: CachedMessage, *, body_only: bool) -> AsyncIterator[str]:
        if not body_only:
            yield _header_text(await self._header(0, index.body_offset))
        root = index.root
        for part in root.walk():
            if part is not root:    # the MIME header of a part, or the header of a message inside
                yield _header_text(await self._header(part.header_offset, part.body_offset))
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
        before = ""
        async for lump in _lumps(self._content(part), part.charset or ""):
            text = decode_text(lump, part.charset)
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


async def _lumps(pieces: AsyncIterator[bytes], charset: str) -> AsyncIterator[bytes]:
    """The octets in lumps that end with LF."""
    is_wide = charset.lower().startswith(("utf-16", "utf-32"))
    waiting = b""
    async for piece in pieces:
        waiting += piece
        cut = 0 if is_wide or len(waiting) < LUMP_OCTETS else waiting.rfind(b"\n") + 1
        if len(waiting) >= UNCUT_OCTETS:
            cut = len(waiting)
        if cut:
            yield waiting[:cut]
            waiting = waiting[cut:]
    yield waiting


def _header_text(block: bytes) -> str:
    return "\n".join(f"{field.name.decode('latin-1')}: {decode_words(field.value_raw)}" for field in fields(block))
