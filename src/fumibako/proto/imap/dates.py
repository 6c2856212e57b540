"""IMAP dates and date-times.

Specification: RFC 9051 §9 (date, date-time), §6.4.4 (search dates have no time zone).
Contract: a date is days since 1970-01-01; a date-time is milliseconds since then, UTC; month names never depend on a locale.
Failure: ProtocolError.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone

from fumibako.proto.reader import ProtocolError

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_NUMBER = {name.lower().encode("ascii"): number for number, name in enumerate(_MONTHS, 1)}
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253402300799999      # 9999-12-31, the last year a date-time can write

_DATE = re.compile(rb"(\d{1,2})-([A-Z]{3})-(\d{4})", re.IGNORECASE)
_DATE_TIME = re.compile(rb"( \d|\d\d)-([A-Z]{3})-(\d{4}) (\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)", re.IGNORECASE)


def parse_date(octets: bytes) -> int:
    """`1-Feb-1994` -> 8797.

    date-text = date-day "-" date-month "-" date-year;  date-day = 1*2DIGIT
    """
    if not (found := _DATE.fullmatch(octets)):
        raise ProtocolError("A date is not of the form 1-Feb-1994")
    try:
        return date(int(found[3]), _month(found[2]), int(found[1])).toordinal() - _EPOCH_DAY
    except ValueError:
        raise ProtocolError("There is no such day") from None


def parse_date_time(octets: bytes) -> int:
    """`17-Jul-1996 02:44:25 -0700` (without its quotes) -> 837596665000.

    date-time = DQUOTE date-day-fixed "-" date-month "-" date-year SP time SP zone DQUOTE
    """
    if not (found := _DATE_TIME.fullmatch(octets)):
        raise ProtocolError("A date-time is not of the form 17-Jul-1996 02:44:25 -0700")
    day, _, year, hour, minute, second = (int(found[n]) if n != 2 else 0 for n in range(1, 7))
    offset = timedelta(hours=int(found[8]), minutes=int(found[9]))
    try:
        zone = timezone(-offset if found[7] == b"-" else offset)
        moment = datetime(year, _month(found[2]), day, hour, minute, second, tzinfo=zone)
        return (moment - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        raise ProtocolError("There is no such date-time") from None


def _month(name: bytes) -> int:
    if not (number := _MONTH_NUMBER.get(name.lower())):
        raise ProtocolError("There is no such month")
    return number


def format_date_time(at_ms: int) -> bytes:
    """A time as `"17-Jul-1996 09:44:25 +0000"`, quotes included; always UTC. Clamped to the years 1970..9999."""
    moment = _EPOCH + timedelta(milliseconds=min(max(at_ms, 0), _LAST_MS))
    text = f'"{moment.day:2d}-{_MONTHS[moment.month - 1]}-{moment.year:04d} {moment:%H:%M:%S} +0000"'
    return text.encode("ascii")
