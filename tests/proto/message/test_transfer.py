"""Transfer decoders: tolerant, incremental, the same for every cut."""

import base64
import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.message.transfer import decode_body, decoder, encode_base64, encode_quoted_printable

BODIES = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from([b"=", b"=3D", b"=E", b"=\r", b"\r\n", b"\n", b" ", b"\t", b"a", b"QUJD", b"==", b"Q"])).map(
        b"".join
    ),
)


@pytest.mark.parametrize(
    ("body", "content"),
    [
        (b"QUJD", b"ABC"),
        (b"QU\r\nJD\r\n", b"ABC"),
        (b"QUI=", b"AB"),
        (b"QUI", b"AB"),
        (b"Q", b""),
        (b"QQ==QUJD", b"AABC"),
        (b"QU!!JD", b"ABC"),
        (b"", b""),
        (b"=====", b""),
        (b"QUJDR", b"ABC"),
    ],
)
def test_base64(body: bytes, content: bytes) -> None:
    assert decode_body(body, "BASE64 ") == content


@pytest.mark.parametrize(
    ("body", "content"),
    [
        (b"a=3Db", b"a=b"),
        (b"soft=\r\nbreak", b"softbreak"),
        (b"soft=  \r\nbreak", b"softbreak"),
        (b"pad  \r\nx", b"pad\r\nx"),
        (b"bad=ZZ=", b"bad=ZZ"),
        (b"=e3=81=82", "あ".encode()),
        (b"a=\rb", b"a=\rb"),
        (b"bare\nlf=\nx", b"bare\nlfx"),
        (b"end \t", b"end"),
    ],
)
def test_quoted_printable(body: bytes, content: bytes) -> None:
    assert decode_body(body, "quoted-printable") == content


@given(BODIES, st.sampled_from(["base64", "quoted-printable", "8bit"]), st.integers(1, 7))
def test_any_cut_is_the_same(body: bytes, encoding: str, step: int) -> None:
    chosen = decoder(encoding)
    assert chosen is not None
    pieces = [chosen.feed(body[at : at + step]) for at in range(0, len(body), step)]
    assert b"".join([*pieces, chosen.close()]) == decode_body(body, encoding)


@pytest.mark.parametrize("filler", [b"a", b" ", b"=3D", b"=", b"= ", b"=\r"])
def test_overlong_lines_are_cut_safely(filler: bytes) -> None:
    body = filler * (200_000 // len(filler)) + b"\r\nend"
    chosen = decoder("quoted-printable")
    assert chosen is not None
    pieces = [chosen.feed(body[at : at + 4093]) for at in range(0, len(body), 4093)]
    assert b"".join([*pieces, chosen.close()]) == decode_body(body, "quoted-printable")


@given(st.binary())
def test_base64_round_trip(content: bytes) -> None:
    octets = encode_base64(content)
    assert decode_body(octets, "base64") == content == base64.b64decode(octets)
    assert all(len(line) <= 76 for line in octets.split(b"\r\n"))


@given(st.lists(st.binary().map(lambda line: line.replace(b"\r", b"").replace(b"\n", b""))).map(b"\r\n".join))
def test_quoted_printable_round_trip(text: bytes) -> None:
    octets = encode_quoted_printable(text)
    assert decode_body(octets, "quoted-printable") == text == quopri.decodestring(octets)
    assert all(len(line) <= 76 for line in octets.split(b"\r\n"))


def test_an_unknown_encoding() -> None:
    assert decoder("x-uuencode") is None
    assert decode_body(b"as it is", "x-uuencode") == b"as it is"
