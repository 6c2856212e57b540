"""TOP: RFC 1939 §7."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.pop3.top import TopCutter


def cut(message: bytes, lines: int, size: int) -> bytes:
    cutter = TopCutter(lines)
    return b"".join(cutter.feed(message[i : i + size]) for i in range(0, len(message), size))


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("message", "lines", "top"),
    [
        (b"A: b\r\n\r\none\r\ntwo\r\n", 0, b"A: b\r\n\r\n"),
        (b"A: b\r\n\r\none\r\ntwo\r\n", 1, b"A: b\r\n\r\none\r\n"),
        (b"A: b\r\n\r\none\r\ntwo\r\n", 2, b"A: b\r\n\r\none\r\ntwo\r\n"),
        (b"A: b\r\n\r\none\r\ntwo\r\n", 9_999_999_999, b"A: b\r\n\r\none\r\ntwo\r\n"),
        (b"A: b\r\n", 5, b"A: b\r\n"),
        (b"\r\none\r\ntwo", 1, b"\r\none\r\n"),
        (b"", 1, b""),
    ],
)
def test_examples(message: bytes, lines: int, top: bytes, size: int) -> None:
    assert cut(message, lines, size) == top


@given(st.lists(st.sampled_from([b"\r\n", b"a", b"\n", b"\r"]), max_size=30).map(b"".join), st.integers(0, 4), st.integers(1, 5))
def test_the_same_in_any_pieces(message: bytes, lines: int, size: int) -> None:
    whole = cut(message, lines, 1000)
    assert cut(message, lines, size) == whole and message.startswith(whole)
