"""mbox files: From_ lines, the quoting of lines that look like one, and the fields that keep flags.

Specification: RFC 4155 §A (the default format; what we write is its mboxrd variety, and dates are UTC).
Contract: pure, piece by piece, in constant memory and linear time. Unquoter undoes what Quoter did, octet by octet.
Failure: none: what is no From_ line is a line of a message.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from fumibako.proto.message.maildir import is_keyword

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# Fields that mbox programs put into messages for themselves, as Dovecot and mutt do: not part of a message.
OWN_FIELDS = frozenset({b"status", b"x-status", b"x-keywords", b"x-uid", b"x-imap", b"x-imapbase"})

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253402300799999
_LONE_LF = re.compile(rb"(?<!\r)\n")
_QUOTED = re.compile(rb"^>(>*)From ", re.MULTILINE)
_TO_QUOTE = re.compile(rb"^(>*)From ", re.MULTILINE)
_RUN = re.compile(rb">*(?:F(?:r(?:om?)?)?)?")
_FROM_LINE = re.compile(
    rb"From .*?([A-Z][a-z]{2}) +(\d{1,2}),? +(\d{1,2}):(\d\d)(?::(\d\d))? +"
    rb"(?:[A-Z]{1,5} +)?([+-]\d{4} +)?(\d{4})( +[+-]\d{4})?\s*")
_BY_LETTER = {"R": "\\Seen", "A": "\\Answered", "F": "\\Flagged", "D": "\\Deleted", "T": "\\Draft"}
_X_LETTERS = {"\\Answered": "A", "\\Flagged": "F", "\\Deleted": "D", "\\Draft": "T"}
_MOZILLA = {0x0001: "\\Seen", 0x0002: "\\Answered", 0x0004: "\\Flagged", 0x0008: "\\Deleted"}


def format_from_line(at_ms: int) -> bytes:
    """From MAILER-DAEMON Thu Nov 24 18:22:48 1986; UTC. Nobody reads the address: the Return-Path is in the message."""
    moment = _EPOCH + timedelta(milliseconds=min(max(at_ms, 0), _LAST_MS))
    day, month = DAYS[moment.weekday()], MONTHS[moment.month - 1]
    return f"From MAILER-DAEMON {day} {month} {moment.day:2d} {moment:%H:%M:%S} {moment.year:04d}\n".encode()


def parse_from_line(line: bytes) -> int | None:
    """The date of a From_ line in ms UTC; None for a line that is none."""
    if not line.startswith(b"From ") or not (found := _FROM_LINE.fullmatch(line)):
        return None
    name, day, hour, minute, second, before, year, behind = found.groups()
    if name.decode() not in MONTHS:
        return None
    fields = (int(year), MONTHS.index(name.decode()) + 1, int(day), int(hour), int(minute), int(second or 0))
    try:
        datetime(*fields, tzinfo=UTC)
    except ValueError:
        return None
    zone = (before or behind or b"+0000").strip()
    offset_s = (int(zone[1:3]) * 60 + int(zone[3:5])) * 60 * (-1 if zone[:1] == b"-" else 1)
    return max(0, (calendar.timegm(fields) - offset_s) * 1000)


def format_flag_fields(flags: Iterable[str]) -> bytes:
    """Status, X-Status and X-Keywords, the lines ended by LF: to stand in front of the message's own fields."""
    held = list(flags)
    status = "RO" if "\\Seen" in held else "O"
    letters = "".join(sorted(_X_LETTERS[name] for name in held if name in _X_LETTERS))
    keywords = " ".join(name for name in held if not name.startswith("\\"))
    lines = [f"Status: {status}", *([f"X-Status: {letters}"] if letters else []),
             *([f"X-Keywords: {keywords}"] if keywords else [])]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def flags_of(values: Mapping[bytes, bytes]) -> tuple[str, ...]:
    """Flags and keywords told by the fields of a message; names in lower case. Mozilla's are understood too."""
    letters = (values.get(b"status", b"") + values.get(b"x-status", b"")).decode("latin-1")
    found = {_BY_LETTER[letter]: None for letter in letters if letter in _BY_LETTER}
    try:
        mozilla = int(values.get(b"x-mozilla-status", b"0").strip()[:4], 16)
    except ValueError:
        mozilla = 0
    found |= {name: None for bit, name in _MOZILLA.items() if mozilla & bit}
    words = (values.get(b"x-keywords", b"") + b" " + values.get(b"x-mozilla-keys", b"")).decode("latin-1").split()
    found |= {word: None for word in words if is_keyword(word)}
    return tuple(found)


class _LineStarts:
    """Finds "From " behind any number of ">" at the start of lines, in pieces of whatever size."""

    def __init__(self, pattern: re.Pattern[bytes], replacement: bytes, keep: int) -> None:
        self._pattern, self._replacement = pattern, replacement
        self._keep = keep           # how many ">" of an unfinished run wait for what follows
        self._held, self._in_run = b"", True

    def feed(self, chunk: bytes) -> bytes:
        """The next octets, as far as they are known."""
        block = self._held + chunk
        begins_line, last = self._in_run, block.rfind(b"\n") + 1
        tail = block[last:]
        self._in_run = (last > 0 or begins_line) and _RUN.fullmatch(tail) is not None
        waiting = 0
        if self._in_run:
            marks = len(tail) - len(tail.lstrip(b">"))
            waiting = len(tail) - marks + min(self._keep, marks)
        self._held = block[len(block) - waiting :]
        return self._replaced(block[: len(block) - waiting], begins_line)

    def _replaced(self, block: bytes, begins_line: bool) -> bytes:
        if begins_line:
            return self._pattern.sub(self._replacement, block)
        return self._pattern.sub(self._replacement, b"x" + block)[1:]   # its first octet begins no line

    def close(self) -> bytes:
        held, self._held = self._held, b""
        return held


class Quoter(_LineStarts):
    """mboxrd: a line that begins with any number of ">" and "From " gets one ">" more."""

    def __init__(self) -> None:
        super().__init__(_TO_QUOTE, rb">\1From ", 0)


class Unquoter(_LineStarts):
    """mboxrd read: such a line loses one ">"."""

    def __init__(self) -> None:
        super().__init__(_QUOTED, rb"\1From ", 1)


class LineFeeds:
    """CRLF becomes LF. `exact` turns False at an octet that can't be given back: a CR or LF outside CRLF."""

    def __init__(self) -> None:
        self.exact = True
        self._cr = b""

    def feed(self, chunk: bytes) -> bytes:
        block = self._cr + chunk
        self._cr = b"\r" if block.endswith(b"\r") else b""
        block = block[: len(block) - len(self._cr)]
        pairs = block.count(b"\r\n")
        if block.count(b"\r") != pairs or block.count(b"\n") != pairs:
            self.exact = False
        return block.replace(b"\r\n", b"\n")

    def close(self) -> bytes:
        held, self._cr = self._cr, b""
        self.exact = self.exact and not held
        return held


class NetworkLines:
    """A lone LF becomes CRLF, as IMAP and SMTP servers do with files of a Unix; every other octet stays."""

    def __init__(self) -> None:
        self._cr = False

    def feed(self, chunk: bytes) -> bytes:
        if not chunk:
            return b""
        before = b"\r" if self._cr else b""
        self._cr = chunk[-1:] == b"\r"
        return _LONE_LF.sub(b"\r\n", before + chunk)[len(before) :]
