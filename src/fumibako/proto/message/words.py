"""Encoded words: RFC 2047 text in header fields, with the violations Japanese mail is full of.

Specification: RFC 2047 §2 (encoded-word), §5 (where), §6.2 (adjacent words); RFC 2231 §5 (language suffix).
Contract: the octets of adjacent words in one charset are joined before they are decoded, because senders split
    characters between words; raw JIS, Shift_JIS, EUC-JP and UTF-8 around the words are read too.
Failure: reading never raises. Writing raises ValueError on CR, LF or NUL.
"""

import binascii
import re

from fumibako.proto.message.charset import decode_text, encode_jis
from fumibako.proto.message.transfer import decode_body

_WORD = re.compile(r"=\?([^?*\s]{1,60})(?:\*[^?\s]{0,60})?\?([bBqQ])\?([^?]*)\?=")
FOLD = re.compile(rb"\r*\n(?=[ \t])")  # RFC 5322 §2.2.3: what unfolding takes away
_FORBIDDEN = re.compile("[\r\n\x00]")
_PLAIN = re.compile(r"[\t\x20-\x7e]*")
_WORD_OCTETS = 64  # RFC 2047 §2 allows 75; the first word shares its line of 76 with the field name


def decode_words(value: bytes) -> str:
    """The text of an unstructured field value, a display name or a file name, folds and all."""
    text = decode_text(FOLD.sub(b"", value).rstrip(b"\r\n"))
    return _decode_in_text(text) if "=?" in text else text


def _decode_in_text(text: str) -> str:
    out: list[str] = []
    charset, end = "", 0
    joined: list[bytes] = []
    for match in _WORD.finditer(text):
        gap = text[end : match.start()]
        adjacent = bool(joined) and not gap.strip(" \t")  # RFC 2047 §6.2: white space between words is not text
        if not adjacent or match[1].lower() != charset:
            out += decode_text(b"".join(joined), charset), "" if adjacent else gap
            charset, joined = match[1].lower(), []
        joined.append(_word_octets(match[2], match[3]))
        end = match.end()
    return "".join([*out, decode_text(b"".join(joined), charset), text[end:]])


def _word_octets(encoding: str, content: str) -> bytes:
    """The octets of one word. Missing padding and spaces inside a word are forgiven."""
    octets = content.encode("utf-8", "replace")
    if encoding in "bB":
        return decode_body(octets, "base64")
    return binascii.a2b_qp(octets.replace(b"\n", b""), header=True)


def encode_words(text: str, charset: str = "utf-8", always: bool = False) -> bytes:
    """`text` for an unstructured field: as it is if it is plain ASCII, else encoded words with spaces between.

    Each word is shorter than 75 octets and holds whole characters (RFC 2047 §5). `charset` is `utf-8` or `iso-2022-jp`; text
    that does not fit the latter goes out as UTF-8. Raises ValueError on CR, LF or NUL.
    """
    if _FORBIDDEN.search(text):
        raise ValueError("CR, LF or NUL in header text")
    if not always and _PLAIN.fullmatch(text) and "=?" not in text:
        return text.encode("ascii")
    if charset == "iso-2022-jp" and encode_jis(text) is None:
        charset = "utf-8"
    frame = f"=?{charset.upper()}?B?".encode("ascii"), b"?="
    room = (_WORD_OCTETS - len(frame[0]) - len(frame[1])) // 4 * 3
    words = (binascii.b2a_base64(piece, newline=False) for piece in _pieces(text, charset, room))
    return b" ".join(frame[0] + word + frame[1] for word in words)


def _pieces(text: str, charset: str, room: int) -> list[bytes]:
    """`text` in encoded pieces of at most `room` octets, cut between characters."""
    pieces: list[bytes] = []
    start = 0
    # A piece holds at least room // 9 characters: one kanji costs 2 octets plus two escapes in ISO-2022-JP, 4 in UTF-8.
    while start < len(text):
        length = min(room, len(text) - start)
        while len(piece := _encode(text[start : start + length], charset)) > room:
            length -= max(1, (len(piece) - room) // 4)
        pieces.append(piece)
        start += length
    return pieces


def _encode(text: str, charset: str) -> bytes:
    octets = encode_jis(text) if charset == "iso-2022-jp" else None
    return text.encode("utf-8", "replace") if octets is None else octets
