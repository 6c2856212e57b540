"""FETCH responses of many messages at once: one template a chunk, filled from parallel columns.

Specification: RFC 9051 §7.5.2 (FETCH).
Contract: rows come out in the order given, each a whole `* seq FETCH (...)` line, in chunks of at most CHUNK_ROWS rows, so that
    memory stays bounded and the caller can give way between chunks. No Python code runs per row.
Failure: none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

CHUNK_ROWS = 2000

UID = "UID %d"
FLAGS = "FLAGS %s"
MODSEQ = "MODSEQ (%d)"
SIZE = "RFC822.SIZE %d"

Column = tuple[str, Sequence[object]]


class FlagLists(dict[int, str]):
    """Flag words to flag lists, each made once: `lists[3]` -> "(\\\\Seen \\\\Answered)".

    names: the flags of a word, spelled out (system flags and the account's keywords).
    """

    def __init__(self, names: Callable[[int], Sequence[str]]) -> None:
        super().__init__()
        self._names = names

    def __missing__(self, word: int) -> str:
        text = self[word] = "(" + " ".join(self._names(word)) + ")"
        return text


def render_fetch(numbers: Sequence[int], columns: Sequence[Column]) -> Iterator[bytes]:
    """numbers: sequence numbers; a column is an item's template (UID, FLAGS, ... above) and one value a row, US-ASCII."""
    row = "* %d FETCH (" + " ".join(template for template, _ in columns) + ")\r\n"
    width = len(columns) + 1
    template = row * min(CHUNK_ROWS, len(numbers))
    for start in range(0, len(numbers), CHUNK_ROWS):
        chunk = numbers[start:start + CHUNK_ROWS]
        values: list[object] = [None] * (len(chunk) * width)
        values[0::width] = chunk
        for place, (_, column) in enumerate(columns, 1):
            values[place::width] = column[start:start + CHUNK_ROWS]
        if len(chunk) < CHUNK_ROWS:
            template = row * len(chunk)
        yield (template % tuple(values)).encode("ascii")


def render_expunge(numbers: Sequence[int]) -> Iterator[bytes]:
    """`* 3 EXPUNGE` for each, in order (RFC 9051 §7.5.1)."""
    for start in range(0, len(numbers), CHUNK_ROWS):
        chunk = tuple(numbers[start:start + CHUNK_ROWS])
        yield b"* %d EXPUNGE\r\n" * len(chunk) % chunk


def render_flags_fetch(
    numbers: Sequence[int], flags: Sequence[int], lists: FlagLists, *,
    uids: Sequence[int] | None = None, modseqs: Sequence[int] | None = None,
) -> Iterator[bytes]:
    """`* 3 FETCH (UID 7 FLAGS (\\Seen) MODSEQ (12))` for each row; flags are the words of `model.mailbox`."""
    columns: list[Column] = [] if uids is None else [(UID, uids)]
    columns.append((FLAGS, [lists[word] for word in flags]))
    if modseqs is not None:
        columns.append((MODSEQ, modseqs))
    return render_fetch(numbers, columns)
