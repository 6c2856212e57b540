"""IMAP, client side, without input or output: for tests, the demo, and fetching mail from another server.

Specification: RFC 9051 §2.2.2 (server responses), §7, §9; RFC 7888 §3; RFC 9051 §11.3 (what may not be believed before TLS).
Contract: command() queues a command and gives its tag; receive_data() then next_response() give what the server says, in order,
    as Untagged, Tagged or Continuation. A synchronizing literal is held back until the server asks for it.
    Data are nested lists: NIL is None, a number int, an atom str, a string bytes.
    With tls_required, everything but status and capability responses is ignored until tls_started().
Failure: ProtocolError when the server breaks the protocol or a limit; the connection is of no use after it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field

from fumibako.proto.imap.format import format_string
from fumibako.proto.imap.framer import Buffer, find_literal, read_line, read_octets
from fumibako.proto.reader import ProtocolError, parse_uint

MAX_LINE_OCTETS = 1024 * 1024
MAX_RESPONSE_OCTETS = 256 * 1024 * 1024
MAX_DEPTH = 200         # BODYSTRUCTURE nests as deep as the message does

Data = None | int | str | bytes | list["Data"]

# A section label is one atom, brackets and all: BODY[HEADER.FIELDS (Date "X Y")]<0>
_LABEL = re.compile(rb'(?:BODY|BINARY|BINARY\.SIZE)\[(?:[^\]"\r\n]|"(?:[^"\\\r\n]|\\["\\])*+")*+\](?:<\d+>)?', re.IGNORECASE)
_ATOM = re.compile(rb'[^()"\x00-\x20\x7f{]+')
_QUOTED = re.compile(rb'"([^\x00\r\n"\\]*+(?:\\["\\][^\x00\r\n"\\]*+)*+)"')
_LITERAL = re.compile(rb"~?\{(\d{1,19})\}\r\n")
_CODE = re.compile(rb'\[((?:[^\]"]|"(?:[^"\\]|\\["\\])*+")*+)\] ?')
_ESCAPED = re.compile(rb'\\(["\\])')
_NUMBERED = frozenset({"EXISTS", "RECENT", "EXPUNGE", "FETCH"})
_STATUS = frozenset({"OK", "NO", "BAD", "BYE", "PREAUTH"})


@dataclass(frozen=True, slots=True)
class Literal:
    """An argument to be sent as a literal."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class Untagged:
    """`* kind data`: number stands before EXISTS, EXPUNGE, FETCH; status responses have code and text instead of data."""

    kind: str
    number: int | None = None
    data: list[Data] = field(default_factory=list)
    code: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Tagged:
    """The completion of a command; code without brackets, "" when there is none."""

    tag: bytes
    status: str
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Continuation:
    """`+ text`, but not those that only ask for a literal: these are answered here."""

    text: bytes


Response = Untagged | Tagged | Continuation


class ClientConnection:
    """One IMAP connection as its client sees it. literal_plus: literals are sent without waiting (RFC 7888)."""

    def __init__(self, *, tls_required: bool = False, literal_plus: bool = False) -> None:
        self.literal_plus = literal_plus
        self._guarded = tls_required
        self._buffer = Buffer()
        self._out: list[bytes] = []
        self._waiting: deque[bytes] = deque()       # pieces behind synchronizing literals
        self._count = 0
        self._greeted = False
        self._responses = self._session()

    # -- what is sent --

    def command(self, name: str, *arguments: bytes | str | int | Literal) -> bytes:
        """Queues `tag name arguments`; the tag. RuntimeError while a command still waits to send a literal.

        bytes go as they are, str as a string, Literal as a literal."""
        if self._waiting:
            raise RuntimeError("a command still waits for the server to take its literal")
        self._count += 1
        tag = b"a%d" % self._count
        pieces = [tag + b" " + name.encode("ascii")]
        for argument in map(_as_sent, arguments):
            if isinstance(argument, Literal):
                pieces[-1] += b" {%d%b}\r\n" % (len(argument.octets), b"+" if self.literal_plus else b"")
                pieces.append(argument.octets)
            else:
                pieces[-1] += b" " + argument
        pieces[-1] += b"\r\n"
        if self.literal_plus:
            pieces = [b"".join(pieces)]
        self._out.append(pieces[0])
        self._waiting.extend(pieces[1:])
        return tag

    def send_line(self, octets: bytes) -> None:
        """A line that is no command: DONE, a SASL response, "*"."""
        self._out.append(octets + b"\r\n")

    def data_to_send(self) -> bytes:
        octets = b"".join(self._out)
        self._out.clear()
        return octets

    # -- what is received --

    def receive_data(self, octets: bytes) -> None:
        self._buffer.receive_data(octets)

    @property
    def unread(self) -> int:
        """Octets received and not parsed: any left after STARTTLS's OK are an attack (spec/reliability.md A9)."""
        return len(self._buffer)

    def tls_started(self) -> None:
        """The handshake is done: believe the server from now on. ProtocolError when octets came before it."""
        if self.unread:
            raise ProtocolError("the server sent octets between STARTTLS and TLS")
        self._guarded = False

    def next_response(self) -> Response | None:
        """The next response, None when more octets are needed."""
        return next(self._responses)

    def responses(self) -> list[Response]:
        """All responses there are."""
        return list(iter(self.next_response, None))

    def _session(self) -> Generator[Response | None, None, None]:
        while True:
            response = parse_response((yield from self._read_response()))
            if isinstance(response, Continuation) and self._waiting:
                self._out.append(self._waiting.popleft())
                continue
            if isinstance(response, Tagged):
                self._waiting.clear()       # the command is over: its literal was not wanted
            if self._believes(response):
                yield response

    def _read_response(self) -> Generator[None, None, bytes]:
        """One response with its literals, without the last CRLF."""
        pieces: list[bytes] = []
        size_octets = 0
        while True:
            pieces.append((yield from read_line(self._buffer, MAX_LINE_OCTETS)))
            literal = find_literal(pieces[-1])
            if literal is None:
                return b"".join(pieces)
            size_octets += len(pieces[-1]) + literal.size_octets
            if size_octets > MAX_RESPONSE_OCTETS or not literal.synchronizing:
                raise ProtocolError("a response is too big")
            pieces += (b"\r\n", (yield from read_octets(self._buffer, literal.size_octets)))

    def _believes(self, response: Response) -> bool:
        """Whether a response may be handed on: RFC 9051 §11.3, §7.1.4 (PREAUTH leaves no chance for STARTTLS)."""
        if not self._greeted:
            if not isinstance(response, Untagged) or response.kind not in ("OK", "PREAUTH", "BYE"):
                raise ProtocolError("the greeting is no greeting")
            self._greeted = True
        if not self._guarded or not isinstance(response, Untagged):
            return True
        if response.kind == "PREAUTH":
            raise ProtocolError("PREAUTH before TLS, though TLS is required")
        return response.kind in _STATUS or response.kind == "CAPABILITY"


