"""Replies: what we write, what we read, and that no text becomes a second reply."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.model.status import Status
from fumibako.proto.reader import ProtocolError
from fumibako.proto.smtp.reply import LINE_MAX, PEER_LINE_MAX, Reply, ReplyParser, format_reply, parse_reply

LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=[chr(i) for i in range(32)] + ["\x7f"]), max_size=40)


def test_status_begins_every_line() -> None:
    reply = Reply(550, Status(5, 1, 1), ("No such mailbox", "Ask postmaster"))
    assert format_reply(reply) == b"550-5.1.1 No such mailbox\r\n550 5.1.1 Ask postmaster\r\n"
    assert format_reply(Reply(354, None, "Go")) == b"354 Go\r\n"


def test_a_reply_as_it_is_written() -> None:
    assert Reply.of("550 5.1.1 No such mailbox") == Reply(550, Status(5, 1, 1), "No such mailbox")
    assert Reply.of("220 mx.example ESMTP") == Reply(220, None, "mx.example ESMTP")
    assert str(Reply.of("550 5.1.1 No such mailbox")) == "550 5.1.1 No such mailbox"
    assert Reply.of("451 4.3.0 x").is_transient and Reply.of("354 x").is_positive


@pytest.mark.parametrize("text", ["a\r\n250 b", "a\nb", "a\0b", "a\x7f"])
def test_no_control_characters(text: str) -> None:
    with pytest.raises(ValueError, match="reply text"):
        Reply(250, None, text)


@pytest.mark.parametrize(("code", "status"), [(250, Status(5, 0, 0)), (199, None), (600, None)])
def test_what_can_not_be(code: int, status: Status | None) -> None:
    with pytest.raises(ValueError, match="code"):
        Reply(code, status, "x")


def test_long_text_is_cut_between_characters() -> None:
    lines = format_reply(Reply(550, Status(5, 7, 1), "あ" * 400)).split(b"\r\n")[:-1]
    assert all(len(line) + 2 <= LINE_MAX for line in lines)
    assert "".join(line[10:].decode() for line in lines) == "あ" * 400


@given(st.sampled_from([250, 354, 451, 550]), st.booleans(), st.lists(LINE, min_size=1, max_size=3))
def test_round_trip(code: int, with_status: bool, lines: list[str]) -> None:
    status = Status(code // 100, 1, 2) if with_status and code != 354 else None
    reply = Reply(code, status, lines[0] if len(lines) == 1 else tuple(lines))
    if status is None and any(Reply.of(f"{code} {line}").status for line in lines):
        return  # text that looks like a status code is one
    assert parse_reply(format_reply(reply)) == reply


@pytest.mark.parametrize(
    "octets",
    [
        b"25 x\r\n",
        b"2500 x\r\n",
        b"250x\r\n",
        b"abc d\r\n",
        b"250-a\r\n251 b\r\n",
        b"\r\n",
        b"650 x\r\n",
        b"250 a\n250 b\n\r\n\r\n",
        b"250-x\r\n" * 300,
        b"250 " + b"x" * PEER_LINE_MAX,
    ],
)
def test_what_is_no_reply(octets: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_reply(octets)


def test_bare_code_and_odd_text() -> None:
    assert parse_reply(b"250\r\n") == Reply(250, None, "")
    assert parse_reply(b"250 a\x00\xffb\r\n") == Reply(250, None, "a\ufffd\ufffdb")
    assert parse_reply(b"550-5.1.1 a\r\n550 5.1.1 b\r\n") == Reply(550, Status(5, 1, 1), ("a", "b"))
    assert parse_reply(b"550-5.1.1 a\r\n550 b\r\n") == Reply(550, None, ("5.1.1 a", "b"))


@given(st.lists(st.sampled_from([b"250 ok\r\n", b"550-5.1.1 a\r\n550 5.1.1 b\r\n", b"354 go\r\n"]), max_size=5))
def test_octet_by_octet(replies: list[bytes]) -> None:
    parser, buffer, found = ReplyParser(), bytearray(), []
    for octet in b"".join(replies):
        buffer.append(octet)
        if (reply := parser.read(buffer)) is not None:
            found.append(reply)
    assert found == [parse_reply(octets) for octets in replies]


@given(st.binary(max_size=80))
def test_any_octets(octets: bytes) -> None:
    try:
        parse_reply(octets)
    except ProtocolError:
        pass
