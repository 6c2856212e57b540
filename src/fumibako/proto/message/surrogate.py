"""An internationalized message for a client that has not said it takes UTF-8.

Specification: RFC 6858 §2 (what is preserved, what is lost); RFC 2047 §2 (encoded words); RFC 6532 §3 (what it may have been).
Contract: only a message with an address outside ASCII needs one: raw octets elsewhere, of any charset, were in mail long before
    RFC 6532, clients know them, and a signature may cover them. A field of ASCII stays octet by octet; of the others Subject is
    encoded, addresses outside ASCII become invalid ones, parameters and fields outside ASCII go. What comes out is ASCII. Bodies
    stay as they are: only headers, those of parts and of messages inside, become others, and all offsets and sizes with them.
Failure: none.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import msgspec

from fumibako.proto.message.address import ADDRESS_FIELDS, Address, format_mailbox, parse_addresses
from fumibako.proto.message.cache import CachedMessage, pack_index, unpack_index
from fumibako.proto.message.header import HeaderField, fields, format_field, unfold
from fumibako.proto.message.index import Indexer, MessageIndex, Part, Summary
from fumibako.proto.message.params import Parameters, format_parameters, parse_parameters
from fumibako.proto.message.words import decode_words

_PARAMETERS = frozenset({b"content-type", b"content-disposition"})
HEADER_OCTETS = 1 << 20         # a longer header is taken to end here
_INVALID = "invalid@internationalized-address.invalid"
_NOBODY = "internationalized-address:;"
_END = re.compile(rb"(?:\A|\n)\r?\n")
_DOT_STRING = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]+")


def header_end(octets: bytes) -> int:
    """Where the header section ends, its blank line included; -1 where it is not all there."""
    match = _END.search(octets)
    return match.end() if match else -1


def format_surrogate(header: bytes) -> bytes:
    """A header section, with its blank line or without, as RFC 6858 has it."""
    out: list[bytes] = []
    end = 0
    for field in fields(header):
        end = field.end
        octets = header[field.start : end]
        out.append(octets if octets.isascii() else _downgraded(field))
    return b"".join(out) + header[end:]


def _downgraded(field: HeaderField) -> bytes:
    """b"" where nothing of it can be kept."""
    name = field.name.lower()
    if name == b"subject":
        text = _CONTROLS.sub(" ", decode_words(unfold(field.value_raw)))
    elif name in ADDRESS_FIELDS:
        text = ", ".join(_mailbox(one) for one in parse_addresses(field.value_raw) if one.host is not None) or _NOBODY
    elif name in _PARAMETERS:
        text = _ascii_parameters(field.value_raw)
    else:
        return b""
    return format_field(field.name.decode("ascii"), text) if text else b""


def _mailbox(address: Address) -> str:
    """An address of ASCII stays one whatever the name is; another's name says what it was."""
    local, host = address.mailbox or b"", address.host or b""
    name = _CONTROLS.sub(" ", decode_words(address.name)) if address.name else ""
    spec = f"{_quoted(_text(local))}@{_text(host)}"
    if not spec.isascii():
        return format_mailbox(name or spec, _INVALID)
    return format_mailbox(name, spec)


def _text(octets: bytes) -> str:
    return _CONTROLS.sub("", octets.decode("utf-8", "replace"))


def _quoted(local: str) -> str:
    if not local.isascii() or _DOT_STRING.fullmatch(local):
        return local
    return '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _ascii_parameters(value_raw: bytes) -> str:
    """RFC 6858 §2.2."""
    head, parameters = parse_parameters(value_raw)
    if not head.isascii():
        return ""
    kept = {name.decode("ascii"): value.decode("ascii") for name, value in _kept(parameters)}
    return format_parameters(head.decode("ascii"), kept)


def _kept(parameters: Parameters) -> Parameters:
    return tuple(one for one in parameters if (text := b"".join(one)).isascii() and not _CONTROLS.search(text.decode("ascii")))


@dataclass(frozen=True, slots=True)
class Edit:
    """Octets start..end of a message as it is served (prefix, then blob) are `octets` in its surrogate."""

    start: int
    end: int
    octets: bytes
    lines: int          # how many LF more than before


