"""SMTP and LMTP, server side, without I/O: octets in, events out, replies in, octets out.

Specification: RFC 5321 §3.3 (transactions), §4.1.4 (order of commands); RFC 2033 §4 (LMTP); RFC 2920 §3.2;
    RFC 3030 §2 (BDAT); RFC 3207 §4; RFC 4954 §4; RFC 6409 §4.3.
Contract: next_event() never blocks.  After an event (but those of NO_REPLY) nothing is parsed until it is answered, so
    pipelined commands wait in the buffer while a decision is made.  The core answers syntax and sequence errors itself
    and counts them in `errors`; the face decides the rest.  Once `closed`, send what is pending and hang up.
Failure: ProtocolError from next_event(), its reply already in data_to_send(): send it, then hang up.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Generator, Sequence
from functools import lru_cache

from fumibako.proto.reader import Need, ProtocolError
from fumibako.proto.sasl.base64 import decode_base64, encode_base64
from fumibako.proto.smtp.command import BAD_BASE64, NOT_IMPLEMENTED, UNRECOGNIZED, CommandError, parse_command
from fumibako.proto.smtp.events import (
    NO_REPLY,
    Auth,
    AuthCancelled,
    AuthResponse,
    Bdat,
    Chunk,
    Command,
    Connected,
    Data,
    EndOfChunk,
    EndOfData,
    Event,
    Expand,
    Hello,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Reset,
    StartTLS,
    Verify,
)
from fumibako.proto.smtp.extensions import AUTH_LINE_MAX, COMMAND_LINE_MAX, LINE_MAX, ServerConfig
from fumibako.proto.smtp.reply import Reply, format_reply
from fumibako.proto.smtp.transparency import CHUNK_MAX, DotReader, NewlineScan


class State(enum.Enum):
    """Where the session stands."""

    CONNECTED = enum.auto()     # no greeting yet
    REFUSED = enum.auto()       # greeted with 554
    GREETED = enum.auto()       # greeted with 220, no EHLO yet
    READY = enum.auto()         # EHLO seen, no transaction open
    MAIL = enum.auto()          # reverse-path accepted
    RCPT = enum.auto()          # one forward-path or more accepted
    DATA = enum.auto()          # 354 sent
    BDAT = enum.auto()          # one chunk or more accepted, not the last
    TLS = enum.auto()           # STARTTLS accepted: no more plaintext
    CLOSED = enum.auto()


# The whole state machine.  What is legal when: RFC 5321 §4.1.4, RFC 3030 §2, RFC 3207 §4, RFC 4954 §4.
# Tuples: to find a member of an enum in a set costs a call to hash it.
_TRANSACTION = (State.MAIL, State.RCPT, State.BDAT)
_ANY = (State.GREETED, State.READY, *_TRANSACTION)
LEGAL: dict[type[Command], tuple[State, ...]] = {
    Hello: _ANY,
    StartTLS: (State.GREETED, State.READY),
    Auth: (State.READY,),
    Mail: (State.READY,),
    Rcpt: (State.MAIL, State.RCPT),
    Data: (State.RCPT,),
    Bdat: (State.RCPT, State.BDAT),
    Reset: _ANY,
    Verify: _ANY,
    Expand: _ANY,
    Help: _ANY,
    Noop: _ANY,
    Quit: (*_ANY, State.REFUSED),
}
# The state after a positive reply, and after a negative one; where an event is missing, the state stays.
ON_SUCCESS: dict[type[Event], State] = {
    Connected: State.GREETED,
    Hello: State.READY,         # RFC 5321 §4.1.4: EHLO clears the transaction
    StartTLS: State.TLS,
    Mail: State.MAIL,
    Rcpt: State.RCPT,
    Data: State.DATA,
    EndOfChunk: State.BDAT,
    EndOfData: State.READY,
    Reset: State.READY,
    Quit: State.CLOSED,
}
ON_FAILURE: dict[type[Event], State] = {
    Connected: State.REFUSED,   # RFC 5321 §3.1: the client still gets to say QUIT
    Data: State.READY,
    EndOfChunk: State.READY,
    EndOfData: State.READY,     # RFC 5321 §4.1.1.4: the buffers are cleared either way
    Quit: State.CLOSED,
}
# A client has to wait for the replies to these: RFC 2920 §3.1, RFC 3207 §4.
_WAITED_FOR = (Hello, Data, StartTLS)
_NEED_LOGIN = (Mail, Verify, Expand)     # on submission listeners: RFC 6409 §4.3, RFC 4954 §6
_BDAT_PER_MESSAGE = 10_000      # many tiny chunks cost more than their octets

BAD_SEQUENCE = Reply.of("503 5.5.1 Bad sequence of commands")
NO_RECIPIENTS = Reply.of("503 5.5.1 No valid recipients")
LINE_TOO_LONG = Reply.of("500 5.5.2 Line too long")
TALKED_TOO_EARLY = Reply.of("554 5.5.0 Client did not wait for the reply")
TLS_ACTIVE = Reply.of("503 5.5.1 TLS already active")
ALREADY_LOGGED_IN = Reply.of("503 5.5.1 Already authenticated")
AUTH_NEEDS_TLS = Reply.of("538 5.7.11 Encryption required for requested authentication mechanism")
UNKNOWN_MECHANISM = Reply.of("504 5.5.4 Unrecognized authentication type")
AUTH_REQUIRED = Reply.of("530 5.7.0 Authentication required")
TOO_BIG = Reply.of("552 5.3.4 Message size exceeds fixed limit")
TOO_MANY_ERRORS = Reply.of("421 4.7.0 Too many errors, closing connection")
TOO_MANY_RECIPIENTS = Reply.of("452 4.5.3 Too many recipients")
BINARY_NEEDS_BDAT = Reply.of("503 5.5.1 BODY=BINARYMIME requires BDAT")


class ServerConnection:
    """One connection, or the part of it behind STARTTLS."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.state = State.CONNECTED
        self.errors = 0                 # syntax and sequence errors so far
        self.authenticated = False
        self._in = bytearray()
        self._out: list[bytes] = []
        self._scanned = 0               # no CRLF before this offset: never searched twice
        self._overlong: bytes | None = None     # the verb of the line at hand, where that is too long and not kept
        self._unanswered: Event | None = Connected()
        self._announced = False
        self._challenged = False
        # What MAIL and RCPT may have; nothing before EHLO, or behind HELO.
        self._mail_parameters: frozenset[str] = frozenset()
        self._rcpt_parameters: frozenset[str] = frozenset()
        self._fault: str | None = None  # why next_event() has to raise
        self._mail: Mail | None = None
        self._recipients = 0
        self._scan = NewlineScan()
        self._bdats = 0
        self._events = self._session()

    def after_tls(self) -> ServerConnection:
        """The core for what follows the handshake: all said before is forgotten (RFC 3207 §4.2)."""
        if self.state is not State.TLS or self._in:
            raise RuntimeError("no accepted STARTTLS, or plaintext behind it")
        core = ServerConnection(dataclasses.replace(self.config, tls_active=True))
        core.state, core._unanswered = State.GREETED, None
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
    def recipients(self) -> int:
        """Accepted recipients of the transaction: as many replies an LMTP client gets for its message."""
        return self._recipients

    def receive_data(self, octets: bytes) -> None:
        """Octets from the peer.  Before the core is done with what it has, the caller should read no more than it must."""
        if self.state is State.TLS and octets:
            self._fault = "plaintext behind STARTTLS"       # CVE-2011-0411
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
        if self._unanswered is not None:
            if self._announced:
                return Need.REPLY
            self._announced = True
            return self._unanswered
        event = next(self._events, None)
        if event is None:
            return Need.BYTES
        if not isinstance(event, NO_REPLY):
            self._unanswered, self._announced = event, True
        return event

    def reply(self, reply: Reply) -> None:
        """Answer the last event.  For an LMTP message: the same for every recipient."""
        lmtp_message = self.config.lmtp and isinstance(self._unanswered, EndOfData)
        self._answer((reply,) * self._recipients if lmtp_message else (reply,))

    def reply_each(self, replies: Sequence[Reply]) -> None:
        """Answer an LMTP message: one reply for each accepted recipient, in their order (RFC 2033 §4.2)."""
        if not (self.config.lmtp and isinstance(self._unanswered, EndOfData) and len(replies) == self._recipients):
            raise RuntimeError("one reply for each accepted recipient of an LMTP message")
        self._answer(replies)

    def challenge(self, octets: bytes) -> None:
        """Answer Auth or AuthResponse with a challenge: 334 and base64 (RFC 4954 §4)."""
        if not isinstance(self._unanswered, Auth | AuthResponse):
            raise RuntimeError("a challenge answers only AUTH")
        self._unanswered = None
        self._challenged = True
        self._out.append(b"334 " + encode_base64(octets) + b"\r\n")

    def _answer(self, replies: Sequence[Reply]) -> None:
        event = self._unanswered
        if event is None or not self._announced:
            raise RuntimeError("nothing to answer")
        self._unanswered = None
        last = replies[-1]
        positive = last.is_positive
        if positive and self._in and self._talked_early(event):
            self._refuse(TALKED_TOO_EARLY)
            self._fault = "octets sent before the reply they depend on"
            return
        if isinstance(event, Hello) and positive:
            replies = (_hello_reply(self.config, last, esmtp=event.esmtp),)
        self._out += map(format_reply, replies)
        self._note(event, positive)
        self.state = self._state_after(event, last)
        if self.state not in _TRANSACTION and self.state is not State.DATA:
            self._clear()

    def _note(self, event: Event, positive: bool) -> None:
        """What is remembered of an answered event besides the state."""
        match event:
            case Hello() if positive:
                config, extended = self.config, event.esmtp
                self._mail_parameters = config.mail_parameters() if extended else frozenset()
                self._rcpt_parameters = config.rcpt_parameters() if extended else frozenset()
            case Mail() if positive:
                self._mail = event
            case Rcpt() if positive:
                self._recipients += 1
            case Auth() | AuthResponse() | AuthCancelled():
                self._challenged = False
                self.authenticated = positive

    def _state_after(self, event: Event, reply: Reply) -> State:
        if reply.code == 421:           # RFC 5321 §3.8: closing the channel
            return State.CLOSED
        if isinstance(event, Reset) and self.state not in _TRANSACTION:
            return self.state
        return (ON_SUCCESS if reply.is_positive else ON_FAILURE).get(type(event), self.state)

    def _clear(self) -> None:
        self._mail, self._recipients, self._bdats, self._scan = None, 0, 0, NewlineScan()

    def _talked_early(self, event: Event) -> bool:
        if not isinstance(event, _WAITED_FOR):
            return False
        return isinstance(event, StartTLS) or not (self.config.early_talk or self.authenticated)

    def _send(self, reply: Reply) -> None:
        self._out.append(format_reply(reply))

    def _refuse(self, reply: Reply) -> None:
        self.errors += 1
        self._send(reply)

    def _session(self) -> Generator[Event | None, None, None]:
        """Everything the client says, in order; None where more octets are needed."""
        while self.state not in (State.TLS, State.CLOSED):
            if self.errors > self.config.max_errors:
                self._send(TOO_MANY_ERRORS)
                raise self._fatal("too many errors")
            while (end := self._in.find(b"\r\n", self._scanned)) < 0:
                self._bound_line()
                yield None
            line = self._line(end)
            if line is None:
                self._challenged = False        # RFC 4954 §4: too long a response ends the exchange
            elif self._challenged:
                yield from self._auth_response(line)
            elif (command := self._command(line)) is not None:
                if isinstance(command, Bdat):
                    yield from self._bdat(command)
                else:
                    yield command
                    if self.state is State.DATA:
                        yield from self._message()

    def _bound_line(self) -> None:
        """More octets are needed for a line; of one that is too long only its end is waited for."""
        if len(self._in) >= 4 and self._overlong is None:
            verb, limit = self._verb_and_limit()
            if len(self._in) > limit:
                self._overlong = verb
        if self._overlong is not None:
            del self._in[:-1]               # keep what may be the CR
        self._scanned = max(0, len(self._in) - 1)

    def _line(self, end: int) -> bytes | None:
        """The line that ends there, without its CRLF; None where it was too long: then it is refused."""
        verb, limit = self._verb_and_limit()
        line = bytes(self._in[:end]) if self._overlong is None and end + 2 <= limit else None
        del self._in[: end + 2]
        self._scanned = 0
        if line is None:
            verb, self._overlong = self._overlong or verb, None
            self._refuse(LINE_TOO_LONG)
            if verb == b"BDAT":
                raise self._fatal("BDAT line too long")
        return line

    def _verb_and_limit(self) -> tuple[bytes, int]:
        if self._challenged:
            return b"*", AUTH_LINE_MAX
        verb = bytes(self._in[:4]).upper()
        return verb, LINE_MAX.get(verb, COMMAND_LINE_MAX)

    def _auth_response(self, line: bytes) -> Generator[Event | None, None, None]:
        if line == b"*":
            yield AuthCancelled()
            return
        try:
            octets = decode_base64(line)
        except ProtocolError:
            self._challenged = False
            self._refuse(BAD_BASE64)
        else:
            yield AuthResponse(octets)

    def _command(self, line: bytes) -> Command | None:
        """What the client asks for, where it may; else it has its refusal."""
        smtputf8 = self._mail is not None and self._mail.smtputf8
        try:
            command = parse_command(line, self._mail_parameters, self._rcpt_parameters, smtputf8)
            self._check_offered(command, line)
        except CommandError as error:
            self._refuse(error.reply)
            if error.fatal:
                raise self._fatal(str(error)) from error
            return None
        if not isinstance(command, Bdat) and (refusal := self._refusal(command)) is not None:
            self._refuse(refusal)
            return None
        return command

    def _check_offered(self, command: Command, line: bytes) -> None:
        """Raises CommandError for a verb this listener does not have."""
        match command:
            case Hello() if (line[:1].upper() == b"L") != self.config.lmtp:
                raise CommandError(UNRECOGNIZED)        # RFC 2033 §4.1
            case StartTLS() if not (self.config.tls_available or self.config.tls_active):
                raise CommandError(NOT_IMPLEMENTED)
            case Auth() if not self.config.auth_mechanisms:
                raise CommandError(NOT_IMPLEMENTED)
            case Bdat() if not self.config.chunking:
                raise CommandError(NOT_IMPLEMENTED, fatal=True)

    def _refusal(self, command: Command) -> Reply | None:
        """Why a well-formed command can't be obeyed now; None when it can."""
        if self.state is State.REFUSED and not isinstance(command, Quit):
            return BAD_SEQUENCE
        if self.config.submission and not self.authenticated and isinstance(command, _NEED_LOGIN):
            return AUTH_REQUIRED
        if isinstance(command, (StartTLS, Auth)) and (refusal := self._security_refusal(command)) is not None:
            return refusal
        if self.state not in LEGAL[type(command)]:
            return NO_RECIPIENTS if isinstance(command, Data) and self.state is State.MAIL else BAD_SEQUENCE
        return self._limit_refusal(command)

    def _security_refusal(self, command: StartTLS | Auth) -> Reply | None:
        match command:
            case StartTLS():
                return TLS_ACTIVE if self.config.tls_active else None
            case Auth() if self.authenticated:
                return ALREADY_LOGGED_IN
            case Auth() if not self.config.auth_offered:
                return AUTH_NEEDS_TLS
            case Auth() if command.mechanism not in self.config.auth_mechanisms:
                return UNKNOWN_MECHANISM
        return None

    def _limit_refusal(self, command: Command) -> Reply | None:
        match command:
            case Mail(size_octets=int(size_octets)) if size_octets > self.config.max_size_octets:
                return TOO_BIG                      # RFC 1870 §6.1
            case Mail(body="BINARYMIME") if not self.config.binarymime:
                return Reply.of("501 5.5.4 BINARYMIME not offered")
            case Rcpt() if self._recipients >= self.config.max_recipients:
                return TOO_MANY_RECIPIENTS          # RFC 5321 §4.5.3.1.10
            case Data() if self._mail is not None and self._mail.body == "BINARYMIME":
                return BINARY_NEEDS_BDAT            # RFC 3030 §3
        return None

    def _message(self) -> Generator[Event | None, None, None]:
        """The octets behind 354."""
        reader = DotReader()
        last = False
        while not last:
            piece = reader.read(self._in)
            if piece is None:
                yield None
                continue
            octets, last = piece
            yield from self._chunk(octets)
        yield self._end_of_data()

    def _chunk(self, octets: bytes) -> Generator[Event, None, None]:
        self._scan.feed(octets)
        # What is over the limit is read to its end, so that the client sees the refusal, but not kept.
        if octets and self._scan.size_octets <= self.config.max_size_octets:
            yield Chunk(octets)

    def _end_of_data(self) -> EndOfData:
        scan = self._scan
        return EndOfData(scan.size_octets, scan.bare_newline, scan.nul, scan.size_octets > self.config.max_size_octets)

    def _bdat(self, command: Bdat) -> Generator[Event | None, None, None]:
        """One BDAT and its octets; where it is out of sequence, they are read and dropped (RFC 3030 §2)."""
        legal = self.state in LEGAL[Bdat]
        self._bdats += legal
        if self._scan.size_octets + command.size_octets > self.config.max_size_octets or self._bdats > _BDAT_PER_MESSAGE:
            # Deviation: RFC 3030 §2 has us read and drop it first; a chunk that can't fit may be as long as the peer likes.
            self._refuse(TOO_BIG)
            raise self._fatal("BDAT over the limit")
        if legal:
            yield command
        remaining = command.size_octets
        while remaining:
            wanted = min(CHUNK_MAX, remaining)
            if len(self._in) < wanted:
                yield None
                continue
            octets = bytes(self._in[:wanted])
            del self._in[:wanted]
            remaining -= wanted
            if legal:
                yield from self._chunk(octets)
        if not legal:
            self._refuse(NO_RECIPIENTS if self.state is State.MAIL else BAD_SEQUENCE)
        else:
            yield self._end_of_data() if command.last else EndOfChunk(command.size_octets)

    def _fatal(self, why: str) -> ProtocolError:
        self.state = State.CLOSED
        return ProtocolError(why)


@lru_cache(maxsize=1024)        # the same for most clients
def _hello_reply(config: ServerConfig, reply: Reply, *, esmtp: bool) -> Reply:
    """ehlo-ok-rsp: the domain, a greeting, then the extensions (RFC 5321 §4.1.1.1); no status code (RFC 2034 §4)."""
    first = f"{config.hostname} {reply.lines[0]}".rstrip()
    return Reply(reply.code, None, (first, *(config.keywords() if esmtp else ())))
