"""The files of an export: a Maildir++ or one mbox a mailbox, each under its name only when it is whole.

Contract: everything lies below one directory, which was empty. `begin`, `put` for each message, `end` for each mailbox;
    `abandon` takes away what is unfinished and leaves what is whole. Only the command line writes exports: nothing else
    waits on its event loop, so files are written where they are.
Failure: OSError, disk full; `Unreadable` for a message whose octets the store can't give: nothing of it stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from fumibako.model.mailbox import DELIMITER, Entry, Mailbox
from fumibako.proto.message.maildir import (
    digest,
    format_directory,
    format_flags,
    format_keywords,
    format_subscriptions,
    format_uid_list_head,
    format_uid_list_line,
)
from fumibako.proto.message.manifest import ManifestMessage
from fumibako.proto.message.mbox import LineFeeds, Quoter, format_flag_fields, format_from_line

UNFINISHED = "unfinished"
UNFINISHED_MBOX = ".unfinished"     # no name of ours begins with "."
MAX_LEVEL_OCTETS = 200


class Unreadable(Exception):
    """The store can't give the octets of a message."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to be written. octets: may be asked for twice."""

    entry: Entry
    flags: tuple[str, ...]
    octets: Callable[[], AsyncIterator[bytes]]


class Writing(Protocol):
    """One format of export."""

    def begin(self, mailbox: Mailbox, keywords: Sequence[str]) -> str:
        """Returns where the mailbox will lie, below the export."""

    async def put(self, message: Outgoing) -> ManifestMessage: ...
    def end(self) -> None: ...
    def finish(self, subscriptions: Sequence[str]) -> None: ...
    def abandon(self) -> None: ...


def create(path: Path) -> BinaryIO:
    """A new file that only its owner may read."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "w+b")


def sync_directory(path: Path) -> None:
    """The names in it are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class MaildirWriting:
    """INBOX at the top, ".Sub.Mailbox" beside it."""

    def __init__(self, root: Path) -> None:
        self._root, self._place = root, root / UNFINISHED
        self._directory, self._keywords = "", tuple[str, ...]()
        self._taken: set[str] = set()
        self._uids: BinaryIO | None = None

    def begin(self, mailbox: Mailbox, keywords: Sequence[str]) -> str:
        self._directory = format_directory(mailbox.name, self._taken)
        self._taken.add(self._directory)
        self._keywords = tuple(keywords)
        for name in ("", "cur", "new", "tmp"):
            (self._place / name).mkdir(0o700)
        if keywords:
            with create(self._place / "dovecot-keywords") as file:
                file.write(format_keywords(keywords))
        if self._directory:
            create(self._place / "maildirfolder").close()
        self._uids = create(self._place / "dovecot-uidlist")
        self._uids.write(format_uid_list_head(mailbox.uid_validity, mailbox.uid_next))
        return self._directory

    async def put(self, message: Outgoing) -> ManifestMessage:
        entry, hashed = message.entry, hashlib.sha256()
        seconds, ms = divmod(entry.internal_date, 1000)
        base = f"{seconds}.M{ms * 1000}P{entry.uid}.fumibako,S={entry.size_octets}"
        name = f"{base}:2,{format_flags(message.flags, self._keywords)}"
        path = self._place / "cur" / name
        try:
            with create(path) as file:
                async for piece in message.octets():
                    hashed.update(piece)
                    file.write(piece)
        except Unreadable:
            path.unlink()
            raise
        os.utime(path, ns=(entry.internal_date * 1_000_000, entry.internal_date * 1_000_000))
        assert self._uids is not None
        self._uids.write(format_uid_list_line(entry.uid, base))
        file_name = f"{self._directory}/cur/{name}".removeprefix("/")
        return ManifestMessage(file_name, entry.uid, message.flags, entry.internal_date, entry.saved_at, entry.size_octets,
                               hashed.hexdigest())

    def end(self) -> None:
        assert self._uids is not None
        self._uids.close()
        if self._directory:
            self._place.rename(self._root / self._directory)
            return
        # "cur" last: without it there is no INBOX.
        for name in sorted(os.listdir(self._place), key=lambda one: one == "cur"):
            (self._place / name).rename(self._root / name)
        self._place.rmdir()

    def finish(self, subscriptions: Sequence[str]) -> None:
        with create(self._root / "subscriptions") as file:
            file.write(format_subscriptions(subscriptions))

    def abandon(self) -> None:
        if self._uids is not None:
            with contextlib.suppress(OSError):      # the disk is full: what could not be written is taken away anyway
                self._uids.close()
        shutil.rmtree(self._place, ignore_errors=True)


