"""Sequence sets and UID sets as intervals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.imap.commands import STAR, SequenceSet
from fumibako.proto.imap.numbers import MAX_RANGES, format_sequence_set, format_uid_set, parse_sequence_set
from fumibako.proto.reader import ProtocolError


@pytest.mark.parametrize(("octets", "ranges"), [
    (b"1", ((1, 1),)), (b"2,4:7,9,12:*", ((2, 2), (4, 7), (9, 9), (12, STAR))), (b"*:4,5:7", ((STAR, 4), (5, 7))),
    (b"*", ((STAR, STAR),)), (b"1:4294967295", ((1, 2**32 - 1),)),
])
def test_parse(octets, ranges):
    assert parse_sequence_set(octets) == SequenceSet(ranges)
    assert format_sequence_set(SequenceSet(ranges)) == octets


def test_saved():
    assert parse_sequence_set(b"$") == SequenceSet((), saved=True)
    assert format_sequence_set(SequenceSet((), saved=True)) == b"$"


@pytest.mark.parametrize("octets", [b"", b"0", b"1,", b",1", b"1:", b":1", b"1:2:3", b"-1", b"+1", b"1_0",
    b" 1", b"01", b"4294967296",
                                    b"99999999999999999999", b"1,$", b"$$", b"a", "١".encode()])
def test_refused(octets):
    with pytest.raises(ProtocolError):
        parse_sequence_set(octets)


def test_number_of_ranges():
    assert len(parse_sequence_set(b",".join([b"1"] * MAX_RANGES)).ranges) == MAX_RANGES
    with pytest.raises(ProtocolError):
        parse_sequence_set(b",".join([b"1"] * (MAX_RANGES + 1)))


@pytest.mark.parametrize(("uids", "octets"), [
    ([], b""), ([7], b"7"), ([1, 2, 3, 7], b"1:3,7"), ([1, 3, 5], b"1,3,5"), ([4, 5, 9, 10, 11], b"4:5,9:11"),
])
def test_format_uid_set(uids, octets):
    assert format_uid_set(uids) == octets


@given(st.sets(st.integers(1, 2**32 - 1) | st.integers(1, 50)).map(sorted))
def test_round_trip(uids):
    octets = format_uid_set(uids)
    ranges = parse_sequence_set(octets).ranges if octets else ()
    assert [uid for low, high in ranges for uid in range(low, high + 1)] == uids
