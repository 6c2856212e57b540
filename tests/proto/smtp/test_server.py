"""The server core: events, limits, and what attackers try.  What a session looks like stands in tests/dialogues/smtp."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.reader import Need, ProtocolError
from fumibako.proto.smtp import events
from fumibako.proto.smtp.extensions import ServerConfig
from fumibako.proto.smtp.reply import Reply
from fumibako.proto.smtp.server import LEGAL, ServerConnection, State
from tests.proto.smtp.automaton import Automaton
from tests.proto.smtp.face import Message, ScriptedFace

CONFIG = ServerConfig("mx.example")
EARLY = ServerConfig("mx.example", early_talk=True)
TRANSACTION = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@mx.example>\r\n"


def connect(config: ServerConfig = CONFIG, replies: dict[str, str] | None = None) -> ScriptedFace:
    face = ScriptedFace(config, replies)
    face.feed(b"")
    face.feed(b"LHLO x\r\n" if config.lmtp else b"EHLO x\r\n")
    face.events.clear()
    return face


def codes(octets: bytes) -> list[int]:
    return [int(line[:3]) for line in octets.split(b"\r\n") if line and line[3:4] == b" "]


def test_the_message_is_what_was_sent_minus_dot_stuffing() -> None:
    face = connect()
    assert codes(face.feed(TRANSACTION + b"DATA\r\n")) == [250, 250, 354]
    assert codes(face.feed("Subject: あ\r\n\r\n..a\r\n.b\r\n.\r\n".encode())) == [250]
    assert face.messages == [Message("a@b.example", ["c@mx.example"], "Subject: あ\r\n\r\n.a\r\nb\r\n".encode())]
    assert face.events[-1] == events.EndOfData(len(face.messages[0].octets))


def test_nothing_is_parsed_before_the_last_event_is_answered() -> None:
    core = ServerConnection(CONFIG)
    core.receive_data(b"HELO x\r\nNOOP\r\n")
    assert core.next_event() == events.Connected() and core.unread == 14
    assert core.next_event() is Need.REPLY
    core.reply(Reply.of("220 hi"))
    assert core.next_event() == events.Hello("x", False)
    assert core.next_event() is Need.REPLY and core.unread == 6
    with pytest.raises(RuntimeError):
        core.challenge(b"")


def test_reply_without_an_event_is_a_bug() -> None:
    core = ServerConnection(CONFIG)
    with pytest.raises(RuntimeError):
        core.reply(Reply.of("220 hi"))


def test_a_refused_client_may_only_quit() -> None:
    face = ScriptedFace(EARLY, {"CONNECT": "554 5.7.1 No service for you"})
    assert codes(face.feed(b"EHLO x\r\nMAIL FROM:<>\r\nNOOP\r\nQUIT\r\n")) == [554, 503, 503, 503, 221]
    assert face.hung_up and face.core.closed


def test_421_ends_the_session() -> None:
    face = connect(replies={"MAIL": "421 4.3.2 Shutting down"})
    assert codes(face.feed(TRANSACTION)) == [421]
    assert face.hung_up


@pytest.mark.parametrize(
    "line", [b"NOOP " + b"x" * 506, b"MAIL FROM:<" + b"a" * 2000, b"RCPT TO:<" + b"a" * 3000, b"AUTH PLAIN " + b"A" * 12288]
)
def test_a_long_line_is_refused_without_being_kept(line: bytes) -> None:
    face = connect()
    for octet in line:
        assert face.feed(bytes([octet])) == b""
        assert face.core.unread <= 12288
    assert codes(face.feed(b"x" * 100_000 + b"\r\nNOOP\r\n")) == [500, 250]
    assert face.core.errors == 1


def test_a_line_of_512_octets_is_fine() -> None:
    assert codes(connect().feed(b"NOOP " + b"x" * 505 + b"\r\n")) == [250]


@pytest.mark.parametrize("first", [b"EHLO x\r\n", TRANSACTION + b"DATA\r\n"])
@pytest.mark.parametrize("early_talk", [False, True])
def test_talking_before_the_reply(first: bytes, early_talk: bool) -> None:
    face = connect(ServerConfig("mx.example", early_talk=early_talk))
    answer = codes(face.feed(first + b"NOOP\r\n.\r\n"))
    assert face.hung_up != early_talk and (answer[-1] == 554) != early_talk
    assert early_talk or face.messages == []


def test_whoever_logged_in_may_talk_early() -> None:
    face = connect(ServerConfig("mx.example", auth_mechanisms=("PLAIN",), tls_active=True))
    assert codes(face.feed(b"AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ=\r\n")) == [235]
    assert codes(face.feed(TRANSACTION + b"DATA\r\n.\r\nQUIT\r\n")) == [250, 250, 354, 250, 221]


ENDINGS = [
    b"\n.\n",
    b"\r.\r",
    b"\r.\n",
    b"\n.\r",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n.\r\r\n",
    b"\r\r\n.\n",
]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("config", [CONFIG, ServerConfig("mx.example", lmtp=True)], ids=["smtp", "lmtp"])
def test_smuggling(ending: bytes, config: ServerConfig) -> None:
    """CVE-2023-51764 and its kin: whatever the ending and the split, never a second message."""
    smuggled = b"MAIL FROM:<evil@b.example>\r\nRCPT TO:<c@mx.example>\r\nDATA\r\nSubject: smuggled\r\n"
    body = b"Subject: x\r\n\r\nbody" + ending + smuggled + b"\r\n.\r\n"
    outcomes = set()
    for cut in range(len(body) + 1):
        face = connect(config)
        face.feed(TRANSACTION + b"DATA\r\n")
        answer = face.feed(body[:cut]) + face.feed(body[cut:])
        end = next(event for event in face.events if isinstance(event, events.EndOfData))
        assert len(face.messages) == 0 and sum(isinstance(event, events.Mail) for event in face.events) == 1
        assert end.bare_newline or end.nul
        outcomes.add((answer, end))
    assert len(outcomes) == 1


def test_starttls_forgets_everything_and_takes_no_plaintext() -> None:
    config = ServerConfig("mx.example", tls_available=True, early_talk=True)
    face = connect(config)
    assert codes(face.feed(b"STARTTLS\r\nMAIL FROM:<a@b.example>\r\n")) == [554]
    assert face.hung_up

    face = connect(config)
    assert codes(face.feed(b"starttls \r\n")) == [220]
    face.core.receive_data(b"RSET\r\n")
    with pytest.raises(ProtocolError):
        face.core.next_event()
    with pytest.raises(RuntimeError):
        face.core.after_tls()

    face = connect(config)
    face.feed(b"XYZZY\r\nSTARTTLS\r\n")
    face.start_tls()
    assert (face.core.state, face.core.errors) == (State.GREETED, 1)
    assert b"STARTTLS" not in face.feed(b"EHLO x\r\n")


def test_an_octet_between_starttls_and_its_reply() -> None:
    core = ServerConnection(ServerConfig("mx.example", tls_available=True))
    core.next_event()
    core.reply(Reply.of("220 hi"))
    core.receive_data(b"STARTTLS\r\n")
    assert core.next_event() == events.StartTLS()
    core.receive_data(b"X")
    core.reply(Reply.of("220 2.0.0 Go"))
    with pytest.raises(ProtocolError):
        core.next_event()
    assert codes(core.data_to_send()) == [220, 554] and core.closed


def test_a_message_over_the_limit_is_read_but_not_kept() -> None:
    face = connect(ServerConfig("mx.example", max_size_octets=100_000))
    face.feed(TRANSACTION + b"DATA\r\n")
    answer = face.feed(b"x" * 300_000 + b"\r\n.\r\nNOOP\r\n")
    assert codes(answer) == [552, 250]
    assert face.events[-2] == events.EndOfData(300_002, too_big=True)
    assert sum(len(event.octets) for event in face.events if isinstance(event, events.Chunk)) <= 100_000


def test_too_many_tiny_chunks() -> None:
    face = connect()
    face.feed(TRANSACTION)
    assert codes(face.feed(b"BDAT 1\r\nx" * 10_001))[-1] == 552
    assert face.hung_up


def test_a_refused_chunk_ends_the_transaction() -> None:
    face = connect(replies={"CHUNK": "451 4.3.0 Try later"})
    assert codes(face.feed(TRANSACTION + b"BDAT 1\r\nxBDAT 1 LAST\r\nx")) == [250, 250, 451, 503]
    assert face.core.state is State.READY and face.messages == []


def test_binarymime() -> None:
    face = connect(ServerConfig("mx.example", binarymime=True))
    opening = b"MAIL FROM:<a@b.example> BODY=BINARYMIME\r\nRCPT TO:<c@mx.example>\r\n"
    assert codes(face.feed(opening + b"DATA\r\nBDAT 3 LAST\r\na\nb")) == [250, 250, 503, 550]
    with pytest.raises(ValueError, match="CHUNKING"):
        ServerConfig("mx.example", binarymime=True, chunking=False)


def test_without_chunking_bdat_can_not_be_skipped() -> None:
    face = connect(ServerConfig("mx.example", chunking=False))
    assert codes(face.feed(b"BDAT 6 LAST\r\nQUIT\r\n")) == [502] and face.hung_up


def test_lmtp_wants_a_reply_for_each_recipient() -> None:
    core = ServerConnection(ServerConfig("mx.example", lmtp=True))
    core.receive_data(b"LHLO x\r\n")
    for wanted, reply in [(events.Connected, "220 hi"), (events.Hello, "250 hi")]:
        assert isinstance(core.next_event(), wanted)
        core.reply(Reply.of(reply))
    core.receive_data(TRANSACTION + b"RCPT TO:<d@mx.example>\r\nBDAT 0 LAST\r\n")
    while not isinstance(event := core.next_event(), events.EndOfData):
        if not isinstance(event, events.Bdat):
            core.reply(Reply.of("250 2.0.0 ok"))
    core.data_to_send()
    assert core.recipients == 2
    with pytest.raises(RuntimeError):
        core.reply_each([Reply.of("250 2.0.0 ok")])
    core.reply(Reply.of("451 4.3.0 Later"))
    assert codes(core.data_to_send()) == [451, 451]


@given(
    st.lists(
        st.sampled_from(
            [
                b"EHLO x\r\n",
                b"MAIL FROM:<a@b.example>\r\n",
                b"RCPT TO:<c@mx.example>\r\n",
                b"DATA\r\n",
                b".\r\n",
                b"BDAT 3\r\nabc",
                b"BDAT 2 LAST\r\nab",
                b"RSET\r\n",
                b"QUIT\r\n",
                b"\r\n",
                b"\r",
                b"\n",
                b"\0",
                b"x",
                b"AUTH PLAIN AA==\r\n",
                b"\xff" * 600,
            ]
        ),
        max_size=20,
    ),
    st.integers(1, 9),
)
def test_any_octets_whole_or_in_pieces(parts: list[bytes], size: int) -> None:
    octets = b"".join(parts)
    whole, pieces = ScriptedFace(EARLY), ScriptedFace(EARLY)
    answer = whole.feed(octets)
    assert answer == pieces.feed(b"") + b"".join(pieces.feed(octets[i : i + size]) for i in range(0, len(octets), size))
    assert whole.messages == pieces.messages and whole.core.errors == pieces.core.errors


def test_every_command_has_its_states() -> None:
    assert set(LEGAL) == set(events.Command.__args__)


@pytest.mark.parametrize("seed", range(8))
def test_random_commands_against_the_reference_automaton(seed: int) -> None:
    """RFC 5321 §4.1.4 written twice: A5 of the attack list."""
    chance = random.Random(seed)
    for _ in range(60):
        automaton = Automaton(chance)
        face = ScriptedFace(
            ServerConfig("mx.example", tls_available=True, auth_mechanisms=("PLAIN",), auth_without_tls=True, max_recipients=3),
            automaton.replies,
        )
        assert codes(face.feed(b"")) == [220]
        for _ in range(40):
            line, expected = automaton.step()
            if expected is None:
                break
            assert codes(face.feed(line)) == expected, (seed, line, automaton.trace)
            if automaton.in_tls_handshake:
                face.start_tls()
                automaton.in_tls_handshake = False
