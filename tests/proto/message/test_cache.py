"""The packed index: nothing lost, small, sections found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.message.cache import VERSION, CachedMessage, SectionText, pack_index, section_span, unpack_index
from fumibako.proto.message.structure import format_body, format_bodystructure, format_envelope
from tests.proto.message.messages import MULTIPART, NESTED, PLAIN, SHAPES, index_of


def cached(message: bytes) -> CachedMessage:
    return unpack_index(pack_index(index_of(message)))


@pytest.mark.parametrize("message", SHAPES)
def test_round_trip(message: bytes) -> None:
    index, found = index_of(message), cached(message)
    assert found.root == index.root
    assert found.summary == index.summary
    assert (found.envelope, found.body, found.bodystructure) == (
        format_envelope(index),
        format_body(index),
        format_bodystructure(index),
    )
    assert (found.preview, found.size_octets, found.version) == (index.preview, len(message), VERSION)


def test_fields() -> None:
    found = cached(NESTED)
    assert found.date_sent_ms == 1758863100_000
    assert found.text("subject") == "日本" and found.text("from") == "山田 <yamada@example.jp>"
    assert found.first_mailbox("from") == "yamada" and found.first_mailbox("cc") == "list" and found.first_mailbox("bcc") == ""
    assert found.message_id == b"<x@y>" and found.references == b"<r1@y> <r2@y>"
    assert found.field("list-id") == b"" and found.field("x-none") == b"" and "reply-to" in found.field_names
    assert found.has_attachment and not cached(PLAIN).has_attachment
    assert cached(b"\r\n").date_sent_ms is None


def test_a_simple_message_stays_small() -> None:
    assert len(pack_index(index_of(PLAIN + b"Some more text to fill the preview. " * 20))) < 1024
    japanese = PLAIN.replace(b"Hello", b"=?UTF-8?B?" + b"44GT" * 12 + b"?=") + "お世話になっております。".encode() * 40
    assert len(pack_index(index_of(japanese))) < 1024


@pytest.mark.parametrize("data", [b"", b"\x90", b"\xc1", b"junk", pack_index(index_of(PLAIN))[:-1], b"\x9b\x00" + b"\xc0" * 10])
def test_damaged_octets_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="packed index"):
        unpack_index(data)


def test_another_version_is_refused() -> None:
    data = bytearray(pack_index(index_of(PLAIN)))
    assert data[1] == VERSION
    data[1] += 1
    with pytest.raises(ValueError, match="another version"):
        unpack_index(bytes(data))


@given(st.binary(max_size=100))
def test_any_octets_unpack_or_are_refused(data: bytes) -> None:
    try:
        found = unpack_index(data)
    except ValueError:
        return
    assert found.version == VERSION


PREFIX = b"Received: by x\r\nReturn-Path: <>\r\n"
SECTIONS: list[tuple[tuple[int, ...], SectionText, bytes | None]] = [
    ((), "", PREFIX + NESTED),
    ((), "HEADER", PREFIX + NESTED[: NESTED.index(b"preamble")]),
    ((), "TEXT", NESTED[NESTED.index(b"preamble") :]),
    ((), "MIME", None),
    ((1,), "", b"hello\r\nworld"),
    ((1,), "MIME", b"Content-Type: text/plain; charset=utf-8\r\n\r\n"),
    ((1,), "HEADER", None),
    ((2,), "HEADER", NESTED[NESTED.index(b"Subject: inner") : NESTED.index(b"--abc-inner\r\n\r\nx")]),
    ((2,), "MIME", b"Content-Type: message/rfc822\r\nContent-Description: forwarded\r\n\r\n"),
    ((2,), "TEXT", NESTED[NESTED.index(b"--abc-inner\r\n\r\nx") : NESTED.index(b"\r\n--abc\r\nContent-Type: application")]),
    ((2, 1), "", b"x"),
    ((2, 2), "", b"<p>y</p>"),
    ((2, 2), "MIME", b"Content-Type: text/html; charset=utf-8\r\nContent-Language: ja, en\r\n\r\n"),
    ((2, 3), "", None),
    ((3,), "", b"QUJD"),
    ((3, 1), "", None),
    ((4,), "", None),
    ((0,), "", None),
    ((1, 1), "", None),
]


@pytest.mark.parametrize(("path", "text", "octets"), SECTIONS)
def test_sections(path: tuple[int, ...], text: SectionText, octets: bytes | None) -> None:
    span = section_span(cached(NESTED), path, text, len(PREFIX))
    served = PREFIX + NESTED
    assert (None if span is None else served[span[0] : span[1]]) == octets


def test_sections_of_a_message_that_is_not_multipart() -> None:
    found = cached(PLAIN)
    body = PLAIN[PLAIN.index(b"One line") :]
    for path, text, octets in [((1,), "", body), ((), "TEXT", body), ((1,), "MIME", PREFIX + PLAIN[: -len(body)])]:
        span = section_span(found, path, text, len(PREFIX))  # type: ignore[arg-type]
        assert span is not None and (PREFIX + PLAIN)[span[0] : span[1]] == octets
    assert found.section(()) == found.section((1,)) == found.root
    assert found.section((2,)) is None and found.section((1, 1)) is None


def test_rfc_9051_section_numbers() -> None:
    """The example of RFC 9051 §6.4.5.1: which part each number names."""
    image = b"Content-Type: image/gif\r\n\r\ni"
    text = b"Content-Type: text/plain\r\n\r\nt"
    binary = b"Content-Type: application/octet-stream\r\n\r\no"

    def multipart(kind: bytes, boundary: bytes, *parts: bytes) -> bytes:
        delimiter = b"--" + boundary
        body = b"".join(delimiter + b"\r\n" + part + b"\r\n" for part in parts) + delimiter + b"--"
        return b"Content-Type: multipart/" + kind + b"; boundary=" + boundary + b"\r\n\r\n" + body

    rfc822 = b"Content-Type: message/rfc822\r\n\r\n"
    three = rfc822 + multipart(b"mixed", b"in", text, binary)
    four = multipart(
        b"mixed",
        b"four",
        image,
        rfc822
        + multipart(b"mixed", b"deep", text, multipart(b"alternative", b"alt", text, b"Content-Type: text/richtext\r\n\r\nr")),
    )
    found = cached(multipart(b"mixed", b"out", text, binary, three, four))
    named = {
        (1,): "text/plain",
        (2,): "application/octet-stream",
        (3,): "message/rfc822",
        (3, 1): "text/plain",
        (3, 2): "application/octet-stream",
        (4,): "multipart/mixed",
        (4, 1): "image/gif",
        (4, 2): "message/rfc822",
        (4, 2, 1): "text/plain",
        (4, 2, 2): "multipart/alternative",
        (4, 2, 2, 1): "text/plain",
        (4, 2, 2, 2): "text/richtext",
    }
    for path, media_type in named.items():
        part = found.section(path)
        assert part is not None and part.media_type == media_type
    assert section_span(found, (4, 2), "HEADER", 0) is not None
    assert section_span(found, (4,), "HEADER", 0) is None


def test_unpacking_leaves_the_part_table_alone() -> None:
    many = cached(MULTIPART + b"--b\r\n\r\nx\r\n" * 2000)
    assert isinstance(bytes(many.rows), bytes)
    assert len(list(many.root.walk())) == 2001
