"""parse_uint takes plain digits only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.reader import ProtocolError, parse_uint


@pytest.mark.parametrize(
    "octets", [b"", b"-1", b"+5", b" 5", b"5 ", b"1_0", b"0x1", "١".encode(), "²".encode(), b"1\n", b"12345"]
)
def test_refuses_what_int_would_take(octets: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_uint(octets, 4)


@given(st.integers(0, 10**9))
def test_round_trip(number: int) -> None:
    assert parse_uint(b"%d" % number, 10) == number
