"""Whose turn it is at the writer: pieces of bulk work go one by one between the batches of everybody else's operations.

Contract: short operations keep their order, and so do long ones; a short one overtakes long ones that wait, but whatever
    waits meets at most one batch of the other kind before it. So nobody waits for more than the piece that is under way
    and for those of his own kind before him, however many others store and expunge in bulk; and a group commit of
    deliveries is never made longer by somebody's bulk. Nobody relies on the order of two operations of which neither
    is answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from fumibako.model.frames import Command
from fumibako.model.ops import Append, Copy, Expunge, Move, Recover, SetFlags
from fumibako.store.base import PIECE_UIDS

BATCH = 128         # short operations in one commit
LONG_ROWS = 32      # an operation on more messages than that is a piece of bulk work

T = TypeVar("T")


class Turns(Generic[T]):
    """What waits for the writer; operation_of: what a waiting one asks for."""

    def __init__(self, operation_of: Callable[[T], Command]) -> None:
        self._operation_of = operation_of
        self._short: deque[T] = deque()
        self._long: deque[tuple[int, T]] = deque()
        self._long_is_next = False

    def __len__(self) -> int:
        return len(self._short) + len(self._long)

    def add(self, waiting: T) -> None:
        rows = rows_of(self._operation_of(waiting))
        if rows > LONG_ROWS:
            self._long.append((rows, waiting))
        else:
            self._short.append(waiting)

    def take(self) -> list[T]:
        """The next batch; empty where nothing waits."""
        if self._short and not (self._long and self._long_is_next):
            self._long_is_next = True
            return [self._short.popleft() for _ in range(min(BATCH, len(self._short)))]
        self._long_is_next = False
        return self._take_long()

    def _take_long(self) -> list[T]:
        """As many as make up one piece: small ones of several accounts share a commit."""
        batch: list[T] = []
        rows = 0
        while self._long and (not batch or rows + self._long[0][0] <= PIECE_UIDS):
            more, waiting = self._long.popleft()
            batch.append(waiting)
            rows += more
        return batch

    def take_short(self, wanted: Callable[[T], bool]) -> list[T]:
        """Only those that are wanted; the others stay where they are."""
        batch: list[T] = []
        others: deque[T] = deque()
        for waiting in self._short:
            (batch if wanted(waiting) else others).append(waiting)
        self._short = others
        return batch


def rows_of(operation: Command) -> int:
    """How many messages it is about, as far as that makes it long."""
    match operation:
        case SetFlags() | Copy() | Move() | Expunge():
            return len(operation.uids)
        case Append():
            return len(operation.messages)
        case Recover():
            return len(operation.email_ids) or PIECE_UIDS
        case _:
            return 1
