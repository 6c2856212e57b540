"""A POP3 face by script: one maildrop, whose owner is alice of the test directory."""

from dataclasses import fields

from fumibako.proto.pop3 import events
from fumibako.proto.pop3.response import Response, listing_response, stat_response
from fumibako.proto.pop3.server import ServerConfig, ServerConnection
from fumibako.proto.reader import Need, ProtocolError
from fumibako.proto.sasl.server import ServerMechanism, server_mechanism
from fumibako.proto.sasl.steps import Challenge, Success
from tests.proto.sasl.directory import PASSWORDS, advance

# 120 and 200 octets, as in RFC 1939 §10.
MESSAGES = (
    b"From: a@example\r\nSubject: one\r\n\r\n" + b"first line\r\n.second line\r\n" + b"x" * 59 + b"\r\n",
    b"From: b@example\r\nSubject: two\r\n\r\n" + b"y" * 74 + b"\r\n" + b"z" * 89 + b"\r\n",
)
OK = Response(True, "Done")
NO_SUCH_MESSAGE = Response(False, "No such message")
WRONG = Response(False, "Authentication failed", "AUTH")


def config_of(options: dict[str, str]) -> ServerConfig:
    """`tls_available=yes auth_mechanisms=PLAIN,LOGIN` as a configuration."""
    names = {field.name for field in fields(ServerConfig)}
    assert options.keys() <= names
    values = {name: tuple(text.split(",")) if name == "auth_mechanisms" else text == "yes" for name, text in options.items()}
    return ServerConfig(**values)  # type: ignore[arg-type]


class ScriptedFace:
    """A Peer of tests.support.dialogue."""

    def __init__(self, config: ServerConfig, messages: tuple[bytes, ...] = MESSAGES) -> None:
        self.core = ServerConnection(config)
        self.messages = dict(enumerate(messages, 1))
        self.marked: set[int] = set()
        self.deleted: set[int] = set()
        self.utf8 = self.hung_up = False
        self._mechanism: ServerMechanism | None = None

    def feed(self, octets: bytes) -> bytes:
        """Everything the server says after these octets; nothing once it hung up."""
        if self.hung_up:
            return b""
        self.core.receive_data(octets)
        try:
            while not isinstance(event := self.core.next_event(), Need):
                self._answer(event)
        except ProtocolError:
            self.hung_up = True
        self.hung_up = self.hung_up or self.core.closed
        return self.core.data_to_send()

    def start_tls(self) -> None:
        """Goes on behind the handshake."""
        self.core = self.core.after_tls()

    def _sizes(self) -> dict[int, int]:
        return {number: len(octets) for number, octets in self.messages.items() if number not in self.marked}

    def _answer(self, event: events.Event) -> None:
        match event:
            case events.Connected():
                self.core.reply(Response(True, "POP3 server ready"))
            case events.Login(name, password):
                self.core.reply(OK if PASSWORDS.get(name) == password else WRONG)
            case events.Auth(name, initial):
                self._mechanism = server_mechanism(name, b"xyz")
                self._login(initial)
            case events.AuthResponse(octets):
                self._login(octets)
            case events.AuthCancelled():
                self.core.reply(Response(False, "Cancelled"))
            case events.Quit(update):
                self.deleted |= self.marked if update else set()
                self.core.reply(Response(True, "Bye"))
            case events.Retr() | events.Top() | events.Dele() | events.List(int()) | events.Uidl(int()):
                self._numbered(event)
            case _:
                self._whole_maildrop(event)

    def _whole_maildrop(self, event: events.Event) -> None:
        sizes = self._sizes()
        match event:
            case events.Stat():
                self.core.reply(stat_response(len(sizes), sum(sizes.values())))
            case events.List() | events.Uidl():
                self.core.reply(Response(True, f"{len(sizes)} messages"))
                self.core.send_listing((n, size if isinstance(event, events.List) else f"uid{n}") for n, size in sizes.items())
            case events.Reset():
                self.marked.clear()
                self.core.reply(OK)
            case _:
                self.utf8 = self.utf8 or isinstance(event, events.Utf8)
                self.core.reply(OK)

    def _numbered(self, event: events.Retr | events.Top | events.Dele | events.List | events.Uidl) -> None:
        number = event.number or 0
        if number not in self._sizes():
            self.core.reply(NO_SUCH_MESSAGE)
            return
        match event:
            case events.List():
                self.core.reply(listing_response(number, self._sizes()[number]))
            case events.Uidl():
                self.core.reply(listing_response(number, f"uid{number}"))
            case events.Dele():
                self.marked.add(number)
                self.core.reply(OK)
            case _:
                self.core.reply(Response(True, "Message follows"))
                for octet in self.messages[number]:
                    if self.core.message_wanted:
                        self.core.send_message(bytes([octet]))
                self.core.end_message()

    def _login(self, octets: bytes | None) -> None:
        assert self._mechanism is not None
        match advance(self._mechanism, octets):
            case Challenge(challenge):
                self.core.challenge(challenge)
            case Success():
                self.core.reply(OK)
            case _:
                self.core.reply(WRONG)
