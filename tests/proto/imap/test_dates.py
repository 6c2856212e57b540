"""Dates and date-times, without a locale or the machine's zone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.imap.dates import format_date_time, parse_date, parse_date_time
from fumibako.proto.reader import ProtocolError


def test_dates():
    assert parse_date(b"1-Jan-1970") == 0
    assert parse_date(b"01-feb-1994") == 8797
    assert parse_date(b"29-Feb-2000") == 11016


@pytest.mark.parametrize("octets", [b"", b"1-Jan-70", b"29-Feb-2001", b"0-Jan-2000", b"1-Jan-0000",
    b"1-Foo-2000", b"1 Jan 2000", b"1-Jan-2000\n"])
def test_no_dates(octets):
    with pytest.raises(ProtocolError):
        parse_date(octets)


def test_date_times():
    assert parse_date_time(b"17-Jul-1996 02:44:25 -0700") == 837596665000
    assert parse_date_time(b" 1-Jan-1970 09:00:00 +0900") == 0
    assert format_date_time(837596665000) == b'"17-Jul-1996 09:44:25 +0000"'
    assert format_date_time(0) == b'" 1-Jan-1970 00:00:00 +0000"'
    assert format_date_time(-1) == b'" 1-Jan-1970 00:00:00 +0000"'
    assert format_date_time(2**63) == b'"31-Dec-9999 23:59:59 +0000"'


@pytest.mark.parametrize("octets", [
    b"", b"1-Jan-1970 00:00:00 +0000", b"17-Jul-1996 24:00:00 +0000", b"17-Jul-1996 02:44:25 0700", b"17-Jul-1996 02:44:25 +9900",
    b"31-Jun-1996 02:44:25 +0000", b"17-Jul-1996 02:44 +0000", b" 1-Jan-0001 00:00:00 +2359 ",
])
def test_no_date_times(octets):
    with pytest.raises(ProtocolError):
        parse_date_time(octets)


@given(st.integers(0, 253402300799))
def test_round_trip(seconds):
    assert parse_date_time(format_date_time(seconds * 1000)[1:-1]) == seconds * 1000
