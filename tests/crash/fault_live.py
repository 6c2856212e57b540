"""Faults of the kernel in the really running server: strace injects them into one of its processes while mail comes in.

spec/reliability.md §5.1, check 4: the calls that the sweep in memory can't reach (shared memory of a log, the spool of a
worker, accept), and EINTR, which only a kernel can say.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fumibako.app.supervisor import LONGEST_PAUSE_S
from fumibako.proto.imap.client import Literal
from fumibako.store.check import check
from fumibako.store.sqlite.engine import Engine
from tests.crash.clients import Broken, dotted, imap_peer, smtp_peer
from tests.crash.faults import leftovers
from tests.crash.machine import MOVERS, READERS, Machine
from tests.support.ledger import Letter, make_letter
from tests.support.server import eventually
from tests.support.strace import injecting

WRITES = "pwrite64,ftruncate,fallocate"
OPENS = "openat"
SYNCS = "fsync,fdatasync"
NAMES = "rename,unlink,link,mkdir"
SMALL, LARGE = 2_000, 300_000
BACK_S = 5.0
# Words of the server for what passes, and for what doesn't.
PASSES = r"452 4\.3\.1 .*|NO UNAVAILABLE"
_PLACE = re.compile(r"(control|queue|mail)\.db|/(spool|seg|queue)/|no more files may be open")
STOPS = r"(421|451|452) 4\.[37]\.[01] .*|NO UNAVAILABLE|"       # "": the conversation broke off


@dataclass(frozen=True, slots=True)
class Case:
    """role: "storage", "worker" or "jobs"; calls: of strace; when: its N, N+ or N..M; deed: "data", "large", "append", "store".

    words: what may be said when it fails; restarts: whether the process may end, with exit code 70.
    """

    role: str
    calls: str
    error: str
    when: str
    deed: str
    words: str = PASSES
    restarts: bool = False

    @property
    def name(self) -> str:
        return f"{self.role} {self.calls.partition(',')[0]} {self.error} {self.when} {self.deed}"


def cases() -> list[Case]:
    """For every error the calls it can come from, once and for as long as it lasts."""
    found = []
    for deed in ("data", "append", "store", "large"):
        for number in ("1", "2", "4", "1+"):
            found += [Case("storage", WRITES, error, number, deed) for error in ("ENOSPC", "EDQUOT")]
            found.append(Case("storage", WRITES, "EIO", number, deed, STOPS, restarts=True))
        found += [Case("storage", SYNCS, "EIO", number, deed, STOPS, restarts=True) for number in ("1", "2")]
        found.append(Case("storage", WRITES, "EINTR", "1..5", deed, words=r"(?!)"))
        # SQLite does not repeat an fdatasync, so that it is a failed one: the store begins anew.
        found.append(Case("storage", SYNCS, "EINTR", "1", deed, STOPS, restarts=True))
    found += [Case("worker", calls, error, number, "large", words) for calls, error, words in (
        (WRITES, "ENOSPC", PASSES), (WRITES, "EDQUOT", PASSES), (WRITES, "EIO", STOPS), (SYNCS, "EIO", STOPS),
        (OPENS, "EMFILE", f"{PASSES}|{STOPS}")) for number in ("1", "1+")]
    found += [Case("worker", f"{WRITES},{SYNCS},{OPENS}", "EINTR", "1..6", deed, words=r"(?!)")
              for deed in ("data", "large", "append")]
    found += [Case("storage", OPENS, "EMFILE", "1+", deed, f"{PASSES}|{STOPS}") for deed in ("data", "large", "append")]
    found += [Case("storage", NAMES, "EIO", "1", "large", STOPS, restarts=True), Case("storage", NAMES, "ENOSPC", "1", "large")]
    found += [Case("jobs", calls, error, "1+", "data") for calls, error in (
        (OPENS, "EMFILE"), (WRITES, "ENOSPC"), (SYNCS, "EIO"), (WRITES, "EINTR"))]
    return found


class Live:
    """A server with one worker, and what became of every letter."""

    def __init__(self, machine: Machine, place: Path) -> None:
        self.machine, self.place = machine, place
        self.taken, self.doubtful = Counter[str](), Counter[str]()
        self.said: dict[str, list[str]] = {}
        self.wrong: list[str] = []
        self._count = 0

    def begin(self) -> None:
        self.machine.make(workers=1)
        self.machine.start()

    async def prepare(self) -> None:
        """A message whose flags can be changed."""
        assert _is_success(await self._deed("append", make_letter("first.", SMALL, random.Random(0))))

    def process(self, role: str) -> int:
        """Jobs and the worker are in the order of their start; storage may have been started again."""
        if role == "storage":
            return eventually(self.machine.storage, "there is a storage process")
        return self.machine.others()[role == "worker"]

    async def try_case(self, case: Case) -> None:
        self._count += 1
        letter = make_letter(f"live-{self._count}.", LARGE if case.deed == "large" else SMALL, random.Random(self._count))
        output, victim = self.place / f"trace-{self._count}", self.process(case.role)
        before = len(self.machine.errors_text())
        with injecting(victim, case.calls, f"error={case.error}:when={case.when}", output):
            reply = await self._deed(case.deed, letter)
        seen = output.read_text("utf-8", "replace")
        if "(INJECTED)" not in seen and not _is_success(reply):
            self.wrong.append(f"{case.name}: {reply} without a cause")
        self.said.setdefault(f"{case.role} {case.error}", []).append(reply.partition(", id")[0] or "broken off")
        if not _is_success(reply) and not re.fullmatch(case.words, reply):
            self.wrong.append(f"{case.name}: the wrong words: {reply}")
        if "exited with" in seen and not (case.restarts and "exited with 70" in seen):
            self.wrong.append(f"{case.name}: ended: {re.findall('exited with.*', seen)}")
        await self._goes_on(case, letter, reply)
        log = self.machine.errors_text()[before:]
        if not _is_success(reply) and not _PLACE.search(self.machine.errors_text()):       # told once a minute
            self.wrong.append(f"{case.name}: no line names the place: {log[-400:]}")
        if '"traceback"' in log:
            self.wrong.append(f"{case.name}: a traceback: {log[-900:]}")

    async def _deed(self, deed: str, letter: Letter) -> str:
        try:
            async with asyncio.timeout(25):
                if deed in ("append", "store"):
                    return await self._imap(deed, letter)
                return await self._smtp(letter)
        except (Broken, TimeoutError):
            return ""

    async def _smtp(self, letter: Letter) -> str:
        async with smtp_peer(self.machine.place.endpoint("smtp")) as peer:
            for line, code in (("MAIL FROM:<ledger@sender.example>", "250"), (f"RCPT TO:<{READERS[0]}>", "250"), ("DATA", "354")):
                if not (reply := await peer.ask(line)).startswith(code):
                    return reply
            await peer.send(dotted(letter.octets))
            return await peer.reply()

    async def _imap(self, deed: str, letter: Letter) -> str:
        """APPEND, or flags set or taken away."""
        async with imap_peer(self.machine.place.endpoint("imap"), MOVERS[0]) as peer:
            if deed == "append":
                tagged, _ = await peer.answer("APPEND", "INBOX", Literal(letter.octets))
            else:
                await peer.select("INBOX")
                tagged, _ = await peer.answer("UID STORE", b"1:*", b"+FLAGS" if self._count % 2 else b"-FLAGS", b"(\\Seen)")
            return f"{tagged.status} {tagged.code.partition(' ')[0]}".strip()

    async def _goes_on(self, case: Case, letter: Letter, reply: str) -> None:
        """The fault is over: the same server does it, at once; a process that ends again and again is started ever later."""
        counted = case.deed != "store"
        self.taken[letter.id] += counted and _is_success(reply)
        self.doubtful[letter.id] += counted and (not reply or reply.startswith(("451", "421")))
        begun = time.monotonic()
        while not _is_success(await self._deed(case.deed, letter)):
            if time.monotonic() - begun > (LONGEST_PAUSE_S + BACK_S if case.restarts else BACK_S):
                self.wrong.append(f"{case.name}: it does not go on")
                return
            await asyncio.sleep(0.05)
        self.taken[letter.id] += counted

    async def judge(self) -> None:
        """Every acknowledged letter is there once; the store is sound, and nothing is left over."""
        found = Counter[str]()
        for account, box in ((READERS[0], "INBOX"), (MOVERS[0], "INBOX")):
            async with imap_peer(self.machine.place.endpoint("imap"), account) as peer:
                found += Counter(letter_id for letter_id, _, _ in (await peer.state(box)).messages.values())
        for letter_id, count in self.taken.items():
            doubtful = self.doubtful[letter_id]
            if not count <= found[letter_id] <= count + doubtful:
                self.wrong.append(f"{letter_id}: {found[letter_id]} times, acknowledged {count}, doubtful {doubtful}")
        self.machine.kill_all()
        Engine(directory := self.machine.directory).close()
        self.wrong += [str(one) for one in check(directory).findings if not one.repaired]
        self.wrong += [f"left: {one}" for one in leftovers(directory) if "/spool/" not in one]


def _is_success(reply: str) -> bool:
    return reply.startswith(("250 ", "OK"))
