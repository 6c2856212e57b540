"""Mail stores as they are found: our own exports by their manifest, Maildir of any program, mbox files.

Contract: `open_source` recognises what lies at a path. Only names and facts are kept in memory, octets are read when asked
    for. Symbolic links and special files are passed over and told in `skipped`. Line ends become CRLF, as IMAP servers serve
    such files; our own exports come back octet by octet.
Failure: AdminError in words where nothing can be read; a damaged manifest names its line.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

from fumibako.proto.message.maildir import (
    file_order,
    is_mailbox_name,
    mailbox_name,
    parse_flags,
    parse_keywords,
    parse_subscriptions,
    parse_uid_list,
    safe_mailbox_name,
)
from fumibako.proto.message.manifest import (
    FILE_NAME,
    MAX_LINE_OCTETS,
    UNFINISHED_NAME,
    ManifestError,
    ManifestHead,
    ManifestMailbox,
    ManifestMessage,
    Record,
    parse_manifest,
)
from fumibako.proto.message.mbox import OWN_FIELDS as MBOX_FIELDS
from fumibako.proto.message.mbox import NetworkLines, Unquoter, flags_of, parse_from_line
from fumibako.services.admin import AdminError
from fumibako.services.migrate.found import FoundMailbox, FoundMessage, Source, file_pieces, open_inside, read_small
from fumibako.services.texts import N_

MAX_DEPTH = 32
MAX_DIRECTORIES = 10_000
MAX_HEADER_OCTETS = 256 * 1024
MAX_LINE = 64 * 1024
_OWN = frozenset({"cur", "new", "tmp"})


def open_source(path: Path, kind: str) -> Source:
    """kind: "maildir", "mbox" or "" for whatever it is."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode) and not kind and (path / FILE_NAME).exists():
            return DumpSource(path)
        if stat.S_ISDIR(mode) and not kind and (path / UNFINISHED_NAME).exists():
            raise AdminError(N_("the export in {path} was broken off and is not whole: export once more, or take what is there "
                                "with --format"), path=path)
        if kind == "mbox" or (not kind and stat.S_ISREG(mode)):
            return MboxSource(path)
        maildir = MaildirSource(path) if stat.S_ISDIR(mode) else None
        if maildir is not None and (maildir.directories or kind):
            return maildir
        return MboxSource(path)
    except OSError as error:
        raise AdminError(N_("{path}: {error}"), path=path, error=error.strerror or error) from None


