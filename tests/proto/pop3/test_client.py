"""The client core, against our server core and against servers that misbehave."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.pop3.client import Chunk, ClientConnection, EndOfLines, Replied, parse_listing
from fumibako.proto.pop3.client import Event as ClientEvent
from fumibako.proto.pop3.response import Response
from fumibako.proto.pop3.server import ServerConfig
from fumibako.proto.reader import Need, ProtocolError
from fumibako.proto.sasl.client import client_mechanism
from tests.proto.pop3.face import MESSAGES, OK, WRONG, ScriptedFace


class Pair:
    """A client core wired to a scripted face."""

    def __init__(self, config: ServerConfig) -> None:
        self.face, self.client = ScriptedFace(config), ClientConnection()
        self.client.receive_data(self.face.feed(b""))
        assert self.events() == [Replied("", Response(True, "POP3 server ready"))]

    def events(self) -> list[ClientEvent]:
        """Octets to and fro until it is the client's turn."""
        events = []
        while (event := self.client.next_event()) is not Need.REPLY:
            if isinstance(event, Need):
                octets = self.client.data_to_send()
                assert octets, "the client waits for octets that will never come"
                self.client.receive_data(self.face.feed(octets))
            else:
                events.append(event)
        return events

    def ask(self, keyword: str, argument: str | None = None, *, lines: bool = False) -> list[ClientEvent]:
        self.client.command(keyword, argument, lines=lines)
        return self.events()

    def octets(self, keyword: str, argument: str | None = None) -> bytes:
        """The lines behind +OK."""
        first, *chunks, last = self.ask(keyword, argument, lines=True)
        assert isinstance(first, Replied) and first.response.ok and isinstance(last, EndOfLines)
        return b"".join(chunk.octets for chunk in chunks if isinstance(chunk, Chunk))


def logged_in() -> Pair:
    pair = Pair(ServerConfig(auth_without_tls=True))
    pair.ask("USER", "alice")
    assert pair.ask("PASS", "wonderland") == [Replied("PASS", OK)]
    return pair


def test_a_maildrop_is_fetched() -> None:
    pair = logged_in()
    assert pair.ask("STAT") == [Replied("STAT", Response(True, "2 320"))]
    assert parse_listing(pair.octets("LIST")) == {1: "120", 2: "200"}
    assert parse_listing(pair.octets("UIDL")) == {1: "uid1", 2: "uid2"}
    assert tuple(pair.octets("RETR", str(number)) for number in (1, 2)) == MESSAGES
    assert pair.octets("TOP", "1 0") == MESSAGES[0][: MESSAGES[0].index(b"\r\n\r\n") + 4]
    assert pair.ask("RETR", "3", lines=True) == [Replied("RETR", Response(False, "No such message"))]
    assert b"UIDL\r\n" in pair.octets("CAPA")
    pair.ask("QUIT")
    assert pair.face.hung_up


@pytest.mark.parametrize("name", ["PLAIN", "LOGIN", "SCRAM-SHA-256"])
@pytest.mark.parametrize("password", ["wonderland", "wrong"])
def test_auth(name: str, password: str) -> None:
    pair = Pair(ServerConfig(tls_active=True, auth_mechanisms=("SCRAM-SHA-256", "PLAIN", "LOGIN")))
    pair.client.auth(client_mechanism(name, "alice", password, b"abc"))
    assert pair.events() == [Replied("AUTH", OK if password == "wonderland" else WRONG)]


def test_stls() -> None:
    pair = Pair(ServerConfig(tls_available=True))
    pair.client.stls()
    assert pair.events() == [Replied("STLS", OK)]
    with pytest.raises(RuntimeError):
        pair.client.command("CAPA", lines=True)
    pair.client = pair.client.after_tls()
    pair.face.start_tls()
    assert b"USER\r\n" in pair.octets("CAPA")


@pytest.mark.parametrize("octets", [b"+OK\r\n+OK\r\n", b"+OK hi\r\n+"])
def test_talk_out_of_turn(octets: bytes) -> None:
    client = ClientConnection()
    client.receive_data(octets)
    with pytest.raises(ProtocolError):
        for _ in range(3):
            client.next_event()


def test_response_injection() -> None:
    client = ClientConnection()
    client.receive_data(b"+OK\r\n")
    assert isinstance(client.next_event(), Replied)
    client.stls()
    client.receive_data(b"+OK\r\n+OK injected\r\n")
    with pytest.raises(ProtocolError):
        client.next_event()
    with pytest.raises(ProtocolError):
        client.after_tls()


def test_a_server_that_accepts_without_proof_is_not_believed() -> None:
    client = ClientConnection()
    client.receive_data(b"+OK\r\n")
    client.next_event()
    client.auth(client_mechanism("SCRAM-SHA-256", "alice", "wonderland", b"abc"))
    client.receive_data(b"+OK welcome\r\n")
    with pytest.raises(ProtocolError, match="prove"):
        client.next_event()


@pytest.mark.parametrize(("keyword", "argument"), [("RETR\r\nDELE", "1"), ("USER", "a\r\nQUIT"), ("USER", ""), ("", None)])
def test_nothing_is_injected(keyword: str, argument: str | None) -> None:
    pair = logged_in()
    with pytest.raises(ValueError, match="POP3 command"):
        pair.client.command(keyword, argument)


def test_one_command_at_a_time() -> None:
    pair = logged_in()
    pair.client.command("NOOP")
    with pytest.raises(RuntimeError):
        pair.client.command("STAT")


@pytest.mark.parametrize("octets", [b"x 1\r\n", b"1_0 1\r\n", b" 1 1\r\n"])
def test_bad_listings(octets: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_listing(octets)


@given(
    st.lists(
        st.binary(max_size=12) | st.sampled_from([b"+OK\r\n", b"-ERR no\r\n", b"a\r\n.\r\n", b"..\r\n", b"x" * 5000]), max_size=8
    )
)
def test_any_server(parts: list[bytes]) -> None:
    client = ClientConnection()
    try:
        for part in parts:
            client.receive_data(part)
            while (event := client.next_event()) is not Need.BYTES:
                if event is Need.REPLY:
                    client.command("RETR", "1", lines=True)
    except ProtocolError:
        pass
