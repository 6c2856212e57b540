"""IMAP, server side, without input or output: octets in, events out, answers in, octets out.

Specification: RFC 9051 §3 (states), §5.5 (commands in progress), §6, §7.1; RFC 2177 §3 (IDLE); RFC 3502 §6.3.11; RFC 7888 §3-5;
    RFC 4959 §3; spec/reliability.md A8, B1, B5.
Contract: next_event() never blocks. After a CommandReceived, SaslResponse, IdleDone or last AppendEnd it gives Need.REPLY until
    the face answers with complete(), continue_() or challenge(): the next command is not even parsed before the last one is done.
    Syntax errors and commands illegal in the state are answered here and never become events.
    An APPEND is answered by continue_() (send it) or complete() (no); then its octets come as AppendData, which need no answer.
    After complete() the rest of an APPEND that is under way is read and dropped, and only then does the answer go out.
Failure: ProtocolError from next_event() when the connection must end: the BYE is in data_to_send(), then close.
"""

from __future__ import annotations

import base64
import enum
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from fumibako.proto.imap import commands as c
from fumibako.proto.imap.append import parse_next_message
from fumibako.proto.imap.framer import (
    AFTER_LOGIN,
    BEFORE_LOGIN,
    CHUNK_OCTETS,
    LITERAL_MINUS_OCTETS,
    Buffer,
    FrameError,
    Literal,
    find_literal,
    find_tag,
    read_command,
    read_line,
    skip_octets,
)
from fumibako.proto.imap.login import parse_base64
from fumibako.proto.imap.parse import parse_command
from fumibako.proto.imap.scanner import CommandError, Context
from fumibako.proto.reader import Need, ProtocolError

MAX_BAD_BEFORE_LOGIN = 10       # in a row
MAX_BAD_AFTER_LOGIN = 20        # in a row: over days, any client may say something that we don't know
PLAINTEXT_MECHANISMS = frozenset({"PLAIN", "LOGIN"})


class State(enum.Enum):
    """RFC 9051 §3; TLS: STARTTLS accepted, nothing may come before the handshake."""

    NOT_AUTHENTICATED = enum.auto()
    AUTHENTICATED = enum.auto()
    SELECTED = enum.auto()
    LOGOUT = enum.auto()
    TLS = enum.auto()


class Completion(enum.StrEnum):
    OK = "OK"
    NO = "NO"
    BAD = "BAD"


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """max_append_octets: of one message. auth_mechanisms: upper case; those that show passwords are held back without TLS."""

    hostname: str
    tls_available: bool = False
    tls_active: bool = False
    allow_plaintext_login: bool = False
    auth_mechanisms: tuple[str, ...] = ("PLAIN",)
    max_append_octets: int = 50 * 1024 * 1024
    literal_plus: bool = True       # after login; else LITERAL-

    @property
    def plaintext_allowed(self) -> bool:
        """Whether a password may be sent in the clear as things are."""
        return self.tls_active or self.allow_plaintext_login


@dataclass(frozen=True, slots=True)
class CommandReceived:
    tag: bytes
    command: c.Command


Event = CommandReceived | c.AppendData | c.AppendEnd | c.AppendAborted | c.IdleDone | c.SaslResponse

# Which command is legal when: RFC 9051 §3, §6.1-§6.4.
_ANY = frozenset({State.NOT_AUTHENTICATED, State.AUTHENTICATED, State.SELECTED})
_BEFORE = frozenset({State.NOT_AUTHENTICATED})
_AFTER = frozenset({State.AUTHENTICATED, State.SELECTED})
_SELECTED = frozenset({State.SELECTED})
LEGAL: dict[type, frozenset[State]] = {
    c.Capability: _ANY, c.Noop: _ANY, c.Logout: _ANY, c.Id: _ANY,
    c.StartTLS: _BEFORE, c.Authenticate: _BEFORE, c.Login: _BEFORE,
    c.Enable: _AFTER, c.Select: _AFTER, c.Create: _AFTER, c.Delete: _AFTER, c.Rename: _AFTER, c.Subscribe: _AFTER,
    c.List: _AFTER, c.Lsub: _AFTER, c.Namespace: _AFTER, c.Status: _AFTER, c.Append: _AFTER, c.Idle: _AFTER,
    c.GetQuota: _AFTER, c.GetQuotaRoot: _AFTER, c.SetQuota: _AFTER,
    c.Check: _SELECTED, c.Close: _SELECTED, c.Unselect: _SELECTED, c.Expunge: _SELECTED, c.Fetch: _SELECTED,
    c.Store: _SELECTED, c.Copy: _SELECTED, c.Move: _SELECTED, c.Search: _SELECTED,
}

