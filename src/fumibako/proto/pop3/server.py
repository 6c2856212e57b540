"""POP3, server side, without I/O: octets in, events out, responses in, octets out.

Specification: RFC 1939 §3 (responses), §4-§6 (states); RFC 2449 §5 (CAPA), §6.6 (PIPELINING); RFC 2595 §4; RFC 5034 §4.
Contract: next_event() never blocks.  After an event nothing is parsed until it is answered, and a multi-line response
    is sent whole, so pipelined commands wait in the buffer.  The core answers USER, CAPA, and errors of syntax and
    sequence, and counts the errors in `errors`.  Once `closed`, send what is pending and hang up.
Failure: ProtocolError from next_event(), its response already in data_to_send(): send it, then hang up.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Generator, Iterable
from dataclasses import dataclass

from fumibako.proto.pop3.command import Capa, Line, Pass, User, parse_command
from fumibako.proto.pop3.events import (
    Auth,
    AuthCancelled,
    AuthResponse,
    Connected,
    Dele,
    Event,
    List,
    Login,
    Noop,
    Quit,
    Reset,
    Retr,
    StartTLS,
    Stat,
    Top,
    Uidl,
    Utf8,
)
from fumibako.proto.pop3.response import Response, format_response
from fumibako.proto.pop3.top import TopCutter
from fumibako.proto.reader import Need, ProtocolError
from fumibako.proto.sasl.base64 import decode_base64, encode_base64
from fumibako.proto.smtp.transparency import DotWriter

COMMAND_LINE_MAX = 512      # RFC 2449 §4 asks for 255 octets at least, CRLF included
AUTH_LINE_MAX = 12288       # as in SMTP: RFC 4954 §4
ERRORS_MAX = 20             # of syntax and sequence, after login in a row; the next one ends the conversation


class State(enum.Enum):
    """Where the session stands: RFC 1939 §3."""

    CONNECTED = enum.auto()
    AUTHORIZATION = enum.auto()
    TRANSACTION = enum.auto()
    TLS = enum.auto()           # STLS accepted: no more plaintext
    CLOSED = enum.auto()


_BEFORE = frozenset({State.AUTHORIZATION})
_WITHIN = frozenset({State.TRANSACTION})
LEGAL: dict[type[Line], frozenset[State]] = {
    Capa: _BEFORE | _WITHIN,
    User: _BEFORE,
    Pass: _BEFORE,
    Auth: _BEFORE,
    StartTLS: _BEFORE,
    Utf8: _BEFORE,
    Stat: _WITHIN,
    List: _WITHIN,
    Uidl: _WITHIN,
    Retr: _WITHIN,
    Top: _WITHIN,
    Dele: _WITHIN,
    Noop: _WITHIN,
    Reset: _WITHIN,
    Quit: _BEFORE | _WITHIN,
}
# The state after +OK and after -ERR; where an event is missing, the state stays.
ON_SUCCESS: dict[type[Event], State] = {
    Connected: State.AUTHORIZATION,
    Login: State.TRANSACTION,
    Auth: State.TRANSACTION,
    AuthResponse: State.TRANSACTION,
    StartTLS: State.TLS,
    Quit: State.CLOSED,
}
ON_FAILURE: dict[type[Event], State] = {Connected: State.CLOSED, Quit: State.CLOSED}

LINE_TOO_LONG = Response(False, "Line too long")
WRONG_STATE = Response(False, "Command not valid in this state")
USER_FIRST = Response(False, "Send USER first")
NEEDS_TLS = Response(False, "Begin TLS before you log in")
NO_TLS = Response(False, "TLS not available")
UNKNOWN_MECHANISM = Response(False, "Unrecognized authentication mechanism")
SEND_PASS = Response(True, "Send PASS")
TALKED_TOO_EARLY = Response(False, "Client did not wait for the response")
TOO_MANY_ERRORS = Response(False, "Too many errors")


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """One listener's protocol settings; logins are offered under TLS, or anywhere with auth_without_tls."""

    tls_available: bool = False
    tls_active: bool = False
    auth_mechanisms: tuple[str, ...] = ()
    auth_without_tls: bool = False
    utf8: bool = True

    @property
    def auth_offered(self) -> bool:
        """Whether USER and AUTH may be used now."""
        return self.tls_active or self.auth_without_tls

    def capabilities(self) -> list[str]:
        """The lines of CAPA: RFC 2449 §6, RFC 5034 §3, RFC 6856 §2, RFC 3206."""
        offers = [
            (True, "TOP"),
            (self.auth_offered, "USER"),
            (self.auth_offered and bool(self.auth_mechanisms), " ".join(("SASL", *self.auth_mechanisms))),
            (self.tls_available and not self.tls_active, "STLS"),
            (True, "RESP-CODES"),
            (True, "AUTH-RESP-CODE"),
            (True, "PIPELINING"),
            (True, "EXPIRE NEVER"),
            (True, "UIDL"),
            (self.utf8, "UTF8"),
            (True, "IMPLEMENTATION Fumibako"),
        ]
        return [line for offered, line in offers if offered]


