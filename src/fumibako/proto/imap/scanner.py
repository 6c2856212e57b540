"""Reads the tokens of an IMAP command from left to right, each in one regular expression without backtracking.

Specification: RFC 9051 §4 (data formats), §9 (formal syntax); RFC 3501 §9; RFC 6855 §3 (UTF-8 in quoted strings).
Contract: the octets come from `framer`, so a literal header is followed by its octets; every method moves forward only.
    Quirk extra-spaces: several SP where the grammar has one, and SP inside parentheses, are read as one or none; clients
    send them and no meaning hangs on it. Everything else is as strict as the grammar.
Failure: `CommandError`, with the answer the client gets.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from fumibako.proto.imap.commands import SequenceSet
from fumibako.proto.imap.names import parse_name
from fumibako.proto.imap.numbers import parse_sequence_set
from fumibako.proto.reader import ProtocolError, parse_uint

MAX_DEPTH = 50
MAX_UINT32 = 2**32 - 1
MAX_UINT63 = 2**63 - 1

# The octets of each class are written out: atom-specials are ( ) { SP CTL % * DQUOTE \ and ] (RFC 9051 §9).
_ATOM = re.compile(rb"[!#$&'+,\-./0-9:;<=>?@A-Z\[^_`a-z|}~]+")
_ASTRING = re.compile(rb"[!#$&'+,\-./0-9:;<=>?@A-Z\[\]^_`a-z|}~]+")
_LIST_CHARS = re.compile(rb"[!#$%&'*+,\-./0-9:;<=>?@A-Z\[\]^_`a-z|}~]+")
_WORD = re.compile(rb"[A-Z0-9.=\-]+", re.IGNORECASE)
_QUOTED = re.compile(rb'"([^\x00\r\n"\\]*+(?:\\["\\][^\x00\r\n"\\]*+)*+)"')
_LITERAL = re.compile(rb"\{(\d{1,19})\+?\}\r\n")
_NUMBER = re.compile(rb"\d+")
_SEQUENCE_SET = re.compile(rb"[\d:*,]+|\$")
_FLAG = re.compile(rb"\\?[!#$&'+,\-./0-9:;<=>?@A-Z\[^_`a-z|}~]+")
_SPACES = re.compile(rb" +")
_ESCAPED = re.compile(rb'\\(["\\])')

SYSTEM_FLAGS = {flag.lower(): flag for flag in ("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft")}

T = TypeVar("T")


class CommandError(ProtocolError):
    """A command that can't be carried out as written. no: answer NO rather than BAD; code: a response code without brackets."""

    def __init__(self, text: str, *, no: bool = False, code: bytes = b"") -> None:
        super().__init__(text)
        self.no, self.code = no, code


@dataclass(frozen=True, slots=True)
class Context:
    """What the meaning of a command hangs on besides its octets.

    utf8: mailbox names are UTF-8 (IMAP4rev2 or UTF8=ACCEPT enabled), else modified UTF-7.
    charset_allowed: RFC 6855 §3 forbids SEARCH CHARSET after ENABLE UTF8=ACCEPT.
    mechanisms: SASL mechanisms on offer, upper case.
    """

    utf8: bool = False
    charset_allowed: bool = True
    mechanisms: frozenset[str] = frozenset()


