"""What a server does while its power may go: one function for each kind of work, clients that note what they were told and when.

More work is one more coroutine of a Stage and one more name in WORKLOADS; what it was told goes into the diary, and what must
hold after it into power_judge.py, for a command into a `Done`, and what takes a data directory nobody holds into power_upkeep.py.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fumibako.proto.imap.client import Literal
from fumibako.store.manifest import find_backup
from fumibako.store.sqlite.database import open_reader
from fumibako.store.sqlite.reader import Reader
from tests.crash.clients import ImapPeer, SmtpPeer, dotted, imap_peer, log_in, smtp_peer
from tests.crash.load import BOXES, FLAGS, Content, Mover, _copied, _other, _with_uids
from tests.crash.machine import DOMAIN, MOVERS, READERS, SENDER, Machine
from tests.crash.power_diary import NEVER, Diary, Done, QueueSeen, Removed, Sent, Step, Told
from tests.crash.power_upkeep import (
    INTO,
    Backups,
    Compacting,
    Exports,
    Recalling,
    Upgraded,
    has_compacted,
    kept_by,
    letters_of_account,
    schema_is_newest,
    unpack_oldest,
)
from tests.crash.sink import Sink
from tests.support.ledger import Entry, Ledger, Letter, make_letter

SINK_PORT = 2_628
RECEIVERS = READERS[:6]
LARGE = (270_000, 600_000)


@dataclass(slots=True)
class Stage:
    """Where it plays. scale: how much is done, 1.0 for the long run."""

    machine: Machine
    diary: Diary
    chance: random.Random
    scale: float = 1.0
    letters: int = field(default=0, init=False)
    keepers: dict[str, Keeper] = field(default_factory=dict, init=False)

    def times(self, count: int) -> int:
        return max(2, round(count * self.scale))

    def letter(self, smallest: int, largest: int, sender: str = "ledger@sender.example") -> Letter:
        self.letters += 1
        letter = make_letter(f"p{self.letters}", self.chance.randint(smallest, largest), self.chance, sender)
        self.diary.sums[letter.id] = letter.sha256
        return letter

    # -- mail comes in --

    async def send(self, peer: SmtpPeer, way: str, recipients: tuple[str, ...], size: tuple[int, int] = (1_000, 30_000)) -> None:
        sender = SENDER if way == "submission" else "ledger@sender.example"
        letter = self.letter(*size, sender)
        await peer.demand(f"MAIL FROM:<{sender}>", "250")
        for recipient in recipients:
            await peer.demand(f"RCPT TO:<{recipient}>", "250")
        await peer.demand("DATA", "354")
        sent = Sent(Entry(letter.id, way, recipients, letter.sha256), self.diary.position())
        self.diary.sent.append(sent)
        await peer.send(dotted(letter.octets))
        sent.entry.code = (await peer.reply())[:3]
        if sent.entry.acknowledged:
            sent.answered = self.diary.position()

    @asynccontextmanager
    async def peer(self, way: str) -> AsyncIterator[SmtpPeer]:
        place = self.machine.lmtp if way == "lmtp" else self.machine.place.endpoint({"data": "smtp"}.get(way, way))
        async with smtp_peer(place, "LHLO" if way == "lmtp" else "EHLO") as peer:
            if way == "submission":
                await log_in(peer, SENDER)
            yield peer

    async def receive(self, way: str, count: int, size: tuple[int, int] = (1_000, 30_000), most: int = 3,
                      among: tuple[str, ...] = RECEIVERS) -> None:
        async with self.peer(way) as peer:
            for _ in range(count):
                await self.send(peer, way, tuple(self.chance.sample(among, self.chance.randint(1, most))), size)

    async def look(self, address: str, *mailboxes: str) -> None:
        async with imap_peer(self.machine.place.endpoint("imap"), address) as peer:
            for mailbox in mailboxes:
                await note_state(self.diary, peer, address, mailbox)

    async def mailboxes(self, address: str, below: str) -> list[str]:
        """Which of BOXES there are below that name."""
        async with imap_peer(self.machine.place.endpoint("imap"), address) as peer:
            names = {one.data[2].decode() if isinstance(one.data[2], bytes) else one.data[2]
                     for one in (await peer.command("LIST", "", f"{below}/*"))[1] if one.kind == "LIST"}
        return [box for box in BOXES if f"{below}/{box}" in names]

    async def throw_away(self, address: str) -> None:
        """Its holder expunges all that has come."""
        async with imap_peer(self.machine.place.endpoint("imap"), address) as peer:
            state = await peer.state("INBOX")
            if not state.messages:
                return
            await peer.command("UID STORE", b"1:*", b"+FLAGS.SILENT (\\Deleted)")
            removed = Removed(address, frozenset(letter for letter, _, _ in state.messages.values()), self.diary.position())
            self.diary.removed.append(removed)
            await peer.command("EXPUNGE")
            removed.answered = self.diary.position()

    # -- mail waits to leave --

    async def submit(self, count: int, kinds: tuple[str, ...], size: tuple[int, int] = (1_000, 30_000)) -> None:
        """kinds: of the recipients, by what another server does with them (see Sink)."""
        async with self.peer("submission") as peer:
            for _ in range(count):
                number = self.letters + 1
                recipients = tuple(f"{kind}-{number}-{place}@d{number}.example" for place, kind in enumerate(kinds))
                await self.send(peer, "submission", recipients, size)
                self.look_at_queue()

    def look_at_queue(self) -> None:
        begun = self.diary.position()
        database = open_reader(self.machine.directory / "queue.db")
        rows = database.rows("SELECT forward_path, attempts FROM q_recipient WHERE state IN ('queued', 'held')")
        database.close()
        self.diary.queue.append(QueueSeen(begun, self.diary.position(), dict(rows)))

    @asynccontextmanager
    async def sink(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(NotingSink(self.diary).serve, self.machine.place.address, SINK_PORT, limit=1 << 24)
        try:
            yield
        finally:
            server.close()

    # -- people move their mail about --

    async def keep(self, address: str, kinds: tuple[str, ...], count: int, stock: int = 0,
                   size: tuple[int, int] = (1_000, 20_000)) -> None:
        """stock: messages to begin with; count: changes after that, by any of kinds."""
        mover = self.keepers.get(address)
        if mover is None:
            mover = Keeper(self.machine, _NO_LEDGER, self.chance, address, address[:2], asyncio.Event(), stage=self)
            self.keepers[address] = mover
        mover.size = size
        async with imap_peer(self.machine.place.endpoint("imap"), address) as peer:
            if address not in self.diary.steps:
                await peer.command("CREATE", "Work")
                self.diary.steps[address] = [Step("create", 0, _copied(mover.content), self.diary.position())]
            for _ in range(stock):
                await mover.change(peer, "append")
            for _ in range(count):
                await mover.change(peer, self.chance.choice(kinds))

    def restart(self) -> None:
        """kill -9, and a start that recovers."""
        self.machine.kill_all()
        self.machine.start()


class NotingSink(Sink):
    """Notes when it has taken what for whom."""

    def __init__(self, diary: Diary) -> None:
        super().__init__()
        self._diary = diary

    async def _end_of_data(self, octets: bytes, recipients: list[str], say: object) -> bool:
        for recipient in recipients:
            self._diary.taken.setdefault(recipient, self._diary.position())
        return await super()._end_of_data(octets, recipients, say)


_NO_LEDGER: Ledger = None   # type: ignore[assignment] # the diary takes its place


async def note_state(diary: Diary, peer: ImapPeer, address: str, mailbox: str) -> None:
    for turn in range(20):
        try:
            state = await peer.state(mailbox)
            break
        except AssertionError:      # a message came between SELECT and FETCH: another look
            if turn == 19:
                raise
    diary.told.append(Told(diary.position(), address, mailbox, state))


@dataclass(slots=True)
class Keeper(Mover):
    """A Mover who makes one change at a time of a given kind, and notes it in the diary."""

    stage: Stage = None     # type: ignore[assignment] # always given
    size: tuple[int, int] = (1_000, 20_000)

    async def change(self, peer: ImapPeer, kind: str) -> None:
        diary = self.stage.diary
        filled = [box for box in BOXES if self.content[box]]
        kind = kind if filled else "append"
        box = self.chance.choice(BOXES if kind == "append" else filled)
        have = sorted(self.content[box])
        uids = sorted(self.chance.sample(have, min(len(have), self.chance.randint(1, 5))))
        after, command = getattr(self, f"_{kind}")(box, uids, "")
        await peer.select(box)
        step = Step(kind, diary.position(), after)
        diary.steps[self.address].append(step)
        tagged, untagged = await peer.command(*command)
        step.answered = diary.position()
        codes = [tagged.code, *(one.code for one in untagged)]
        self.content = _with_uids(after, next((code for code in codes if code.startswith(("APPENDUID", "COPYUID"))), ""))
        step.after = self.content
        for one in {box, _other(box)} if kind in ("move", "copy") else {box}:
            await note_state(diary, peer, self.address, one)

    def _append(self, box: str, uids: list[int], entry_id: str) -> tuple[Content, tuple[object, ...]]:
        letter = self.stage.letter(*self.size)
        flags = frozenset(self.chance.sample(FLAGS, self.chance.randint(0, 2)))
        after = _copied(self.content)
        after[box][-1] = letter.id, flags
        return after, ("APPEND", box, b"(%b)" % " ".join(sorted(flags)).encode(), Literal(letter.octets))


# -- the kinds of work --


async def accept(stage: Stage) -> None:
    """Into the queue; nobody takes it off our hands."""
    await stage.submit(stage.times(12), ("defer", "defer"))


async def deliver(stage: Stage) -> None:
    """From SMTP into mailboxes, two connections at a time, so that commits are shared; somebody reads."""
    for _ in range(stage.times(4)):
        await asyncio.gather(stage.receive("data", 3), stage.receive("data", 3))
        await stage.look(RECEIVERS[0], "INBOX")


async def lmtp(stage: Stage) -> None:
    await stage.receive("lmtp", stage.times(16), most=1)
    await stage.look(RECEIVERS[0], "INBOX")


async def append(stage: Stage) -> None:
    await stage.keep(MOVERS[0], ("append",), stage.times(14))


async def move(stage: Stage) -> None:
    await stage.keep(MOVERS[0], ("move",), stage.times(14), stock=6)


async def expunge(stage: Stage) -> None:
    await stage.keep(MOVERS[0], ("expunge", "expunge", "expunge", "append"), stage.times(14), stock=10)


async def store(stage: Stage) -> None:
    await stage.keep(MOVERS[0], ("store",), stage.times(18), stock=6)


async def retry(stage: Stage) -> None:
    """Attempts that end in taken, DSN or another wait; then the administrator has them tried again."""
    async with stage.sink():
        await stage.submit(stage.times(5), ("ok", "defer"))
        await stage.submit(stage.times(3), ("fail", "ok", "defer"))
        await stage.look(SENDER, "INBOX")
        for _ in range(2):
            await asyncio.to_thread(stage.machine.cli, "queue", "retry", "--all")
            await asyncio.sleep(0.5)
            stage.look_at_queue()
        await stage.look(SENDER, "INBOX")


async def rollover(stage: Stage) -> None:
    """Bodies that fill segments, and bodies that are files of their own, on every way in."""
    await stage.receive("data", stage.times(8), (120_000, 240_000), 1)
    await stage.receive("data", stage.times(3), LARGE, 2)
    await stage.keep(MOVERS[0], ("append",), stage.times(3), size=LARGE)
    await stage.submit(stage.times(3), ("defer",), LARGE)
    await stage.receive("lmtp", stage.times(6), (120_000, 240_000), 1)


async def directory(stage: Stage) -> None:
    """Accounts and aliases, by the command line while the server runs."""
    for number in range(stage.times(3)):
        address = f"new{number}@{DOMAIN}"
        await asyncio.to_thread(stage.machine.cli, "account", "add", address, "--password-stdin", said="correct horse 9\n")
        stage.diary.done.append(Done(stage.diary.position(), _has_account(address)))
        await asyncio.to_thread(stage.machine.cli, "alias", "add", f"alias{number}@{DOMAIN}", address)
        stage.diary.done.append(Done(stage.diary.position(), _has_alias(f"alias{number}@{DOMAIN}")))


def _has_account(address: str) -> Callable[[Reader], str]:
    return lambda reader: "" if reader.account(address) else f"account {address} is gone"


def _has_alias(address: str) -> Callable[[Reader], str]:
    return lambda reader: "" if reader.alias(address) else f"alias {address} is gone"


async def mixed(stage: Stage) -> None:
    """All at once, a kill -9 and a recovery, all at once again."""
    kinds = ("append", "copy", "move", "store", "store", "expunge")
    async with stage.sink():
        for turn in range(2):
            await asyncio.gather(
                stage.receive("data", stage.times(6)), stage.receive("data", stage.times(2), LARGE),
                stage.receive("lmtp", stage.times(6), most=1), stage.submit(stage.times(4), ("ok", "defer")),
                *(stage.keep(mover, kinds, stage.times(6), stock=3) for mover in MOVERS))
            if turn == 0:
                await asyncio.to_thread(stage.restart)


async def setup(stage: Stage) -> None:
    """init, a domain and accounts, before there is a server."""
    machine, diary, root = stage.machine, stage.diary, stage.machine.directory
    diary.probe = ""
    await asyncio.to_thread(machine.cli, "init", "--hostname", machine.hostname)
    made = {path.relative_to(root): path.read_bytes() for path in (root / "fumibako.toml", *root.glob("tls/*.pem"))}
    diary.done.append(Done(diary.position(), _has_files(made)))
    await asyncio.to_thread(machine.cli, "domain", "add", DOMAIN)
    await directory(stage)


def _has_files(made: dict[Path, bytes]) -> Callable[[Reader], str]:
    def look(reader: Reader) -> str:
        wrong = [str(name) for name, octets in made.items()
                 if not (reader.directory / name).exists() or (reader.directory / name).read_bytes() != octets]
        return f"{', '.join(wrong)} of init: gone or changed" if wrong else ""
    return look


async def backup(stage: Stage) -> None:
    """Backups beside a running house while mail arrives; the later ones take over what the ones before have, the oldest go."""
    place, diary = stage.machine.directory.with_name("backups"), stage.diary
    backups = Backups(diary.sums)
    diary.afterwards.append(backups)
    await stage.receive("data", stage.times(8), (100_000, 200_000), 1)      # more than a segment, so that some are sealed
    for _ in range(stage.times(3)):
        owed = {(one.entry.id, who) for one in diary.sent if one.answered < NEVER for who in one.entry.args}
        await asyncio.gather(asyncio.to_thread(stage.machine.cli, "backup", str(place), "--keep", "2"),
                             stage.receive("data", stage.times(8)), stage.receive("lmtp", stage.times(3), LARGE, 1))
        backups.taken.append((diary.position(), owed))
        diary.done.append(Done(backups.taken[-1][0], lambda reader: ""))     # the look knows


async def export(stage: Stage) -> None:
    """An account's mail goes into files of both formats."""
    exports, address = Exports(), MOVERS[0]
    stage.diary.afterwards.append(exports)
    await stage.keep(address, ("append", "move", "copy", "store"), stage.times(10), stock=6)
    owed = Counter(one.sha256 for one in kept_by(stage.machine.directory, address))
    for form in ("maildir", "mbox", "maildir"):
        name = f"export-{len(exports.taken)}"
        command = "export", address, str(stage.machine.directory.with_name(name)), "--format", form
        await asyncio.gather(
            asyncio.to_thread(stage.machine.cli, *command),
            stage.receive("lmtp", stage.times(3), most=1))
        exports.taken.append((name, stage.diary.position(), owed))
        stage.diary.done.append(Done(exports.taken[-1][1], lambda reader: ""))      # the look knows