class DumpSource:
    """What `fumibako export` wrote. Read twice: nothing comes in from an export whose manifest is damaged."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.total, self.skipped = 0, list[str]()
        for record in self._records():
            if isinstance(record, ManifestHead):
                self.kind, self.whole, self.subscriptions = record.store, record.whole, list(record.subscriptions)
            self.total += isinstance(record, ManifestMessage)

    def _records(self) -> Iterator[Record]:
        try:
            with open_inside(self._root, FILE_NAME) as file:
                yield from parse_manifest(iter(partial(file.readline, MAX_LINE_OCTETS), b""))
        except ManifestError as error:
            problem = N_("{path}, line {line}: the manifest is damaged ({what}); without that file the export is read as any "
                         "other program's mail")
            raise AdminError(problem, path=self._root / FILE_NAME, line=error.line, what=error.what) from None

    def mailboxes(self) -> Iterator[FoundMailbox]:
        records = self._records()
        record = next(records, None)
        while record is not None:
            if not isinstance(record, ManifestMailbox):
                record = next(records, None)
                continue
            following: list[Record] = []
            name = record.name if is_mailbox_name(record.name) else safe_mailbox_name(record.name.split("/"))
            yield FoundMailbox(name, record.special_use, self._messages(records, following))
            record = following[0] if following else None

    def _messages(self, records: Iterator[Record], following: list[Record]) -> Iterator[FoundMessage]:
        for record in records:
            if not isinstance(record, ManifestMessage):
                following.append(record)
                return
            pieces = partial(self._pieces, record)
            yield FoundMessage(record.file, record.flags, record.internal_date, pieces, record.sha256)

    def _pieces(self, message: ManifestMessage) -> Iterator[bytes]:
        if not message.line_ends:
            yield from file_pieces(self._root, message.file)
            return
        unquoter = Unquoter()
        found = file_pieces(self._root, message.file, message.offset, message.offset + message.octets)
        for piece in chain(map(unquoter.feed, found), (unquoter.close() for _ in range(1))):
            yield piece.replace(b"\n", b"\r\n") if message.line_ends == "lf" else piece


class MaildirSource:
    """Maildir, Maildir++ and Dovecot's LAYOUT=fs, mixed in whatever way."""

    kind, whole = "maildir", False

    def __init__(self, root: Path) -> None:
        self._root = root
        self.skipped: list[str] = []
        self.directories = self._walk()
        self.subscriptions = parse_subscriptions(read_small(root, "subscriptions"))
        self.total = sum(1 for directory, _ in self.directories for place in ("cur", "new")
                         for _ in self._files(directory, place, tell=False))

    def _walk(self) -> list[tuple[str, str]]:
        """(place below root, name of the mailbox), INBOX first."""
        found, waiting = [], [("", tuple[bytes, ...]())]
        for directory, levels in waiting:
            names = {entry.name for entry in self._entries(directory) if entry.is_dir(follow_symlinks=False)}
            if "cur" in names:
                found.append((directory, mailbox_name(levels) if levels else "INBOX"))
            for name in sorted(names - _OWN):
                inner = os.fsencode(name)
                # Maildir++ keeps all levels in one name; fs makes a directory of each.
                below = tuple(inner[1:].split(b".")) if name.startswith(".") else (inner,)
                if len(levels) < MAX_DEPTH and len(waiting) < MAX_DIRECTORIES:
                    waiting.append((f"{directory}/{name}".removeprefix("/"), levels + below))
                else:
                    self.skipped.append(f"{directory}/{name}")
        return found

    def _entries(self, directory: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self._root / directory) as entries:
                return list(entries)
        except OSError:
            if not directory:
                raise
            self.skipped.append(directory)
            return []

    def _files(self, directory: str, place: str, *, tell: bool) -> Iterator[os.DirEntry[str]]:
        inner = f"{directory}/{place}".removeprefix("/")
        if (self._root / inner).is_symlink() or not (self._root / inner).is_dir():
            return
        for entry in self._entries(inner):
            if entry.is_file(follow_symlinks=False):
                if not entry.name.startswith("."):
                    yield entry
            elif tell:
                self.skipped.append(f"{inner}/{entry.name}")

    def mailboxes(self) -> Iterator[FoundMailbox]:
        for directory, name in self.directories:
            yield FoundMailbox(name, "", self._messages(directory))

    def _messages(self, directory: str) -> Iterator[FoundMessage]:
        before = f"{directory}/" if directory else ""
        keywords = parse_keywords(read_small(self._root, f"{before}dovecot-keywords"))
        uids = parse_uid_list(read_small(self._root, f"{before}dovecot-uidlist"))
        found = [(place, entry.name) for place in ("cur", "new") for entry in self._files(directory, place, tell=True)]
        found.sort(key=lambda one: (uids.get(one[1].partition(":2,")[0], 1 << 32), file_order(one[1])))
        for place, name in found:
            told = parse_flags(name)
            flags = (*told.flags, *(keywords[number] for number in told.keywords if number in keywords))
            relative = f"{before}{place}/{name}"
            try:
                date = os.lstat(self._root / relative).st_mtime_ns // 1_000_000
            except OSError:     # another program has it moved meanwhile
                self.skipped.append(relative)
                continue
            yield FoundMessage(relative, flags, max(0, date), partial(self._pieces, relative))

    def _pieces(self, relative: str) -> Iterator[bytes]:
        yield from map(NetworkLines().feed, file_pieces(self._root, relative))


