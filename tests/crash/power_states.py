"""What a disk may hold when the power goes: everything up to a completed flush, and of what came after it any part.

A disk promises one thing: what was written before a flush that has completed is there. Of later writes it may have kept none (the
worst case), some in any order (a subset), or the first sectors of the last one (torn).
"""

from __future__ import annotations

import mmap
import os
import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.power_disk import copy_sparse, punch
from tests.crash.power_log import DISCARD, FLUSH, RECORD

SECTOR, PAGE = 512, 4096


@dataclass(frozen=True, slots=True)
class Write:
    """end: position in the log behind it; at: place of its octets in the log, -1 for zeros."""

    end: int
    offset: int
    size: int
    at: int


@dataclass(frozen=True, slots=True)
class Epoch:
    """From the completion of one flush to that of the next. start, end: positions in the log; writes: those between."""

    number: int
    start: int
    end: int
    writes: tuple[Write, ...]


@dataclass(frozen=True, slots=True)
class State:
    """The epoch's base, then `kept`: pieces of its writes.

    written: no write after this position is in it; cut: the last position at which the power can have gone. kind: worst, subset
    or torn; at: what was cut, "flush" or "ack".
    """

    epoch: int
    kind: str
    at: str
    written: int
    cut: int
    kept: tuple[Write, ...] = ()


class DiskLog:
    """The log up to position `end`, cut into epochs."""

    def __init__(self, path: Path, end: int) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.octets = mmap.mmap(self._file, end, prot=mmap.PROT_READ)
        self.epochs = list(self._cut(end))

    def _cut(self, end: int) -> Iterator[Epoch]:
        start = position = number = 0
        writes: list[Write] = []
        while position + RECORD.size <= end:
            kind, offset, size = RECORD.unpack_from(self.octets, position)
            position += RECORD.size
            if kind == FLUSH:
                yield Epoch(number, start, position, tuple(writes))
                number, start, writes = number + 1, position, []
            elif kind == DISCARD:
                writes.append(Write(position, offset, size, -1))
            else:
                writes.append(Write(position + size, offset, size, position))
                position += size
        yield Epoch(number, start, end + 1, tuple(writes))

    def close(self) -> None:
        self.octets.close()
        os.close(self._file)


def all_states(log: DiskLog, begin: int, acks: Sequence[int], subsets: int, chance: random.Random) -> list[State]:
    """States of every flush and every acknowledgement (positions, sorted) from `begin` on.

    The worst case of a flush is that of each acknowledgement before the next one, so it answers for all of them.
    """
    found: list[State] = []
    for epoch in log.epochs:
        if epoch.end <= begin:
            continue
        found.append(State(epoch.number, "worst", "flush", epoch.start, epoch.end - 1))
        told = acks[bisect_left(acks, epoch.start):bisect_left(acks, epoch.end)]
        ends = [write.end for write in epoch.writes]
        for position in sorted({*told, epoch.end - 1}):
            pending = epoch.writes[:bisect_right(ends, position)]
            if pending and position >= begin:
                at = "ack" if position in told else "flush"
                kept = [(f"subset{number}", _subset(pending, chance)) for number in range(subsets)]
                kept.append(("torn", _torn(pending, chance)))
                found += [State(epoch.number, kind, at, position, position, pieces) for kind, pieces in kept]
    return _without_twins(found)


def _without_twins(states: Iterable[State]) -> list[State]:
    """One of those that are the same image and owe the same."""
    return list({(state.epoch, state.written, state.cut, state.kept): state for state in states}.values())


def _subset(writes: Sequence[Write], chance: random.Random) -> tuple[Write, ...]:
    """Whole writes, or pages of them, each kept with the same chance."""
    pieces = [page for write in writes for page in _pages(write)] if chance.random() < 0.5 else list(writes)
    share = chance.choice((0.2, 0.5, 0.8))
    return tuple(piece for piece in pieces if chance.random() < share)


def _pages(write: Write) -> Iterator[Write]:
    for start in range(0, write.size, PAGE):
        yield _part(write, start, min(PAGE, write.size - start))


def _torn(writes: Sequence[Write], chance: random.Random) -> tuple[Write, ...]:
    """All, but of the last one only so many sectors."""
    last = writes[-1]
    sectors = chance.randrange(max(1, last.size // SECTOR))
    return (*writes[:-1], _part(last, 0, sectors * SECTOR))


def _part(write: Write, start: int, size: int) -> Write:
    return Write(write.end, write.offset + start, size, write.at + start if write.at >= 0 else -1)


@dataclass(slots=True)
class Builder:
    """Makes images of states in the order of their epochs. base: an image that moves along; image: the one that is asked for."""

    log: DiskLog
    base: Path
    image: Path
    epoch: int = field(default=0, init=False)

    def build(self, state: State) -> None:
        assert state.epoch >= self.epoch, "epochs go forward"
        with self.base.open("r+b") as file:
            for epoch in self.log.epochs[self.epoch:state.epoch]:
                self._apply(file.fileno(), epoch.writes)
        self.epoch = state.epoch
        copy_sparse(self.base, self.image)
        with self.image.open("r+b") as file:
            self._apply(file.fileno(), state.kept)

    def _apply(self, descriptor: int, writes: Iterable[Write]) -> None:
        for write in writes:
            octets = self.log.octets[write.at:write.at + write.size] if write.at >= 0 else b""
            if not octets.strip(b"\0") and write.offset % PAGE == 0 and write.size % PAGE == 0:
                punch(descriptor, write.offset, write.size)
            else:
                os.pwrite(descriptor, octets or bytes(write.size), write.offset)
