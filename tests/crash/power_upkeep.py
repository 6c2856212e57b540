"""What must hold after a power cut amid a backup, an export, a compaction, an upgrade or a restore, asked of what it left.

A look takes the data directory of a state, which nobody has open any more, and the cut; it gives what is wrong.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fumibako.model.ids import Uid
from fumibako.model.mailbox import SYSTEM_FLAGS
from fumibako.proto.message.manifest import FILE_NAME
from fumibako.services.migrate.reading import open_source
from fumibako.store.check import check
from fumibako.store.disk import DiskIO
from fumibako.store.manifest import BackupFault, read_manifest, verify
from fumibako.store.restore import restore
from fumibako.store.schema import steps
from fumibako.store.sqlite.database import open_reader
from fumibako.store.sqlite.engine import Engine, create
from fumibako.store.sqlite.reader import Reader
from tests.crash.machine import Machine
from tests.crash.power_diary import NEVER, Diary
from tests.crash.power_disk import MEMORY
from tests.support.ledger import letter_in
from tests.support.server import Place
from tools.golden import GOLDEN, picture_of

INTO = "Back"
OLDEST = "0.0.1"
DAY_MS = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Kept:
    """A letter in a mailbox as it stands on the disk."""

    address: str
    mailbox: str
    uid: int
    letter: str
    sha256: str
    flags: frozenset[str]


def letters_of(directory: Path) -> list[Kept]:
    """Every letter of every account, read octet by octet. OSError for one that can't be read."""
    reader = Reader(directory)
    try:
        return [one for account in reader.accounts() for one in letters_of_account(reader, account.address)]
    finally:
        reader.close()


def letters_of_account(reader: Reader, address: str) -> Iterator[Kept]:
    account = reader.account(address)
    assert account is not None
    words = {int(bit): name for name, bit in SYSTEM_FLAGS.items()}
    words |= {1 << bit: name for bit, name in reader.keywords(account.id).items()}
    for box in reader.mailboxes(account.id):
        view = reader.view(account.id, box.id)
        assert view is not None
        flags = dict(zip(view.uids, view.flags, strict=True))
        for entry in reader.entries(account.id, box.id, [Uid(uid) for uid in view.uids]):
            octets = reader.read(account.id, entry.email_id, 0, entry.size_octets)
            named = frozenset(name for bit, name in words.items() if flags[entry.uid] & bit)
            yield Kept(address, box.name, entry.uid, *letter_in(octets), named)


def _changed(kept: list[Kept], sums: dict[str, str]) -> list[str]:
    return [f"{one.letter} has other octets at {one.address}" for one in kept if sums.get(one.letter, one.sha256) != one.sha256]


@contextmanager
def _elsewhere() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fumibako-elsewhere-", dir=MEMORY) as place:
        yield Path(place)


# -- backup --


@dataclass(slots=True)
class Backups:
    """Backups that were taken beside a data directory. taken: where a command had ended, and what was acknowledged before it
    began: (letter, address)."""

    sums: dict[str, str]
    taken: list[tuple[int, set[tuple[str, str]]]] = field(default_factory=list)

    def __call__(self, directory: Path, cut: int) -> list[str]:
        place = directory.with_name("backups")
        done = [owed for position, owed in self.taken if position <= cut]
        return [*damaged_backups(place), *(self._newest(place, done[-1]) if done else ()), *next_backup(directory, place)]

    def _newest(self, place: Path, owed: set[tuple[str, str]]) -> list[str]:
        """It restores, elsewhere, to at least what was acknowledged before it began."""
        with _elsewhere() as elsewhere:
            try:
                restored = restored_letters(place, elsewhere / "data")
            except (BackupFault, OSError, AssertionError) as error:
                return [f"a backup that was taken can't be restored: {type(error).__name__}: {error}"]
        there = {(one.letter, one.address) for one in restored}
        doubled = [one for one, count in Counter((one.letter, one.address) for one in restored).items() if count > 1]
        return [f"{one} is not in the backup" for one in sorted(owed - there)] + [
            f"{one} is twice in the backup" for one in doubled] + _changed(restored, self.sums)


