"""Cuts what an IMAP client sends into whole commands: lines and their literals, measured before anything is parsed.

Specification: RFC 9051 §2.2.1 (client protocol sender), §4.3 (literals); RFC 7888 §3-5 (non-synchronizing literals);
    RFC 3516 §7 (literal8); spec/reliability.md B1 (limits).
Contract: lines end with CRLF and nothing else; literals are counted in octets; nothing is held beyond the limits.
    The message literal of APPEND is announced, never read here. Every generator yields None when it needs more octets.
Failure: `FrameError` for a command that is too big, with what to tell the client.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass

from fumibako.proto.reader import ProtocolError

CHUNK_OCTETS = 64 * 1024
NUMBER64_DIGITS = 19
LITERAL_MINUS_OCTETS = 4096     # RFC 7888 §5

_LITERAL_HEADER = re.compile(rb"(~?)\{(\d+)(\+?)\}\Z")
_TAG = re.compile(rb"[!#$&',\-./0-9:;<=>?@A-Z\[\]^_`a-z|}~]+(?= )")
_APPEND_MAILBOX_LITERAL = re.compile(rb"[^ ]+ +APPEND +~?\{\d+\+?\}", re.IGNORECASE)
_APPEND = re.compile(rb"[^ ]+ +APPEND ", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Limits:
    """line_octets: one line without CRLF; command_octets: all lines and literals of one command, APPEND's message excepted."""

    line_octets: int
    literal_octets: int
    literal_count: int
    command_octets: int


BEFORE_LOGIN = Limits(line_octets=8192, literal_octets=4096, literal_count=100, command_octets=8192)
AFTER_LOGIN = Limits(line_octets=65536, literal_octets=100 * 1024, literal_count=1000, command_octets=1024 * 1024)


@dataclass(frozen=True, slots=True)
class Literal:
    """What `{n}`, `{n+}` or `~{n}` at the end of a line announces. binary: literal8."""

    size_octets: int
    synchronizing: bool
    binary: bool


@dataclass(frozen=True, slots=True)
class Framed:
    """octets: the command without its last CRLF, literals in place after their headers and CRLF.

    message: APPEND's message literal, announced at the end of octets and still to be read; None for a whole command.
    """

    octets: bytes
    message: Literal | None = None


class FrameError(ProtocolError):
    """A command too big to read. fatal: the octets that follow can't be told from commands, so the connection must end."""

    def __init__(self, text: str, *, tag: bytes | None, fatal: bool) -> None:
        super().__init__(text)
        self.tag, self.fatal = tag, fatal


class Buffer:
    """Octets received and not yet used."""

    __slots__ = ("_octets", "_scanned")

    def __init__(self) -> None:
        self._octets = bytearray()
        self._scanned = 0       # no CRLF begins before this offset: nothing is searched twice

    def __len__(self) -> int:
        return len(self._octets)

    def receive_data(self, octets: bytes) -> None:
        self._octets += octets

    def take_line(self, limit_octets: int) -> bytes | None:
        """The next line without its CRLF; None when it isn't complete. FrameError when it is longer than the limit."""
        end = self._octets.find(b"\r\n", self._scanned)
        if end < 0:
            self._scanned = max(len(self._octets) - 1, 0)
        if (len(self._octets) - 1 if end < 0 else end) > limit_octets:
            tag = find_tag(bytes(self._octets[:64]))
            raise FrameError("The command line is too long", tag=tag, fatal=True)
        if end < 0:
            return None
        line = bytes(self._octets[:end])
        del self._octets[:end + 2]
        self._scanned = 0
        return line

    def take(self, count: int) -> bytes | None:
        """Exactly count octets, or None when they aren't there yet."""
        return self.take_some(count) if len(self._octets) >= count else None

    def take_some(self, at_most: int) -> bytes:
        """The first octets, as many as there are; b"" when there are none."""
        octets = bytes(self._octets[:at_most])
        del self._octets[:at_most]
        self._scanned = 0
        return octets


def find_tag(octets: bytes) -> bytes | None:
    """The tag that octets begin with, None when they begin with none.

    tag = 1*<any ASTRING-CHAR except "+">  (RFC 9051 §9)
    """
    return found[0] if (found := _TAG.match(octets)) else None


def find_literal(line: bytes) -> Literal | None:
    """The literal that a line announces at its end.

    literal  = "{" number64 ["+"] "}" CRLF *CHAR8
    literal8 = "~{" number64 ["+"] "}" CRLF *OCTET      (RFC 9051 §9, RFC 7888 §8)
    """
    if not line.endswith(b"}") or not (found := _LITERAL_HEADER.search(line)):
        return None
    # More digits than number64 has are still a literal to the client, and too big for every limit.
    size_octets = int(found[2]) if len(found[2]) <= NUMBER64_DIGITS else 10**NUMBER64_DIGITS
    return Literal(size_octets, synchronizing=not found[3], binary=bool(found[1]))


def read_line(buffer: Buffer, limit_octets: int) -> Generator[None, None, bytes]:
    """The next line without its CRLF."""
    while (line := buffer.take_line(limit_octets)) is None:
        yield
    return line


def read_octets(buffer: Buffer, count: int) -> Generator[None, None, bytes]:
    """Exactly count octets, held whole: only for literals within the limits."""
    while (octets := buffer.take(count)) is None:
        yield
    return octets


def skip_octets(buffer: Buffer, count: int) -> Generator[None, None, None]:
    """Reads count octets and drops them as they come."""
    while count:
        if dropped := len(buffer.take_some(min(count, CHUNK_OCTETS))):
            count -= dropped
        else:
            yield


def read_command(
    buffer: Buffer, limits: Limits, invite: Callable[[], None], *, literal_plus: bool,
) -> Generator[None, None, Framed]:
    """One command, up to its end or to APPEND's message literal. invite() sends the continuation for a synchronizing literal.

    command = tag SP (command-any / command-auth / command-nonauth / command-select) CRLF      (RFC 9051 §9)
    """
    pieces: list[bytes] = []
    size_octets = count = 0
    while True:
        line = yield from read_line(buffer, limits.line_octets)
        pieces.append(line)
        size_octets += len(line) + 2
        literal = find_literal(line)
        tag = find_tag(pieces[0])
        if size_octets > limits.command_octets:
            raise FrameError("The command is too long", tag=tag, fatal=literal is not None and not literal.synchronizing)
        if literal is None or is_message(pieces[0], count):
            return Framed(b"".join(pieces), literal)
        count += 1
        size_octets += literal.size_octets
        largest_octets = limits.literal_octets if literal_plus or literal.synchronizing else LITERAL_MINUS_OCTETS
        if literal.size_octets > largest_octets or size_octets > limits.command_octets or count > limits.literal_count:
            raise FrameError("The literal is too big", tag=tag, fatal=not literal.synchronizing)
        if literal.synchronizing:
            invite()
        octets = yield from read_octets(buffer, literal.size_octets)
        pieces += (b"\r\n", octets)


def is_message(first_line: bytes, literals_before: int) -> bool:
    """Whether the next literal of a command is APPEND's message rather than its mailbox name.

    append = "APPEND" SP mailbox [SP flag-list] [SP date-time] SP literal      (RFC 9051 §9)
    Only the mailbox may be a literal before it: flags and dates never are.
    """
    if not _APPEND.match(first_line):
        return False
    return literals_before > 0 or not _APPEND_MAILBOX_LITERAL.fullmatch(first_line)
