"""Address lists of header fields: read whatever came, write what RFC 5322 asks.

Specification: RFC 5322 §3.4 (address, mailbox, group), §4.4 (obs-route), RFC 6532 §3.2 (UTF-8), RFC 9051 §7.5.2.
Contract: `parse_addresses` returns raw octets in the four fields of an ENVELOPE address structure, groups as their
    markers; iterative, linear in the length, at most 10,000 entries.
Failure: reading never raises. It forgives unquoted dots and commas in encoded words, a missing `>` or quote, `;` between
    addresses, local parts with dots in wrong places (`a..b@docomo.ne.jp`), raw JIS and Shift_JIS display names.
    Writing raises ValueError on CR, LF or NUL.
"""

import re
from typing import NamedTuple

from fumibako.proto.message.charset import RAW_JIS, RAW_SHIFT_JIS, is_utf8
from fumibako.proto.message.header import fields
from fumibako.proto.message.words import FOLD, encode_words

# RFC 5322 §3.6.2, §3.6.3, §3.6.6; Return-Path holds no name, but the same octets.
ADDRESS_FIELDS = frozenset({b"bcc", b"cc", b"from", b"reply-to", b"resent-bcc", b"resent-cc", b"resent-from", b"resent-sender",
                            b"resent-to", b"return-path", b"sender", b"to"})
_MAX_ENTRIES = 10_000
_LOCAL_PART_OCTETS = 1000


def _tokens(pair: bytes, quoted: bytes) -> re.Pattern[bytes]:
    """One word, quoted string, domain literal, comment begin, special or white space; any other octet is none of them.

    Octets within a `pair` are never special.
    """
    return re.compile(
        rb"(?P<word>=\?[^?\s]++\?[BbQq]\?[^?\s]*+\?=|(?:" + pair + rb'|[^\x00-\x20<>@,;:()\[\]"])++)'
        + quoted + rb"|(?P<literal>\[[^\[\]\\\s]*+\])|(?P<comment>\()|(?P<special>[<>@,;:])|(?P<space>[\x00-\x20]++)|[\x00-\xff]"
    )  # fmt: skip


def _quoted(pair: bytes) -> bytes:
    return rb'|"(?P<quoted>(?:' + pair + rb'|\\[\x00-\xff]|[^"\\])*+)"'


# Without a closing quote ahead, quotes mean nothing: the second pattern of a pair goes on from there.
_PLAIN_TOKENS = _tokens(RAW_JIS, _quoted(RAW_JIS)), _tokens(RAW_JIS, b"|(?P<quoted>(?!))")
_SJIS_TOKENS = _tokens(RAW_SHIFT_JIS, _quoted(RAW_SHIFT_JIS)), _tokens(RAW_SHIFT_JIS, b"|(?P<quoted>(?!))")
_COMMENT_PIECE = re.compile(RAW_JIS + rb"|[^()\\\x1b]++|\\[\x00-\xff]|[()\\\x1b]")
_ESCAPED = re.compile(rb"\\([\x00-\xff])")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_SIMPLE = re.compile(rb"""[ \t]*+(?:([\w!#$%&'*+/=?^`{|}~. -]*+)<|(?:"([^"\\]*+)"[ \t]*<)?)([^\x00-\x20<>@,;:()\[\]"\\]++)@"""
                     rb"""([^\x00-\x20<>@,;:()\[\]"\\]++)(>?)[ \t]*""")  # fmt: skip


class Address(NamedTuple):
    """name, route, mailbox (the local part without its quotes), host: raw octets or None.

    RFC 9051 §7.5.2: host None and mailbox not None begins the group `mailbox`; both None end it.
    """

    name: bytes | None
    route: bytes | None
    mailbox: bytes | None
    host: bytes | None


GROUP_END = Address(None, None, None, None)


def parse_addresses(value: bytes) -> list[Address]:
    """`address-list = (address *("," address))`, RFC 5322 §3.4, from a raw field value."""
    if b"\n" in value:
        value = FOLD.sub(b"", value)
    if (simple := _parse_simple(value)) is not None:
        return [simple]
    parser = _Parser(value)
    parser.run()
    return parser.found


def is_internationalized(header: bytes) -> bool:
    """Whether a header section holds an address that only RFC 6532 allows."""
    return not header.isascii() and any(
        field.name.lower() in ADDRESS_FIELDS and any(map(_is_beyond_ascii, parse_addresses(field.value_raw)))
        for field in fields(header))


def _is_beyond_ascii(address: Address) -> bool:
    octets = (address.mailbox or b"") + (address.host or b"")
    return not octets.isascii() and is_utf8(octets)


def _parse_simple(value: bytes) -> Address | None:
    """The one mailbox of ASCII that most fields hold, or None if it is anything more."""
    match = _SIMPLE.fullmatch(value) if value.isascii() else None
    if match is None:
        return None
    phrase, quoted, mailbox, host, closed = match.groups()
    name = quoted if phrase is None else phrase.strip(b" ")
    if (phrase is not None or quoted is not None) != (closed == b">"):
        return None
    return Address(name or None, None, mailbox, host)