async def compaction(stage: Stage) -> None:
    """What was expunged goes at once, thin segments move on, their files go. One account is held; copies and mail to several
    share their octets with what stays."""
    diary, machine, kinds = stage.diary, stage.machine, ("append", "copy", "move", "expunge", "expunge", "expunge")
    await asyncio.to_thread(machine.cli, "account", "hold", MOVERS[0], "--reason", "audit")
    diary.done.append(Done(diary.position(), _is_held(MOVERS[0])))
    diary.afterwards.append(Compacting(diary, MOVERS[0]))
    for _ in range(stage.times(3)):
        await asyncio.gather(stage.receive("data", stage.times(4), (50_000, 150_000)),
                             stage.receive("data", stage.times(12), (100_000, 200_000), among=RECEIVERS[:1], most=1),
                             *(stage.keep(mover, kinds, stage.times(8), stock=3, size=(50_000, 120_000)) for mover in MOVERS[:2]))
        await stage.throw_away(RECEIVERS[0])
        await stage.throw_away(RECEIVERS[1])
    for _ in range(100):
        if has_compacted(machine.directory):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("nothing was compacted")


def _is_held(address: str) -> Callable[[Reader], str]:
    def look(reader: Reader) -> str:
        account = reader.account(address)
        return "" if account and account.id in {hold.account_id for hold in reader.holds()} else f"the hold on {address} is gone"
    return look