def _as_sent(argument: bytes | str | int | Literal) -> bytes | Literal:
    """Quoted where every server reads it, else a literal: no text can become a command (spec/reliability.md B2)."""
    if isinstance(argument, bytes | Literal):
        return argument
    if isinstance(argument, int):
        return b"%d" % argument
    octets = argument.encode("utf-8")
    quoted = format_string(octets)
    return quoted if quoted.startswith(b'"') else Literal(octets)


def parse_response(octets: bytes) -> Response:
    """One whole response. ProtocolError when it is none.

    response = continue-req / response-data / response-tagged
    """
    if octets[:1] == b"+":
        return Continuation(octets[2:])
    tag, _, rest = octets.partition(b" ")
    word, _, _ = rest.partition(b" ")
    if tag != b"*":
        status, code, text = _parse_condition(rest)
        if status not in ("OK", "NO", "BAD"):
            raise ProtocolError("not a response")
        return Tagged(tag, status, code, text)
    if word.upper().decode("ascii", "replace") in _STATUS:
        status, code, text = _parse_condition(rest)
        return Untagged(status, code=code, text=text)
    number = None
    if word.isdigit():
        number, rest = parse_uint(word, 10), rest[len(word) + 1:]
    reader = _DataReader(rest)
    kind, *data = reader.all()
    if not isinstance(kind, str) or (number is not None and kind.upper() not in _NUMBERED):
        raise ProtocolError("not a response")
    return Untagged(kind.upper(), number, data)


def _parse_condition(octets: bytes) -> tuple[str, str, str]:
    """resp-cond-state = ("OK" / "NO" / "BAD") SP ["[" resp-text-code "]" SP] text"""
    status, _, text = octets.partition(b" ")
    code = b""
    if found := _CODE.match(text):
        code, text = found[1], text[found.end():]
    return status.decode("ascii", "replace").upper(), code.decode("utf-8", "replace"), text.decode("utf-8", "replace")


class _DataReader:
    """Nested data from left to right; the stack of open lists is explicit, so depth is a number."""

    def __init__(self, octets: bytes) -> None:
        self._octets, self._pos = octets, 0

    def all(self) -> list[Data]:
        """Every value to the end."""
        stack: list[list[Data]] = [[]]
        while self._pos < len(self._octets):
            octet = self._octets[self._pos:self._pos + 1]
            if octet in (b" ", b"(", b")"):
                self._pos += 1
            if octet == b"(":
                opened: list[Data] = []
                stack[-1].append(opened)
                stack.append(opened)
            elif octet == b")":
                stack.pop()
            elif octet != b" ":
                stack[-1].append(self._value(octet))
            if not 0 < len(stack) <= MAX_DEPTH:
                raise ProtocolError("parentheses in a response don't match, or nest too deep")
        if len(stack) != 1 or not stack[0]:
            raise ProtocolError("a response is incomplete")
        return stack[0]

    def _value(self, octet: bytes) -> Data:
        if octet == b'"':
            return _ESCAPED.sub(rb"\1", self._match(_QUOTED)[1])
        if octet == b"{" or self._octets[self._pos:self._pos + 2] == b"~{":
            end = self._pos_after_literal(self._match(_LITERAL))
            content, self._pos = self._octets[self._pos:end], end
            return content
        if found := _LABEL.match(self._octets, self._pos):
            self._pos = found.end()
            return found[0].decode("ascii", "replace")
        atom = self._match(_ATOM)[0]
        if atom.isdigit() and len(atom) <= 19:
            return int(atom)
        return None if atom.upper() == b"NIL" else atom.decode("utf-8", "replace")

    def _pos_after_literal(self, header: re.Match[bytes]) -> int:
        end = self._pos + parse_uint(header[1], 19)
        if end > len(self._octets):
            raise ProtocolError("a literal in a response is incomplete")
        return end

    def _match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        found = pattern.match(self._octets, self._pos)
        if found is None:
            raise ProtocolError("a response is malformed")
        self._pos = found.end()
        return found
