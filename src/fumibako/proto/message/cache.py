"""The index of a message as the few octets the store keeps beside it, quick to read by the ten thousand.

Specification: RFC 9051 §6.4.5 (what FETCH asks), §6.4.5.1 (sections), RFC 5256 §3 (SORT), DESIGN §3 (email_cache).
Contract: `unpack_index(pack_index(index))` has all that FETCH, SEARCH and SORT need without the message; ENVELOPE, BODY and
    BODYSTRUCTURE are ready octets, the part table stays packed until asked. `VERSION` changes with the format.
Failure: `unpack_index` raises ValueError on octets of another version and on damaged ones: the caller makes the index
    again from the blob.
"""

from operator import attrgetter
from typing import Literal

import msgspec

from fumibako.proto.message.address import parse_addresses
from fumibako.proto.message.header import parse_date
from fumibako.proto.message.index import FIELD_NAMES, Indexer, MessageIndex, Part, Summary
from fumibako.proto.message.params import Parameters
from fumibako.proto.message.structure import format_envelope, format_structures
from fumibako.proto.message.words import decode_words

VERSION = 1
SectionText = Literal["", "HEADER", "TEXT", "MIME"]


class _Row(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """One part; rows stand in the order of the message, `children` says how many of those behind are directly below."""

    media_type: str
    parameters: Parameters
    header_offset: int
    body_offset: int
    end_offset: int
    lines: int
    encoding: str = ""
    children: int = 0
    disposition: str | None = None
    disposition_parameters: Parameters = ()
    content_id: bytes | None = None
    description: bytes | None = None
    language: bytes | None = None
    location: bytes | None = None
    md5: bytes | None = None
    fields: tuple[bytes | None, ...] | None = None  # of a message inside


class CachedMessage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the store knows of a message without opening its blob. Offsets count from the blob's first octet.

    `envelope`, `bodystructure`, `body` are IMAP data. `body_offset` ends the message's own header. `date_sent_ms` is the
    Date field, or None. `fields` are the unfolded raw octets of FIELD_NAMES, None if absent. `international`: see
    MessageIndex; None where the octets come from a version that did not look.
    """

    version: int
    envelope: bytes
    bodystructure: bytes
    body: bytes
    size_octets: int
    body_offset: int
    date_sent_ms: int | None
    fields: tuple[bytes | None, ...]
    preview: str
    has_attachment: bool
    rows: msgspec.Raw
    international: bool | None = None

    @property
    def may_be_international(self) -> bool:
        """Whether its headers have to be looked at before a client without UTF-8 gets them."""
        if self.international is None:
            return not (self.envelope.isascii() and self.bodystructure.isascii())
        return self.international

    @property
    def field_names(self) -> frozenset[str]:
        """The names `field` knows."""
        return _NAMES

    def field(self, name: str) -> bytes:
        """The raw value of one of FIELD_NAMES by its lower-case name, b"" if the message lacks it."""
        return self.fields[FIELD_NAMES.index(name)] or b"" if name in _NAMES else b""

    def text(self, name: str) -> str:
        """The same with its encoded words and raw Japanese decoded."""
        return decode_words(self.field(name))

    def first_mailbox(self, name: str) -> str:
        """The local part of the first address in an address field, the sort key of RFC 5256 §3; "" if there is none."""
        first = parse_addresses(self.field(name))[:1]
        return (first[0].mailbox or b"").decode("utf-8", "replace") if first else ""

    @property
    def message_id(self) -> bytes:
        return self.field("message-id")

    @property
    def references(self) -> bytes:
        return self.field("references")

    @property
    def summary(self) -> Summary:
        """The fields as the index had them."""
        return Summary(*self.fields)

    @property
    def root(self) -> Part:
        """The tree of parts, unpacked now."""
        waiting: list[Part] = []
        rows = _ROWS.decode(self.rows)
        for row in reversed(rows):
            children = tuple(waiting.pop() for _ in range(row.children))
            fields = self.fields if row is rows[0] else row.fields
            waiting.append(_part(row, children, Summary(*fields) if fields is not None else None))
        return waiting[0]

    def section(self, path: tuple[int, ...]) -> Part | None:
        """The part an IMAP section number names, () the message itself; None if there is no such part."""
        return find_section(self.root, path)


_NAMES = frozenset(FIELD_NAMES)
_ROWS = msgspec.msgpack.Decoder(list[_Row])
_CACHED = msgspec.msgpack.Decoder(CachedMessage)
_ENCODER = msgspec.msgpack.Encoder()
_FIELDS = attrgetter(*(name.replace("-", "_") if name != "from" else "from_" for name in FIELD_NAMES))


def pack_index(index: MessageIndex) -> bytes:
    """The octets of `email_cache.data`; they begin with `VERSION`."""
    body, bodystructure = format_structures(index)
    parts = list(index.root.walk())
    date = index.summary.date
    cached = CachedMessage(
        VERSION, format_envelope(index), bodystructure, body, index.size_octets, index.root.body_offset,
        parse_date(date) if date else None, _FIELDS(index.summary), index.preview, any(map(_is_attachment, parts)),
        msgspec.Raw(_ENCODER.encode([_row(part, part is index.root) for part in parts])), index.international,
    )  # fmt: skip
    return _ENCODER.encode(cached)


class Remaking:
    """Makes the index of a message anew from its octets, to compare one that was kept with it."""

    def __init__(self) -> None:
        self._indexer = Indexer()

    def feed(self, chunk: bytes) -> None:
        self._indexer.feed(chunk)

    def fits(self, data: bytes) -> bool:
        """Whether `data` is the index of what was fed; also where an earlier version made it, which looked at less."""
        made = unpack_index(pack_index(self._indexer.close()))
        return data in (_ENCODER.encode(made), _ENCODER.encode(msgspec.structs.astuple(made)[:-1]))


def unpack_index(data: bytes) -> CachedMessage:
    """The inverse of `pack_index`, without the part table. Raises ValueError on another version or damaged octets."""
    try:
        cached = _CACHED.decode(data)
    except msgspec.DecodeError as error:
        raise ValueError("not a packed index") from error
    if cached.version != VERSION or len(cached.fields) != len(FIELD_NAMES):
        raise ValueError("a packed index of another version")
    return cached


def _is_attachment(part: Part) -> bool:
    """What a list marks with a paper clip: called an attachment, or named and not text."""
    if part.disposition is not None and part.disposition != "inline":
        return True
    if part.is_multipart or part.media_type.startswith("text/"):
        return False
    return part.content_id is None and part.file_name is not None


def _row(part: Part, is_root: bool) -> _Row:
    return _Row(
        part.media_type, part.parameters, part.header_offset, part.body_offset, part.end_offset, part.lines, part.encoding,
        len(part.children), part.disposition, part.disposition_parameters, part.content_id, part.description, part.language,
        part.location, part.md5, None if is_root or part.summary is None else _FIELDS(part.summary),
    )  # fmt: skip


def _part(row: _Row, children: tuple[Part, ...], summary: Summary | None) -> Part:
    return Part(
        row.media_type, row.parameters, row.header_offset, row.body_offset, row.end_offset, row.lines, row.encoding,
        row.content_id, row.description, row.disposition, row.disposition_parameters, row.language, row.location, row.md5,
        children, summary,
    )  # fmt: skip


def find_section(root: Part, path: tuple[int, ...]) -> Part | None:
    """`section-part = nz-number *("." nz-number)`, RFC 9051 §6.4.5.1: the part, or None.

    Every message has a part 1: of one that is not multipart it is its body.
    """
    part = root
    siblings = _numbered(root)
    for number in path:
        if not 1 <= number <= len(siblings):
            return None
        part = siblings[number - 1]
        siblings = _numbered(part.children[0]) if part.is_message and part.children else part.children
    return part


def _numbered(message_root: Part) -> tuple[Part, ...]:
    """The parts 1, 2, … of a message."""
    return message_root.children if message_root.is_multipart else (message_root,)


def section_span(cached: CachedMessage, path: tuple[int, ...], text: SectionText, prefix_len: int) -> tuple[int, int] | None:
    """Where BODY[section] lies in the message as served: `prefix_len` octets of added header fields, then the blob.

    (start, end) in octets, or None if there is no such part (RFC 9051 §6.4.5.1: the answer is NIL). HEADER.FIELDS lies
    within the span of HEADER.
    """
    if not path:
        header_end = prefix_len + cached.body_offset
        whole = prefix_len + cached.size_octets
        return {"": (0, whole), "HEADER": (0, header_end), "TEXT": (header_end, whole)}.get(text)
    root = cached.root
    part = find_section(root, path)
    if part is None:
        return None
    if text == "MIME":
        start = 0 if part.header_offset == 0 else prefix_len + part.header_offset
        return start, prefix_len + part.body_offset
    if text in ("HEADER", "TEXT"):
        if not (part.is_message and part.children):
            return None
        inner = part.children[0]
        start, end = (inner.header_offset, inner.body_offset) if text == "HEADER" else (inner.body_offset, inner.end_offset)
    else:
        start, end = part.body_offset, part.end_offset
    return prefix_len + start, prefix_len + end
