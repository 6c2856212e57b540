"""Header fields on raw octets: find, select, unfold, date; and write fields of our own.

Specification: RFC 5322 §2.2 (fields), §2.2.3 (folding), §3.3 and §4.3 (dates), RFC 9051 §6.4.5.1 (HEADER.FIELDS).
Contract: the octets of the fields that `fields` yields, put together, are the header block up to its blank line.
Failure: reading never raises: a line that is no field is a field without a name. Writing refuses CR, LF and NUL
    with ValueError, because a value that holds them is a bug of the caller or an attack on it.
"""

import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from fumibako.proto.message.words import FOLD, encode_words

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)\n?")
_OTHER = re.compile(rb"[^\n]*(?:\n[ \t][^\n]*)*\n?")
_NAME = re.compile(r"[!-9;-~]+")
_FORBIDDEN = re.compile(r"[\r\n\x00]")
_LINE_OCTETS = 76  # RFC 2047 §2: a line with an encoded word; RFC 5322 §2.1.1 would allow 78
_MAX_LINE_OCTETS = 998  # RFC 5322 §2.1.1

_UNSTRUCTURED = frozenset({"subject", "comments", "content-description"})

_MONTHS = {name: number for number, name in enumerate(b"jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}
_MONTH_NAMES = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_DAY_NAMES = "Mon Tue Wed Thu Fri Sat Sun".split()
# RFC 5322 §4.3 (obs-zone); JST is what Japanese senders add to it.
_ZONES = {b"ut": 0, b"gmt": 0, b"z": 0, b"utc": 0, b"edt": -240, b"est": -300, b"cdt": -300, b"cst": -360,
          b"mdt": -360, b"mst": -420, b"pdt": -420, b"pst": -480, b"jst": 540}  # fmt: skip
_TIME = rb"[ \t]{1,9}(\d{1,2}):(\d{1,2})(?::(\d{1,2}))?(?:[.,]\d{1,9})?"
_ZONE = rb"[ \t]{0,9}([+-]\d{4}|[A-Za-z]{1,5})?"
_DATE = re.compile(rb"(?<!\d)(\d{1,2})[ \t-]{1,9}([A-Za-z]{3})[A-Za-z]{0,6}[ \t-]{1,9}(\d{2,4})" + _TIME + _ZONE)
_ASCTIME = re.compile(rb"([A-Za-z]{3})[ \t]{1,9}(\d{1,2})" + _TIME + rb"[ \t]{1,9}(\d{4})")
_ISO = re.compile(rb"(\d{4})[-/](\d{2})[-/](\d{2})[T \t](\d{2}):(\d{2})(?::(\d{2}))?(?:\.\d{1,9})?[ \t]?(Z|[+-]\d{2}:?\d{2})?")
_DATE_OCTETS = 200


class HeaderField(NamedTuple):
    """One field: `block[start:end]` are its octets with the line end, `value_raw` what follows the colon, folds kept.

    A line that is no field (an mbox `From ` line, say) has the name b"".
    """

    name: bytes
    value_raw: bytes
    start: int
    end: int


def fields(block: bytes) -> Iterator[HeaderField]:
    """`fields = *(field-name *WSP ":" unstructured CRLF)`, up to the blank line or the end. LF alone ends a line too."""
    at, size = 0, len(block)
    while at < size and not block.startswith((b"\r\n", b"\n"), at):
        match = _FIELD.match(block, at)
        if match:
            yield HeaderField(match[1], match[2], at, match.end())
        else:
            match = _OTHER.match(block, at)
            assert match is not None  # matches anything
            yield HeaderField(b"", match[0], at, match.end())
        at = match.end()


def unfold(value_raw: bytes) -> bytes:
    """The value on one line (RFC 5322 §2.2.3), without white space around it."""
    return FOLD.sub(b"", value_raw).strip(b" \t\r\n") if b"\n" in value_raw else value_raw.strip(b" \t\r")


def field_values(block: bytes, name: bytes) -> list[bytes]:
    """The unfolded values of all fields called `name` (any case), in order."""
    wanted = name.lower()
    return [unfold(field.value_raw) for field in fields(block) if field.name.lower() == wanted]


def count_fields(block: bytes, name: bytes) -> int:
    """How many fields are called `name` (any case); what is asked of every message, so without taking them apart."""
    return len(re.findall(rb"(?im)^%b[ \t]*:" % re.escape(name), block))


def select_fields(block: bytes, names: Collection[bytes], negate: bool) -> bytes:
    """HEADER.FIELDS, or with `negate` HEADER.FIELDS.NOT: the octets of the fields as they are, and the blank line.

    A message without a blank line gets none (RFC 9051 §6.4.5.1).
    """
    wanted = {name.lower() for name in names}
    kept: list[bytes] = []
    end = 0
    for field in fields(block):
        end = field.end
        if (field.name.lower() in wanted) != negate:
            kept.append(block[field.start : end])
    blank = b"\r\n" if block.startswith(b"\r\n", end) else b"\n" if block.startswith(b"\n", end) else b""
    return b"".join(kept) + blank


def format_field(name: str, text: str) -> bytes:
    """`name: text` folded at white space, RFC 2047 words where the text is not ASCII, CRLF at the end.

    A structured field (From, To, Content-Type, …) takes text that is ASCII already (`format_mailbox`, `format_parameters`)
    and is folded only; in Subject, Comments, Content-Description and X- fields text that looks like an encoded word is
    encoded, so that it reads back as it was.
    Raises ValueError on CR, LF or NUL in either, or a name that is no field name.
    """
    if not _NAME.fullmatch(name) or _FORBIDDEN.search(text):
        raise ValueError(f"not a header field: {name!r}")
    unstructured = name.lower() in _UNSTRUCTURED or name.lower().startswith("x-")
    value = text if text.isascii() and not unstructured else encode_words(text).decode("ascii")
    if any(len(token) > _MAX_LINE_OCTETS - len(name) - 2 for token in value.split(" ")):
        value = encode_words(text, always=True).decode("ascii")
    return fold(f"{name}: {value}").encode("ascii")


def fold(line: str) -> str:
    """`Name: value` in lines of 76 characters where spaces allow (RFC 5322 §2.2.3, RFC 2047 §2), each ended by CRLF."""
    name, *tokens = line.split(" ")
    lines: list[str] = []
    current = name
    for token in tokens:
        if token and current != name and len(current) + 1 + len(token) > _LINE_OCTETS:
            lines.append(current)
            current = ""
        current += " " + token
    return "\r\n".join([*lines, current]) + "\r\n"


def parse_date(value: bytes) -> int | None:
    """Milliseconds since 1970 UTC of a Date value, or None. Reads RFC 5322 dates with the obsolete forms of its §4.3,
    asctime and ISO 8601 forms; day names and comments are not looked at. Without a zone it is UTC."""
    value = unfold(value[:_DATE_OCTETS])
    if match := _DATE.search(value):
        day, month, year, hour, minute, second, zone = match.groups()
        return _instant(_year(year), _MONTHS.get(month.lower(), 0), (day, hour, minute, second), _zone_minutes(zone))
    if match := _ASCTIME.search(value):
        month, day, hour, minute, second, year = match.groups()
        return _instant(int(year), _MONTHS.get(month.lower(), 0), (day, hour, minute, second), 0)
    if match := _ISO.search(value):
        year, month, day, hour, minute, second, zone = match.groups()
        return _instant(int(year), int(month), (day, hour, minute, second), _zone_minutes(zone))
    return None


def _year(digits: bytes) -> int:
    """RFC 5322 §4.3: two digits are 2000 to 2049 or 1950 to 1999, three digits count from 1900."""
    year = int(digits)
    if len(digits) == 2:
        return year + (2000 if year < 50 else 1900)
    return year + 1900 if len(digits) == 3 else year


def _zone_minutes(zone: bytes | None) -> int:
    """Minutes east of UTC; an unknown name is UTC (RFC 5322 §4.3 reads it as -0000)."""
    if not zone or zone[:1].isalpha():
        return _ZONES.get((zone or b"").lower(), 0)
    digits = zone[1:].replace(b":", b"")
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    return -minutes if zone[:1] == b"-" else minutes


def _instant(year: int, month: int, rest: tuple[bytes, bytes, bytes, bytes | None], zone_minutes: int) -> int | None:
    day, hour, minute, second = (int(part or b"0") for part in rest)
    leap = second == 60
    try:
        local = datetime(year, month, day, hour, minute, 59 if leap else second, tzinfo=UTC)
    except ValueError:
        return None
    seconds = (local.toordinal() - _EPOCH_DAY) * 86400 + hour * 3600 + minute * 60 + local.second + leap
    return (seconds - zone_minutes * 60) * 1000


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = _EPOCH.toordinal()


def format_date(instant_ms: int, offset_minutes: int) -> str:
    """`date-time` of RFC 5322 §3.3, e.g. `Fri, 26 Sep 2025 14:05:00 +0900`. `offset_minutes` is east of UTC."""
    return _format_second(instant_ms // 1000, offset_minutes)


@lru_cache(maxsize=8)       # all mail of a second has the same
def _format_second(instant_s: int, offset_minutes: int) -> str:
    local = _EPOCH + timedelta(seconds=instant_s, minutes=offset_minutes)
    sign, minutes = ("-", -offset_minutes) if offset_minutes < 0 else ("+", offset_minutes)
    return (
        f"{_DAY_NAMES[local.weekday()]}, {local.day} {_MONTH_NAMES[local.month - 1]} {local.year:04} "
        f"{local:%H:%M:%S} {sign}{minutes // 60:02}{minutes % 60:02}"
    )