class Scanner:
    """A position in the octets of one command."""

    __slots__ = ("context", "octets", "pos")

    def __init__(self, octets: bytes, context: Context) -> None:
        self.octets, self.context, self.pos = octets, context, 0

    def fail(self, expected: str) -> NoReturn:
        raise CommandError(f"Expected {expected} at octet {self.pos}")

    def _match(self, pattern: re.Pattern[bytes], expected: str) -> bytes:
        if not (found := pattern.match(self.octets, self.pos)):
            self.fail(expected)
        self.pos = found.end()
        return found[0]

    def peek(self) -> bytes:
        """The next octet, b"" at the end."""
        return self.octets[self.pos:self.pos + 1]

    def take(self, octets: bytes) -> bool:
        """Moves past octets (upper case) if they come next, in any case."""
        end = self.pos + len(octets)
        if self.octets[self.pos:end].upper() != octets:
            return False
        self.pos = end
        return True

    def expect(self, octets: bytes) -> None:
        if not self.take(octets):
            self.fail(octets.decode("ascii"))

    def space(self) -> None:
        """SP; quirk extra-spaces."""
        self._match(_SPACES, "a space")

    def take_space(self) -> bool:
        """SP when more follows it: at the end of the command it is no separator (quirk extra-spaces)."""
        return self.skip_spaces() and self.pos < len(self.octets)

    def end(self) -> None:
        self.skip_spaces()
        if self.pos != len(self.octets):
            self.fail("the end of the command")

    def atom(self) -> bytes:
        """atom = 1*ATOM-CHAR"""
        return self._match(_ATOM, "an atom")

    def word(self) -> bytes:
        """A word of the protocol's own, in upper case: letters, digits, "." "=" "-"."""
        return self._match(_WORD, "a keyword").upper()

    def string(self) -> bytes:
        """string = quoted / literal"""
        return self._quoted() if self.peek() == b'"' else self._literal()

    def _quoted(self) -> bytes:
        """quoted = DQUOTE *QUOTED-CHAR DQUOTE;  QUOTED-CHAR includes UTF8-2 / UTF8-3 / UTF8-4"""
        content = self._match(_QUOTED, "a quoted string")[1:-1]
        if not content.isascii():
            try:
                content.decode("utf-8")
            except UnicodeDecodeError:
                # RFC 6855 §3: octet sequences that aren't UTF-8 MUST be rejected with BAD.
                raise CommandError("A quoted string is not UTF-8") from None
        return _ESCAPED.sub(rb"\1", content) if b"\\" in content else content

    def _literal(self) -> bytes:
        """literal = "{" number64 ["+"] "}" CRLF *CHAR8"""
        header = self._match(_LITERAL, "a string")
        end = self.pos + parse_uint(header.rstrip(b"+}\r\n")[1:], 19)
        if end > len(self.octets):
            self.fail("the octets of a literal")
        content, self.pos = self.octets[self.pos:end], end
        if b"\0" in content:
            raise CommandError("A literal holds a NUL octet")       # RFC 9051 §9: CHAR8 = %x01-ff
        return content

    def astring(self) -> bytes:
        """astring = 1*ASTRING-CHAR / string"""
        if found := _ASTRING.match(self.octets, self.pos):
            self.pos = found.end()
            return found[0]
        return self.string()

    def nstring(self) -> bytes | None:
        """nstring = string / "NIL" """
        return None if self.take(b"NIL") else self.string()

    def mailbox(self) -> str:
        """mailbox = "INBOX" / astring;  the name as NFC text"""
        return parse_name(self.astring(), utf8=self.context.utf8)

    def list_mailbox(self) -> str:
        """list-mailbox = 1*list-char / string"""
        if found := _LIST_CHARS.match(self.octets, self.pos):
            self.pos = found.end()
            return parse_name(found[0], utf8=self.context.utf8, pattern=True)
        return parse_name(self.string(), utf8=self.context.utf8, pattern=True)

    def number(self, largest: int = MAX_UINT32, smallest: int = 0) -> int:
        """number = 1*DIGIT;  with smallest=1: nz-number = digit-nz *DIGIT"""
        start = self.pos
        value = parse_uint(self._match(_NUMBER, "a number"), 19)
        if not smallest <= value <= largest or (smallest and self.octets[start:start + 1] == b"0"):
            self.fail(f"a number from {smallest} to {largest}")
        return value

    def sequence_set(self) -> SequenceSet:
        """sequence-set, see `numbers.parse_sequence_set`"""
        return parse_sequence_set(self._match(_SEQUENCE_SET, "a sequence set"))

    def flag(self) -> str:
        """flag = "\\Answered" / "\\Flagged" / "\\Deleted" / "\\Seen" / "\\Draft" / flag-keyword"""
        name = self._match(_FLAG, "a flag").decode("ascii")
        if not name.startswith("\\"):
            return name
        if not (known := SYSTEM_FLAGS.get(name.lower())):
            raise CommandError(f"{name} is not a flag a client can set")
        return known

    def list_of(self, item: Callable[[], T], *, empty: bool = False) -> tuple[T, ...]:
        """"(" item *(SP item) ")";  with empty=True also "()"."""
        self.expect(b"(")
        items: list[T] = []
        self.skip_spaces()
        if empty and self.take(b")"):
            return ()
        while True:
            items.append(item())
            separated = self.skip_spaces()
            if self.take(b")"):
                return tuple(items)
            if not separated:
                self.fail("a space or )")

    def skip_spaces(self) -> bool:
        """Quirk extra-spaces, inside parentheses; whether there were any."""
        if found := _SPACES.match(self.octets, self.pos):
            self.pos = found.end()
        return found is not None
