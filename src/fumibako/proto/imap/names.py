"""Mailbox names between the wire and text, and the LIST wildcards.

Specification: RFC 9051 §5.1 (UTF-8 names), §A.1 (modified UTF-7), §6.3.9 (wildcards); RFC 3501 §5.1.3; RFC 6855 §3.
Contract: text is NFC and INBOX in any case is "INBOX"; parse_name(format_name(x)) == x for every NFC name without controls.
    Modified UTF-7 is strict: only the one spelling that format_name writes is read. Matching is linear in the name.
Failure: ProtocolError for a name that is no name on the wire (spec/reliability.md B7).
"""

from __future__ import annotations

import binascii
import re
import unicodedata

from fumibako.proto.reader import ProtocolError

MAX_NAME_OCTETS = 1000
DELIMITER = "/"
INBOX = "INBOX"

_PRINTABLE = re.compile(rb"[\x20-\x7e]*")
_SHIFTED = re.compile(r"&([A-Za-z0-9+,]*)-")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
# RFC 6855 §3: no C0, C1, DEL, line or paragraph separator.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_WILDCARDS = re.compile(r"[%*]{2,}")


def parse_name(octets: bytes, *, utf8: bool, pattern: bool = False) -> str:
    """A mailbox name or LIST pattern as NFC text. utf8: the session has enabled IMAP4rev2 or UTF8=ACCEPT."""
    if len(octets) > (8 * MAX_NAME_OCTETS if pattern else MAX_NAME_OCTETS):
        raise ProtocolError("A mailbox name is too long")
    try:
        name = octets.decode("utf-8") if utf8 else decode_utf7(octets)
    except UnicodeDecodeError:
        raise ProtocolError("A mailbox name is not UTF-8") from None
    if _FORBIDDEN.search(name):
        raise ProtocolError("A mailbox name holds a control character")
    if not name.isascii():      # nor may a name that upper() maps to ASCII ("ı") be INBOX
        return unicodedata.normalize("NFC", name)
    return INBOX if name.upper() == INBOX else name


def format_name(name: str, *, utf8: bool) -> bytes:
    """The octets of a mailbox name, not yet quoted."""
    return name.encode("utf-8") if utf8 else encode_utf7(name)


def decode_utf7(octets: bytes) -> str:
    """Modified UTF-7 to text: `&ZeVnLIqe-` -> 日本語, `&-` -> &.

    RFC 3501 §5.1.3: printable US-ASCII stands for itself, "&" begins modified BASE64 of UTF-16, "-" ends it; printable
    characters may not be shifted, and a shift may not directly follow another.
    """
    if not _PRINTABLE.fullmatch(octets):
        raise ProtocolError("A mailbox name holds octets outside printable US-ASCII")
    text = octets.decode("ascii")
    if "&" not in text:
        return text
    try:
        name = _SHIFTED.sub(lambda shift: _decode_shift(shift[1]), text)
    except (binascii.Error, UnicodeDecodeError):
        raise ProtocolError("A mailbox name is not modified UTF-7") from None
    # One name, one spelling: whatever the rules forbid comes back from encode_utf7 differently.
    if encode_utf7(name) != octets:
        raise ProtocolError("A mailbox name is not modified UTF-7")
    return name


def _decode_shift(shifted: str) -> str:
    if not shifted:
        return "&"
    padding = "=" * (-len(shifted) % 4)
    return binascii.a2b_base64(shifted.replace(",", "/") + padding, strict_mode=True).decode("utf-16-be")


def encode_utf7(name: str) -> bytes:
    """Text to modified UTF-7; the reverse of decode_utf7."""
    return _UNPRINTABLE.sub(_encode_shift, name.replace("&", "&-")).encode("ascii")


def _encode_shift(run: re.Match[str]) -> str:
    octets = run[0].encode("utf-16-be")
    return "&" + binascii.b2a_base64(octets, newline=False).decode("ascii").rstrip("=").replace("/", ",") + "-"


class Pattern:
    """A LIST pattern: "*" any characters, "%" any but the delimiter (RFC 9051 §6.3.9). Read once, asked for many names.

    The set of pattern positions reached so far is one integer, a bit a position: each character of a name moves
    all of them at once, so no pattern makes it try anything twice.
    """

    __slots__ = ("_at", "_delimiter", "_length", "_star", "_text", "_wild")

    def __init__(self, text: str, delimiter: str = DELIMITER) -> None:
        self._text, self._delimiter = text, delimiter
        merged = _WILDCARDS.sub(lambda run: "*" if "*" in run[0] else "%", text)
        self._length = len(merged)
        self._star = self._wild = 0
        self._at: dict[str, int] = {}
        for position, character in enumerate(merged):
            bit = 1 << position
            if character in "*%":
                self._wild |= bit
                self._star |= bit if character == "*" else 0
            else:
                self._at[character] = self._at.get(character, 0) | bit

    def matches(self, name: str) -> bool:
        """Whether it matches the whole name; INBOX matches in any case."""
        if name == INBOX and (upper := self._text.upper()) != self._text:
            return Pattern(upper, self._delimiter).matches(name)
        wild, at = self._wild, self._at
        reached = 1 | (wild & 1) << 1
        for character in name:
            stay = self._star if character == self._delimiter else wild
            reached = reached & stay | (reached & at.get(character, 0)) << 1
            reached |= (reached & wild) << 1
            if not reached:
                return False
        return bool(reached >> self._length & 1)


def match_pattern(pattern: str, name: str, delimiter: str = DELIMITER) -> bool:
    """Whether a LIST pattern matches a whole mailbox name."""
    return Pattern(pattern, delimiter).matches(name)
