"""Command lines as values: RFC 1939 §9, RFC 2449 §3, RFC 5034 §4."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.pop3.command import Capa, Line, Pass, User, parse_command
from fumibako.proto.pop3.events import Auth, Dele, List, Noop, Quit, Reset, Retr, StartTLS, Stat, Top, Uidl, Utf8
from fumibako.proto.reader import ProtocolError


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"CAPA", Capa()),
        (b"user alice@mx.example", User("alice@mx.example")),
        ("USER 文子".encode(), User("文子")),
        (b"PASS a  b ", Pass("a  b ")),
        (b"AUTH plain", Auth("PLAIN", None)),
        (b"AUTH PLAIN =", Auth("PLAIN", b"")),
        (b"AUTH PLAIN AGEAYg==", Auth("PLAIN", b"\0a\0b")),
        (b"STLS", StartTLS()),
        (b"UTF8", Utf8()),
        (b"STAT ", Stat()),
        (b"LIST", List(None)),
        (b"LIST 2", List(2)),
        (b"UIDL", Uidl(None)),
        (b"UIDL 2 ", Uidl(2)),
        (b"RETR 1", Retr(1)),
        (b"TOP 1 0", Top(1, 0)),
        (b"DELE 0000000003", Dele(3)),
        (b"NOOP", Noop()),
        (b"RSET", Reset()),
        (b"quit", Quit(update=False)),
    ],
)
def test_commands(line: bytes, command: Line) -> None:
    assert parse_command(line) == command


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" STAT",
        b"STAT 1",
        b"XTND",
        b"APOP a b",
        b"RETR",
        b"RETR 0",
        b"RETR -1",
        b"RETR 1 2",
        b"RETR 1_0",
        b"RETR 11111111111",
        b"RETR \xd9\xa1",
        b"TOP 1",
        b"TOP 1 2 3",
        b"TOP 1 -1",
        b"USER",
        b"USER \xff",
        b"PASS",
        b"PASS a\tb",
        b"PASS \xff",
        b"AUTH",
        b"AUTH A!B",
        b"AUTH PLAIN A",
        b"AUTH PLAIN AA== AA==",
        b"NOOP\0",
        b"NOOP\nQUIT",
        b"DELE 1\r",
    ],
)
def test_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_command(line)


@given(
    st.binary(max_size=40)
    | st.tuples(
        st.sampled_from([b"PASS ", b"AUTH ", b"TOP ", b"RETR ", b"LIST "]), st.text("0129 =Aあ\t+-_", max_size=12).map(str.encode)
    ).map(b"".join)
)
def test_any_line(line: bytes) -> None:
    try:
        parse_command(line)
    except ProtocolError as error:
        assert "\n" not in str(error) and "\r" not in str(error)
