"""ENVELOPE, BODY and BODYSTRUCTURE of an indexed message, as IMAP sends them.

Specification: RFC 9051 §7.5.2, RFC 3501 §7.4.2 (the same for IMAP4rev1); RFC 9051 §9 (envelope, body, string).
Contract: complete, syntactically valid IMAP data for any message. Values are what the message has, undecoded, except that
    RFC 2231 pieces are joined and their text put into UTF-8. Eight-bit values and line ends go as literals.
Failure: never raises. An absent field is NIL, a present empty one "". NUL, which no IMAP string may hold, becomes a space.
"""

import re
from collections.abc import Sequence

from fumibako.proto.message.address import Address, parse_addresses
from fumibako.proto.message.index import MessageIndex, Part, Summary
from fumibako.proto.message.params import Parameters, join_continuations

_QUOTABLE = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\x21\x23-\x5b\x5d-\x7f]*+")
_SPECIALS = re.compile(rb'(["\\])')
_LITERAL_ONLY = re.compile(rb"[\r\n\x80-\xff]")
_QUOTED_OCTETS = 1000  # longer strings are kinder to parsers as literals
_LANGUAGE_TAG = re.compile(rb"[A-Za-z0-9-]+")


def format_string(value: bytes) -> bytes:
    r"""`string = quoted / literal`. Quoted holds ASCII without CR and LF, `"` and `\` with a backslash."""
    if _QUOTABLE.fullmatch(value) and len(value) <= _QUOTED_OCTETS:
        return b'"' + value + b'"'
    value = value.replace(b"\x00", b" ")
    if len(value) > _QUOTED_OCTETS or _LITERAL_ONLY.search(value):
        return b"{%d}\r\n%b" % (len(value), value)
    return b'"' + _SPECIALS.sub(rb"\\\1", value) + b'"'


def format_nstring(value: bytes | None) -> bytes:
    """`nstring = string / nil`."""
    return b"NIL" if value is None else format_string(value)


def format_envelope(index: MessageIndex) -> bytes:
    """The ENVELOPE of the message."""
    return _envelope(index.summary)


def _envelope(summary: Summary) -> bytes:
    """`envelope = "(" env-date SP env-subject SP env-from SP env-sender SP env-reply-to SP env-to SP env-cc SP env-bcc SP
    env-in-reply-to SP env-message-id ")"`; an absent or empty Sender or Reply-To is the same as From."""
    author = _addresses(summary.from_)
    members = (
        format_nstring(summary.date),
        format_nstring(summary.subject),
        author,
        author if not summary.sender else _addresses(summary.sender, author),
        author if not summary.reply_to else _addresses(summary.reply_to, author),
        _addresses(summary.to),
        _addresses(summary.cc),
        _addresses(summary.bcc),
        format_nstring(summary.in_reply_to),
        format_nstring(summary.message_id),
    )
    return b"(" + b" ".join(members) + b")"


def _addresses(value: bytes | None, default: bytes = b"NIL") -> bytes:
    """`env-to = "(" 1*address ")" / nil`."""
    listed = b"".join(map(_address, parse_addresses(value))) if value else b""
    return b"(" + listed + b")" if listed else default


def _address(address: Address) -> bytes:
    """`address = "(" addr-name SP addr-adl SP addr-mailbox SP addr-host ")"`."""
    return b"(" + b" ".join(map(format_nstring, address)) + b")"


def format_bodystructure(index: MessageIndex) -> bytes:
    """The BODYSTRUCTURE of the message, with extension data."""
    return format_structures(index)[1]


def format_body(index: MessageIndex) -> bytes:
    """The BODY of the message: its structure without extension data."""
    return format_structures(index)[0]


def format_structures(index: MessageIndex) -> tuple[bytes, bytes]:
    """(BODY, BODYSTRUCTURE), made together."""
    done: list[tuple[bytes, bytes]] = []  # the structures of parts whose parent is still to come
    for part in reversed(list(index.root.walk())):
        count = len(part.children)
        children = [done.pop() for _ in range(count)]
        done.append(_multipart(part, children) if count and not part.is_message else _one_part(part, children))
    return done[0]


def _multipart(part: Part, children: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """`body-type-mpart = 1*body SP media-subtype [SP body-ext-mpart]`."""
    subtype = b" " + _subtype(part)
    body = b"(" + b"".join(child[0] for child in children) + subtype + b")"
    extension = b" " + _parameters(part.parameters) + _common_extension(part)
    return body, b"(" + b"".join(child[1] for child in children) + subtype + extension + b")"


def _one_part(part: Part, children: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """`body-type-1part = (body-type-basic / body-type-msg / body-type-text) [SP body-ext-1part]`."""
    main = part.media_type.partition("/")[0]
    basic = b" ".join(
        (
            format_string(main.encode("ascii")),
            _subtype(part),
            _parameters(part.parameters),
            format_nstring(part.content_id),
            format_nstring(part.description),
            format_string((part.encoding or "7bit").encode("latin-1")),
            b"%d" % (part.end_offset - part.body_offset),
        )
    )
    extension = b" " + format_nstring(part.md5) + _common_extension(part)
    if not children:
        lines = b" %d" % part.lines if main == "text" else b""
        return b"(" + basic + lines + b")", b"(" + basic + lines + extension + b")"
    envelope = b" " + _envelope(part.children[0].summary or Summary()) + b" "
    lines = b" %d" % part.lines
    body, structure = children[0]
    return b"(" + basic + envelope + body + lines + b")", b"(" + basic + envelope + structure + lines + extension + b")"


def _subtype(part: Part) -> bytes:
    return format_string(part.media_type.partition("/")[2].encode("ascii"))


def _parameters(parameters: Parameters) -> bytes:
    """`body-fld-param = "(" string SP string *(SP string SP string) ")" / nil`; an extended parameter is called `name*`."""
    if not parameters:
        return b"NIL"
    joined = join_continuations(parameters)
    pairs = (format_string(item.name + b"*" * item.extended) + b" " + format_string(item.value) for item in joined)
    return b"(" + b" ".join(pairs) + b")"


def _common_extension(part: Part) -> bytes:
    """`[SP body-fld-dsp [SP body-fld-lang [SP body-fld-loc]]]`, all three always."""
    if part.disposition is None:
        disposition = b"NIL"
    else:
        disposition = b"(%b %b)" % (format_string(part.disposition.encode("latin-1")), _parameters(part.disposition_parameters))
    return b" %b %b %b" % (disposition, _language(part.language), format_nstring(part.location))


def _language(value: bytes | None) -> bytes:
    """`body-fld-lang = nstring / "(" string *(SP string) ")"` from a Content-Language value (RFC 3282's list)."""
    tags = _LANGUAGE_TAG.findall(value) if value else []
    if not tags:
        return b"NIL"
    return format_string(tags[0]) if len(tags) == 1 else b"(" + b" ".join(map(format_string, tags)) + b")"