def restored_letters(place: Path, directory: Path) -> list[Kept]:
    """Restored whole into a new directory, where `check` must find nothing."""
    now_ms = int(time.time() * 1000)
    create(directory, now_ms)
    restore(directory, place, now_ms, lambda done, total: None)
    findings = check(directory).findings
    assert not findings, findings
    return letters_of(directory)


def damaged_backups(place: Path) -> list[str]:
    """What bears the name of a backup is a whole one, whether its command had ended or not."""
    wrong = []
    for path in sorted(place.iterdir()) if place.exists() else ():
        if not path.is_symlink() and not path.name.startswith("."):
            try:
                verify(path, read_manifest(path), DiskIO())
            except BackupFault as error:
                wrong.append(f"{path.name} counts as a backup: {error}")
    return wrong


def next_backup(directory: Path, place: Path) -> list[str]:
    """The next one is whole and leaves nothing that is not."""
    code, out, errors = Machine(directory, Place("")).here("backup", str(place), "--verify")
    if code:
        return [f"the next backup says {code}: {out}{errors}"]
    return [f"{left.name} was left" for left in place.glob(".unfinished*")]


# -- export --


@dataclass(slots=True)
class Exports:
    """Exports beside a data directory. taken: name, where its command had ended, and the letters it holds."""

    taken: list[tuple[str, int, Counter[str]]] = field(default_factory=list)

    def __call__(self, directory: Path, cut: int) -> list[str]:
        """What has a manifest is whole, and what was taken has one."""
        wrong = []
        for name, position, owed in self.taken:
            place = directory.with_name(name)
            if (place / FILE_NAME).exists():
                if exported_letters(place) != owed:
                    wrong.append(f"{name} counts as an export and is not whole")
            elif position <= cut:
                wrong.append(f"{name} was taken and is gone, or counts as unfinished")
        return wrong


def exported_letters(place: Path) -> Counter[str]:
    """SHA-256 of each letter of an export; damaged is what does not have the octets its manifest names."""
    found = Counter[str]()
    for mailbox in open_source(place, "").mailboxes():
        for message in mailbox.messages:
            try:
                octets = b"".join(message.pieces())
            except OSError:
                octets = b""
            is_whole = hashlib.sha256(octets).hexdigest() == message.sha256
            found[letter_in(octets)[1] if is_whole else f"damaged: {message.where}"] += 1
    return found


# -- compaction --


@dataclass(frozen=True, slots=True)
class Compacting:
    """held: an account whose expunged letters stay."""

    diary: Diary
    held: str

    def __call__(self, directory: Path, cut: int) -> list[str]:
        """The next start goes on with the work to its end, which changes nothing that anybody has."""
        before, wrong = sorted(map(str, letters_of(directory))), self._held(directory, cut)
        engine = Engine(directory, now_ms=int(time.time() * 1000))
        for later_ms in (0, 2 * DAY_MS):
            while engine.housekeep(int(time.time() * 1000) + later_ms):
                pass
        engine.close()
        after = letters_of(directory)
        wrong += [f"after the rest of the compaction: {one.kind} in {one.place}" for one in check(directory).findings]
        wrong += ["the rest of the compaction changed something"] if sorted(map(str, after)) != before else []
        return wrong + self._held(directory, cut) + _changed(after, self.diary.sums)

    def _held(self, directory: Path, cut: int) -> list[str]:
        """All that it ever had is there, or can be had back with its octets."""
        owed = {letter for step in self.diary.steps[self.held] if step.answered <= cut
                for box in step.after.values() for letter, _ in box.values()}
        reader = Reader(directory)
        try:
            account = reader.account(self.held)
            assert account is not None
            there = {one.letter: one.sha256 for one in letters_of_account(reader, self.held)}
            for one in reader.recoverable(account.id):
                letter, sha256 = letter_in(reader.read(account.id, one.entry.email_id, 0, one.entry.size_octets))
                there[letter] = sha256
        except OSError as error:
            return [f"held mail can't be read: {error}"]
        finally:
            reader.close()
        changed = sorted(letter for letter in owed & there.keys() if there[letter] != self.diary.sums[letter])
        return [f"{letter} was held and is gone" for letter in sorted(owed - there.keys())] + [
            f"{letter} was held and has other octets" for letter in changed]


