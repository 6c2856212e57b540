"""Responses: RFC 1939 §3, RFC 2449 §8."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.pop3.response import Response, format_response, listing_response, parse_response, stat_response
from fumibako.proto.reader import ProtocolError

TEXT = st.text(st.characters(min_codepoint=33, exclude_categories=["Cs", "Cc"], exclude_characters=["["]), max_size=30)


@given(st.booleans(), TEXT, st.sampled_from(["", "IN-USE", "SYS/TEMP", "AUTH"]))
def test_round_trip(ok: bool, text: str, code: str) -> None:
    response = Response(ok, text, code)
    assert parse_response(format_response(response)[:-2]) == response


def test_wire_form() -> None:
    assert (
        format_response(Response(False, "Do you have another session?", "IN-USE"))
        == b"-ERR [IN-USE] Do you have another session?\r\n"
    )
    assert format_response(stat_response(2, 320)) == b"+OK 2 320\r\n"
    assert format_response(listing_response(1, "whqtswO00WBw418f9t5JxYwZ")) == b"+OK 1 whqtswO00WBw418f9t5JxYwZ\r\n"
    assert format_response(Response(True)) == b"+OK\r\n"
    assert parse_response(b"+OK") == Response(True)


@pytest.mark.parametrize(("text", "code"), [("a\r\n+OK", ""), ("a\0", ""), ("x" * 600, ""), ("", "a b"), ("", "X]")])
def test_what_can_not_be(text: str, code: str) -> None:
    with pytest.raises(ValueError, match="response"):
        Response(True, text, code)


@pytest.mark.parametrize("line", [b"", b"OK", b"+ok", b"-ERROR", b"* OK", b"+OK " + b"x" * 600])
def test_what_is_none(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_response(line)
