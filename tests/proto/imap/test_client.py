"""The client core, against text and against our own server core."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.imap.client import ClientConnection, Continuation, Literal, Tagged, Untagged, parse_response
from fumibako.proto.imap.format import format_fetch, format_string
from fumibako.proto.imap.server import ServerConfig
from fumibako.proto.reader import ProtocolError
from tests.proto.imap.face import ScriptedFace


def greeted(**options) -> ClientConnection:
    client = ClientConnection(**options)
    client.receive_data(b"* OK ready\r\n")
    assert client.responses() == [Untagged("OK", text="ready")]
    return client


@pytest.mark.parametrize(("octets", "response"), [
    (b"* 23 EXISTS", Untagged("EXISTS", 23)),
    (b"* SEARCH 2 3 6", Untagged("SEARCH", None, [2, 3, 6])),
    (b"* SEARCH", Untagged("SEARCH")),
    (b"* FLAGS (\\Answered $Junk)", Untagged("FLAGS", None, [["\\Answered", "$Junk"]])),
    (b'* LIST (\\Noselect) "/" ~/Mail/foo', Untagged("LIST", None, [["\\Noselect"], b"/", "~/Mail/foo"])),
    (b"* LIST () NIL {5}\r\nINBOX", Untagged("LIST", None, [[], None, b"INBOX"])),
    (b'* ESEARCH (TAG "A282") MIN 2 COUNT 3', Untagged("ESEARCH", None, [["TAG", b"A282"], "MIN", 2, "COUNT", 3])),
    (b"* 12 FETCH (FLAGS (\\Seen) BODY[HEADER.FIELDS (DATE \"X Y\")]<0> {4}\r\na)(b BINARY[1.2] ~{1}\r\n\0)",
     Untagged("FETCH", 12, [["FLAGS", ["\\Seen"], 'BODY[HEADER.FIELDS (DATE "X Y")]<0>', b"a)(b", "BINARY[1.2]", b"\0"]])),
    (b'* 1 FETCH (ENVELOPE ("d" NIL (("n" NIL "m" "h")) "\\"q\\"") UID 5)',
     Untagged("FETCH", 1, [["ENVELOPE", [b"d", None, [[b"n", None, b"m", b"h"]], b'"q"'], "UID", 5]])),
    (b"* OK [UIDVALIDITY 3857529045] UIDs valid", Untagged("OK", code="UIDVALIDITY 3857529045", text="UIDs valid")),
    (b"* BYE", Untagged("BYE")),
    (b"a1 OK [APPENDUID 1 5] done", Tagged(b"a1", "OK", "APPENDUID 1 5", "done")),
    (b"a1 no sorry", Tagged(b"a1", "NO", "", "sorry")),
    (b"+ idling", Continuation(b"idling")),
    (b"+ ", Continuation(b"")),
    (b"+", Continuation(b"")),
    (b"* CAPABILITY IMAP4rev1 AUTH=PLAIN", Untagged("CAPABILITY", None, ["IMAP4rev1", "AUTH=PLAIN"])),
    (b"* NAMESPACE ((\"\" \"/\")) NIL NIL", Untagged("NAMESPACE", None, [[[b"", b"/"]], None, None])),
])
def test_responses(octets, response):
    assert parse_response(octets) == response


@pytest.mark.parametrize("octets", [
    b"", b"* ", b"*", b"a1", b"a1 MAYBE x", b"* 1 FETCH (", b"* 1 FETCH )", b"* 1 LIST", b'* LIST "',
    b"* LIST {5}\r\nabc", b"* (x)",
    b"* 1 FETCH (" + b"(" * 300 + b")" * 300 + b")", b"* 99999999999999 EXISTS",
])
def test_no_responses(octets):
    with pytest.raises(ProtocolError):
        parse_response(octets)


def test_any_octets():
    @given(st.binary(max_size=60) | st.lists(st.sampled_from([b"* ", b"1 ", b"FETCH ", b"(", b")", b'"',
    b"{1}\r\n", b"x", b"NIL", b"BODY[", b"]"]))
           .map(b"".join))
    def check(octets):
        try:
            parse_response(octets)
        except ProtocolError:
            pass
    check()


@given(st.lists(st.binary(max_size=20).filter(lambda octets: b"\0" not in octets), max_size=5), st.data())
def test_what_we_format_is_read_back_from_any_cut(strings, data):
    pieces = [b"BODY[%d] %b" % (number + 1, format_string(octets)) for number, octets in enumerate(strings)]
    octets = b"* " + format_fetch(7, [b"UID 9", *pieces]) + b"\r\n"
    cut = data.draw(st.integers(0, len(octets)))
    expected: list = ["UID", 9]
    for number, content in enumerate(strings):
        expected += [f"BODY[{number + 1}]", content]
    client = greeted()
    client.receive_data(octets[:cut])
    heard = client.responses()
    client.receive_data(octets[cut:])
    assert heard + client.responses() == [Untagged("FETCH", 7, [expected])]


def test_literals_wait_for_the_server():
    client = greeted()
    tag = client.command("LOGIN", "x", Literal(b"a\r\nb"))
    assert client.data_to_send() == tag + b' LOGIN "x" {4}\r\n'
    client.receive_data(b"+ go\r\n")
    assert client.responses() == []
    assert client.data_to_send() == b"a\r\nb\r\n"
    client.command("NOOP")
    assert client.data_to_send() == b"a2 NOOP\r\n"


def test_a_refused_literal_is_not_sent():
    client = greeted()
    tag = client.command("APPEND", "x", Literal(b"abc"))
    with pytest.raises(RuntimeError):
        client.command("NOOP")
    client.receive_data(tag + b" NO [TRYCREATE] no\r\n")
    assert client.responses() == [Tagged(tag, "NO", "TRYCREATE", "no")]
    client.data_to_send()
    client.command("NOOP")
    assert client.data_to_send() == b"a2 NOOP\r\n"


def test_text_can_never_become_a_command():
    """spec/reliability.md B2."""
    client = greeted(literal_plus=True)
    client.command("SEARCH", b"TEXT", 'x"\r\na9 DELETE INBOX\r\n')
    assert client.data_to_send() == b'a1 SEARCH TEXT {21+}\r\nx"\r\na9 DELETE INBOX\r\n\r\n'


def test_before_tls_little_is_believed():
    """RFC 9051 §11.3; spec/reliability.md A9, A10."""
    client = greeted(tls_required=True)
    client.receive_data(b"* CAPABILITY IMAP4rev1\r\n* 5 EXISTS\r\n* LIST () NIL x\r\na1 OK begin\r\n")
    assert [type(response) for response in client.responses()] == [Untagged, Tagged]
    client.receive_data(b"a2 OK injected\r\n")
    with pytest.raises(ProtocolError):
        client.tls_started()


def test_preauth_is_refused_where_tls_is_required():
    client = ClientConnection(tls_required=True)
    client.receive_data(b"* PREAUTH hello\r\n")
    with pytest.raises(ProtocolError):
        client.next_response()


def test_greeting_must_be_one():
    for octets in (b"a1 OK x\r\n", b"+ x\r\n", b"* 5 EXISTS\r\n"):
        client = ClientConnection()
        client.receive_data(octets)
        with pytest.raises(ProtocolError):
            client.next_response()


def test_with_our_own_server():
    server = ScriptedFace(ServerConfig("mail.example.jp", tls_active=True), {"a3": "OK [APPENDUID 1 2] done"})
    client = ClientConnection()

    def exchange() -> list:
        heard = []
        while (octets := client.data_to_send()) or not heard:
            client.receive_data(server.feed(octets))
            heard += client.responses()
        return heard

    assert exchange()[0].code.startswith("CAPABILITY IMAP4rev1 IMAP4rev2")
    client.command("LOGIN", "田中", "secret")
    assert exchange() == [Tagged(b"a1", "OK", "", "logged in")]
    client.command("SELECT", "INBOX")
    assert exchange() == [Tagged(b"a2", "OK", "READ-WRITE", "done")]
    client.command("APPEND", "INBOX", b"(\\Seen)", Literal(b"From: x\r\n\r\nhello"))
    assert exchange() == [Tagged(b"a3", "OK", "APPENDUID 1 2", "done")]
    assert [octets for _, octets in server.messages] == [b"From: x\r\n\r\nhello"]
