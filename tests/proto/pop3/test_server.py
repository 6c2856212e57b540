"""The server core: what does not show in a dialogue.  What a session looks like stands in tests/dialogues/pop3."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.pop3 import events
from fumibako.proto.pop3.command import parse_command
from fumibako.proto.pop3.response import Response
from fumibako.proto.pop3.server import LEGAL, ServerConfig, ServerConnection, State
from fumibako.proto.reader import Need, ProtocolError
from tests.proto.pop3.face import ScriptedFace

OPEN = ServerConfig(auth_without_tls=True)
LOGIN = b"USER alice\r\nPASS wonderland\r\n"


def test_a_multi_line_response_is_sent_whole_before_the_next_command() -> None:
    core = ServerConnection(OPEN)
    core.receive_data(LOGIN + b"RETR 1\r\nNOOP\r\n")
    for expected in (events.Connected(), events.Login("alice", "wonderland"), events.Retr(1)):
        assert core.next_event() == expected and core.next_event() is Need.REPLY
        core.reply(Response(True))
    core.data_to_send()
    core.send_message(b"a\r\n.b\r\n")
    assert core.next_event() is Need.REPLY and core.message_wanted
    core.end_message()
    assert core.data_to_send() == b"a\r\n..b\r\n.\r\n"
    assert core.next_event() == events.Noop() and not core.message_wanted
    with pytest.raises(RuntimeError):
        core.send_message(b"x")
    with pytest.raises(RuntimeError):
        core.end_message()
    with pytest.raises(RuntimeError):
        core.challenge(b"x")


def test_a_refused_client_is_hung_up_on() -> None:
    core = ServerConnection(OPEN)
    with pytest.raises(RuntimeError):
        core.reply(Response(False))
    core.next_event()
    core.reply(Response(False, "Too many connections", "SYS/TEMP"))
    assert core.closed and core.next_event() is Need.BYTES
    assert core.data_to_send() == b"-ERR [SYS/TEMP] Too many connections\r\n"


def test_passwords_may_hold_spaces() -> None:
    assert parse_command(b"PASS  a b ") == parse_command(b"pass  a b ")
    core = ServerConnection(OPEN)
    core.next_event()
    core.reply(Response(True))
    core.receive_data(b"USER alice\r\nPASS  a b \r\n")
    assert core.next_event() == events.Login("alice", " a b ")


@pytest.mark.parametrize(("prefix", "kept"), [(b"NOOP ", 512), (b"AUTH PLAIN ", 12288)])
def test_a_long_line_is_refused_without_being_kept(prefix: bytes, kept: int) -> None:
    face = ScriptedFace(OPEN)
    face.feed(b"")
    answer = face.feed(prefix)
    for _ in range(13_000):
        answer += face.feed(b"x")
        assert face.core.unread <= kept
    assert answer + face.feed(b"\r\nCAPA x\r\n") == b"-ERR Line too long\r\n-ERR Unexpected argument\r\n"
    assert face.core.errors == 2


def test_stls_takes_no_plaintext() -> None:
    config = ServerConfig(tls_available=True)
    face = ScriptedFace(config)
    face.feed(b"")
    assert face.feed(b"STLS\r\nCAPA\r\n") == b"-ERR Client did not wait for the response\r\n" and face.hung_up
    face = ScriptedFace(config)
    face.feed(b"STLS\r\n")
    face.core.receive_data(b"x")
    with pytest.raises(ProtocolError):
        face.core.next_event()
    with pytest.raises(RuntimeError):
        face.core.after_tls()


def test_nothing_is_deleted_without_quit() -> None:
    """B14 of the attack list, and WildDuck's issue 937."""
    face = ScriptedFace(OPEN)
    face.feed(LOGIN + b"RETR 1\r\nDELE 1\r\n")
    assert face.deleted == set()
    face.feed(b"QUIT\r\n")
    assert face.deleted == {1} and face.core.state is State.CLOSED


def test_quit_before_login_is_no_update() -> None:
    core = ServerConnection(OPEN)
    core.next_event()
    core.reply(Response(True))
    core.receive_data(b"QUIT\r\n")
    assert core.next_event() == events.Quit(update=False)


def test_every_command_has_its_states() -> None:
    assert set(events.Command.__args__) - {events.Login} <= set(LEGAL)


def test_without_utf8() -> None:
    face = ScriptedFace(ServerConfig(utf8=False))
    assert b"UTF8" not in face.feed(b"CAPA\r\n")
    assert face.feed(b"UTF8\r\n") == b"-ERR Unknown command\r\n"


@given(
    st.lists(
        st.sampled_from(
            [
                LOGIN,
                b"RETR 1\r\n",
                b"TOP 1 1\r\n",
                b"LIST\r\n",
                b"DELE 1\r\n",
                b"AUTH PLAIN\r\n",
                b"*\r\n",
                b"\r",
                b"\n",
                b"\0",
                b"QUIT\r\n",
                b"x" * 600,
            ]
        )
        | st.binary(max_size=10),
        max_size=15,
    ),
    st.integers(1, 9),
)
def test_any_octets_whole_or_in_pieces(parts: list[bytes], size: int) -> None:
    config = ServerConfig(auth_without_tls=True, auth_mechanisms=("PLAIN",))
    octets = b"".join(parts)
    whole, pieces = ScriptedFace(config), ScriptedFace(config)
    answer = whole.feed(octets)
    assert answer == pieces.feed(b"") + b"".join(pieces.feed(octets[i : i + size]) for i in range(0, len(octets), size))
    assert whole.deleted == pieces.deleted


@pytest.mark.parametrize("seed", range(4))
def test_random_commands_against_a_reference(seed: int) -> None:
    """One variable (logged in or not) and one memory (was the last command USER) decide what is +OK."""
    chance = random.Random(seed)
    before = [b"USER alice", b"PASS wonderland", b"PASS wrong", b"CAPA", b"UTF8", b"AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ="]
    within = [b"STAT", b"LIST 1", b"UIDL 1", b"TOP 1 0", b"NOOP", b"RSET", b"CAPA", b"RETR 1"]
    for _ in range(100):
        face = ScriptedFace(ServerConfig(auth_without_tls=True, auth_mechanisms=("PLAIN",)))
        face.feed(b"")
        logged_in = named = False
        for _ in range(20):
            line = chance.choice(before + within + [b"XYZZY"])
            good = line in (within if logged_in else before)
            if line.startswith(b"PASS"):
                good = good and named and line == b"PASS wonderland"
            assert face.feed(line + b"\r\n").startswith(b"+OK") == good, (seed, line)
            named = good and line.startswith(b"USER")
            logged_in = logged_in or (good and line[:4] in (b"PASS", b"AUTH"))
