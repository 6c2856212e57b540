"""Mail between three shards and the world, told by one process that may die anywhere, and where everything is at the end."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fumibako.model.envelope import Envelope, Peer, Recipient
from fumibako.model.ids import QueueId
from fumibako.model.ops import AddAccount, AddAlias, AddDomain, ChangeQueue, QueueAction, ReclaimLeases
from fumibako.model.queue import Outcome, OutcomeKind, QueuedRecipient, QueueItem
from fumibako.services.intake import Framing, Transaction
from fumibako.services.policy import Policy
from fumibako.store.local import LocalStore
from fumibako.store.sqlite import engine as engine_module
from fumibako.store.sqlite.engine import Engine
from tests.support.clock import FakeClock
from tests.support.ledger import Letter, letter_in, make_letter
from tests.support.mailhouse import NO_PASSWORD, STRANGER, MailHouse

DOMAIN = "a.example"
ANN, BEN, CAT, DAN, EVE = PEOPLE = tuple(f"{name}@{DOMAIN}" for name in ("ann", "ben", "cat", "dan", "eve"))
PER_SHARD = 2       # Ann and Ben in the first, Cat and Dan in the second, Eve in the third
INFO = f"info@{DOMAIN}"
LARGE = 300_000
_FINAL = re.compile(rb"^Final-Recipient: rfc822; *(\S+)\r$", re.MULTILINE)
_RELAYED = Outcome(OutcomeKind.RELAYED, "2.0.0", "", "250 2.0.0 taken", "sink")
_KINDS = {"ok": _RELAYED, "fail": Outcome(OutcomeKind.FAILED, "5.1.1", "", "550 5.1.1 no", "sink"),
          "defer": Outcome(OutcomeKind.DEFERRED, "4.2.0", "", "450 4.2.0 later", "sink")}


def make(directory: Path) -> None:
    """Five people in three shards; mail for INFO goes to Ben and out again."""
    whole, engine_module.SHARD_ACCOUNTS = engine_module.SHARD_ACCOUNTS, PER_SHARD
    try:
        engine = Engine(directory)
        engine.execute([AddDomain(DOMAIN), *(AddAccount(one, NO_PASSWORD) for one in PEOPLE),
                        AddAlias(INFO, (BEN, "ok-forward@b.example"))], 0)
        engine.close()
    finally:
        engine_module.SHARD_ACCOUNTS = whole


def letter(name: str) -> Letter:
    return make_letter(name, LARGE if name == "large" else 2_000, random.Random(name), DAN)


def is_whole(name: str, sha256: str) -> bool:
    """Whether a letter arrived as it was sent."""
    return bool(name) and sha256 == letter(name).sha256


@dataclass(frozen=True, slots=True)
class Memory:
    """A file of lines that survive the process; what the world has taken is in it too."""

    path: Path

    def note(self, *words: str) -> None:
        with self.path.open("ab", 0) as file:
            file.write(" ".join(words).encode() + b"\n")

    def lines(self) -> Counter[str]:
        return Counter(self.path.read_text().split("\n")[:-1] if self.path.exists() else ())


class World:
    """Other servers: what happens to a recipient stands in its local part."""

    def __init__(self, store: LocalStore, memory: Memory) -> None:
        self._store, self._memory = store, memory

    async def deliver(self, item: QueueItem, recipients: tuple[QueuedRecipient, ...]) -> dict[int, Outcome]:
        kinds = {one.id: _KINDS[one.forward_path.partition("-")[0]] for one in recipients}
        name, sha256 = letter_in(await self._store.read_queued(item.id, 0, item.size_octets))
        whole = "taken" if is_whole(name, sha256) else "altered"
        for one in recipients:
            if kinds[one.id] is _RELAYED:
                self._memory.note(whole, one.forward_path)
        return kinds

    async def close_idle(self) -> None:
        """Nothing is kept open."""


class Teller:
    """One life of a server. seed: another one for each life, as chance is in reality."""

    def __init__(self, directory: Path, memory: Memory, seed: int) -> None:
        clock = FakeClock(seed=seed)
        clock.advance(seed * 60)
        self._house = MailHouse(LocalStore(directory, clock.now_ms), clock)
        self._house.relay = World(self._house.store, memory)       # type: ignore[assignment]
        self._memory = memory
        self.store, self.runner = self._house.store, self._house.runner()

    async def close(self) -> None:
        await self._house.close()

    async def story(self) -> None:
        """Mail of every kind, through every state that docs/queue.md knows."""
        await self._receive("several", ANN, CAT, EVE)
        await self._receive("forward", INFO)
        await self._receive("large", INFO.replace("info", "INFO"))
        await self._submit("notice", ANN, "fail-1@b.example")
        await self._submit("late", "defer-1@c.example")
        await self._submit("held", "ok-held@d.example")
        await self._submit("deleted", "ok-deleted@e.example")
        await self._change(QueueAction.HOLD, "held", "ok-held@d.example")
        await self._change(QueueAction.DELETE, "deleted", "ok-deleted@e.example")
        await self.runner._lease()              # a runner that dies with all of it in hand
        await self.reclaim()
        for _ in range(3):
            await self.runner.step()
        await self._change(QueueAction.RELEASE, "held", "ok-held@d.example")
        await self.runner.step()

    async def reclaim(self) -> None:
        await self.store.commit(ReclaimLeases(self._house.clock.now_ms()))

    async def _receive(self, name: str, *recipients: str) -> None:
        await self._finish(name, self._house.receiver.open(Policy(), STRANGER, Envelope("", ())), recipients)

    async def _submit(self, name: str, *recipients: str) -> None:
        dan = await self._house.account(DAN)
        peer = Peer("203.0.113.7", helo="pc", protocol="ESMTPSA", login=DAN, account_id=dan.id)
        await self._finish(name, self._house.submitter.open(Policy(), peer, Envelope(DAN, ()), dan), recipients)

    async def _finish(self, name: str, transaction: Transaction, recipients: tuple[str, ...]) -> None:
        octets = letter(name).octets
        assert not (await transaction.begin()).refused
        for one in recipients:
            assert not (await transaction.add_recipient(Recipient(one))).refused
        transaction.write(octets)
        self._memory.note("attempt", name)
        [verdict] = await transaction.finish(Framing(len(octets)))
        assert not verdict.refused
        self._memory.note("ack", name)

    async def _change(self, action: QueueAction, name: str, path: str) -> None:
        ids = await self.waiting(path)
        await self.store.commit(ChangeQueue(action, tuple(ids), self._house.clock.now_ms()))
        self._memory.note(action, name)

    # -- what is where --

    async def waiting(self, path: str) -> list[QueueId]:
        """Messages that wait for a recipient."""
        return [item.id for item in await self._house.queued() if any(one.forward_path == path for one in item.recipients)]

    async def end(self) -> None:
        """The next life does what is left: only what was deferred stays."""
        await self.reclaim()
        await self.store.commit(ChangeQueue(QueueAction.RELEASE, (), self._house.clock.now_ms()))
        for _ in range(6):
            await self.runner.step()

    async def letters(self, address: str) -> Counter[str]:
        """Letters by name, whole ones; notices by the recipient they are about."""
        found: Counter[str] = Counter()
        for octets in await self._house.mailbox(address):
            name, sha256 = letter_in(octets)
            about = _FINAL.findall(octets)
            if about:
                found.update(f"about {path.decode()}" for path in about)
            else:
                found[name if is_whole(name, sha256) else f"altered {name}"] += 1
        return found


def life(directory: Path, memory: Memory) -> Callable[[Callable[[], object]], None]:
    """The story as work for a process that may die."""
    async def tell() -> None:
        teller = Teller(directory, memory, seed=1)
        await teller.story()
        await teller.close()

    return lambda told: (asyncio.run(tell()), told())[1] and None


def after(directory: Path, memory: Memory) -> list[str]:
    """What is not exactly where it has to be, once the next life has finished."""
    async def look() -> list[str]:
        teller = Teller(directory, memory, seed=2)
        doubtful = [path for path in ("ok-forward@b.example", "ok-held@d.example", "ok-deleted@e.example")
                    for _ in await teller.waiting(path)]
        taken_before = memory.lines()
        await teller.end()
        boxes = {one: await teller.letters(one) for one in PEOPLE}
        left = Counter([one.forward_path for item in await teller.store.queue_items() for one in item.recipients])
        await teller.close()
        twice = Counter(path for path in doubtful if taken_before[f"taken {path}"])
        return _faults(memory.lines(), boxes, left, twice)
    return asyncio.run(look())


def _faults(lines: Counter[str], boxes: dict[str, Counter[str]], left: Counter[str], twice: Counter[str]) -> list[str]:
    """twice: recipients that another server had when the queue did not know it yet."""
    found: list[str] = []
    forwards = lines["taken ok-forward@b.example"]
    wanted = {
        "several": [boxes[one]["several"] for one in (ANN, CAT, EVE)],
        "forward": [boxes[BEN]["forward"]],
        "large": [boxes[BEN]["large"]],
        "notice": [boxes[ANN]["notice"], boxes[DAN]["about fail-1@b.example"]],
        "late": [left["defer-1@c.example"]],
        "held": [min(1, lines["taken ok-held@d.example"])],
    }
    for name, counts in wanted.items():
        allowed = [[1] * len(counts)] if lines[f"ack {name}"] else [[0] * len(counts), [1] * len(counts)]
        if counts not in allowed:
            found.append(f"{name}: {counts}")
    mails = boxes[BEN]["forward"] + boxes[BEN]["large"]
    if not mails <= forwards <= mails + twice["ok-forward@b.example"]:
        found.append(f"forwarded {forwards} of {mails}")
    if lines["taken ok-held@d.example"] > 1 + twice["ok-held@d.example"]:
        found.append(f"held: taken {lines['taken ok-held@d.example']} times")
    deleted = lines["taken ok-deleted@e.example"]
    if deleted > (0 if lines["delete deleted"] else 1):
        found.append(f"deleted: taken {deleted} times")
    found += [name for box in (lines, *boxes.values()) for name in box if name.startswith("altered")]
    return found + [f"still in the queue: {path}" for path in left if path != "defer-1@c.example"]
