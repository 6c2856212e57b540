"""Sequence sets and UID sets: kept as intervals, never expanded.

Specification: RFC 9051 §9 (sequence-set, uid-set), §6.4.4.1 ("$"); spec/reliability.md B3.
Contract: linear in the octets given; at most MAX_RANGES intervals; "*" is commands.STAR.
Failure: ProtocolError.
"""

from __future__ import annotations

from collections.abc import Iterable

from fumibako.proto.imap.commands import STAR, SequenceSet
from fumibako.proto.reader import ProtocolError, parse_uint

MAX_RANGES = 10_000
SAVED = SequenceSet((), saved=True)


def parse_sequence_set(octets: bytes) -> SequenceSet:
    """`2,4:7,9,12:*` -> ranges ((2, 2), (4, 7), (9, 9), (12, STAR)).

    sequence-set = (seq-number / seq-range) ["," sequence-set] / seq-last-command
    seq-range    = seq-number ":" seq-number
    seq-last-command = "$"
    """
    if octets == b"$":
        return SAVED
    if octets.count(b",") >= MAX_RANGES:
        raise ProtocolError(f"A sequence set has more than {MAX_RANGES} ranges")
    return SequenceSet(tuple([_parse_range(part) for part in octets.split(b",")]))


def _parse_range(octets: bytes) -> tuple[int, int]:
    low, colon, high = octets.partition(b":")
    first = _parse_number(low)
    return (first, _parse_number(high)) if colon else (first, first)


def _parse_number(octets: bytes) -> int:
    """seq-number = nz-number / "*" """
    if octets == b"*":
        return STAR
    value = parse_uint(octets, 10)
    if octets[:1] == b"0" or value >= 2**32:
        raise ProtocolError("A number in a sequence set is not from 1 to 4294967295")
    return value


def format_uid_set(uids: Iterable[int]) -> bytes:
    """Ascending numbers as `1:3,7`; b"" for none.

    uid-set = (uniqueid / uid-range) *("," uid-set)
    """
    parts: list[str] = []
    first = last = -1
    for uid in uids:
        if uid == last + 1 and last >= 0:
            last = uid
            continue
        if last >= 0:
            parts.append(f"{first}:{last}" if last > first else str(first))
        first = last = uid
    if last >= 0:
        parts.append(f"{first}:{last}" if last > first else str(first))
    return ",".join(parts).encode("ascii")


def format_sequence_set(numbers: SequenceSet) -> bytes:
    """The set as written; the reverse of parse_sequence_set."""
    if numbers.saved:
        return b"$"
    return b",".join(
        _format_number(low) if low == high else _format_number(low) + b":" + _format_number(high)
        for low, high in numbers.ranges
    )


def _format_number(value: int) -> bytes:
    return b"*" if value == STAR else b"%d" % value