@dataclass(frozen=True, slots=True)
class Surrogate:
    """A message as RFC 6858 has it. index: as of a message without a prefix; edits: ascending, none for a message of ASCII."""

    index: CachedMessage
    edits: tuple[Edit, ...]

    def runs(self, start: int, end: int) -> Iterator[tuple[int, int] | bytes]:
        """Octets start..end of the surrogate: spans of the message it was made from, and octets of its own."""
        at = source = 0         # the same place in the surrogate and in the message
        for edit in self.edits:
            copied = edit.start - source
            first, last = max(start - at, 0), min(end - at, copied)
            if first < last:
                yield source + first, source + last
            at += copied
            if kept := edit.octets[max(start - at, 0) : max(end - at, 0)]:
                yield kept
            at += len(edit.octets)
            source = edit.end
        if max(start, at) < end:
            yield source + max(start - at, 0), source + end - at


def header_spans(index: CachedMessage, prefix_octets: int) -> list[tuple[int, int]]:
    """Where in the message as served its header, with the prefix, and those of its parts lie: ascending, without overlap."""
    spans = [(0, prefix_octets + index.body_offset)]
    spans += [(prefix_octets + part.header_offset, prefix_octets + part.body_offset) for part in _inner(index.root)]
    return [(start, min(end, start + HEADER_OCTETS)) for start, end in spans if start < end]


def make_surrogate(index: CachedMessage, prefix_octets: int, headers: Sequence[bytes]) -> Surrogate:
    """headers: the octets of `header_spans`, in the same order."""
    edits = []
    for (start, end), header in zip(header_spans(index, prefix_octets), headers, strict=True):
        added = prefix_octets if start == 0 else 0      # a field of the prefix is not continued by the message's first line
        new = format_surrogate(header[:added]) + format_surrogate(header[added:])
        if new != header:
            edits.append(Edit(start, end, new, new.count(b"\n") - header.count(b"\n")))
    shift = _Shift(edits, prefix_octets)
    root = shift.part(index.root)
    summary = root.summary or Summary()
    new_index = MessageIndex(root, summary, index.preview, shift.offset(index.size_octets), international=False)
    return Surrogate(unpack_index(pack_index(new_index)), tuple(edits))


def _inner(root: Part) -> Iterator[Part]:
    parts = root.walk()
    next(parts)
    return parts


class _Shift:
    """Parts of the message as parts of its surrogate."""

    def __init__(self, edits: Sequence[Edit], prefix_octets: int) -> None:
        self._prefix_octets = prefix_octets
        self._edits = {edit.start: edit for edit in edits}
        self._ends = [edit.end for edit in edits]
        self._grown = list(accumulate((len(edit.octets) - (edit.end - edit.start) for edit in edits), initial=0))
        self._lines = list(accumulate((edit.lines for edit in edits), initial=0))

    def offset(self, blob_offset: int) -> int:
        """Where an offset into the blob lies in the surrogate, its prefix included."""
        at = self._prefix_octets + blob_offset
        return at + self._grown[bisect_right(self._ends, at)]

    def part(self, root: Part) -> Part:
        """Built from the innermost outwards: parts may lie in each other a hundred deep."""
        done: list[Part] = []
        for part in reversed(list(root.walk())):
            children = tuple(done.pop() for _ in part.children)
            done.append(self._one(part, children, is_root=part is root))
        return done[0]

    def _one(self, part: Part, children: tuple[Part, ...], *, is_root: bool) -> Part:
        start = 0 if is_root else self._prefix_octets + part.header_offset
        edit = self._edits.get(start)
        if edit is not None:
            part = _with_header(part, edit.octets)
        first, last = (bisect_right(self._ends, self._prefix_octets + at) for at in (part.body_offset, part.end_offset))
        return msgspec.structs.replace(
            part, header_offset=0 if is_root else self.offset(part.header_offset), body_offset=self.offset(part.body_offset),
            end_offset=self.offset(part.end_offset), children=children,
            lines=part.lines + (self._lines[last] - self._lines[first] if part.lines else 0),
        )


def _with_header(part: Part, header: bytes) -> Part:
    """The part as its new header has it; what it is, its type and encoding, no edit changes."""
    disposition = part.disposition if part.disposition is not None and part.disposition.isascii() else None
    return msgspec.structs.replace(
        part, parameters=_kept(part.parameters), disposition=disposition,
        disposition_parameters=_kept(part.disposition_parameters) if disposition is not None else (),
        content_id=_ascii(part.content_id), description=_ascii(part.description), language=_ascii(part.language),
        location=_ascii(part.location), md5=_ascii(part.md5),
        summary=_summary(header) if part.summary is not None else None,
    )


def _summary(header: bytes) -> Summary:
    indexer = Indexer()
    indexer.feed(header)
    return indexer.close().summary


def _ascii(value: bytes | None) -> bytes | None:
    return value if value is not None and value.isascii() else None