class MboxSource:
    """One mbox file, or a directory of them; mboxrd is assumed, which reads mboxo as well but for lines of ">>From "."""

    kind, whole = "mbox", False

    def __init__(self, path: Path) -> None:
        self.skipped: list[str] = []
        self.subscriptions: list[str] = []
        if stat.S_ISDIR(path.stat().st_mode):
            self._root = path
            self._files = list(self._walk("", (), 0))
        else:
            self._root = path.parent
            self._files = [(path.name, _mbox_name([path.name]))]
        if not self._files:
            raise AdminError(N_("{path}: neither a Maildir nor an mbox"), path=path)
        self.total = sum(sum(1 for _ in self._spans(file)) for file, _ in self._files)
        if not self.total and not stat.S_ISDIR(path.stat().st_mode) and path.stat().st_size:
            raise AdminError(N_("{path}: neither a Maildir nor an mbox"), path=path)

    def _walk(self, directory: str, levels: tuple[str, ...], depth: int) -> Iterator[tuple[str, str]]:
        with os.scandir(self._root / directory) as entries:
            found = sorted(entries, key=lambda one: one.name)
        for entry in found:
            relative = f"{directory}/{entry.name}".removeprefix("/")
            if entry.is_dir(follow_symlinks=False):
                if depth < MAX_DEPTH:
                    yield from self._walk(relative, (*levels, entry.name.removesuffix(".sbd")), depth + 1)
            elif not entry.is_file(follow_symlinks=False):
                self.skipped.append(relative)
            elif self._begins_with_from(relative) or (entry.name.endswith(".mbox") and not entry.stat().st_size):
                yield relative, _mbox_name([*levels, entry.name])

    def _begins_with_from(self, relative: str) -> bool:
        try:
            return next(file_pieces(self._root, relative, 0, 5), b"") == b"From "
        except OSError:
            self.skipped.append(relative)
            return False

    def mailboxes(self) -> Iterator[FoundMailbox]:
        for file, name in self._files:
            yield FoundMailbox(name, "", self._messages(file))

    def _messages(self, file: str) -> Iterator[FoundMessage]:
        for start, end, date in self._spans(file):
            header = b"".join(file_pieces(self._root, file, start, min(end, start + MAX_HEADER_OCTETS)))
            fields, kept, header_octets = _mbox_header(header)
            if b"x-imap" in fields and b"FOLDER INTERNAL DATA" in header:
                continue        # not a message: c-client's own notes
            pieces = partial(self._pieces, file, kept, start + header_octets, end)
            yield FoundMessage(f"{file}@{start}", flags_of(fields), date, pieces)

    def _pieces(self, file: str, header: bytes, start: int, end: int) -> Iterator[bytes]:
        unquoter, lines = Unquoter(), NetworkLines()
        for piece in chain((header,), file_pieces(self._root, file, start, end)):
            yield lines.feed(unquoter.feed(piece))
        yield lines.feed(unquoter.close())

    def _spans(self, relative: str) -> Iterator[tuple[int, int, int | None]]:
        """(begin, end, date) of each message, without its From_ line and the empty line behind it."""
        with open_inside(self._root, relative) as file:
            at, begin, date, empty_octets, line_begins = 0, -1, None, 0, True
            while line := file.readline(MAX_LINE):
                found = parse_from_line(line) if line_begins and (empty_octets or not at) else None
                if found is not None or (not at and line.startswith(b"From ")):
                    if begin >= 0:
                        yield begin, at - empty_octets, date
                    begin, date = at + len(line), found
                at += len(line)
                empty_octets = len(line) if line_begins and line in (b"\n", b"\r\n") else 0
                line_begins = line.endswith(b"\n")
            if begin >= 0:
                yield begin, max(begin, at - empty_octets), date


def _mbox_header(octets: bytes) -> tuple[dict[bytes, bytes], bytes, int]:
    """(the mbox program's own fields, the header without them, how many octets it was)."""
    fields: dict[bytes, bytes] = {}
    kept, at, own = [], 0, False
    while at < len(octets):
        end = octets.find(b"\n", at) + 1 or len(octets)
        line = octets[at:end]
        if line in (b"\n", b"\r\n"):
            break
        if line[:1] not in b" \t":
            name, colon, value = line.partition(b":")
            name = name.strip().lower()
            own = bool(colon) and name in MBOX_FIELDS
            if colon and name not in fields and (own or name.startswith(b"x-mozilla-")):
                fields[name] = value.strip()
        if not own:
            kept.append(line)
        at = end
    return fields, b"".join(kept), at


def _mbox_name(levels: list[str]) -> str:
    """INBOX for what is called so, or "mbox"."""
    levels = [*levels[:-1], levels[-1].removesuffix(".mbox")]
    levels = [os.fsencode(level).decode("utf-8", "replace") for level in levels]
    return "INBOX" if levels in (["mbox"], [""]) else safe_mailbox_name(levels)
