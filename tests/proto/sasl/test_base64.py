"""Strict base64."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.reader import ProtocolError
from fumibako.proto.sasl.base64 import decode_base64, encode_base64


@given(st.binary())
def test_round_trip(octets: bytes) -> None:
    assert decode_base64(encode_base64(octets)) == octets


@pytest.mark.parametrize(
    "octets", [b"A", b"AG!!Fs", b"AA=", b"AA", b"AA==\n", b" AA==", b"AB==", b"AA==AA==", b"=", b"AA-_", b"\xff"]
)
def test_refused(octets: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_base64(octets)