class _Parser:
    """One pass over the tokens of a list. `_words` is the phrase, local part or domain at hand."""

    def __init__(self, value: bytes) -> None:
        self.value = value
        self.found: list[Address] = []
        self._in_group = False
        self._comments_close = True
        self._begin()

    def _begin(self) -> None:
        """The state before an entry of the list."""
        self._words: list[bytes] = []  # white space between them is b" "
        self._name = b""
        self._comment = b""
        self._route: bytes | None = None
        self._mailbox: bytes | None = None
        self._host: bytes | None = None
        self._in_angle = False

    def run(self) -> None:
        """Reads all tokens; the entry at hand is finished at `,`, `;` and the end."""
        value = self.value
        tokens, without_quotes = _PLAIN_TOKENS if value.isascii() or is_utf8(value) else _SJIS_TOKENS
        at, size = 0, len(value)
        while at < size and len(self.found) < _MAX_ENTRIES:
            match = tokens.match(value, at)
            assert match is not None  # the last alternative takes any octet
            at = match.end()
            if match.lastgroup == "special":
                self._special(match[0])
            elif match.lastgroup == "comment":
                at = self._read_comment(at)
            elif match.lastgroup is None:
                tokens = without_quotes if match[0] == b'"' else tokens
            else:
                self._add_word(match)
        self._finish()
        if self._in_group:
            self.found.append(GROUP_END)

    def _add_word(self, match: re.Match[bytes]) -> None:
        word = match[0]
        if match.lastgroup == "quoted":
            word = _ESCAPED.sub(rb"\1", match["quoted"])
        elif match.lastgroup == "space":
            word = b" "
        self._words.append(word)

    def _read_comment(self, at: int) -> int:
        """`comment = "(" *([FWS] ccontent) [FWS] ")"`, nested; its text names a mailbox that has no phrase.

        A `(` that is never closed is skipped, and so are all after it.
        """
        depth, start = 1, at
        while depth and self._comments_close and (match := _COMMENT_PIECE.match(self.value, at)):
            depth += (match[0] == b"(") - (match[0] == b")")
            at = match.end()
        if depth:
            self._comments_close = False
            return start
        self._comment = self._comment or _ESCAPED.sub(rb"\1", self.value[start : at - 1]).strip(b" \t")
        self._words.append(b" ")
        return at

    def _special(self, octet: bytes) -> None:
        if octet == b"<" and not self._in_angle:
            self._name, self._mailbox, self._in_angle = self._take(b" "), None, True
        elif octet == b">" and self._in_angle and self._host is None:
            rest = self._take(b"")
            self._mailbox, self._host = (rest, b"") if self._mailbox is None else (self._mailbox, rest)
        elif octet == b"@" and self._host is None:
            self._at()
        elif octet == b":":
            self._colon()
        elif octet == b"," and self._in_route():
            self._route = (self._route or b"") + self._take(b"") + b","
        elif octet in b",;":
            self._finish()
            if octet == b";" and self._in_group:
                self.found.append(GROUP_END)
                self._in_group = False

    def _in_route(self) -> bool:
        return self._in_angle and self._route is not None and not self._route.endswith(b":") and self._mailbox is None

    def _at(self) -> None:
        """`@` ends a local part, or with nothing before it inside `<` begins a hop of a route (RFC 5322 §4.4)."""
        if self._in_route() or (self._in_angle and self._mailbox is None and not self._has_word()):
            self._route = (self._route or b"") + self._take(b"") + b"@"
        elif self._mailbox is None:
            self._mailbox = self._take_local_part()
        elif len(self._mailbox) < _LOCAL_PART_OCTETS:  # a second `@`: all before it is the local part
            self._mailbox += b"@" + self._take(b"")

    def _has_word(self) -> bool:
        """Whether there is a word at hand."""
        return any(word != b" " for word in self._words)

    def _take_local_part(self) -> bytes:
        """Outside `<`, the words before the last one name the mailbox: `Alice alice@example.jp`."""
        while self._words and self._words[-1] == b" ":
            self._words.pop()
        if not self._in_angle and b" " in self._words and not any(b"." in (word[:1], word[-1:]) for word in self._words):
            cut = len(self._words) - self._words[::-1].index(b" ")
            self._words, local = self._words[:cut], b"".join(self._words[cut:])
            self._name = self._take(b" ")
            return local
        return self._take(b"")

    def _colon(self) -> None:
        """`:` ends a route or begins a group."""
        if self._in_route():
            self._route = (self._route or b"") + self._take(b"") + b":"
        elif not self._in_angle and not self._in_group and self._mailbox is None:
            name = self._take(b" ")
            self._begin()
            self.found.append(Address(None, None, name, None))
            self._in_group = True

    def _take(self, space: bytes) -> bytes:
        """The words so far, each run of white space between them replaced by `space`."""
        words, self._words = self._words, []
        if b" " not in words:
            return b"".join(words)
        last = b" "
        kept: list[bytes] = []
        for word in words:
            if word != b" " or last != b" ":
                kept.append(space if word == b" " else word)
            last = word
        return b"".join(kept).strip(b" ")

    def _finish(self) -> None:
        name = self._name or self._comment or None
        if self._mailbox is None and not self._in_angle:
            self._mailbox, self._host = self._take(b" "), b""
        elif self._host is None:
            rest = self._take(b"")
            self._mailbox, self._host = (rest, b"") if self._mailbox is None else (self._mailbox, rest)
        route = self._route and self._route.rstrip(b":")
        if self._mailbox or self._host or self._name:
            self.found.append(Address(name, route, self._mailbox, self._host))
        self._begin()


def format_mailbox(name: str, addr_spec: str, charset: str = "utf-8") -> str:
    """`name <addr_spec>` for a header field; the name as atoms, a quoted string or encoded words (RFC 5322 §3.4).

    Raises ValueError on CR, LF or NUL.
    """
    if re.search("[\r\n\x00]", name + addr_spec):
        raise ValueError("CR, LF or NUL in an address")
    if not name:
        return addr_spec
    if not name.isascii() or "=?" in name or not name.isprintable():
        phrase = encode_words(name, charset, always=True).decode("ascii")
    elif _ATOMS.fullmatch(name):
        phrase = name
    else:
        phrase = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{phrase} <{addr_spec}>"