CAPABILITIES_AFTER_LOGIN = (
    "ENABLE", "IDLE", "NAMESPACE", "CHILDREN", "UNSELECT", "UIDPLUS", "MOVE", "ESEARCH", "SEARCHRES", "WITHIN", "CONDSTORE",
    "LIST-EXTENDED", "LIST-STATUS", "SPECIAL-USE", "CREATE-SPECIAL-USE", "STATUS=SIZE", "BINARY", "MULTIAPPEND", "UTF8=ACCEPT",
    "OBJECTID", "SAVEDATE", "PREVIEW", "QUOTA", "QUOTA=RES-STORAGE",
)
ENABLEABLE = ("IMAP4REV2", "UTF8=ACCEPT", "CONDSTORE")


class ServerConnection:
    """One IMAP connection as its server sees it.

    state, read_only (of the selected mailbox), rev2, utf8_accept, condstore: what the session has become.
    condstore may also be set by the face, on a CONDSTORE enabling command (`parse.enables_condstore`).
    """

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.state = State.NOT_AUTHENTICATED
        self.read_only = False
        self.rev2 = self.utf8_accept = self.condstore = False
        self._buffer = Buffer()
        self._out: list[bytes] = []
        self._tag: bytes | None = None          # of the command being carried out
        self._command: c.Command | None = None
        self._awaiting = False                  # an event is out that the face has to answer
        self._held: bytes | None = None         # a completion that waits for the rest of an APPEND to be dropped
        self._holding = False
        self._idle_broken = False               # IDLE was ended by something else than DONE
        self._bad_in_a_row = 0
        self._events = self._session()

    # -- octets in and out --

    def receive_data(self, octets: bytes) -> None:
        self._buffer.receive_data(octets)

    def data_to_send(self) -> bytes:
        """Everything to be sent since the last call."""
        octets = b"".join(self._out)
        self._out.clear()
        return octets

    @property
    def unread(self) -> int:
        """Octets received and not parsed: after STARTTLS any is an attack (spec/reliability.md A8)."""
        return len(self._buffer)

    @property
    def closed(self) -> bool:
        """BYE is said: send what is left and close."""
        return self.state is State.LOGOUT

    def next_event(self) -> Event | Need:
        """The next event; Need.REPLY while one is unanswered; Need.BYTES when there is none."""
        if self._awaiting:
            return Need.REPLY
        if self.state in (State.LOGOUT, State.TLS):
            return Need.BYTES
        event = next(self._events)
        return Need.BYTES if event is None else event

    # -- what the face says --

    def greeting(self, *, preauth: bool = False) -> None:
        """`* OK [CAPABILITY ...] host ready`; preauth: `* PREAUTH`, for a peer known otherwise."""
        if preauth:
            self.state = State.AUTHENTICATED
        status = b"PREAUTH" if preauth else b"OK"
        self.untagged(b"%b [%b] %b Fumibako ready" % (status, self.capability(), self.config.hostname.encode("ascii")))

    def untagged(self, octets: bytes) -> None:
        """One untagged response, without its "* " and CRLF."""
        self._out += (b"* ", octets, b"\r\n")

    def send(self, octets: bytes) -> None:
        """Responses already rendered whole, or pieces of one: `format` and `render` make them."""
        self._out.append(octets)

    def complete(self, status: Completion | str, text: str, code: bytes = b"") -> None:
        """Answers the current command: `tag STATUS [code] text`. code without brackets.

        RuntimeError when there is no command to answer.
        """
        if self._tag is None:
            raise RuntimeError("no command is waiting for its completion")
        if self._idle_broken and status == Completion.OK:
            status, text = Completion.BAD, "IDLE was ended by something else than DONE"     # RFC 2177 §3
        line = self._tag + b" " + self._condition(status, text, code)
        self._tag, self._awaiting, self._idle_broken = None, False, False
        if status == Completion.OK and isinstance(self._command, c.StartTLS):
            self.state = State.TLS
        if self._holding:
            self._held = line
        else:
            self._out.append(line)

    def continue_(self, text: str = "Ready") -> None:
        """Goes on with Idle (`+ text`) or Append (`+ text` only where the client waits for it)."""
        self._awaiting = False
        if not self._holding:
            self._out.append(b"+ " + self._encode(text) + b"\r\n")

    def challenge(self, octets: bytes) -> None:
        """The next step of a SASL exchange: `+ base64`; a SaslResponse follows."""
        self._awaiting = False
        self._out.append(b"+ " + base64.b64encode(octets) + b"\r\n")

    def bye(self, text: str, code: bytes = b"") -> None:
        """`* BYE [code] text`: nothing is read any more. A LOGOUT is still completed after it."""
        self.untagged(self._condition("BYE", text, code)[:-2])
        self.state = State.LOGOUT
        self._awaiting = False

    def authenticated(self) -> None:
        """LOGIN or AUTHENTICATE succeeded; call it before complete(OK, ..., code=core.capability())."""
        self.state = State.AUTHENTICATED

    def selected(self, *, read_only: bool) -> None:
        self.state, self.read_only = State.SELECTED, read_only

    def unselected(self) -> None:
        """CLOSE, UNSELECT, or a SELECT that failed (RFC 9051 §6.3.2)."""
        self.state, self.read_only = State.AUTHENTICATED, False

    def enable(self, names: Sequence[str]) -> tuple[str, ...]:
        """Turns on what can be turned on and says `* ENABLED ...`; the names newly in force (RFC 9051 §6.3.1)."""
        before = self._enabled()
        self.rev2 = self.rev2 or "IMAP4REV2" in names
        self.utf8_accept = self.utf8_accept or "UTF8=ACCEPT" in names
        self.condstore = self.condstore or "CONDSTORE" in names
        new = tuple(name for name in ENABLEABLE if name in self._enabled() and name not in before)
        spelled = ["IMAP4rev2" if name == "IMAP4REV2" else name for name in new]
        self.untagged(" ".join(["ENABLED", *spelled]).encode("ascii"))
        return new

    def _enabled(self) -> set[str]:
        states = zip(ENABLEABLE, (self.rev2, self.utf8_accept, self.condstore), strict=True)
        return {name for name, on in states if on}

    @property
    def utf8(self) -> bool:
        """Whether mailbox names and strings are UTF-8 on the wire; else modified UTF-7 and US-ASCII."""
        return self.rev2 or self.utf8_accept

    def tls_started(self) -> None:
        """The handshake is done: everything known before it is forgotten. RuntimeError when octets came before it."""
        if self.state is not State.TLS or self.unread:
            raise RuntimeError("TLS may only start right after STARTTLS was answered")
        self.config = replace(self.config, tls_active=True)
        self.state = State.NOT_AUTHENTICATED
        self._bad_in_a_row = 0

    def capability(self) -> bytes:
        """`CAPABILITY IMAP4rev1 IMAP4rev2 ...` as the state has it: untagged data and response code alike."""
        config = self.config
        names = ["CAPABILITY", "IMAP4rev1", "IMAP4rev2", "ID"]
        if self.state is not State.NOT_AUTHENTICATED:
            names.append("LITERAL+" if config.literal_plus else "LITERAL-")
            names += CAPABILITIES_AFTER_LOGIN
            names.append(f"APPENDLIMIT={config.max_append_octets}")
            return " ".join(names).encode("ascii")
        names += ["LITERAL-", "SASL-IR"]
        if config.tls_available and not config.tls_active:
            names.append("STARTTLS")
        if not config.plaintext_allowed:
            names.append("LOGINDISABLED")
        names += [f"AUTH={mechanism}" for mechanism in config.auth_mechanisms if mechanism in self._mechanisms()]
        return " ".join(names).encode("ascii")

    def _mechanisms(self) -> frozenset[str]:
        offered = frozenset(self.config.auth_mechanisms)
        return offered if self.config.plaintext_allowed else offered - PLAINTEXT_MECHANISMS

    def _condition(self, status: str, text: str, code: bytes) -> bytes:
        """resp-cond-state = ("OK" / "NO" / "BAD") SP ["[" resp-text-code "]" SP] text"""
        bracketed = b"[" + code + b"] " if code else b""
        return status.encode("ascii") + b" " + bracketed + self._encode(text) + b"\r\n"

    def _encode(self, text: str) -> bytes:
        if "\r" in text or "\n" in text:
            raise ValueError("a response text is one line")
        # RFC 9051 §9, text: not US-ASCII only after ENABLE IMAP4rev2.
        return text.encode("utf-8") if self.utf8 else text.encode("ascii", "replace")

    # -- the conversation; every generator below yields events, and None when it needs octets --

    def _session(self) -> Generator[Event | None, None, None]:
        while True:
            try:
                yield from self._one_command()
            except FrameError as error:
                self._refuse_frame(error)

    def _one_command(self) -> Generator[Event | None, None, None]:
        logged_in = self.state is not State.NOT_AUTHENTICATED
        framed = yield from read_command(
            self._buffer, AFTER_LOGIN if logged_in else BEFORE_LOGIN, self._invite,
            literal_plus=logged_in and self.config.literal_plus,
        )
        try:
            tag, command = parse_command(framed.octets, self._context())
            self._check(command)
            self._measure(framed.message, tag)
        except FrameError:
            raise
        except ProtocolError as error:
            given = find_tag(framed.octets)
            yield from self._drop(framed.message, given)
            self._refuse(given, error)
            return
        self._tag, self._command, self._bad_in_a_row = tag, command, 0
        match command:
            case c.Append():
                assert framed.message is not None       # parse_append asks for it
                yield from self._append(command, framed.message)
            case c.Idle():
                yield from self._idle(command)
            case c.Authenticate():
                yield from self._authenticate(command)
            case _:
                yield self._ask(CommandReceived(tag, command))

    def _context(self) -> Context:
        return Context(self.utf8, charset_allowed=not self.utf8_accept, mechanisms=self._mechanisms())

    def _check(self, command: c.Command) -> None:
        """Legality by state, and what the configuration rules out."""
        if self.state not in LEGAL[type(command)]:
            raise CommandError(f"{type(command).__name__.upper()} is not allowed in this state")
        match command:
            case c.StartTLS() if self.config.tls_active:
                raise CommandError("TLS is active already")
            case c.StartTLS() if not self.config.tls_available:
                raise CommandError("TLS is not available")
            case c.Login() if not self.config.plaintext_allowed:
                raise CommandError("Start TLS before LOGIN", no=True, code=b"PRIVACYREQUIRED")

    def _measure(self, message: Literal | None, tag: bytes | None) -> None:
        """Whether a message literal is small enough. Too big and on its way already: nothing sensible can follow it."""
        if message is None:
            return
        largest_octets = self.config.max_append_octets
        if self.state is State.NOT_AUTHENTICATED:
            largest_octets = BEFORE_LOGIN.literal_octets
        elif not self.config.literal_plus and not message.synchronizing:
            largest_octets = LITERAL_MINUS_OCTETS
        if message.size_octets > largest_octets:
            if message.synchronizing:
                raise CommandError("The message is too big", no=True, code=b"TOOBIG")
            raise FrameError("The message is too big", tag=tag, fatal=True)

    def _answered(self) -> bool:
        """Whether the face has completed the command."""
        return self._tag is None

    def _ask(self, event: Event) -> Event:
        self._awaiting = True
        return event

    def _invite(self) -> None:
        """command continuation request for a synchronizing literal (RFC 9051 §7.6)."""
        self._out.append(b"+ Ready for literal data\r\n")

    # -- APPEND --

    def _append(self, command: c.Append, message: Literal) -> Generator[Event | None, None, None]:
        """append = "APPEND" SP mailbox 1*append-message, one message after the other."""
        while True:
            assert self._tag is not None
            self._holding = not message.synchronizing
            yield self._ask(CommandReceived(self._tag, command))
            if self._answered():          # refused; a synchronizing literal never comes then
                yield from self._drop(message, None)
                return self._release()
            self._holding = True
            yield from self._stream(message.size_octets)
            line = yield from read_line(self._buffer, AFTER_LOGIN.line_octets)
            following = find_literal(line)
            if self._answered():          # refused half-way
                yield from self._drop(following, None)
                return self._release()
            try:
                if (next_message := self._next_message(command, line, following)) is None:
                    break
            except CommandError as error:
                tag, self._tag = self._tag, None
                yield c.AppendAborted()
                yield from self._drop(following, tag)
                self._holding = False
                return self._refuse(tag, error)
            command, message = next_message
            yield c.AppendEnd(more=True)
            if self._answered():          # it could not be kept: what follows isn't either
                yield from self._drop(message, None)
                return self._release()
        self._holding = False
        yield self._ask(c.AppendEnd(more=False))

    def _next_message(self, command: c.Append, line: bytes, following: Literal | None) -> tuple[c.Append, Literal] | None:
        """What the line after a message begins; None when it ends the command. CommandError for anything else."""
        if command.utf8:
            if line[:1] != b")":        # utf8-literal = "UTF8" SP "(" literal8 ")"  (RFC 6855 §4)
                raise CommandError("Expected ) after the message")
            line = line[1:]
        if not line.strip(b" "):
            return None
        try:
            following_command = parse_next_message(line, command.mailbox, self._context())
            self._measure(following, self._tag)
        except (FrameError, CommandError):
            raise
        except ProtocolError as error:
            raise CommandError(str(error)) from error
        assert following is not None        # parse_next_message asks for it
        return following_command, following

    def _stream(self, size_octets: int) -> Generator[Event | None, None, None]:
        """The octets of one message as they come; dropped once the face has said no."""
        while size_octets:
            octets = self._buffer.take_some(min(size_octets, CHUNK_OCTETS))
            if not octets:
                yield None
                continue
            size_octets -= len(octets)
            if not self._answered():
                yield c.AppendData(octets)

    def _drop(self, message: Literal | None, tag: bytes | None) -> Generator[None, None, None]:
        """The rest of a refused APPEND, as far as the client sends it unasked (RFC 7888 §4)."""
        while message is not None and not message.synchronizing:
            self._measure(message, tag)
            yield from skip_octets(self._buffer, message.size_octets)
            message = find_literal((yield from read_line(self._buffer, AFTER_LOGIN.line_octets)))

    def _release(self) -> None:
        """Sends the completion that had to wait for the end of an APPEND."""
        self._holding = False
        if self._held is not None:
            self._out.append(self._held)
            self._held = None

    # -- IDLE and AUTHENTICATE --

    def _idle(self, command: c.Idle) -> Generator[Event | None, None, None]:
        """idle = "IDLE" CRLF "DONE" """
        assert self._tag is not None
        yield self._ask(CommandReceived(self._tag, command))
        if self._answered():
            return
        line = yield from read_line(self._buffer, AFTER_LOGIN.line_octets)
        self._idle_broken = line.strip(b" ").upper() != b"DONE"
        yield self._ask(c.IdleDone())

    def _authenticate(self, command: c.Authenticate) -> Generator[Event | None, None, None]:
        """authenticate = "AUTHENTICATE" SP auth-type [SP initial-resp] *(CRLF base64)"""
        assert self._tag is not None
        yield self._ask(CommandReceived(self._tag, command))
        while not self._answered():
            line = yield from read_line(self._buffer, BEFORE_LOGIN.line_octets)
            yield self._ask(c.SaslResponse(self._sasl_octets(line)))

    def _sasl_octets(self, line: bytes) -> bytes | None:
        """One response of the exchange; "*" and what is no base64 both end it (RFC 9051 §6.2.2)."""
        try:
            return None if line == b"*" else parse_base64(line)
        except ProtocolError:
            return None

    # -- refusals --

    def _refuse(self, tag: bytes | None, error: ProtocolError) -> None:
        """Answers a command that never became an event; too many in a row end the connection."""
        no, code = (error.no, error.code) if isinstance(error, CommandError) else (False, b"")
        self._out.append((tag or b"*") + b" " + self._condition("NO" if no else "BAD", str(error), code))
        if not no:
            self._count_bad()

    def _count_bad(self) -> None:
        self._bad_in_a_row += 1
        if self._bad_in_a_row >= (MAX_BAD_BEFORE_LOGIN if self.state is State.NOT_AUTHENTICATED else MAX_BAD_AFTER_LOGIN):
            self.bye("Too many bad commands")
            raise ProtocolError("too many bad commands")

    def _refuse_frame(self, error: FrameError) -> None:
        """Answers a command that was not even read; where the octets that follow are its own, the connection ends."""
        tag = self._tag or error.tag
        if self._held is not None:
            self._release()
        else:
            self._out.append((tag or b"*") + b" " + self._condition("BAD", str(error), b"TOOBIG"))
        self._tag = None
        if error.fatal:
            self.bye(str(error), b"TOOBIG")
            raise ProtocolError(str(error)) from error
        self._count_bad()
