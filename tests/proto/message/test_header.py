"""Fields on raw octets, HEADER.FIELDS, dates, and what we write."""

import email.utils
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.message.header import (
    count_fields,
    field_values,
    fields,
    format_date,
    format_field,
    parse_date,
    select_fields,
    unfold,
)
from fumibako.proto.message.words import decode_words

BLOCK = b"From x Fri Sep 26 14:05:00 2025\nSubject: a\r\n b\r\nTO : x@y\r\nX-Bad\r\n cont\r\nsubject:c\r\n\r\nbody: no\r\n"


def test_fields() -> None:
    found = [(field.name, unfold(field.value_raw)) for field in fields(BLOCK)]
    assert found[1:] == [(b"Subject", b"a b"), (b"TO", b"x@y"), (b"", b"X-Bad cont"), (b"subject", b"c")]
    assert found[0][0] == b""
    assert field_values(BLOCK, b"SUBJECT") == [b"a b", b"c"]


def test_select_fields_keeps_octets_and_the_blank_line() -> None:
    assert select_fields(BLOCK, [b"to", b"SUBJECT"], negate=False) == b"Subject: a\r\n b\r\nTO : x@y\r\nsubject:c\r\n\r\n"
    assert select_fields(BLOCK, [b"to", b"subject"], negate=True) == (b"From x Fri Sep 26 14:05:00 2025\nX-Bad\r\n cont\r\n\r\n")
    assert select_fields(BLOCK, [b"x-none"], negate=False) == b"\r\n"
    assert select_fields(b"A: b\r\n", [b"a"], negate=False) == b"A: b\r\n"  # no blank line to keep
    assert select_fields(b"A: b\n\nx", [b"a"], negate=True) == b"\n"


@given(
    st.lists(st.sampled_from([b"A: b", b"\r\n", b"\n", b" ", b"\t", b":", b"x", b"From y", b"\xe3\x81\x82", b"\r"])).map(b"".join)
)
def test_fields_cover_the_header(block: bytes) -> None:
    found = list(fields(block))
    end = 0
    for field in found:
        assert field.start == end
        end = field.end
    assert block[end:] == b"" or block[end:].startswith((b"\r\n", b"\n"))
    assert select_fields(block, [], negate=True) in (block[:end], block[:end] + b"\r\n", block[:end] + b"\n")


NOON = 1758863100_000  # 26 Sep 2025 05:05:00 UTC
DATES = [
    (b"Fri, 26 Sep 2025 14:05:00 +0900", NOON),
    (b"26 Sep 2025 14:05:00 +0900", NOON),
    (b"Fri, 26 Sep 2025 14:05:00 JST", NOON),
    (b"Fri, 26 Sep 2025 14:05:00 +0900 (JST)", NOON),
    (b"Fri, 26 Sep 25 05:05 GMT", NOON),
    (b"Fri,26 Sep 2025 05:05:00 Z", NOON),
    (b"Fri, 26 Sep 125 05:05:00 UT", NOON),
    (b"Fri, 26 Sep 2025 00:05:00 -0500", NOON),
    (b"Fri, 26 Sep 2025 00:05:00 EST", NOON),
    (b"Fri, 26 Sep 2025 05:05:00", NOON),
    (b"Fri, 26 SEPTEMBER 2025 05:05:00 +0000", NOON),
    ("26 Sep 2025 14:05:00 +0900 (金)".encode(), NOON),
    (b"Fri Sep 26 05:05:00 2025", NOON),
    (b"2025-09-26T14:05:00+09:00", NOON),
    (b"2025/09/26 05:05:00", NOON),
    (b"Fri,\r\n 26 Sep 2025\r\n 05:05:00 +0000", NOON),
    (b"Fri, 26 Sep 2025 05:04:60 +0000", NOON),
    (b"21 Nov 97 09:55:06 GMT", 880106106_000),  # RFC 5322 §A.6.2
    (b"Thu, 13 Feb 1969 23:32:54 -0330", -27723426_000),
    (b"31 Feb 2025 00:00:00 +0000", None),
    (b"26 Foo 2025 00:00:00 +0000", None),
    (b"26 Sep 2025 25:00:00 +0000", None),
    (b"26 Sep 0000 00:00:00 +0000", None),
    (b"", None),
    (b"tomorrow", None),
]


@pytest.mark.parametrize(("value", "instant_ms"), DATES)
def test_parse_date(value: bytes, instant_ms: int | None) -> None:
    assert parse_date(value) == instant_ms


@given(st.datetimes(datetime(1970, 1, 2), datetime(9998, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_date_round_trip(moment: datetime, offset_minutes: int) -> None:
    instant_ms = int(moment.replace(tzinfo=UTC, microsecond=0).timestamp()) * 1000
    text = format_date(instant_ms, offset_minutes)
    assert parse_date(text.encode("ascii")) == instant_ms
    assert int(email.utils.parsedate_to_datetime(text).timestamp() * 1000) == instant_ms


@given(st.binary(max_size=100))
def test_any_octets_have_a_date_or_none(value: bytes) -> None:
    assert parse_date(value) is None or isinstance(parse_date(value), int)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\x00"))


@given(TEXT)
def test_format_field_round_trip(text: str) -> None:
    octets = format_field("Subject", text)
    (field,) = fields(octets)
    assert field.end == len(octets)
    assert octets.endswith(b"\r\n")
    assert all(len(line) <= 998 for line in octets.split(b"\r\n"))
    assert b"=?" not in octets or all(len(line) <= 76 for line in octets.split(b"\r\n"))
    assert decode_words(field.value_raw).strip(" \t") == text.removeprefix("\ufeff").strip(" \t")


def test_format_field_folds() -> None:
    octets = format_field("X-Words", " ".join(["word"] * 40))
    assert octets.count(b"\r\n word") >= 2
    assert octets.startswith(b"X-Words: word")
    assert b"=?UTF-8?B?" in format_field("Subject", "x" * 1200)


@pytest.mark.parametrize(
    ("name", "text"), [("A", "b\r\nC: d"), ("A", "b\nc"), ("A", "\x00"), ("A B", "c"), ("A:", "b"), ("", "b"), ("A\n", "b")]
)
def test_format_field_refuses_injection(name: str, text: str) -> None:
    with pytest.raises(ValueError, match="header"):
        format_field(name, text)


def test_structured_fields_are_only_folded() -> None:
    assert format_field("From", "=?UTF-8?B?5pel?= <a@b>") == b"From: =?UTF-8?B?5pel?= <a@b>\r\n"
    assert format_field("Subject", "=?UTF-8?B?5pel?=").startswith(b"Subject: =?UTF-8?B?PT9")


def test_fields_are_counted_as_they_are_told_apart() -> None:
    block = b"Received: a\r\n b\r\nRECEIVED : c\r\nX-Received: d\r\nSubject: x\r\n Received: folded\r\nreceived:\r\n"
    assert count_fields(block, b"received") == len(field_values(block, b"received")) == 3
