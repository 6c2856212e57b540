"""Parameters of Content-Type and Content-Disposition, file names in them, and the writing of both.

Specification: RFC 2045 §5.1 (parameter), RFC 2183 §2, RFC 2231 §3 (continuations), §4 (charset and language), §7.
Contract: `parse_parameters` keeps names (lower case) and raw values in order; `join_continuations` makes one parameter
    of the pieces; a file name that leaves `file_name` is safe to write to a disk of any system.
Failure: reading never raises and knows the violations of Japanese mail: raw octets, encoded words with and without
    quotes, missing quotes, segments out of order. Writing raises ValueError on CR, LF or NUL.
"""

import re
import unicodedata
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from fumibako.proto.message.charset import RAW_JIS, RAW_SHIFT_JIS, decode_text, is_utf8
from fumibako.proto.message.words import FOLD, decode_words, encode_words

Parameters = tuple[tuple[bytes, bytes], ...]

def _grammar(pair: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Patterns for a parameter and for a backslash pair; octets within a `pair` are never special."""
    quoted = rb'"((?:' + pair + rb'|\\[\x00-\xff]|[^"\\])*+)"?'
    bare = rb"((?:" + pair + rb'|[^;\x1b"])*+)'
    name = rb'[ \t\r\n;]*([^\x00-\x20;="]*+)[ \t\r\n]*'
    return (
        re.compile(name + rb"(?:=[ \t\r\n]*(?:" + quoted + rb"[^;]*|" + bare + rb"[^;]*))?"),
        re.compile(rb"(" + pair + rb")|\\([\x00-\xff])"),
    )


_PLAIN_GRAMMAR = _grammar(RAW_JIS)
_SJIS_GRAMMAR = _grammar(RAW_SHIFT_JIS)
_COMMENT = re.compile(rb"\([^()]*+\)")
_SEGMENT = re.compile(rb"(.+?)\*(\d{1,4})(\*?)", re.DOTALL)
_MAX_PARAMETERS = 256


def parse_parameters(value: bytes) -> tuple[bytes, Parameters]:
    """(what stands before the first `;`, lower case, without comments; the parameters).

    `value *(";" attribute "=" (token / quoted-string))`, RFC 2045 §5.1. At most 256 parameters are looked at.
    """
    if b"\n" in value:
        value = FOLD.sub(b"", value)
    parameter, escape = _PLAIN_GRAMMAR if value.isascii() or is_utf8(value) else _SJIS_GRAMMAR
    head, semicolon, rest = value.partition(b";")
    if b"(" in head:
        head = _COMMENT.sub(b"", head)
    found: list[tuple[bytes, bytes]] = []
    at = 0
    while semicolon and at < len(rest) and len(found) < _MAX_PARAMETERS:
        match = parameter.match(rest, at)
        if match is None or match.end() == at:
            at += 1  # an octet that begins nothing
            continue
        at = match.end()
        name, quoted, bare = match.groups()
        if quoted is not None:
            found.append((name.lower(), _unescape(quoted, escape)))
        elif name and bare is not None:
            found.append((name.lower(), _COMMENT.sub(b"", bare).strip(b" \t\r\n")))
    return head.strip(b" \t\r\n").lower(), tuple(pair for pair in found if pair[0])


def _unescape(quoted: bytes, escape: re.Pattern[bytes]) -> bytes:
    return escape.sub(lambda match: match[1] or match[2], quoted) if b"\\" in quoted else quoted


class Joined(NamedTuple):
    """One parameter after RFC 2231. `rank` is 2 when it came in segments, 1 for `name*`, 0 for the plain form;
    an `extended` value carried a charset and is in UTF-8 now."""

    name: bytes
    value: bytes
    rank: int
    extended: bool


def join_continuations(parameters: Parameters) -> list[Joined]:
    """`foo*0`, `foo*1` and `foo*0*`, `foo*1*` become one `foo` (RFC 2231 §3, §4.1) at the place of the first piece.

    An extended value is decoded and put into UTF-8. Segments may come in any order; those behind a gap are left out.
    """
    if not any(b"*" in name for name, _ in parameters):
        return [Joined(name, value, 0, False) for name, value in parameters]
    joined: dict[tuple[bytes, int], Joined] = {}
    segments: dict[bytes, dict[int, tuple[bytes, bool]]] = {}
    for name, value in parameters:
        if match := _SEGMENT.fullmatch(name):
            segments.setdefault(match[1], {}).setdefault(int(match[2]), (value, bool(match[3])))
            joined.setdefault((match[1], 2), Joined(match[1], b"", 2, False))
        elif name.endswith(b"*") and len(name) > 1:
            joined.setdefault((name[:-1], 1), Joined(name[:-1], _decode_extended([(value, True)]), 1, True))
        else:
            joined.setdefault((name, 0), Joined(name, value, 0, False))
    for name, numbered in segments.items():
        joined[name, 2] = _join_segments(name, numbered)
    return list(joined.values())


def _join_segments(name: bytes, numbered: dict[int, tuple[bytes, bool]]) -> Joined:
    pieces: list[tuple[bytes, bool]] = []
    first = min(numbered)  # some senders count from 1
    while first + len(pieces) in numbered:
        pieces.append(numbered[first + len(pieces)])
    if any(encoded for _, encoded in pieces):
        return Joined(name, _decode_extended(pieces), 2, True)
    return Joined(name, b"".join(value for value, _ in pieces), 2, False)


def _decode_extended(pieces: list[tuple[bytes, bool]]) -> bytes:
    """`charset'language'percent-encoded` of the first piece and the rest, in UTF-8 (RFC 2231 §4, §4.1)."""
    first, encoded = pieces[0]
    label, _, rest = first.partition(b"'")
    _, quote_mark, content = rest.partition(b"'")
    charset = None
    if encoded and quote_mark and len(label) <= 40:
        charset, first = label.decode("latin-1"), content
    octets = b"".join(unquote_to_bytes(value) if escaped else value for value, escaped in [(first, encoded), *pieces[1:]])
    return decode_text(octets, charset).encode("utf-8", "replace")


def parameter_text(parameters: Parameters, name: bytes) -> str | None:
    """The text of one parameter: of `name*0…`, `name*` and `name` the first there is, words and raw octets decoded."""
    found = [item for item in join_continuations(parameters) if item.name == name]
    if not found:
        return None
    best = max(found, key=lambda item: item.rank)
    return best.value.decode("utf-8", "replace") if best.extended else decode_words(best.value)


_SEPARATORS = re.compile(r'[\\/:*?"<>|\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]')
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])", re.IGNORECASE)
_NAME_OCTETS = 255


def attachment_name(disposition: Parameters, content_type: Parameters, description: bytes | None) -> str | None:
    """The file name of a part, safe to use, or None when nothing names it.

    Asked in turn: `filename` of Content-Disposition, `name` of Content-Type (in each RFC 2231 before plain), and
    Content-Description.
    """
    named = parameter_text(disposition, b"filename") or parameter_text(content_type, b"name")
    return safe_file_name(named or decode_words(description or b"")) or None


def safe_file_name(name: str) -> str:
    """`name` in NFC without path separators, controls, direction marks, reserved names and trailing dots.

    At most 255 octets of UTF-8; a suffix of up to 16 characters survives the cut. May be empty.
    """
    name = _SEPARATORS.sub("_", unicodedata.normalize("NFC", name)).strip().rstrip(". ")
    stem, dot, suffix = name.rpartition(".")
    if _RESERVED.fullmatch(name.partition(".")[0].strip()):
        name, stem = "_" + name, "_" + stem
    if len(name.encode("utf-8", "replace")) > _NAME_OCTETS:
        tail = dot + suffix if stem and len(suffix) <= 16 else ""
        kept = (stem if tail else name).encode("utf-8", "replace")[: _NAME_OCTETS - len(tail.encode("utf-8", "replace"))]
        name = kept.decode("utf-8", "ignore") + tail
    return name.encode("utf-8", "replace").decode("utf-8")


_TOKEN = re.compile(r"[!#$%&'*+.^_`{|}~0-9A-Za-z-]+")
_SAFE = "!#$&+.^_`{|}~-"  # attribute-char of RFC 2231 §7, beyond letters and digits
_SEGMENT_OCTETS = 60
_CHARSET = "utf-8''"


def format_parameters(head: str, parameters: dict[str, str]) -> str:
    """`head; name=value; …` in ASCII, ready for `format_field`; values that are not ASCII in RFC 2231 form."""
    return "; ".join([head, *(item for name, value in parameters.items() for item in _format_parameter(name, value))])


def _format_parameter(name: str, value: str) -> list[str]:
    if _TOKEN.fullmatch(value) and len(value) <= _SEGMENT_OCTETS:
        return [f"{name}={value}"]
    if re.search("[\r\n\x00]", value):
        raise ValueError("CR, LF or NUL in a parameter")
    if value.isascii() and value.isprintable() and len(value) <= _SEGMENT_OCTETS:
        return [name + '="' + value.replace("\\", "\\\\").replace('"', '\\"') + '"']
    encoded = re.findall(r"%..|[^%]", quote(value, safe=_SAFE, errors="replace"))
    segments = [""]
    for unit in encoded:
        if len(segments[-1]) + len(unit) > _SEGMENT_OCTETS:
            segments.append("")
        segments[-1] += unit
    if len(segments) == 1:
        return [f"{name}*={_CHARSET}{segments[0]}"]
    return [f"{name}*{number}*={'' if number else _CHARSET}{text}" for number, text in enumerate(segments)]


def format_attachment(media_type: str, file_name: str) -> tuple[str, str]:
    """(Content-Type value, Content-Disposition value) that name the file in both ways clients read.

    `filename` is RFC 2231; `name` holds RFC 2047 words in quotes, which no standard allows (RFC 2047 §5) but Outlook and
    most Japanese clients read and write.
    """
    word = encode_words(file_name).decode("ascii")
    if file_name.isascii():
        content_type = format_parameters(media_type, {"name": file_name})
    else:
        content_type = f'{media_type}; name="{word}"'
    return content_type, format_parameters("attachment", {"filename": file_name})