async def upgrade(stage: Stage) -> None:
    """A command of this release opens the data directory of the first one; another makes an account in it."""
    diary, grown_at, address = stage.diary, list[int](), "new@example.jp"
    diary.probe = ""
    diary.afterwards.append(Upgraded(diary, grown_at))
    await asyncio.to_thread(stage.machine.cli, "account", "list")
    diary.done.append(Done(diary.position(), schema_is_newest))
    grown_at.append(diary.position())
    await asyncio.to_thread(stage.machine.cli, "account", "add", address, "--password-stdin", said="correct horse 9\n")
    diary.done.append(Done(diary.position(), _has_account(address)))


async def restore(stage: Stage) -> None:
    """What an account has lost comes back from a backup into the running house, while mail arrives and somebody else works."""
    diary, machine, place = stage.diary, stage.machine, stage.machine.directory.with_name("backups")
    address, other = MOVERS[:2]
    recalling = Recalling(address, diary.sums)
    diary.afterwards.append(recalling)
    await stage.keep(address, ("append", "move", "store"), stage.times(10), stock=8)
    await asyncio.to_thread(machine.cli, "backup", str(place))
    recalling.kept, recalling.backed_up_at = kept_by(find_backup(place), address), diary.position()
    await stage.keep(address, ("expunge", "expunge", "expunge", "append"), stage.times(10))
    for _ in range(2):      # the second time there is nothing to do
        await asyncio.gather(
            asyncio.to_thread(machine.cli, "restore", str(place), "--account", address, "--into", INTO),
            stage.receive("lmtp", stage.times(6), most=1),
            stage.keep(other, ("append", "store", "expunge"), stage.times(4), stock=2))
        diary.done.append(Done(diary.position(), _has_all_back(recalling)))
        await stage.look(address, *(f"{INTO}/{box}" for box in await stage.mailboxes(address, INTO)))


