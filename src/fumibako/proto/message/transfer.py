"""Content transfer encodings: tolerant incremental decoders, and encoders for what we write.

Specification: RFC 2045 §6 (mechanisms), §6.7 (quoted-printable), §6.8 (base64).
Contract: `decoder(name)` gives an object with `feed(chunk) -> bytes` and `close() -> bytes`; any cut of the input gives
    the same output. This is the one place that skips junk in base64, because mail bodies hold it; protocols do not use it.
Failure: never raises on any octets; an unknown encoding is None (RFC 9051 §7.1, UNKNOWN-CTE).
"""

import binascii
import re
from typing import Protocol

_BASE64_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_BASE64_JUNK = bytes(octet for octet in range(256) if octet not in _BASE64_ALPHABET)
_PADDING = re.compile(rb"=+")
# An `=` that begins nothing stays; binascii would swallow some of them and what follows.
_STRAY_EQUALS = re.compile(rb"=(?![0-9A-Fa-f]{2}|\r?\n|\Z)")
_IDENTITY = frozenset({"7bit", "8bit", "binary", ""})
# RFC 2045 §6.7 (5): an encoded line is at most 76 characters; whoever sends 64 KiB of one line gets it in pieces.
_LINE_LIMIT_OCTETS = 65536
_BASE64_LINE_OCTETS = 57  # 76 characters


class Decoder(Protocol):
    """One body on its way from wire form to content."""

    def feed(self, chunk: bytes) -> bytes: ...

    def close(self) -> bytes: ...


class Identity:
    """7bit, 8bit and binary: the octets themselves."""

    def feed(self, chunk: bytes) -> bytes:
        return chunk

    def close(self) -> bytes:
        return b""


class Base64:
    """Skips what is not in the alphabet; padding in the middle ends one run and the next begins afresh."""

    def __init__(self) -> None:
        self._run = b""

    def feed(self, chunk: bytes) -> bytes:
        pieces = _PADDING.split(self._run + chunk.translate(None, _BASE64_JUNK))
        last = pieces.pop()
        whole = len(last) // 4 * 4
        self._run = last[whole:]
        return b"".join(map(_decode_run, pieces)) + binascii.a2b_base64(last[:whole])

    def close(self) -> bytes:
        run, self._run = self._run, b""
        return _decode_run(run)


def _decode_run(run: bytes) -> bytes:
    """A run of alphabet characters without padding; a lone last character holds less than an octet."""
    if len(run) % 4 == 1:
        run = run[:-1]
    return binascii.a2b_base64(run + b"=" * (-len(run) % 4))


class QuotedPrintable:
    """Decodes by lines: white space at a line's end is transport padding (RFC 2045 §6.7 (3))."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._cut_at = _LINE_LIMIT_OCTETS

    def feed(self, chunk: bytes) -> bytes:
        seen = len(self._pending)
        self._pending += chunk
        end = self._pending.rfind(b"\n", seen) + 1
        if not end and len(self._pending) > self._cut_at:
            end = _safe_cut(self._pending)
            self._cut_at = max(_LINE_LIMIT_OCTETS, 2 * (len(self._pending) - end))
        whole = bytes(self._pending[:end])
        del self._pending[:end]
        return _decode_lines(whole)

    def close(self) -> bytes:
        rest = bytes(self._pending)
        self._pending.clear()
        return _decode_lines(rest)


def _safe_cut(line: bytearray) -> int:
    """Where an overlong line may be cut: not in `=XX`, not after white space or `=` that may turn out to end it."""
    cut = len(line) - 2
    at = line.rfind(b"=", cut - 2, cut)
    return len(line[: cut if at < 0 else at].rstrip(b" \t\r="))


def _decode_lines(lines: bytes) -> bytes:
    if b" \r\n" in lines or b"\t\r\n" in lines or b" \n" in lines or b"\t\n" in lines or lines[-1:] in (b" ", b"\t"):
        lines = b"\n".join(map(_strip_padding, lines.split(b"\n")))
    return binascii.a2b_qp(_STRAY_EQUALS.sub(b"=3D", lines))


def _strip_padding(line: bytes) -> bytes:
    return line[:-1].rstrip(b" \t") + b"\r" if line.endswith(b"\r") else line.rstrip(b" \t")


def decoder(encoding: str) -> Decoder | None:
    """The decoder for a Content-Transfer-Encoding value (any case), or None if nobody knows it."""
    name = encoding.strip().lower()
    if name == "base64":
        return Base64()
    if name == "quoted-printable":
        return QuotedPrintable()
    return Identity() if name in _IDENTITY else None


def decode_body(octets: bytes, encoding: str) -> bytes:
    """A whole body at once; an unknown encoding leaves it as it is."""
    chosen = decoder(encoding) or Identity()
    return chosen.feed(octets) + chosen.close()


def encode_base64(content: bytes) -> bytes:
    """Lines of 76 characters, each ended by CRLF."""
    starts = range(0, len(content), _BASE64_LINE_OCTETS)
    lines = (binascii.b2a_base64(content[at : at + _BASE64_LINE_OCTETS], newline=False) for at in starts)
    return b"".join(line + b"\r\n" for line in lines)


def encode_quoted_printable(text: bytes) -> bytes:
    """CRLF text with every line at most 76 characters; line ends stay line ends."""
    out: list[bytes] = []
    for line in text.split(b"\r\n"):
        units = [b"%c" % octet if 32 <= octet < 127 and octet != 61 else b"=%02X" % octet for octet in line]
        if units and units[-1] == b" ":
            units[-1] = b"=20"
        out.append(_soft_break(units))
    return b"\r\n".join(out)


def _soft_break(units: list[bytes]) -> bytes:
    """One line of encoded units, broken by `=` CRLF before it gets longer than 76 characters."""
    lines: list[bytes] = []
    line = b""
    for unit in units:
        if len(line) + len(unit) > 75:
            lines.append(line)
            line = b""
        line += unit
    return b"=\r\n".join([*lines, line])
