"""An SMTP face by script: accepts everything but what the dialogue says otherwise, and keeps the messages."""

from dataclasses import dataclass, fields

from fumibako.proto.reader import Need, ProtocolError
from fumibako.proto.sasl.server import ServerMechanism, server_mechanism
from fumibako.proto.sasl.steps import Challenge, Success
from fumibako.proto.smtp import events
from fumibako.proto.smtp.extensions import ServerConfig
from fumibako.proto.smtp.reply import Reply
from fumibako.proto.smtp.server import ServerConnection
from tests.proto.sasl.directory import advance

USUAL = {
    "CONNECT": "220 mx.example ESMTP",
    "HELLO": "250 at your service",
    "STARTTLS": "220 2.0.0 Ready to start TLS",
    "MAIL": "250 2.1.0 Sender ok",
    "RCPT": "250 2.1.5 Recipient ok",
    "DATA": "354 Send the message",
    "CHUNK": "250 2.0.0 Chunk ok",
    "END": "250 2.6.0 Message accepted",
    "RSET": "250 2.0.0 Reset",
    "VRFY": "252 2.1.5 Try it",
    "EXPN": "502 5.5.1 No lists here",
    "HELP": "214 2.0.0 See RFC 5321",
    "NOOP": "250 2.0.0 Ok",
    "QUIT": "221 2.0.0 Bye",
    "CANCEL": "501 5.7.0 Cancelled",
}
LOGGED_IN = Reply.of("235 2.7.0 Authentication successful")
WRONG = Reply.of("535 5.7.8 Authentication credentials invalid")
MALFORMED = Reply.of("501 5.5.2 Malformed authentication message")
SMUGGLED = Reply.of("550 5.5.2 Bare CR or LF in message")
TOO_BIG = Reply.of("552 5.3.4 Message too big")


@dataclass
class Message:
    """A transaction that reached its end."""

    reverse_path: str
    forward_paths: list[str]
    octets: bytes


def config_of(options: dict[str, str]) -> ServerConfig:
    """`lmtp=yes auth_mechanisms=PLAIN,LOGIN` as a configuration."""
    values: dict[str, object] = {"hostname": "mx.example"}
    kinds = {field.name: str(field.type) for field in fields(ServerConfig)}
    for name, text in options.items():
        kind = kinds[name]
        values[name] = text == "yes" if kind == "bool" else int(text) if kind == "int" else text
        if kind.startswith("tuple"):
            values[name] = tuple(text.split(","))
    return ServerConfig(**values)  # type: ignore[arg-type]


class ScriptedFace:
    """A Peer of tests.support.dialogue."""

    def __init__(self, config: ServerConfig, replies: dict[str, str] | None = None) -> None:
        self.core = ServerConnection(config)
        self.replies = {} if replies is None else replies
        self.messages: list[Message] = []
        self.events: list[events.Event] = []
        self.hung_up = False
        self._sender = ""
        self._recipients: list[str] = []
        self._octets = b""
        self._mechanism: ServerMechanism | None = None

    def feed(self, octets: bytes) -> bytes:
        """Everything the server says after these octets; nothing once it hung up."""
        if self.hung_up:
            return b""
        self.core.receive_data(octets)
        try:
            while not isinstance(event := self.core.next_event(), Need):
                self.events.append(event)
                self._answer(event)
        except ProtocolError:
            self.hung_up = True
        self.hung_up = self.hung_up or self.core.closed
        return self.core.data_to_send()

    def start_tls(self) -> None:
        """Goes on behind the handshake."""
        self.core = self.core.after_tls()

    def _reply(self, verb: str, argument: str = "") -> Reply:
        return Reply.of(self.replies.get(f"{verb} {argument}", self.replies.get(verb, USUAL[verb])))

    def _answer(self, event: events.Event) -> None:
        match event:
            case events.Bdat():
                pass
            case events.Chunk(octets):
                self._octets += octets
            case events.Auth(name, initial):
                self._mechanism = server_mechanism(name, b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
                self._login(initial)
            case events.AuthResponse(octets):
                self._login(octets)
            case events.EndOfData():
                self._end(event)
            case _:
                self._plain(event)

    def _plain(self, event: events.Event) -> None:
        match event:
            case events.Connected():
                self.core.reply(self._reply("CONNECT"))
            case events.Hello():
                self.core.reply(self._reply("HELLO", event.domain))
            case events.Mail():
                self._sender, self._recipients, self._octets = event.reverse_path, [], b""
                self.core.reply(self._reply("MAIL", event.reverse_path))
            case events.Rcpt():
                reply = self._reply("RCPT", event.forward_path)
                if reply.is_positive:
                    self._recipients.append(event.forward_path)
                self.core.reply(reply)
            case events.Verify() | events.Expand():
                self.core.reply(self._reply("VRFY" if isinstance(event, events.Verify) else "EXPN", event.text))
            case _:
                self.core.reply(self._reply(_VERBS[type(event)]))

    def _end(self, event: events.EndOfData) -> None:
        if event.too_big:
            self.core.reply(TOO_BIG)
        elif event.bare_newline or event.nul:
            self.core.reply(SMUGGLED)
        else:
            replies = [self._reply("END", path) for path in self._recipients]
            if any(reply.is_positive for reply in replies):
                self.messages.append(Message(self._sender, self._recipients, self._octets))
            if self.core.config.lmtp:
                self.core.reply_each(replies)
            else:
                self.core.reply(replies[0])
        self._octets = b""

    def _login(self, octets: bytes | None) -> None:
        assert self._mechanism is not None
        match advance(self._mechanism, octets):
            case Challenge(challenge):
                self.core.challenge(challenge)
            case Success():
                self.core.reply(LOGGED_IN)
            case failure:
                self.core.reply(MALFORMED if failure.malformed else WRONG)


_VERBS = {
    events.StartTLS: "STARTTLS",
    events.Data: "DATA",
    events.EndOfChunk: "CHUNK",
    events.Reset: "RSET",
    events.Help: "HELP",
    events.Noop: "NOOP",
    events.Quit: "QUIT",
    events.AuthCancelled: "CANCEL",
}