def _has_all_back(recalling: Recalling) -> Callable[[Reader], str]:
    def look(reader: Reader) -> str:
        missing = {one.letter for one in recalling.kept} - {one.letter for one in letters_of_account(reader, recalling.address)}
        return f"{sorted(missing)} had come back and are gone" if missing else ""
    return look


Work = Callable[[Stage], Awaitable[None]]
WORKLOADS: dict[str, Work] = {
    work.__name__: work for work in (
        accept, deliver, lmtp, append, move, expunge, store, retry, rollover, directory, mixed, setup,
        backup, export, compaction, upgrade, restore)}
CHANGES = {"rollover": "small-segments", "mixed": "small-segments", "backup": "small-segments", "compaction": "short-times",
           "restore": "small-pieces"}    # of the server and the commands (power_serve.py)
FRESH = ("setup",)      # what a cut leaves is completed by init


# -- what there is when the work begins --


def running(stage: Stage) -> None:
    """A house with people in it."""
    stage.machine.make(workers=1, smarthost=f"{stage.machine.place.address}:{SINK_PORT}")
    make_durable(stage)
    stage.machine.start()


def nothing(stage: Stage) -> None:
    """An empty disk."""


def old_directory(stage: Stage) -> None:
    """The data directory of the first release, with a configuration; nobody runs."""
    unpack_oldest(stage.machine.directory)
    stage.machine.cli("init", "--hostname", stage.machine.hostname)


BEGINNINGS: dict[str, Callable[[Stage], None]] = {"setup": nothing, "upgrade": old_directory}      # all others: running


def make_durable(stage: Stage) -> None:
    """The data directory as the tests made it, with files they wrote themselves."""
    os.sync()
