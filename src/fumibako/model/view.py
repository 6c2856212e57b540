"""A mailbox as packed arrays: uid, flags, modseq, 20 octets a message, shared by every session of a process.

Contract: arrays are parallel and ordered by uid; index + 1 is the sequence number of RFC 9051 §2.3.1.2.
    Flags and modseq change in place and arrivals are appended, in one generation; an expunge makes a new
    View of the next generation, so that a session that may not be told yet keeps its own numbers.
Failure: ValueError when the arrays are not parallel.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left

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

    def index(self, uid: int) -> int:
        """Position of uid, or -1."""
        at = bisect_left(self.uids, uid)
        return at if at < len(self.uids) and self.uids[at] == uid else -1
