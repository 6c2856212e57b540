"""What a reader of other programs' mail finds: mailboxes and messages as values, octets on demand, nothing outside its place.

Contract: a file is opened below the source's own directory, without following a symbolic link anywhere on the way, and only
    if it is a plain file; a link, a pipe or a device in a mail store is somebody's trap.
Failure: OSError from `open_inside` and from reading.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

PIECE_OCTETS = 64 * 1024
MAX_SMALL_FILE = 64 * 1024 * 1024       # uid lists and the like


@dataclass(frozen=True, slots=True)
class FoundMessage:
    """where: for the report; internal_date: ms UTC, None unknown; sha256: hexadecimal, "" unknown; pieces: anew each time."""

    where: str
    flags: tuple[str, ...]
    internal_date: int | None
    pieces: Callable[[], Iterator[bytes]]
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class FoundMailbox:
    """messages: to be read before the next mailbox is asked for."""

    name: str
    special_use: str
    messages: Iterator[FoundMessage]


class Source(Protocol):
    """A mail store. whole: a whole account of ours; skipped: what was passed over;
    complete after the last mailbox."""

    kind: str
    whole: bool
    total: int
    subscriptions: list[str]
    skipped: list[str]

    def mailboxes(self) -> Iterator[FoundMailbox]: ...


def open_inside(root: Path, relative: str) -> BinaryIO:
    """A plain file below root."""
    parts = relative.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise OSError(errno.EINVAL, "not a name of a file below the directory", relative)
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            os.close(directory)
            directory = inner
        # Without O_NONBLOCK a pipe would keep us waiting for its writer.
        found = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    finally:
        os.close(directory)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise OSError(errno.EINVAL, "not a plain file", relative)
    return os.fdopen(found, "rb")


def read_small(root: Path, relative: str) -> bytes:
    """A file that need not be there; b"" without it."""
    try:
        with open_inside(root, relative) as file:
            return file.read(MAX_SMALL_FILE)
    except OSError:
        return b""


def file_pieces(root: Path, relative: str, start: int = 0, end: int = -1) -> Iterator[bytes]:
    """Octets start..end of a file; end -1: all."""
    with open_inside(root, relative) as file:
        file.seek(start)
        left = end - start if end >= 0 else -1
        while left and (piece := file.read(PIECE_OCTETS if left < 0 else min(PIECE_OCTETS, left))):
            yield piece
            left -= len(piece) if left > 0 else 0