class ServerConnection:
    """One connection, or the part of it behind STLS."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.state = State.CONNECTED
        self.errors = 0                 # syntax and sequence errors so far; after login since the last good command
        self._in = bytearray()
        self._out: list[bytes] = []
        self._scanned = 0               # no CRLF before this offset: never searched twice
        self._unanswered: Event | None = Connected()
        self._announced = False
        self._challenged = False
        self._fault: str | None = None  # why next_event() has to raise
        self._name: str | None = None   # USER was the last command
        self._body: tuple[TopCutter | None, DotWriter] | None = None
        self._events = self._session()

    def after_tls(self) -> ServerConnection:
        """The core for what follows the handshake: all said before is forgotten, no second greeting (RFC 2595 §4)."""
        if self.state is not State.TLS or self._in:
            raise RuntimeError("no accepted STLS, or plaintext behind it")
        core = ServerConnection(dataclasses.replace(self.config, tls_active=True))
        core.state, core._unanswered = State.AUTHORIZATION, None
        core.errors = self.errors
        return core

    @property
    def unread(self) -> int:
        """Octets received and not yet parsed."""
        return len(self._in)

    @property
    def closed(self) -> bool:
        """Whether the conversation is over."""
        return self.state is State.CLOSED

    @property
    def message_wanted(self) -> bool:
        """Whether more octets of the message are of use: TOP needs only its beginning."""
        return self._body is not None and not (self._body[0] is not None and self._body[0].done)

    def receive_data(self, octets: bytes) -> None:
        """Octets from the peer."""
        if self.state is State.TLS and octets:
            self._fault = "plaintext behind STLS"       # CVE-2011-0411
        self._in += octets

    def data_to_send(self) -> bytes:
        """What to send now; empty when there is nothing."""
        out, self._out = b"".join(self._out), []
        return out

    def next_event(self) -> Event | Need:
        """The next thing the client said, or what the core waits for (BYTES too when `closed`)."""
        if self._fault is not None:
            self.state = State.CLOSED
            raise ProtocolError(self._fault)
        if self._body is not None:
            return Need.REPLY
        if self._unanswered is None:
            self._unanswered, self._announced = next(self._events, None), False
        if self._unanswered is None:
            return Need.BYTES
        if self._announced:
            return Need.REPLY
        self._announced = True
        return self._unanswered

    def reply(self, response: Response) -> None:
        """Answer the last event.  +OK to RETR, TOP, and LIST or UIDL without a number begins a multi-line response."""
        event = self._unanswered
        if event is None or not self._announced:
            raise RuntimeError("nothing to answer")
        self._unanswered = None
        if isinstance(event, StartTLS) and response.ok and self._in:
            self._refuse(TALKED_TOO_EARLY)
            self._fault = "octets sent before the response to STLS"
            return
        self._out.append(format_response(response))
        self._challenged = False
        self.state = (ON_SUCCESS if response.ok else ON_FAILURE).get(type(event), self.state)
        if response.ok:
            self._body = _body_of(event)

    def challenge(self, octets: bytes) -> None:
        """Answer Auth or AuthResponse with a challenge: RFC 5034 §4."""
        if not isinstance(self._unanswered, Auth | AuthResponse):
            raise RuntimeError("a challenge answers only AUTH")
        self._unanswered = None
        self._challenged = True
        self._out.append(b"+ " + encode_base64(octets) + b"\r\n")

    def send_message(self, octets: bytes) -> None:
        """The next octets of the message, after +OK to RETR or TOP."""
        if self._body is None:
            raise RuntimeError("no message is due")
        cutter, stuffer = self._body
        self._out.append(stuffer.feed(octets if cutter is None else cutter.feed(octets)))

    def end_message(self) -> None:
        """The multi-line response is whole."""
        if self._body is None:
            raise RuntimeError("no message is due")
        self._out.append(self._body[1].close())
        self._body = None

    def send_listing(self, entries: Iterable[tuple[int, int | str]]) -> None:
        """(message number, size in octets or unique_id) of each message, after +OK to LIST or UIDL; ends the response."""
        self.send_message("".join(f"{number} {value}\r\n" for number, value in entries).encode("ascii"))
        self.end_message()

    def farewell(self, response: Response) -> None:
        """Said unasked, the last word of the conversation; whatever is unanswered stays so."""
        self._out.append(format_response(response))
        self.state = State.CLOSED

    def _refuse(self, response: Response) -> None:
        self.errors += 1
        self._out.append(format_response(response))

    def _session(self) -> Generator[Event | None, None, None]:
        """Everything the client says, in order; None where more octets are needed."""
        while self.state not in (State.TLS, State.CLOSED):
            if self.errors > ERRORS_MAX:
                self._out.append(format_response(TOO_MANY_ERRORS))
                self.state = State.CLOSED
                raise ProtocolError("too many errors")
            line = yield from self._line()
            if line is None:
                self._challenged = False
                self._refuse(LINE_TOO_LONG)
            elif self._challenged:
                yield from self._auth_response(line)
            else:
                yield from self._command(line)

    def _line(self) -> Generator[None, None, bytes | None]:
        """A line without its CRLF; None where it was too long: then it is skipped without being kept."""
        skipping = False
        while (end := self._in.find(b"\r\n", self._scanned)) < 0:
            if len(self._in) > self._limit():
                skipping = True
                del self._in[:-1]               # keep what may be the CR
            self._scanned = max(0, len(self._in) - 1)
            yield None
        line = None if skipping or end + 2 > self._limit() else bytes(self._in[:end])
        del self._in[: end + 2]
        self._scanned = 0
        return line

    def _limit(self) -> int:
        return AUTH_LINE_MAX if self._challenged or self._in[:4].upper() == b"AUTH" else COMMAND_LINE_MAX

    def _auth_response(self, line: bytes) -> Generator[Event | None, None, None]:
        if line == b"*":
            yield AuthCancelled()
            return
        try:
            octets = decode_base64(line)
        except ProtocolError as error:
            self._challenged = False
            self._refuse(Response(False, str(error)))
        else:
            yield AuthResponse(octets)

    def _command(self, line: bytes) -> Generator[Event | None, None, None]:
        name, self._name = self._name, None     # RFC 1939 §7: PASS only right behind USER
        try:
            command = parse_command(line)
        except ProtocolError as error:
            self._refuse(Response(False, str(error)))
            return
        if (refusal := self._refusal(command, name)) is not None:
            self._refuse(refusal)
            return
        if self.state is State.TRANSACTION:
            self.errors = 0
        match command:
            case Capa():
                self._capabilities()
            case User():
                self._name = command.name
                self._out.append(format_response(SEND_PASS))
            case Pass():
                yield Login(name or "", command.password)
            case Quit():
                yield Quit(update=self.state is State.TRANSACTION)
            case _:
                yield command

    def _refusal(self, command: Line, name: str | None) -> Response | None:
        """Why a well-formed command can't be obeyed now; None when it can."""
        if self.state not in LEGAL[type(command)]:
            return WRONG_STATE
        if isinstance(command, User | Pass | Auth) and not self.config.auth_offered:
            return NEEDS_TLS
        match command:
            case Pass() if name is None:
                return USER_FIRST
            case Auth() if command.mechanism not in self.config.auth_mechanisms:
                return UNKNOWN_MECHANISM
            case StartTLS() if self.config.tls_active or not self.config.tls_available:
                return NO_TLS
            case Utf8() if not self.config.utf8:
                return Response(False, "Unknown command")
        return None

    def _capabilities(self) -> None:
        lines = "".join(f"{line}\r\n" for line in self.config.capabilities())
        self._out.append(format_response(Response(True, "Capability list follows")) + lines.encode("ascii") + b".\r\n")


def _body_of(event: Event) -> tuple[TopCutter | None, DotWriter] | None:
    """How the lines behind +OK are sent; None where there are none."""
    match event:
        case Top():
            return TopCutter(event.lines), DotWriter()
        case Retr() | List(None) | Uidl(None):
            return None, DotWriter()
    return None
