"""ENVELOPE and BODYSTRUCTURE octet for octet, and valid for anything."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.message.structure import (
    format_body,
    format_bodystructure,
    format_envelope,
    format_nstring,
    format_string,
    format_structures,
)
from tests.proto.message.messages import MULTIPART, NESTED, PLAIN, SHAPES, bombs, crlf, index_of

YAMADA = b'(("=?ISO-2022-JP?B?GyRCOzNFRBsoQg==?=" NIL "yamada" "example.jp"))'


def test_envelope() -> None:
    assert format_envelope(index_of(NESTED)) == (
        b'("Fri, 26 Sep 2025 14:05:00 +0900" "=?ISO-2022-JP?B?GyRCRnxLXBsoQg==?=" '
        + b" ".join([YAMADA] * 3)
        + b' ((NIL NIL "a" "example.jp")("B, C" NIL "c" "example.jp"))'
        b' ((NIL NIL "list" NIL)(NIL NIL "x" "y")(NIL NIL NIL NIL)(NIL NIL "second" "example.jp")) NIL NIL "<x@y>")'
    )


def test_rfc_9051_envelope_example() -> None:
    """RFC 9051 §8, the sample connection."""
    message = crlf("""\
Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)
From: Terry Gray <gray@cac.washington.edu>
Subject: IMAP4rev2 WG mtg summary and minutes
To: imap@cac.washington.edu
cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>
Message-Id: <B27397-0100000@cac.washington.ed>
MIME-Version: 1.0
Content-Type: TEXT/PLAIN; CHARSET=US-ASCII

x
""")
    assert format_envelope(index_of(message)) == (
        b'("Wed, 17 Jul 1996 02:23:25 -0700 (PDT)" "IMAP4rev2 WG mtg summary and minutes" '
        b'(("Terry Gray" NIL "gray" "cac.washington.edu")) (("Terry Gray" NIL "gray" "cac.washington.edu")) '
        b'(("Terry Gray" NIL "gray" "cac.washington.edu")) ((NIL NIL "imap" "cac.washington.edu")) '
        b'((NIL NIL "minutes" "CNRI.Reston.VA.US")("John Klensin" NIL "KLENSIN" "MIT.EDU")) NIL NIL '
        b'"<B27397-0100000@cac.washington.ed>")'
    )
    assert format_body(index_of(message)) == b'("text" "plain" ("charset" "US-ASCII") NIL NIL "7bit" 3 1)'


@pytest.mark.parametrize(
    ("header", "envelope"),
    [
        (b"", b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"),
        (b"Subject:\r\nDate: \r\nTo:\r\n", b'("" "" NIL NIL NIL NIL NIL NIL NIL NIL)'),
        (
            b"From: a@b\r\nSender:\r\nReply-To: c@d\r\n",
            b'(NIL NIL ((NIL NIL "a" "b")) ((NIL NIL "a" "b")) ((NIL NIL "c" "d")) NIL NIL NIL NIL NIL)',
        ),
        (b"To: g:;\r\n", b'(NIL NIL NIL NIL NIL ((NIL NIL "g" NIL)(NIL NIL NIL NIL)) NIL NIL NIL NIL)'),
        (b"To: <@r:a@b>\r\n", b'(NIL NIL NIL NIL NIL ((NIL "@r" "a" "b")) NIL NIL NIL NIL)'),
        (b'Subject: a\\ "b"\r\n\tc\r\n', b'(NIL "a\\\\ \\"b\\"\tc" NIL NIL NIL NIL NIL NIL NIL NIL)'),
        ("Subject: 日\r\n".encode(), "(NIL {3}\r\n日 NIL NIL NIL NIL NIL NIL NIL NIL)".encode()),
        (b"Subject: a\x00b\r\n", b'(NIL "a b" NIL NIL NIL NIL NIL NIL NIL NIL)'),
        (b"In-Reply-To: <a>\r\n <b>\r\n", b'(NIL NIL NIL NIL NIL NIL NIL NIL "<a> <b>" NIL)'),
    ],
)
def test_envelope_members(header: bytes, envelope: bytes) -> None:
    assert format_envelope(index_of(header + b"\r\n")) == envelope


def test_bodystructure() -> None:
    text = b'("text" "plain" ("charset" "utf-8") NIL NIL "7bit" 12 1%b)'
    inner = (
        b'(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 1 0%b)("text" "html" ("charset" "utf-8") NIL NIL "7bit" 8 0%b)'
        b' "alternative"%b)'
    )
    author = b" ".join([b'((NIL NIL "i" "example.jp"))'] * 3)
    message = b'("message" "rfc822" NIL NIL "forwarded" "7bit" 217 (NIL "inner" ' + author + b" NIL NIL NIL NIL NIL) %b 12%b)"
    pdf = b'("application" "pdf" ("name" "=?UTF-8?B?5pel?=") "<1@x>" NIL "base64" 4%b)'
    none = b" NIL NIL NIL NIL"
    disposition = ' ("attachment" ("filename*" {7}\r\n日.pdf)) NIL "http://x/"'.encode()
    assert format_body(index_of(NESTED)) == (
        b"(" + text % b"" + message % (inner % (b"", b"", b""), b"") + pdf % b"" + b' "mixed")'
    )
    assert format_bodystructure(index_of(NESTED)) == (
        b"("
        + text % none
        + message % (inner % (none, b' NIL NIL ("ja" "en") NIL', b' ("boundary" "abc-inner") NIL NIL NIL'), none)
        + pdf % (b' "Q2hlY2sgSW50ZWdyaXR5IQ=="' + disposition)
        + b' "mixed" ("boundary" "abc") NIL NIL NIL)'
    )


def test_rfc_9051_body_example() -> None:
    """RFC 9051 §7.5.2: two parts, the second with a parameter, id and description."""
    message = MULTIPART + crlf("""\
