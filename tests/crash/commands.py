"""Commands that are killed at a random moment, and storage that is while it compacts; then the same command again.

After each kill the source is as it was, and what was being written is refused as unfinished in a sentence, or finished by the
same command. Nothing is lost, nothing is there twice, and no UID comes to mean another message.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import select
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fumibako.proto.message.manifest import FILE_NAME
from fumibako.store.manifest import find_backup
from fumibako.store.restore import MARK
from fumibako.store.sqlite.database import open_reader
from fumibako.store.sqlite.reader import Reader
from tests.crash.clients import imap_peer
from tests.crash.drain import faults_of_the_store
from tests.crash.load import Load
from tests.crash.machine import DOMAIN, READERS, Machine
from tests.crash.power_upkeep import Kept, damaged_backups, exported_letters, kept_by, letters_of, next_backup
from tests.crash.rounds import Round
from tests.support.ledger import Fault, Ledger
from tests.support.server import Place, eventually

SHARD_ACCOUNTS = 27     # of 54: two shards
OWNERS = READERS[0], READERS[40]        # one of each shard
BOX = "Restored"


def killed(machine: Machine, arguments: tuple[str, ...], after_s: float) -> float:
    """Runs a command of ours in a child that is killed after so long; seconds that it took by itself, 0.0 where it was killed."""
    begun_s = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            os._exit(machine.here(*arguments)[0])
        finally:
            os._exit(99)
    watched = os.pidfd_open(child)
    ended = select.select([watched], [], [], after_s)[0]
    took_s = time.monotonic() - begun_s
    os.close(watched)
    if not ended:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), (arguments, status)
    return took_s if status == 0 else 0.0


def _tree(root: Path) -> str:
    """Names and octets of all files."""
    hashed = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        hashed.update(f"{path.relative_to(root)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return hashed.hexdigest()


def _contents(kept: Iterable[Kept], *, boxes: bool = True) -> Counter[tuple[object, ...]]:
    """What makes a letter the same, wherever it lies: its octets, flags and mailbox."""
    return Counter((one.mailbox if boxes else "", one.letter, one.sha256, one.flags) for one in kept)


@dataclass(slots=True)
class Commands:
    """Trials on one running house of two shards with mail. place: for backups, exports and new directories; letters: how many
    are delivered to begin with. The house purges and compacts within a second."""

    machine: Machine
    place: Path
    chance: random.Random
    letters: int
    ledger: Ledger = field(init=False)
    took_s: dict[str, float] = field(default_factory=dict)
    trials: int = 0

    def begin(self) -> None:
        self.machine.program = (sys.executable, "-m", "tests.crash.power_serve", "short-times")
        self.machine.make(workers=1, shard_accounts=SHARD_ACCOUNTS)
        self.machine.start()
        self.ledger = Ledger(self.place / "ledger")
        parts = 0
        while not all(self.mail(owner) for owner in OWNERS):        # who gets what is chance
            assert parts < 10, "nobody writes to the owners"
            parts += 1
            self._deliver(f"first{parts}", self.letters)
        self.machine.say("backup", str(self.backups))

    def _deliver(self, prefix: str, count: int) -> None:
        async def load() -> None:
            up = asyncio.Event()
            up.set()
            await Load(self.machine, self.ledger, self.chance, prefix, count, up).run()
        asyncio.run(load())
        eventually(self._is_quiet, "the queue gets empty")

    def _is_quiet(self) -> bool:
        database = open_reader(self.machine.directory / "queue.db")
        try:
            return not database.row("SELECT count(*) FROM q_message")[0]
        finally:
            database.close()

    @property
    def backups(self) -> Path:
        return self.place / "backups"

    def mail(self, address: str, directory: Path | None = None) -> list[Kept]:
        return kept_by(directory or self.machine.directory, address)

    def trial(self, kind: str) -> Round:
        """One kill, and what follows; kind: of KINDS."""
        self.trials += 1
        result = Round(self.trials, f"killed: {kind}", 1)
        # What was delivered to begin with belongs to the first.
        before = (len(self.ledger.entries), self.ledger.acknowledged, self.ledger.messages) if self.trials > 1 else (0, 0, 0)
        getattr(self, f"_{kind}")(result)
        result.attempted, result.acknowledged = len(self.ledger.entries) - before[0], self.ledger.acknowledged - before[1]
        result.messages = self.ledger.messages - before[2]
        result.store_faults += faults_of_the_store(self.machine)
        return result

    def _killed(self, result: Round, kind: str, machine: Machine, *arguments: str) -> None:
        """At a moment of what the command takes undisturbed, as far as that is known."""
        known_s = self.took_s.get(kind, 0.08)
        took_s = killed(machine, arguments, self.chance.uniform(0, known_s))
        result.reached = not took_s
        if took_s:
            self.took_s[kind] = took_s

    # -- the kinds --

    def _backup(self, result: Round) -> None:
        self._deliver(f"b{self.trials}", 10)
        self._killed(result, "backup", self.machine, "backup", str(self.backups), "--keep", "2")
        result.store_faults += [*damaged_backups(self.backups), *next_backup(self.machine.directory, self.backups)]
        self._same(result, _contents(letters_of(self.machine.directory)), letters_of(find_backup(self.backups)))

    def _restore(self, result: Round) -> None:
        """Whole, into a new directory."""
        source, other = self._newest(), Machine(self.place / f"restored-{self.trials}", Place(""))
        owed, before = letters_of(source), _tree(source)
        other.say("init", "--hostname", other.hostname)
        self._killed(result, "restore", other, "restore", str(source))
        if (other.directory / MARK).exists():
            for command in (("account", "list"), ("check",), ("serve",)):
                _demand(result, other, command, "finish it with: fumibako restore SRC")
        if (other.directory / MARK).exists() or not letters_of(other.directory):
            other.say("restore", str(source))
        _demand(result, other, ("restore", str(source)), "holds accounts or mail already")
        result.store_faults += faults_of_the_store(other) + ([] if _tree(source) == before else ["the backup has changed"])
        found = letters_of(other.directory)
        self._same(result, _contents(owed), found)
        now = _boxes(other.directory)
        for name, (validity, uid_next, modseq) in _boxes(source).items():
            if now[name][0] != validity or now[name][1] <= uid_next or now[name][2] <= modseq:
                result.verdicts.add(Fault.UID_NEXT, f"{name}: {now[name]} after the restore")
        shutil.rmtree(other.directory)

    def _recall(self, result: Round) -> None:
        """An account has lost all its mail."""
        source, owner, into = self._newest(), self.chance.choice(OWNERS), f"{BOX} {self.trials}"
        self._empty(owner)
        owed = self.mail(owner, source)
        command = "restore", str(source), "--account", owner, "--into", into
        self._killed(result, "recall", self.machine, *command)
        seen = self.mail(owner)
        self.machine.say(*command)
        self._same_uids(result, seen, self.mail(owner))
        self._same(result, _contents(owed, boxes=False), self.mail(owner), boxes=False)

    def _export(self, result: Round) -> None:
        owner, form = self.chance.choice(OWNERS), self.chance.choice(("maildir", "mbox"))
        target = self.place / f"export-{self.trials}"
        owed, command = self.mail(owner), ("export", owner, str(target), "--format", form)
        self._killed(result, f"export {form}", self.machine, *command)
        if target.exists() and os.listdir(target) and not (target / FILE_NAME).exists():
            _demand(result, self.machine, command, "broken off")
            _demand(result, self.machine, ("import", str(target), READERS[1], "--merge"), "broken off")
        if not (target / FILE_NAME).exists():
            shutil.rmtree(target, ignore_errors=True)
            self.machine.say(*command)
        if exported_letters(target) != Counter(one.sha256 for one in owed):
            result.verdicts.add(Fault.LOST, f"{result.how}: the export is not what was there")
        self._same(result, _contents(owed), self.mail(owner))

    def _import(self, result: Round) -> None:
        """Into an account without mail."""
        owner, source, address = self.chance.choice(OWNERS), self.place / f"moving-{self.trials}", f"i{self.trials}@{DOMAIN}"
        self.machine.say("account", "add", address, "--password-stdin", said="correct horse 9\n")
        self.machine.say("export", owner, str(source))
        before = _tree(source)
        self._killed(result, "import", self.machine, "import", str(source), address)
        seen = self.mail(address)
        self.machine.say("import", str(source), address, "--merge")
        self._same_uids(result, seen, self.mail(address))
        self._same(result, _contents(self.mail(owner)), self.mail(address))
        if _tree(source) != before:
            result.store_faults.append("the export has changed")

    def _compaction(self, result: Round) -> None:
        """Most of what has come goes again, and the server dies while segments move on."""
        self._deliver(f"c{self.trials}", 30)
        doomed = self.chance.choice(OWNERS)
        self._empty(doomed)
        owed = letters_of(self.machine.directory)
        select.select([], [], [], self.chance.uniform(0, 0.6))
        self.machine.kill_all()
        result.reached = True
        self._same(result, _contents(owed), letters_of(self.machine.directory))
        self.machine.start()
        result.recovery_s = self.machine.starts[-1]
        self._same(result, _contents(owed), letters_of(self.machine.directory))

    # -- parts of them --

    def _newest(self) -> Path:
        """A backup in which both owners have mail."""
        if not all(self.mail(owner) for owner in OWNERS):
            for owner in OWNERS:
                self.machine.say("restore", str(self.backups), "--account", owner, "--into", f"{BOX} again {self.trials}")
        self.machine.say("backup", str(self.backups), "--keep", "2")
        return find_backup(self.backups)

    def _empty(self, address: str) -> None:
        async def expunge() -> None:
            async with imap_peer(self.machine.place.endpoint("imap"), address) as peer:
                for name in {one.mailbox for one in self.mail(address)}:
                    await peer.select(name)
                    await peer.command("UID STORE", b"1:*", b"+FLAGS.SILENT (\\Deleted)")
                    await peer.command("EXPUNGE")
        asyncio.run(expunge())

    @staticmethod
    def _same(result: Round, owed: Counter[tuple[object, ...]], found: list[Kept], *, boxes: bool = True) -> None:
        there = _contents(found, boxes=boxes)
        for one in owed - there:
            result.verdicts.add(Fault.LOST, f"{result.how}: {one}")
        for one in there - owed:
            result.verdicts.add(Fault.DUPLICATE if one in owed else Fault.PHANTOM, f"{result.how}: {one}")

    @staticmethod
    def _same_uids(result: Round, before: list[Kept], after: list[Kept]) -> None:
        now = {(one.mailbox, one.uid): one.letter for one in after}
        for one in before:
            if now.get((one.mailbox, one.uid)) != one.letter:
                result.verdicts.add(Fault.UID_REUSED, f"{result.how}: {one}, now {now.get((one.mailbox, one.uid))}")


KINDS = ("backup", "restore", "recall", "export", "import", "compaction")


def _demand(result: Round, machine: Machine, command: tuple[str, ...], sentence: str) -> None:
    code, out, errors = machine.here(*command)
    if code != 1 or sentence not in errors or "Traceback" in errors:
        result.store_faults.append(f"{command} says {code}: {out}{errors}")


def _boxes(directory: Path) -> dict[tuple[str, str], tuple[int, int, int]]:
    """(address, mailbox) -> UIDVALIDITY, UIDNEXT, HIGHESTMODSEQ."""
    reader = Reader(directory)
    try:
        return {(account.address, box.name): (box.uid_validity, box.uid_next, box.highest_modseq)
                for account in reader.accounts() for box in reader.mailboxes(account.id)}
    finally:
        reader.close()
