"""xtext: RFC 3461 §4, RFC 6533 §3."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.smtp.xtext import decode_xtext, encode_ascii_address, encode_xtext

TEXT = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"], exclude_characters=["\u2028", "\u2029"]))


@given(TEXT)
def test_round_trip(text: str) -> None:
    assert decode_xtext(encode_xtext(text)) == text


def test_examples() -> None:
    assert encode_xtext("a+b=c d") == b"a+2Bb+3Dc+20d"
    assert decode_xtext(b"QQ314159") == "QQ314159"
    assert encode_ascii_address("あ@b.example") == "\\x{3042}@b.example"


@pytest.mark.parametrize("octets", [b"a b", b"a+2", b"a+2b", b"a=b", b"+00", b"+0D+0A", b"+FF", b"\xff", b"a\r\n"])
def test_refused(octets: bytes) -> None:
    with pytest.raises(ValueError, match=r"xtext|decode"):
        decode_xtext(octets)


def test_controls_are_not_encoded() -> None:
    with pytest.raises(ValueError, match="control"):
        encode_xtext("a\r\nb")