--b
Content-Type: TEXT/PLAIN; CHARSET=US-ASCII; NAME="cc.diff"
Content-ID: <960723163407.20117h@cac.washington.edu>
Content-Description: Compiler diff
Content-Transfer-Encoding: BASE64

QUJD
--b--
""")
    assert format_body(index_of(message)) == (
        b'(("text" "plain" ("charset" "US-ASCII" "name" "cc.diff") "<960723163407.20117h@cac.washington.edu>" "Compiler diff"'
        b' "base64" 4 0) "mixed")'
    )


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (b"", b'""'),
        (b"a", b'"a"'),
        (b'"', b'"\\""'),
        (b"\\", b'"\\\\"'),
        (b"\x7f\x1b", b'"\x7f\x1b"'),
        (b"\xe3", b"{1}\r\n\xe3"),
        (b"a\nb", b"{3}\r\na\nb"),
        (b"\x00", b'" "'),
        (b"x" * 1001, b"{1001}\r\n" + b"x" * 1001),
    ],
)
def test_strings(value: bytes, data: bytes) -> None:
    assert format_string(value) == data
    assert format_nstring(None) == b"NIL"


_ATOM = re.compile(rb'NIL|\d+|"(?:[^"\\\r\n\x00\x80-\xff]|\\["\\])*"|\{(\d+)\}\r\n')


def parse_data(data: bytes) -> list[object]:
    """A tiny strict reader of IMAP data: lists, NIL, numbers, strings."""
    at = 0
    stack: list[list[object]] = [[]]
    while at < len(data):
        octet = data[at : at + 1]
        if octet == b"(":
            stack.append([])
        elif octet == b")":
            done = stack.pop()
            stack[-1].append(done)
        elif octet != b" ":
            match = _ATOM.match(data, at)
            assert match, data[at : at + 40]
            at = match.end() + int(match[1] or 0)
            assert match[1] is None or b"\x00" not in data[match.end() : at]
            stack[-1].append(match[0])
            continue
        at += 1
    assert len(stack) == 1
    return stack[0]


def assert_valid(message: bytes) -> None:
    index = index_of(message)
    (envelope,) = parse_data(format_envelope(index))
    assert isinstance(envelope, list) and len(envelope) == 10
    body, structure = (parse_data(data)[0] for data in format_structures(index))
    waiting = [(body, structure)]
    while waiting:
        short, long = waiting.pop()
        assert isinstance(short, list) and isinstance(long, list)
        if isinstance(short[0], list):  # multipart: children, subtype; extension of 4
            children = sum(isinstance(item, list) for item in short)
            assert len(short) == children + 1 and len(long) == children + 5
            waiting.extend(zip(short[:children], long[:children], strict=True))
        elif short[0] == b'"message"' and short[1] in (b'"rfc822"', b'"global"'):
            assert (len(short), len(long), len(short[7])) == (10, 14, 10)
            waiting.append((short[8], long[8]))
        else:
            assert len(short) == (8 if short[0] == b'"text"' else 7) and len(long) == len(short) + 4


@pytest.mark.parametrize("message", [PLAIN, NESTED, *SHAPES])
def test_shapes_are_valid(message: bytes) -> None:
    assert_valid(message)


@pytest.mark.parametrize("name", [name for name, _ in bombs(1)])
def test_bombs_are_valid(name: str) -> None:
    assert_valid(dict(bombs(20_000))[name])


FIELD = st.sampled_from(
    [
        b"From: ",
        b"To: ",
        b"Subject: ",
        b"Content-Type: text/plain",
        b"Content-Type: ",
        b"Content-Disposition: ",
        b"Content-Language: ",
        b"Content-ID: ",
        b"Content-Transfer-Encoding: ",
    ]
)


@given(st.lists(st.tuples(FIELD, st.binary(max_size=40)), max_size=6), st.binary(max_size=20))
def test_any_header_gives_valid_data(fields: list[tuple[bytes, bytes]], body: bytes) -> None:
    assert_valid(b"".join(name + value + b"\r\n" for name, value in fields) + b"\r\n" + body)