class MboxWriting:
    """"Work/2024" becomes Work/2024.mbox."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path, self._name = root, ""
        self._file: BinaryIO | None = None
        self._taken: set[str] = set()

    def begin(self, mailbox: Mailbox, keywords: Sequence[str]) -> str:
        levels = [_file_level(level) for level in mailbox.name.split(DELIMITER)]
        name = "/".join(levels) + ".mbox"
        if name in self._taken:
            name = "/".join([*levels[:-1], f"{levels[-1]}_{digest(mailbox.name)}"]) + ".mbox"
        self._taken.add(name)
        self._name, self._path = name, self._root / name
        self._path.parent.mkdir(0o700, parents=True, exist_ok=True)
        self._file = create(self._path.with_name(UNFINISHED_MBOX))
        return name

    async def put(self, message: Outgoing) -> ManifestMessage:
        file, entry = self._file, message.entry
        assert file is not None
        begin = file.tell()
        file.write(format_from_line(entry.internal_date) + format_flag_fields(message.flags))
        offset = file.tell()
        try:
            sha256, exact = await _copy(file, message, LineFeeds())
            if not exact:       # CR and LF for themselves: no line end of a Unix can stand for them
                file.seek(offset)
                file.truncate()
                sha256, _ = await _copy(file, message, None)
        except Unreadable:
            file.seek(begin)
            file.truncate()
            raise
        octets = file.tell() - offset
        file.seek(-1, os.SEEK_END)
        file.write(b"\n" if file.read(1) == b"\n" else b"\n\n")      # an empty line, and one begun is ended first
        return ManifestMessage(self._name, entry.uid, message.flags, entry.internal_date, entry.saved_at, entry.size_octets,
                               sha256, offset, octets, "lf" if exact else "as is")

    def end(self) -> None:
        assert self._file is not None
        self._file.close()
        self._path.with_name(UNFINISHED_MBOX).rename(self._path)

    def finish(self, subscriptions: Sequence[str]) -> None:
        """The manifest has them."""

    def abandon(self) -> None:
        if self._file is not None and not self._file.closed:
            with contextlib.suppress(OSError):
                self._file.close()
            self._path.with_name(UNFINISHED_MBOX).unlink(missing_ok=True)


async def _copy(file: BinaryIO, message: Outgoing, lines: LineFeeds | None) -> tuple[str, bool]:
    """Returns the SHA-256 and whether the octets can be given back. lines: None leaves line ends as they are."""
    quoter, hashed = Quoter(), hashlib.sha256()
    async for piece in message.octets():
        hashed.update(piece)
        file.write(quoter.feed(lines.feed(piece) if lines else piece))
        if lines and not lines.exact:
            return "", False
    file.write(quoter.feed(lines.close() if lines else b"") + quoter.close())
    return hashed.hexdigest(), lines is None or lines.exact


def _file_level(level: str) -> str:
    """A level of a mailbox's name as a file may be called."""
    if level.startswith("."):
        level = f"_{level}"
    if level.endswith(".mbox"):     # a directory of that name would stand in the way of a file
        level = f"{level}_"
    if len(level.encode()) > MAX_LEVEL_OCTETS:
        level = f"{level.encode()[:MAX_LEVEL_OCTETS].decode('utf-8', 'ignore')}_{digest(level)}"
    return level

