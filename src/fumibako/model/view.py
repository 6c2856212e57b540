"""A mailbox as packed arrays: uid, flags, modseq, 20 octets a message, shared by every session of a process.

Contract: arrays are parallel and ordered by uid; index + 1 is the sequence number of RFC 9051 §2.3.1.2.
    Flags and modseq change in place and arrivals are appended, in one generation; an expunge makes a new
    View of the next generation, so that a session that may not be told yet keeps its own numbers.
Failure: ValueError when the arrays are not parallel.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from functools import reduce
from operator import or_

from fumibako.model.ids import ModSeq


class View:
    """uids: array('I'), flags: array('Q'), modseqs: array('Q')."""

    __slots__ = ("flags", "generation", "highest_modseq", "modseqs", "uid_next", "uid_validity", "uids")

    def __init__(self, uids: array[int], flags: array[int], modseqs: array[int], *,
                 uid_validity: int, uid_next: int, highest_modseq: ModSeq) -> None:
        if not len(uids) == len(flags) == len(modseqs):
            raise ValueError("a view's arrays are parallel")
        self.uids, self.flags, self.modseqs = uids, flags, modseqs
        self.uid_validity, self.uid_next, self.highest_modseq = uid_validity, uid_next, highest_modseq
        self.generation = 0

    def __len__(self) -> int:
        return len(self.uids)

    def first_without(self, bit: int) -> int:
        """Position of the first message without this one of the lowest 8 flag bits, or -1."""
        for start in range(0, len(self.flags), _ROWS):
            if (at := _marks(self.flags, start, bit).find(0)) >= 0:
                return start + at
        return -1

    def each_with(self, bit: int) -> Iterator[int]:
        """Positions of the messages that have this one of the lowest 8 flag bits, ascending."""
        for start in range(0, len(self.flags), _ROWS):
            marks, at = _marks(self.flags, start, bit), -1
            while (at := marks.find(1, at + 1)) >= 0:
                yield start + at

    def any_flags(self) -> int:
        """Every flag bit that some message has."""
        found = 0
        for start in range(0, len(self.flags), _ROWS):
            found = reduce(or_, set(self.flags[start : start + _ROWS]), found)     # mailboxes have few different words
        return found

    def index(self, uid: int) -> int:
        """Position of uid, or -1."""
        at = bisect_left(self.uids, uid)
        return at if at < len(self.uids) and self.uids[at] == uid else -1


# Octet -> whether it has the bit. The system flags stand in the lowest octet of a word, and octets are looked through by the
# million in a millisecond, where a loop over words takes a tenth of a second.
_BITS = {1 << at: bytes(octet >> at & 1 for octet in range(256)) for at in range(8)}
_LOWEST = 0 if sys.byteorder == "little" else 7
_ROWS = 16_384      # at once: what is copied on the way stays small


def _marks(flags: array[int], start: int, bit: int) -> bytes:
    """1 for each message that has the bit and 0 for each other, of _ROWS messages."""
    return flags[start : start + _ROWS].tobytes()[_LOWEST::8].translate(_BITS[bit])