def has_compacted(directory: Path) -> bool:
    """Blobs have moved, and files of segments went."""
    database = open_reader(directory / "shard-001" / "mail.db")
    try:
        moved, = database.row("SELECT count(*) FROM blob WHERE segment_id <> id >> 32")
        rows, newest = database.row("SELECT count(*), max(id) FROM segment")
        return bool(moved) and rows < newest
    finally:
        database.close()


# -- upgrade --


def unpack_oldest(directory: Path) -> None:
    """The data directory of the first release in place of `directory`."""
    with tarfile.open(GOLDEN / f"{OLDEST}.tar.gz") as tar:
        # Debian 12's Python 3.11.2 has no filters yet; the archive is our own.
        tar.extractall(directory.parent, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Upgraded:
    """grown_at: from where on there may be another account."""

    diary: Diary
    grown_at: list[int]

    def __call__(self, directory: Path, cut: int) -> list[str]:
        """Everything is as the old release told, whichever step of which database was durable."""
        told: dict[str, Any] = json.loads((GOLDEN / f"{OLDEST}.json").read_text("utf-8"))
        found: dict[str, Any] = json.loads(json.dumps(asyncio.run(picture_of(directory))))
        grows = {"accounts", "domains", "passwords"} if cut >= min(self.grown_at, default=NEVER) else set()
        wrong = [f"{key} is not as it was" for key in told.keys() - grows - {"mail"} if found[key] != told[key]]
        wrong += [f"{key} lost something" for key in grows - {"domains"} if not all(one in found[key] for one in told[key])]
        return wrong + [f"the mail of {who} is not as it was" for who, mail in told["mail"].items() if found["mail"][who] != mail]


def schema_is_newest(reader: Reader) -> str:
    for name, kind in (("control.db", "control"), ("queue.db", "queue"), ("shard-001/mail.db", "mail")):
        database = open_reader(reader.directory / name)
        version, = database.row("PRAGMA user_version")
        database.close()
        if version != steps(kind)[-1][0]:
            return f"{name} has schema {version} again"
    return ""


# -- restore into an account --


@dataclass(slots=True)
class Recalling:
    """kept: what the account had when the backup of `backed_up_at` was taken."""

    address: str
    sums: dict[str, str]
    backed_up_at: int = NEVER
    kept: list[Kept] = field(default_factory=list)

    def __call__(self, directory: Path, cut: int) -> list[str]:
        """Done again it brings what is missing, and nothing twice."""
        if cut < self.backed_up_at:
            return []
        code, out, errors = Machine(directory, Place("")).here(
            "restore", str(directory.with_name("backups")), "--account", self.address, "--into", INTO)
        if code:
            return [f"the restore done again says {code}: {out}{errors}"]
        reader = Reader(directory)
        try:
            now = list(letters_of_account(reader, self.address))
        finally:
            reader.close()
        count = Counter(one.letter for one in now)
        wrong = [f"{one.letter} is there {count[one.letter]} times" for one in self.kept if count[one.letter] != 1]
        flags = {one.letter: one.flags for one in now if one.mailbox.startswith(INTO)}
        wrong += [f"{one.letter} came back with {flags[one.letter]}, had {one.flags}" for one in self.kept
                  if flags.get(one.letter, one.flags) != one.flags]
        return wrong + _changed(now, self.sums) + [f"check: {one.kind}" for one in check(directory).findings if not one.repaired]


def kept_by(directory: Path, address: str) -> list[Kept]:
    """The mail of one account, of which there may be none."""
    reader = Reader(directory)
    try:
        return list(letters_of_account(reader, address)) if reader.account(address) else []
    finally:
        reader.close()
