"""The client core, against our server core and against servers that misbehave."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.model.envelope import Envelope, Notify, Recipient
from fumibako.proto.reader import Need, ProtocolError
from fumibako.proto.sasl.client import client_mechanism
from fumibako.proto.smtp.client import ClientConnection, RecipientResult, Replied, SendMessage, TransactionResult
from fumibako.proto.smtp.client import Event as ClientEvent
from fumibako.proto.smtp.extensions import Capabilities, ServerConfig
from fumibako.proto.smtp.reply import Reply
from tests.proto.smtp.face import Message, ScriptedFace

ENVELOPE = Envelope("a@b.example", (Recipient("c@mx.example"), Recipient("d@mx.example")))
MESSAGE = b"Subject: x\r\n\r\n.dot\r\n"


class Pair:
    """A client core wired to a scripted face."""

    def __init__(self, config: ServerConfig, replies: dict[str, str] | None = None, *, lmtp: bool = False) -> None:
        self.face = ScriptedFace(config, replies)
        self.client = ClientConnection("client.example", lmtp=lmtp)
        self.round_trips = 0
        self.client.receive_data(self.face.feed(b""))

    def until_event(self) -> ClientEvent:
        """Octets to and fro until the client has an event."""
        while (event := self.client.next_event()) is Need.BYTES:
            octets = self.client.data_to_send()
            assert octets, "the client waits for octets that will never come"
            self.round_trips += 1
            self.client.receive_data(self.face.feed(octets))
        assert not isinstance(event, Need)
        return event

    def hello(self) -> None:
        assert isinstance(self.until_event(), Replied)
        self.client.hello()
        assert isinstance(self.until_event(), Replied)

    def send(self, envelope: Envelope, message: bytes, size_octets: int | None = None) -> TransactionResult:
        self.client.transaction(envelope, size_octets)
        event = self.until_event()
        if isinstance(event, SendMessage):
            assert self.client.next_event() is Need.REPLY
            for octet in message:
                self.client.send_message(bytes([octet]))
            self.client.end_message()
            event = self.until_event()
        assert isinstance(event, TransactionResult)
        return event


def pair(config: ServerConfig | None = None, replies: dict[str, str] | None = None, *, lmtp: bool = False) -> Pair:
    made = Pair(config or ServerConfig("mx.example", lmtp=lmtp), replies, lmtp=lmtp)
    made.hello()
    return made


def talk(client: ClientConnection, octets: bytes) -> list[ClientEvent]:
    """Events of a client that hears these octets."""
    client.receive_data(octets)
    events = []
    while not isinstance(event := client.next_event(), Need):
        events.append(event)
    return events


def outcomes(result: TransactionResult) -> list[tuple[str, int, bool]]:
    return [(one.stage, one.reply.code, one.is_delivered) for one in result.recipients]


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ({}, [(".", 250, True), (".", 250, True)]),
        ({"RCPT d@mx.example": "550 5.1.1 no"}, [(".", 250, True), ("RCPT", 550, False)]),
        ({"RCPT c@mx.example": "451 4.7.1 no"}, [("RCPT", 451, False), (".", 250, True)]),
        ({"RCPT": "550 5.1.1 no"}, [("RCPT", 550, False)] * 2),
        ({"MAIL": "550 5.7.1 no"}, [("MAIL", 550, False)] * 2),
        ({"MAIL": "421 4.3.2 no"}, [("MAIL", 421, False)] * 2),
        ({"RCPT d@mx.example": "421 4.3.2 no"}, [("RCPT", 421, False)] * 2),
        ({"DATA": "451 4.3.0 no"}, [("DATA", 451, False)] * 2),
        ({"DATA": "421 4.3.0 no"}, [("DATA", 421, False)] * 2),
        ({"END": "554 5.6.0 no"}, [(".", 554, False)] * 2),
        ({"END": "421 4.3.0 no"}, [(".", 421, False)] * 2),
    ],
)
def test_transactions(replies: dict[str, str], expected: list[tuple[str, int, bool]], pipelining: bool) -> None:
    it = pair(replies=dict(replies))
    if not pipelining:
        it.client.capabilities = Capabilities()
    assert outcomes(it.send(ENVELOPE, MESSAGE)) == expected
    assert it.client.closed == ("421" in str(replies))
    assert it.face.messages == ([Message("a@b.example", it.face._recipients, MESSAGE)] if (".", 250, True) in expected else [])
    if not it.client.closed:
        it.face.replies.clear()
        assert outcomes(it.send(ENVELOPE, MESSAGE)) == [(".", 250, True)] * 2  # the session is still good


def test_pipelining_saves_round_trips() -> None:
    it = pair()
    before = it.round_trips
    it.send(ENVELOPE, MESSAGE)
    assert it.round_trips - before == 2


def test_lmtp_has_a_result_for_each_recipient() -> None:
    it = pair(replies={"END d@mx.example": "452 4.2.2 Over quota"}, lmtp=True)
    assert outcomes(it.send(ENVELOPE, MESSAGE)) == [(".", 250, True), (".", 452, False)]
    it = pair(replies={"RCPT": "550 5.1.1 no"}, lmtp=True)
    assert outcomes(it.send(ENVELOPE, MESSAGE)) == [("RCPT", 550, False)] * 2


def test_data_accepted_without_recipients_gets_an_empty_message() -> None:
    client = ClientConnection("client.example")
    talk(client, b"220 hi\r\n")
    client.capabilities = Capabilities({"PIPELINING": ()})
    client.transaction(ENVELOPE)
    assert talk(client, b"250 ok\r\n550 no\r\n550 no\r\n354 go\r\n") == []
    assert client.data_to_send().endswith(b"DATA\r\n.\r\n")
    assert talk(client, b"554 no recipients\r\n") == []
    assert client.data_to_send() == b"RSET\r\n"
    refused = Reply(550, None, "no")
    assert talk(client, b"250 ok\r\n") == [
        TransactionResult(tuple(RecipientResult(recipient.forward_path, refused, "RCPT") for recipient in ENVELOPE.recipients))
    ]


def test_parameters_are_sent_where_offered() -> None:
    envelope = Envelope(
        "あ@b.example",
        (
            Recipient("c@mx.example", Notify.SUCCESS | Notify.DELAY, "rfc822;x+y@z.example"),
            Recipient("d@mx.example", Notify.NEVER),
        ),
        "8BITMIME",
        True,
        "HDRS",
        "id+1",
    )
    it = pair()
    it.client.transaction(envelope, 10)
    it.client.next_event()
    assert it.client.data_to_send().decode() == (
        "MAIL FROM:<あ@b.example> SIZE=10 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=id+2B1\r\n"
        "RCPT TO:<c@mx.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+2By@z.example\r\n"
        "RCPT TO:<d@mx.example> NOTIFY=NEVER\r\nDATA\r\n"
    )
    it = pair(ServerConfig("mx.example", dsn=False))
    assert outcomes(it.send(envelope, MESSAGE)) == [(".", 250, True)] * 2


def test_refused_before_anything_is_sent() -> None:
    it = pair(ServerConfig("mx.example", max_size_octets=100, smtputf8=False))
    assert outcomes(it.send(ENVELOPE, b"", 101)) == [("MAIL", 552, False)] * 2
    assert outcomes(it.send(Envelope("あ@b.example", ENVELOPE.recipients, smtputf8=True), b"")) == [("MAIL", 550, False)] * 2
    assert it.client.data_to_send() == b""
    assert outcomes(it.send(ENVELOPE, b"", 100)) == [(".", 250, True)] * 2


@pytest.mark.parametrize("path", ["c@d.example>\r\nRCPT TO:<e@f.example", "c@d.example\n", "c d@e.example", "あ@d.example", ""])
def test_nothing_is_injected_by_an_address(path: str) -> None:
    it = pair()
    with pytest.raises(ValueError):
        it.client.transaction(Envelope("a@b.example", (Recipient(path or "x y@z"),)))
    with pytest.raises(ValueError):
        it.client.transaction(Envelope(path or "x y@z", ENVELOPE.recipients))
    with pytest.raises(ValueError, match="host name"):
        ClientConnection("a\r\nb")
    assert it.client.data_to_send() == b""


@given(st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\0", b"\r\n", b"\r\n.\r\n"]), max_size=20).map(b"".join))
def test_nothing_is_smuggled_out(message: bytes) -> None:
    it = pair()
    assert outcomes(it.send(ENVELOPE, message)) == [(".", 250, True)] * 2  # the face refuses bare newlines and NUL
    assert len(it.face.messages) == 1 and it.face.core.unread == 0


@pytest.mark.parametrize("name", ["PLAIN", "LOGIN", "SCRAM-SHA-256"])
@pytest.mark.parametrize("password", ["wonderland", "wrong"])
def test_auth(name: str, password: str) -> None:
    it = pair(ServerConfig("mx.example", auth_mechanisms=("SCRAM-SHA-256", "PLAIN", "LOGIN"), tls_active=True))
    assert it.client.capabilities.auth_mechanisms == ("SCRAM-SHA-256", "PLAIN", "LOGIN")
    it.client.auth(client_mechanism(name, "alice", password, b"abc"))
    event = it.until_event()
    assert isinstance(event, Replied) and event.reply.code == (235 if password == "wonderland" else 535)
    assert it.face.core.authenticated == (password == "wonderland")


def test_a_long_initial_response_waits_for_its_challenge() -> None:
    client = ClientConnection("client.example")
    talk(client, b"220 hi\r\n")
    client.auth(client_mechanism("PLAIN", "a", "b" * 400, b"abc"))
    assert talk(client, b"334 \r\n") == []
    first, second, _ = client.data_to_send().split(b"\r\n")
    assert first == b"AUTH PLAIN" and len(second) > 500


def test_a_server_that_accepts_without_proof_is_not_believed() -> None:
    client = ClientConnection("client.example")
    talk(client, b"220 hi\r\n")
    client.auth(client_mechanism("SCRAM-SHA-256", "alice", "wonderland", b"abc"))
    with pytest.raises(ProtocolError, match="prove"):
        talk(client, b"235 2.7.0 welcome\r\n")


def test_a_server_with_a_bad_challenge_is_cancelled() -> None:
    client = ClientConnection("client.example")
    talk(client, b"220 hi\r\n")
    client.auth(client_mechanism("SCRAM-SHA-256", "alice", "wonderland", b"abc"))
    assert talk(client, b"334 AAAA\r\n") == []
    assert client.data_to_send().endswith(b"\r\n*\r\n")
    with pytest.raises(ProtocolError):
        talk(client, b"501 5.7.0 cancelled\r\n")


def test_starttls() -> None:
    it = pair(ServerConfig("mx.example", tls_available=True))
    assert "STARTTLS" in it.client.capabilities
    it.client.starttls()
    assert it.until_event() == Replied("STARTTLS", Reply.of("220 2.0.0 Ready to start TLS"))
    with pytest.raises(RuntimeError):
        it.client.hello()
    it.client = it.client.after_tls()
    it.face.start_tls()
    assert it.client.capabilities == Capabilities()
    it.client.hello()
    assert isinstance(it.until_event(), Replied) and "STARTTLS" not in it.client.capabilities


@pytest.mark.parametrize("cut", range(8, 30))
def test_response_injection(cut: int) -> None:
    """NO STARTTLS, A9 of the attack list: plaintext behind the 220 is never taken for an answer under TLS."""
    client = ClientConnection("client.example")
    talk(client, b"220 hi\r\n")
    client.starttls()
    octets = b"220 go\r\n250-x\r\n250 AUTH PLAIN\r\n"
    with pytest.raises(ProtocolError):
        for piece in (octets[:cut], octets[cut:]):
            talk(client, piece)
    with pytest.raises(ProtocolError):
        client.after_tls()


def test_a_goodbye_out_of_the_blue_and_a_reply_nobody_asked_for() -> None:
    client = ClientConnection("client.example")
    assert talk(client, b"220 hi\r\n421 4.3.2 bye\r\n") == [
        Replied("", Reply(220, None, "hi")),
        Replied("", Reply.of("421 4.3.2 bye")),
    ]
    with pytest.raises(RuntimeError):
        client.hello()
    other = ClientConnection("client.example")
    with pytest.raises(ProtocolError):
        talk(other, b"220 hi\r\n250 what\r\n")


def test_behind_a_broken_reply_nothing_more_is_said() -> None:
    client = ClientConnection("client.example")
    with pytest.raises(ProtocolError):
        talk(client, b"SSH-2.0-OpenSSH_9.2\r\n")
    assert client.closed and client.next_event() is Need.REPLY
    with pytest.raises(RuntimeError):
        client.hello()


def test_one_command_at_a_time() -> None:
    it = pair()
    it.client.noop()
    with pytest.raises(RuntimeError):
        it.client.reset()
    with pytest.raises(RuntimeError):
        it.client.send_message(b"x")
    with pytest.raises(RuntimeError):
        it.client.end_message()
    with pytest.raises(ValueError, match="recipients"):
        it.client.transaction(Envelope("a@b.example", ()))
    assert it.until_event() == Replied("NOOP", Reply.of("250 2.0.0 Ok"))
    it.client.quit()
    assert it.until_event() == Replied("QUIT", Reply.of("221 2.0.0 Bye")) and it.client.closed


@given(
    st.lists(
        st.binary(max_size=20) | st.sampled_from([b"250 ok\r\n", b"354 go\r\n", b"220 go\r\n", b"250-a\r\n", b"421 x\r\n"]),
        max_size=8,
    )
)
def test_any_server(parts: list[bytes]) -> None:
    client = ClientConnection("client.example")
    commands = itertools.cycle([client.hello, lambda: client.transaction(ENVELOPE), client.reset])
    try:
        for part in parts:
            client.receive_data(part)
            while (event := client.next_event()) is not Need.BYTES:
                if event is Need.REPLY:
                    if client.closed:
                        return
                    next(commands)()
                elif isinstance(event, SendMessage):
                    client.end_message()
    except ProtocolError:
        pass
