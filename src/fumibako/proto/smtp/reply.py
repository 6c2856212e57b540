"""SMTP replies: three digits, an enhanced status code, text.

Specification: RFC 5321 §4.2 (replies), §4.2.1 (multi-line), §4.5.3.1.5 (512 octets a line);
    RFC 2034 §4 (the status code begins the text of every line).
Contract: a Reply can't hold a line break, so no text of a peer can forge a second reply.
    `ReplyParser` is incremental and bounded: feed octets, take whole replies.
Failure: ValueError for a Reply that can't be; ProtocolError for octets that are none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from fumibako.model.status import Status
from fumibako.proto.reader import ProtocolError

LINE_MAX = 512          # RFC 5321 §4.5.3.1.5, CRLF included: what we send
PEER_LINE_MAX = 4096    # what we take: some servers write longer lines
PEER_LINES_MAX = 256
_SHORT_TEXT = 100       # characters that fit a line whatever they are

_TEXT = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
# Reply-line = Reply-code [ ("-" / SP) textstring ]
_REPLY_LINE = re.compile(rb"([2-5][0-5][0-9])(?:([ -])(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reply:
    """code 200-559; status of the same class, or None where RFC 2034 §4 wants none (220, EHLO, 334, 354).

    text: one line, or a tuple of lines, without code and status.
    """

    code: int
    status: Status | None = None
    text: str | tuple[str, ...] = ""
    _octets: bytes = field(default=b"", init=False, repr=False, compare=False)     # made once: most replies are constants

    def __post_init__(self) -> None:
        if not 200 <= self.code <= 559:
            raise ValueError(f"not a reply code: {self.code}")
        if self.status is not None and self.status.klass != self.code // 100:
            raise ValueError(f"status {self.status} does not fit code {self.code}")
        lines = self.lines
        if not lines or not all(map(_TEXT.fullmatch, lines)):
            raise ValueError(f"not reply text: {self.text!r}")

    @staticmethod
    def of(line: str) -> Reply:
        """"550 5.1.1 no such user" -> Reply: a reply as it is written; ValueError otherwise."""
        code, _, text = line.partition(" ")
        if not code.isdecimal():
            raise ValueError(f"not a reply: {line!r}")
        status, text = _split_status(int(code), text)
        return Reply(int(code), status, text)

    @property
    def lines(self) -> tuple[str, ...]:
        """The text as lines, at least one."""
        return (self.text,) if isinstance(self.text, str) else self.text

    @property
    def is_positive(self) -> bool:
        """2yz or 3yz."""
        return self.code < 400

    @property
    def is_transient(self) -> bool:
        """4yz: the same command may succeed later."""
        return 400 <= self.code < 500

    def __str__(self) -> str:
        head = f"{self.code} {self.status}" if self.status else str(self.code)
        return f"{head} {' / '.join(self.lines)}".rstrip()


def format_reply(reply: Reply) -> bytes:
    """The octets of a reply, CRLF included; text too long for a line runs on in the next."""
    if not reply._octets:
        object.__setattr__(reply, "_octets", _formatted(reply))
    return reply._octets


def _formatted(reply: Reply) -> bytes:
    status = f"{reply.status} " if reply.status else ""
    if isinstance(reply.text, str) and len(reply.text) <= _SHORT_TEXT:
        return f"{reply.code} {status}{reply.text}\r\n".encode()
    room = LINE_MAX - len(f"{reply.code}-{status}\r\n")
    lines = [piece for line in reply.lines for piece in _pieces(line.encode("utf-8"), room)]
    heads = [f"{reply.code}-{status}".encode("ascii")] * (len(lines) - 1) + [f"{reply.code} {status}".encode("ascii")]
    return b"".join(head + line + b"\r\n" for head, line in zip(heads, lines, strict=True))


def parse_reply(octets: bytes) -> Reply:
    """One whole reply; ProtocolError where there is less or more."""
    parser = ReplyParser()
    buffer = bytearray(octets)
    reply = parser.read(buffer)
    if reply is None or buffer:
        raise ProtocolError("not one whole reply")
    return reply


class ReplyParser:
    """Takes one reply after the other off the front of a buffer."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._code = 0
        self._scanned = 0       # no CRLF before this offset: never searched twice

    def read(self, buffer: bytearray) -> Reply | None:
        """The next reply, removed from `buffer`; None while it is not whole.  ProtocolError for anything else."""
        while (end := buffer.find(b"\r\n", self._scanned, PEER_LINE_MAX)) >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 2]
            self._scanned = 0
            if self._take(line):
                return self._finish()
        if len(buffer) >= PEER_LINE_MAX:
            raise ProtocolError("reply line too long")
        self._scanned = max(0, len(buffer) - 1)
        return None

    def _take(self, line: bytes) -> bool:
        """One line of a reply; True for its last."""
        if not (found := _REPLY_LINE.fullmatch(line)):
            raise ProtocolError("not a reply line")
        code = int(found[1])
        if self._lines and code != self._code:
            raise ProtocolError("reply code changes within a reply")
        if len(self._lines) >= PEER_LINES_MAX:
            raise ProtocolError("reply has too many lines")
        self._code = code
        self._lines.append(_readable(found[3] or b""))
        return found[2] != b"-"

    def _finish(self) -> Reply:
        lines, self._lines = self._lines, []
        parts = [_split_status(self._code, line) for line in lines]
        status = parts[0][0]
        if status is None or any(other != status for other, _ in parts):
            return Reply(self._code, None, lines[0] if len(lines) == 1 else tuple(lines))
        texts = tuple(text for _, text in parts)
        return Reply(self._code, status, texts[0] if len(texts) == 1 else texts)


def _split_status(code: int, text: str) -> tuple[Status | None, str]:
    """"5.1.1 no such user" -> (Status, "no such user") where the class fits the code, else (None, text)."""
    head, _, rest = text.partition(" ")
    try:
        status = Status.parse(head)
    except ValueError:
        return None, text
    return (status, rest) if status.klass == code // 100 else (None, text)


def _readable(octets: bytes) -> str:
    """A peer's text as a string; what is no text becomes U+FFFD, since a bad letter is no reason to lose the reply."""
    text = octets.decode("utf-8", "replace")
    return text if _TEXT.fullmatch(text) else "".join(c if _TEXT.fullmatch(c) else "\ufffd" for c in text)


def _pieces(octets: bytes, room: int) -> list[bytes]:
    """Cut at `room` octets, never inside a UTF-8 character."""
    pieces = []
    while len(octets) > room:
        cut = room
        while octets[cut] & 0xC0 == 0x80:
            cut -= 1
        pieces.append(octets[:cut])
        octets = octets[cut:]
    return [*pieces, octets]
