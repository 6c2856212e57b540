"""RFC 6858: what a client without UTF-8 gets to see."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.message.header import field_values
from fumibako.proto.message.surrogate import format_surrogate, header_end
from fumibako.proto.message.words import decode_words

INVALID = "<invalid@internationalized-address.invalid>"


def field(line: str | bytes) -> str:
    """One header field, downgraded, its folds undone and its words decoded."""
    octets = line.encode() if isinstance(line, str) else line
    out = format_surrogate(octets + b"\r\n\r\n")
    assert out.isascii() and out.endswith(b"\r\n")
    name = octets.partition(b":")[0]
    found = field_values(out, name)
    return decode_words(found[0]) if found else ""


@pytest.mark.parametrize(("line", "expected"), [
    ("Subject: こんにちは", "こんにちは"),
    ("Subject: =?utf-8?B?44GC?= い", "あ い"),
    ("Subject: こんにちは".encode("cp932"), "こんにちは"),
    ("From: 花子 <hanako@example.jp>", "花子 <hanako@example.jp>"),
    ("From: 花子 <花子@example.jp>", f"花子 {INVALID}"),
    ("To: 花子@example.jp, bob@example.jp", f"花子@example.jp {INVALID}, bob@example.jp"),
    ("Cc: a@例え.jp", f"a@例え.jp {INVALID}"),
    ("Return-Path: <花子@example.jp>", f"花子@example.jp {INVALID}"),
    ("To: 皆さん:;", "internationalized-address:;"),
    ('Sender: 花子 <"a b"@example.jp>', '花子 <"a b"@example.jp>'),
    ('Content-Type: text/plain; charset=utf-8; name="報告.txt"', "text/plain; charset=utf-8"),
    ("Content-Disposition: attachment; filename=報告.txt", "attachment"),
    ("X-Note: 秘密", ""),
    ("Received: by x for <花子@example.jp>; now", ""),
])
def test_a_field(line: str | bytes, expected: str) -> None:
    assert field(line) == expected


def test_what_is_ascii_stays_as_it_is() -> None:
    header = b"From:  a@example.jp\r\nSubject:\r\n folded  =?utf-8?Q?=E3=81=82?=\r\nno field at all\r\n\r\n"
    assert format_surrogate(header) == header
    assert format_surrogate(b"A: b\r\nX-J: \xe3\x81\x82\r\nno field \xff\r\nC: d\r\n\r\n") == b"A: b\r\nC: d\r\n\r\n"


@pytest.mark.parametrize(("octets", "end"), [
    (b"A: b\r\n\r\nbody", 8), (b"A: b\n\nbody", 6), (b"\r\nbody", 2), (b"A: b\r\n", -1), (b"", -1), (b"A: b\r\n\r", -1),
])
def test_where_the_header_ends(octets: bytes, end: int) -> None:
    assert header_end(octets) == end


@given(st.lists(st.tuples(st.sampled_from([b"From", b"To", b"Subject", b"Content-Type", b"X-A", b"", b"\xff"]), st.binary())))
def test_any_octets(lines: list[tuple[bytes, bytes]]) -> None:
    header = b"".join(name + b": " + value + b"\r\n" for name, value in lines) + b"\r\n"
    assert format_surrogate(header[:header_end(header)]).isascii()
