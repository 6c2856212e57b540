"""What was sent and what was answered, written down before and after, and compared with what a server holds afterwards.

Lines of a ledger: `attempt|id|kind|t|args|sha256`, fdatasynced before the first octet is sent, and `ack|id|t|code|text`, once
the reply is parsed. Whatever is killed meanwhile, what the ledger calls acknowledged has to be found, once, octet by octet.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import math
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

MARK = b"X-Ledger: "
BRINGING = frozenset({"data", "bdat", "lmtp", "submission", "append"})


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that can be told from every other one; octets begin with its mark."""

    id: str
    octets: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.octets).hexdigest()


def make_letter(letter_id: str, size_octets: int, chance: random.Random, sender: str = "ledger@sender.example") -> Letter:
    """Random base64 in lines, some of which begin with a dot (RFC 5321 §4.5.2)."""
    header = MARK + (f"{letter_id}\r\nFrom: {sender}\r\nTo: someone@a.example\r\nSubject: ledger {letter_id}\r\n"
                     f"Date: Tue, 01 Apr 2025 09:00:00 +0900\r\nMessage-ID: <{letter_id}@ledger.example>\r\n\r\n").encode()
    text = base64.b64encode(chance.randbytes(max(0, size_octets - len(header)) * 3 // 4))
    lines = [(b"." if start % 760 == 0 else b"") + text[start:start + 76] for start in range(0, len(text), 76)]
    return Letter(letter_id, header + b"".join(line + b"\r\n" for line in lines))


def letter_size(chance: random.Random) -> int:
    """1 KB to 10 MB, most of them about 4 KB; 2 of 100 are too big to travel in one piece."""
    if chance.random() < 0.02:
        return int(256 * 1024 * math.exp(chance.random() ** 3 * math.log(40)))
    return min(250_000, max(1024, int(4096 * math.exp(chance.gauss(0, 0.9)))))


def recipient_count(chance: random.Random, size_octets: int) -> int:
    """1 to 50, most of them 1; few for what is big."""
    if size_octets > 100_000 or chance.random() < 0.7:
        return chance.randint(1, 2)
    return chance.randint(2, 5) if chance.random() < 0.85 else chance.randint(6, 50)


def letter_in(octets: bytes) -> tuple[str, str]:
    """(id, SHA-256) of the letter inside a stored message, whatever header fields the server put before it; ("", "") if none.
    A notice that has the header of a letter attached is none."""
    start = 0 if octets.startswith(MARK) else octets.find(b"\n" + MARK, 0, octets.find(b"\r\n\r\n") + 1) + 1
    if not octets.startswith(MARK, start):
        return "", ""
    letter = octets[start:]
    return letter[len(MARK):letter.index(b"\r\n")].decode(), hashlib.sha256(letter).hexdigest()


# -- the ledger --


@dataclass(slots=True)
class Entry:
    """code "": never answered."""

    id: str
    kind: str
    args: tuple[str, ...]
    sha256: str
    code: str = ""

    @property
    def acknowledged(self) -> bool:
        return self.code.startswith(("250", "OK"))


class Ledger:
    """One file, appended to; `entries` is what it says."""

    def __init__(self, path: Path) -> None:
        self.entries: dict[str, Entry] = {}
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def attempt(self, entry: Entry) -> None:
        assert entry.id not in self.entries, entry.id
        self.entries[entry.id] = entry
        self._write("attempt", entry.id, entry.kind, f"{time.time():.6f}", " ".join(entry.args), entry.sha256)

    def ack(self, entry_id: str, code: str, text: str = "") -> None:
        self.entries[entry_id].code = code
        self._write("ack", entry_id, f"{time.time():.6f}", code, text)

    def _write(self, *fields: str) -> None:
        os.write(self._descriptor, "|".join(fields).encode() + b"\n")
        os.fdatasync(self._descriptor)

    @property
    def acknowledged(self) -> int:
        return sum(entry.acknowledged for entry in self.entries.values())

    @property
    def messages(self) -> int:
        """Those acknowledged that brought a message: all but changes to what is there."""
        return sum(entry.acknowledged and entry.kind in BRINGING for entry in self.entries.values())

    def close(self) -> None:
        os.close(self._descriptor)


def read_ledger(path: Path) -> dict[str, Entry]:
    """The entries of a ledger file; a line that was cut short counts for nothing."""
    entries: dict[str, Entry] = {}
    for line in path.read_text().split("\n")[:-1]:
        kind, entry_id, *fields = line.split("|", 5)
        if kind == "attempt" and len(fields) == 4:
            entries[entry_id] = Entry(entry_id, fields[0], tuple(fields[2].split()), fields[3])
        elif kind == "ack" and entry_id in entries:
            entries[entry_id].code = fields[1]
    return entries


# -- the comparison --


class Fault(enum.StrEnum):
    LOST = "lost"               # acknowledged, not there
    CORRUPT = "corrupt"         # there, with other octets
    PHANTOM = "phantom"         # nobody sent it, or not there
    DUPLICATE = "duplicate"     # there more than once
    PARTIAL = "partial"         # not acknowledged, and there for some of its recipients only
    UID_REUSED = "uid reused"
    UID_VALIDITY = "uid_validity changed"
    UID_NEXT = "uid_next not above all uids"
    MODSEQ = "modseq went back"
    STATE = "neither the state before nor the state after"


@dataclass(frozen=True, slots=True)
class Found:
    """A message of a holder ("u01@a.example")."""

    id: str
    holder: str
    sha256: str


@dataclass(slots=True)
class Verdicts:
    """faults: what must not be; counts: how many entries ended how."""

    faults: list[tuple[Fault, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, fault: Fault, what: str) -> None:
        self.faults.append((fault, what))


def compare(entries: Iterable[Entry], found: Iterable[Found]) -> Verdicts:
    """Every delivery of the ledger against everything that was found; an entry's args are its holders."""
    verdicts, sums = Verdicts(), {}
    holders: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one in found:
        holders[one.id][one.holder] += 1
        sums[one.id, one.holder] = one.sha256
    known = {entry.id: entry for entry in entries}
    for entry in known.values():
        _judge(verdicts, entry, holders.pop(entry.id, Counter()), sums)
    for letter_id, who in holders.items():
        for holder in who.elements():
            verdicts.add(Fault.PHANTOM, f"{letter_id or 'without mark'} at {holder}")
    return verdicts


def _judge(verdicts: Verdicts, entry: Entry, holders: Counter[str], sums: dict[tuple[str, str], str]) -> None:
    wanted = set(entry.args)
    missing = wanted - set(holders)
    for holder in set(holders) - wanted:
        verdicts.add(Fault.PHANTOM, f"{entry.id} at {holder}")
    for holder, count in holders.items():
        if count > 1:
            verdicts.add(Fault.DUPLICATE, f"{entry.id} {count} times at {holder}")
        if sums[entry.id, holder] != entry.sha256:
            verdicts.add(Fault.CORRUPT, f"{entry.id} at {holder}")
    if entry.acknowledged and missing:
        verdicts.add(Fault.LOST, f"{entry.id} ({entry.kind}, {entry.code}) at {', '.join(sorted(missing))}")
    elif missing and missing != wanted:
        code = entry.code or "unanswered"
        verdicts.add(Fault.PARTIAL, f"{entry.id} ({entry.kind}, {code}): {len(missing)} of {len(wanted)} miss it")
    verdicts.counts["acknowledged" if entry.acknowledged else "stored unanswered" if holders else "not stored"] += 1


# -- mailboxes over time --


@dataclass(frozen=True, slots=True)
class MailboxState:
    """messages: uid -> (letter id, flags without \\Recent, modseq)."""

    uid_validity: int
    uid_next: int
    highest_modseq: int
    messages: dict[int, tuple[str, frozenset[str], int]]


@dataclass(slots=True)
class MailboxHistory:
    """What one mailbox has ever shown."""

    uid_validity: int = 0
    uid_next: int = 1
    highest_modseq: int = 0
    letters: dict[int, str] = field(default_factory=dict)

    def observe(self, name: str, state: MailboxState, verdicts: Verdicts) -> None:
        """The next look at it; what contradicts an earlier one is a fault."""
        if self.uid_validity not in (0, state.uid_validity):
            verdicts.add(Fault.UID_VALIDITY, f"{name}: {self.uid_validity} -> {state.uid_validity}")
        highest = max([self.highest_modseq, *(modseq for _, _, modseq in state.messages.values())])
        if state.highest_modseq < highest:
            verdicts.add(Fault.MODSEQ, f"{name}: {highest} -> {state.highest_modseq}")
        if state.uid_next < max([self.uid_next, *(uid + 1 for uid in state.messages)]):
            verdicts.add(Fault.UID_NEXT, f"{name}: {state.uid_next}, was {self.uid_next}")
        for uid, (letter_id, _, _) in state.messages.items():
            if self.letters.setdefault(uid, letter_id) != letter_id:
                verdicts.add(Fault.UID_REUSED, f"{name} uid {uid}: {self.letters[uid]} -> {letter_id}")
        self.uid_validity, self.uid_next, self.highest_modseq = state.uid_validity, state.uid_next, state.highest_modseq
