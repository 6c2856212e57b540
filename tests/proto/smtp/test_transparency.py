"""Dot-stuffing and line ends: RFC 5321 §4.5.2, §2.3.8."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.smtp.transparency import CHUNK_MAX, DotReader, DotWriter, NewlineNormaliser, NewlineScan

ODD = st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\0", b"\r\n", b"\r\n."]), max_size=30).map(b"".join)


def pieces_of(octets: bytes, size: int) -> list[bytes]:
    return [octets[i : i + size] for i in range(0, len(octets), size)]


def read_all(pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    """The chunks of the message, and what stands behind its end."""
    reader, buffer, chunks = DotReader(), bytearray(), []
    for number, piece in enumerate(pieces):
        buffer += piece
        while (found := reader.read(buffer)) is not None:
            chunks.append(found[0])
            if found[1]:
                return chunks, bytes(buffer) + b"".join(pieces[number + 1 :])
    raise AssertionError("no end")


def write_all(pieces: list[bytes]) -> bytes:
    writer = DotWriter()
    return b"".join(map(writer.feed, pieces)) + writer.close()


def normalise(pieces: list[bytes]) -> bytes:
    normaliser = NewlineNormaliser()
    return b"".join(map(normaliser.feed, pieces)) + normaliser.close()


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"..a\r\n...\r\n.\r\n", b".a\r\n..\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),
        (b"a\n.\nb\r\n.\r\n", b"a\n.\nb\r\n"),
        (b"a\r.\rb\r\n.\n\r\n.\r\n", b"a\r.\rb\r\n\n\r\n"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_reading(wire: bytes, message: bytes, size: int) -> None:
    chunks, rest = read_all(pieces_of(wire + b"QUIT\r\n", size))
    assert (b"".join(chunks), rest) == (message, b"QUIT\r\n")


@given(ODD, st.integers(1, 7))
def test_what_is_written_is_read(message: bytes, size: int) -> None:
    wire = write_all(pieces_of(message, size))
    chunks, rest = read_all([wire])
    assert b"".join(chunks) in (message, message + b"\r\n") and not rest
    assert wire == write_all([message])


@pytest.mark.parametrize("filler", [b"\r\n", b"\r\n..", b"a", b"\r", b"abc\r\n", b"\r\r\n"])
@pytest.mark.parametrize("shift", range(6))
def test_chunks_depend_on_the_data_alone(filler: bytes, shift: int) -> None:
    message = b"x" * shift + filler * (3 * CHUNK_MAX // len(filler)) + b"\r\n"
    wire = write_all([message])
    whole, _ = read_all([wire])
    assert max(map(len, whole)) <= CHUNK_MAX
    assert whole == read_all(pieces_of(wire, 4096))[0] == read_all(pieces_of(wire, 65_537))[0]
    assert b"".join(whole) == message


@given(ODD, st.integers(1, 5))
def test_normalised_means_only_crlf_and_no_nul(message: bytes, size: int) -> None:
    clean = normalise([message])
    assert clean == normalise(pieces_of(message, size)) == normalise([clean])
    rest = clean.replace(b"\r\n", b"")
    assert b"\r" not in rest and b"\n" not in rest and b"\0" not in rest
    assert rest == message.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")


def test_what_becomes_of_odd_line_ends() -> None:
    assert normalise([b"a\nb\rc\r\nd\r\r\ne\r\r"]) == b"a\r\nb\r\nc\r\nd\r\ne\r\n"
    assert normalise([b"\r" * 1_000_000 + b"x"]) == b"\r\nx"  # in linear time


@given(ODD, st.integers(1, 5))
def test_scan_sees_what_normalising_would_change(message: bytes, size: int) -> None:
    scan = NewlineScan()
    for piece in pieces_of(message, size):
        scan.feed(piece)
    rest = message.replace(b"\r\n", b"")
    assert scan.bare_newline == (b"\r" in rest or b"\n" in rest)
    assert scan.nul == (b"\0" in message) and scan.size_octets == len(message)
