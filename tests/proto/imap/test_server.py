"""The server core: any cut of the octets gives the same conversation; nothing but events, answers and ProtocolError."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.imap import commands as c
from fumibako.proto.imap.server import LEGAL, CommandReceived, Completion, ServerConfig, ServerConnection, State
from fumibako.proto.reader import Need, ProtocolError
from tests.proto.imap.face import ScriptedFace

CONFIG = ServerConfig("mail.example.jp", tls_available=True, allow_plaintext_login=True, max_append_octets=100)


def authenticated(**options) -> ServerConnection:
    core = ServerConnection(ServerConfig("mail.example.jp", **options))
    core.authenticated()
    return core


def test_every_command_has_its_states():
    commands = {*c.Command.__args__}
    assert set(LEGAL) == commands


def test_one_command_at_a_time():
    core = authenticated()
    core.receive_data(b"a NOOP\r\nb NOOP\r\n")
    assert core.next_event() == CommandReceived(b"a", c.Noop())
    assert core.next_event() is Need.REPLY
    assert core.unread == 8
    core.complete(Completion.OK, "done", b"ALERT")
    assert core.next_event() == CommandReceived(b"b", c.Noop())
    core.complete("NO", "sorry")
    assert core.next_event() is Need.BYTES
    assert core.data_to_send() == b"a OK [ALERT] done\r\nb NO sorry\r\n"
    assert core.data_to_send() == b""


def test_answering_nothing_is_a_bug():
    core = authenticated()
    with pytest.raises(RuntimeError):
        core.complete("OK", "done")
    core.receive_data(b"a NOOP\r\n")
    core.next_event()
    with pytest.raises(ValueError, match="one line"):
        core.complete("OK", "a\r\nb OK done")


def test_text_is_ascii_until_rev2():
    core = authenticated()
    core.untagged(b"x")
    core.bye("終わり")
    assert core.data_to_send() == b"* x\r\n* BYE ???\r\n"
    core = authenticated()
    core.enable(["IMAP4REV2"])
    core.data_to_send()
    core.bye("終わり")
    assert core.data_to_send() == "* BYE 終わり\r\n".encode()


def test_enable():
    core = authenticated()
    assert core.enable(("CONDSTORE", "X-FOO", "QRESYNC")) == ("CONDSTORE",)
    assert core.enable(("CONDSTORE", "IMAP4REV2", "UTF8=ACCEPT")) == ("IMAP4REV2", "UTF8=ACCEPT")
    assert core.data_to_send() == b"* ENABLED CONDSTORE\r\n* ENABLED IMAP4rev2 UTF8=ACCEPT\r\n"
    assert core.rev2 and core.utf8_accept and core.utf8 and core.condstore


def test_greetings():
    core = ServerConnection(CONFIG)
    core.greeting(preauth=True)
    assert core.state is State.AUTHENTICATED
    assert core.data_to_send().startswith(b"* PREAUTH [CAPABILITY IMAP4rev1 IMAP4rev2 ")


def test_starttls_and_what_comes_behind_it():
    """spec/reliability.md A8."""
    core = ServerConnection(CONFIG)
    core.receive_data(b"a STARTTLS\r\nb LOGIN x y\r\n")
    assert core.next_event() == CommandReceived(b"a", c.StartTLS())
    core.complete("OK", "Begin TLS negotiation now")
    assert core.state is State.TLS
    assert core.next_event() is Need.BYTES
    assert core.unread
    with pytest.raises(RuntimeError):
        core.tls_started()


def test_starttls_refused_by_the_face():
    core = ServerConnection(CONFIG)
    core.receive_data(b"a STARTTLS\r\nb NOOP\r\n")
    core.next_event()
    core.complete("NO", "no certificate")
    assert core.next_event() == CommandReceived(b"b", c.Noop())


def test_append_refused_half_way_is_answered_after_its_octets():
    core = authenticated()
    core.receive_data(b"a APPEND x {10+}\r\n01234")
    core.next_event()
    core.continue_()
    assert core.next_event() == c.AppendData(b"01234")
    core.complete("NO", "over quota", b"OVERQUOTA")
    assert core.next_event() is Need.BYTES
    assert core.data_to_send() == b""
    core.receive_data(b"56789 {3+}\r\nabc\r\nb NOOP\r\n")
    assert core.next_event() == CommandReceived(b"b", c.Noop())
    assert core.data_to_send() == b"a NO [OVERQUOTA] over quota\r\n"


def test_append_data_comes_in_bounded_chunks():
    core = authenticated()
    core.receive_data(b"a APPEND x {200000+}\r\n" + b"x" * 200000 + b"\r\n")
    core.next_event()
    core.continue_()
    sizes = [len(core.next_event().octets) for _ in range(4)]
    assert sizes == [65536, 65536, 65536, 200000 - 3 * 65536]
    assert core.next_event() == c.AppendEnd(more=False)
    assert core.next_event() is Need.REPLY


def test_untagged_data_during_idle():
    core = authenticated()
    core.receive_data(b"a IDLE\r\n")
    core.next_event()
    core.continue_("idling")
    assert core.next_event() is Need.BYTES
    core.untagged(b"3 EXISTS")
    assert core.data_to_send() == b"+ idling\r\n* 3 EXISTS\r\n"
    core.receive_data(b"DONE\r\n")
    assert core.next_event() == c.IdleDone()


def test_after_bye_nothing_is_read():
    core = authenticated()
    core.receive_data(b"a NOOP\r\nb NOOP\r\n")
    core.next_event()
    core.bye("Shutting down")
    assert core.closed
    assert core.next_event() is Need.BYTES


@pytest.mark.parametrize("octets", [
    b"x" * 1_000_000, b"a LOGIN " + b"{1+}\r\nx" * 100_000, b"a LOGIN {4294967295+}\r\n", b"\r\n" * 500_000,
    b"a " + b"(" * 100_000 + b"\r\n",
    b"a LOGIN {1}\r\nx" * 70_000, b"a APPEND x {99999999+}\r\n" + b"x" * 900_000,
])
def test_worst_octets_before_login(octets):
    """spec/reliability.md B1: refused early, at little cost; process time."""
    core = ServerConnection(ServerConfig("mail.example.jp"))
    started = time.process_time()
    with pytest.raises(ProtocolError):
        for start in range(0, len(octets), 16384):
            core.receive_data(octets[start:start + 16384])
            assert core.next_event() is Need.BYTES
    assert core.closed
    assert b"* BYE " in core.data_to_send()
    assert time.process_time() - started < 1


# -- any octets, any cut --

SCRIPT = st.lists(st.sampled_from([
    b"a1 NOOP\r\n", b"a2 LOGIN x y\r\n", b"a3 LOGIN {1+}\r\nx {1}\r\ny\r\n", b"a4 SELECT INBOX\r\n", b"a5 IDLE\r\n", b"DONE\r\n",
    b"a6 APPEND INBOX {3+}\r\nabc\r\n", b"a7 APPEND INBOX {3}\r\nabc {2+}\r\nde\r\n",
    b"a8 APPEND x {1+}\r\nabc\r\n", b"a9 APPEND x {101+}\r\n",
    b"b1 FETCH 1:* (FLAGS)\r\n", b"b2 SEARCH TEXT {4+}\r\nb3 X\r\n", b"b4 AUTHENTICATE PLAIN\r\n",
    b"AGEAYg==\r\n", b"*\r\n", b"\r\n",
    b"b5 STARTTLS\r\n", b"b6 LOGOUT\r\n", b"b7 APPEND {1+}\r\nx UTF8 (~{2+}\r\nab)\r\n",
    b"b8 ENABLE IMAP4rev2\r\n", b"\x00\xff\r\r\n",
    b"b9 CLOSE\r\n", b"{5}\r\n", b"x", b"c1 APPEND NO {3+}\r\nabc {3+}\r\nabc\r\n", b"c2 STORE 1 FLAGS (", b")\r\n",
]), max_size=12).map(b"".join)

CHUNKS = st.lists(st.integers(0, 400), max_size=12)


def converse(pieces: list[bytes], start: str) -> tuple[bytes, list[object], list[object]]:
    face = ScriptedFace(CONFIG, {"c1": "NO no such mailbox"}, start)
    said = b"".join(face.feed(piece) for piece in pieces)
    events: list[object] = []
    for event in face.events:
        if isinstance(event, c.AppendData) and events and isinstance(events[-1], c.AppendData):
            event = c.AppendData(events.pop().octets + event.octets)
        events.append(event)
    return said, events, face.messages


@given(SCRIPT | st.binary(max_size=60), CHUNKS, st.sampled_from(["", "authenticated", "selected"]))
def test_cuts_make_no_difference(octets, cuts, start):
    whole = converse([octets], start)
    places = sorted({0, len(octets), *(min(cut, len(octets)) for cut in cuts)})
    assert converse([octets[low:high] for low, high in pairwise(places)] or [b""], start) == whole
    assert converse([octets[i:i + 1] for i in range(len(octets))] or [b""], start) == whole


@given(SCRIPT, st.sampled_from(["", "authenticated", "selected"]))
def test_every_tag_is_answered_once(octets, start):
    said, events, _ = converse([octets], start)
    tags = [event.tag for event in events if isinstance(event, CommandReceived) and not isinstance(event.command, c.Append)]
    for tag in set(tags):
        assert said.count(b"\r\n%b " % tag) + said.startswith(tag + b" ") >= tags.count(tag) - 1      # the last may be under way
