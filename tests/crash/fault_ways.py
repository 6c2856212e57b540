"""Every way in which the store is written, as a deed that can be done on a disk that fails, and done again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from fumibako.app.rescue import in_words
from fumibako.faces.cli.house import HouseError
from fumibako.faces.smtp import Role
from fumibako.model.ops import AddAlias, DrainOutbox, Expunge, OpenAccount, ReclaimLeases, SetPassword, SetSetting
from fumibako.model.queue import DAY_MS, Outcome, OutcomeKind
from fumibako.services.admin import AdminError
from fumibako.services.migrate import writing
from fumibako.services.migrate.importing import ImportPlan
from fumibako.store.base import StoreRefused, StoreUnavailable
from fumibako.store.disk import DiskIO
from fumibako.store.manifest import find_backup, read_manifest, verify
from fumibako.store.restore import restore
from fumibako.store.sqlite.compaction import REPLACED_MS
from fumibako.store.sqlite.engine import EngineFailed
from tests.crash.disks import Trigger
from tests.crash.fault_world import ALICE, BOB, ELSEWHERE, FORWARDED, NOW_MS, Bare, World, make
from tests.store.backing import back_up
from tests.support.imap_session import PASSWORD

SMALL = b"From: x@b.example\r\nSubject: small\r\n\r\n" + b"text\r\n" * 100
LARGE = b"From: x@b.example\r\nSubject: large\r\n\r\n" + (b"x" * 76 + b"\r\n") * 4_000
FAILED = Outcome(OutcomeKind.FAILED, "5.1.1", "nobody")
BACKUPS = "backups"
RETRY_S = 1_200     # what was deferred once is due by then

Arm = Callable[[], None]
Deed = Callable[[object, Arm], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Way:
    """deed: gives the decisive answer; it calls `arm` where the part begins in which the disk may fail. family: whose answers.

    template: makes the place the deed is done in. world: World, or Bare with or without an engine ("engine", "nothing").
    resumes: done again it finishes what was begun, whatever that was. check: what is wrong at the end beside the store.
    """

    name: str
    family: str
    deed: Deed
    template: Callable[[Path], Awaitable[None]]
    world: str = "world"
    resumes: bool = False
    check: Callable[[Path], list[str]] = lambda place: []
    sizes: bool = True          # False: what cannot be read is left out of a notice

    def open(self, place: Path, disk: DiskIO, seed: int) -> World | Bare:
        if self.world == "world":
            return World(place / "data", disk, seed, seed * 3_600.0)
        return Bare(place, disk, opened=self.world == "engine")


# -- what there is before --


async def mail(place: Path) -> None:
    """Four messages of Alice's."""
    make(place / "data")
    world = World(place / "data", DiskIO(), 9)
    for octets in (SMALL, LARGE, SMALL, SMALL):
        assert not (await world.receive(ALICE, message=octets))[1][0].refused
    account = await world.account(BOB)
    await world.store.commit(OpenAccount(account.id))
    assert await world.store.secret("thread")
    await world.end()


async def nobody(place: Path) -> None:
    """A new data directory, and a backup of another one."""
    await mail(place)
    (place / "data").rename(place / "old")
    bare = Bare(place, DiskIO(), opened=False)
    (place / "old").rename(place / "data")
    bare = Bare(place, DiskIO(), opened=True)
    assert bare.engine is not None
    back_up(bare.engine, place / BACKUPS)
    await bare.end()
    (place / "data").rename(place / "old")
    Bare(place, DiskIO(), opened=True).engine.close()       # type: ignore[union-attr]


def queued(octets: bytes, *recipients: str, notify: int = 0) -> Callable[[Path], Awaitable[None]]:
    """Mail of Alice's that waits."""
    async def template(place: Path) -> None:
        await mail(place)
        world = World(place / "data", DiskIO(), 8)
        async with world.smtp_client(Role.MX) as client:
            await client.ask(b"EHLO c")
            await client.ask(f"MAIL FROM:<{ALICE}>".encode())
            for one in recipients:
                assert (await client.ask(f"RCPT TO:<{one}>{' NOTIFY=SUCCESS' if notify else ''}".encode())).startswith("250")
            await client.ask(b"DATA")
            await client.send(octets + b".\r\n")
            assert (await client.reply()).startswith("250")
        await world.end()
    return template


async def expunged(place: Path) -> None:
    """Nearly everything was expunged six weeks ago."""
    await mail(place)
    world = World(place / "data", DiskIO(), 7)
    account = await world.account(ALICE)
    (inbox, *_) = await world.store.mailboxes(account.id)
    await world.store.commit(Expunge(account.id, inbox.id, (1, 2, 4), only_deleted=False))      # type: ignore[arg-type]
    await world.end()


async def exported(place: Path) -> None:
    await mail(place)
    world = World(place / "data", DiskIO(), 6)
    with mock.patch("os.sync"):
        await world.exporting.export(ALICE, place / "out", "maildir", "", lambda done, total: None)
    await world.end()


# -- SMTP --


def smtp(octets: bytes, *recipients: str, role: Role = Role.MX, chunks: int = 0, cold: bool = False) -> Deed:
    """The reply to the message, or the first one that says no. chunks: BDAT; cold: the disk may fail from the greeting on."""
    async def deed(world: World, arm: Arm) -> str:
        if cold:
            arm()
        async with world.smtp_client(role) as client:
            if not client.greeting.startswith("220"):
                return client.greeting
            hello = "LHLO c" if role is Role.LMTP else "EHLO c"
            for line in (hello, "MAIL FROM:<x@b.example>", *(f"RCPT TO:<{one}>" for one in recipients)):
                if not (reply := await client.ask(line.encode())).startswith("250"):
                    return reply
            if not cold:
                arm()
            if chunks:
                size = -(-len(octets) // chunks)
                for start in range(0, len(octets), size):
                    piece = octets[start:start + size]
                    last = b" LAST" if start + size >= len(octets) else b""
                    await client.send(b"BDAT %d%b\r\n%b" % (len(piece), last, piece))
                    reply = await client.reply()
                return reply
            await client.ask(b"DATA")
            await client.send(octets + b".\r\n")
            replies = [await client.reply() for _ in range(len(recipients) if role is Role.LMTP else 1)]
            return " | ".join(sorted({reply.partition(", id")[0] for reply in replies}))
    return deed     # type: ignore[return-value]


def submit(octets: bytes) -> Deed:
    async def deed(world: World, arm: Arm) -> str:
        account = await world.account(ALICE)
        with mock.patch.object(type(world.login), "exchange", lambda *_: _Known(account)):
            async with world.smtp_client(Role.SUBMISSION) as client:
                for line in ("EHLO c", "AUTH PLAIN AGEAYg==", f"MAIL FROM:<{ALICE}>", f"RCPT TO:<{ELSEWHERE}>"):
                    assert (reply := await client.ask(line.encode()))[0] == "2", reply
                arm()
                await client.ask(b"DATA")
                await client.send(octets + b".\r\n")
                return await client.reply()
    return deed     # type: ignore[return-value]


class _Known:
    def __init__(self, account: object) -> None:
        self._account = account

    async def step(self, _: bytes | None) -> object:
        return self._account


# -- IMAP and POP3 --


def imap(*commands: bytes, select: str = "INBOX", cold: bool = False) -> Deed:
    """The tagged response to the last command, or the first that is not OK."""
    async def deed(world: World, arm: Arm) -> str:
        if cold:
            arm()
        async with world.imap_client() as wire:
            lines = [b"LOGIN " + ALICE.encode() + b" secret", b"SELECT " + select.encode(), *commands]
            for line in lines:
                if not cold and line is commands[0]:
                    arm()
                if not (answer := await wire.command(line)).startswith("t OK"):
                    break
        return answer
    return deed     # type: ignore[return-value]


def append(*messages: bytes) -> bytes:
    return b"APPEND INBOX " + b" ".join(b"() {%d+}\r\n%b" % (len(one), one) for one in messages)


async def pop3(world: World, arm: Arm) -> str:
    async with world.pop3_client() as wire:
        for line in (b"USER " + ALICE.encode(), b"PASS secret", b"DELE 1", b"DELE 3"):
            assert (await wire.ask(line)).startswith("+OK")
        arm()
        return await wire.ask(b"QUIT")


async def pop3_cold(world: World, arm: Arm) -> str:
    arm()
    async with world.pop3_client() as wire:
        for line in (b"USER " + ALICE.encode(), b"PASS secret", b"RETR 2"):
            if not (answer := await wire.ask(line)).startswith("+OK"):
                break
        return answer


# -- the queue --


def attempts(steps: int, outcome: Outcome | None = None) -> Deed:
    """Rounds of the queue runner; time goes on while it waits for the store, and after ten seconds the disk is mended."""
    async def deed(world: World, arm: Arm) -> str:
        if outcome is not None:
            world.relay.outcomes = {ELSEWHERE: [outcome]}
        runner = world.runner()
        world.clock.advance(RETRY_S)
        arm()
        try:
            await world.store.commit(ReclaimLeases(world.clock.now_ms()))
            for _ in range(steps):
                await _in_time(world, runner.step())
            return "OK" if not await world.store.queue_items() else "WAITS"
        except StoreRefused as error:
            return f"NO {error}"
        except StoreUnavailable as error:
            return f"AWAY {error}"
    return deed     # type: ignore[return-value]


async def _in_time(world: World, work: Awaitable[int]) -> None:
    task = asyncio.ensure_future(work)
    waited_s = 0.0
    while not task.done():
        await asyncio.sleep(0.001)
        if (wait_s := world.clock.next_wake_s) is not None:
            waited_s += wait_s
            if waited_s > 10 and isinstance(trigger := getattr(world.disk, "trigger", None), Trigger):
                trigger.mend()
            world.clock.advance(wait_s)
    await task


async def drain(world: World, arm: Arm) -> str:
    arm()
    try:
        await world.store.commit(DrainOutbox())
    except (StoreRefused, StoreUnavailable) as error:
        return f"NO {error}"
    return "OK"


# -- the administrator --


def administrator(work: Callable[[World], Awaitable[object]]) -> Deed:
    async def deed(world: World, arm: Arm) -> str:
        arm()
        try:
            await work(world)
        except AdminError as error:
            return f"NO {error}"
        except (StoreRefused, StoreUnavailable) as error:
            return f"NO {error}"
        return "OK"
    return deed     # type: ignore[return-value]


async def change_password(world: World) -> None:
    await world.store.commit(SetPassword(BOB, PASSWORD))


async def export(world: World) -> None:
    """A file that fails as the disk does, because an export does not go through the store's."""
    place = world.store.engine.directory.parent / "out"
    shaky = getattr(world.disk, "trigger", None)
    with mock.patch("os.sync"), mock.patch.object(writing, "create", lambda path: Shaky(path, shaky)):
        try:
            await world.exporting.export(ALICE, place, "maildir", "", lambda done, total: None)
        except AdminError:
            left = [path for path in place.rglob("*") if "unfinished" in path.name or path.name.endswith(".new")]
            assert not left, left
            raise


class Shaky:
    """A file of an export."""

    def __init__(self, path: Path, trigger: Trigger | None) -> None:
        self._path, self._trigger = path, trigger
        self._perhaps("create")
        self._file = create(path)

    def _perhaps(self, call: str) -> None:
        if self._trigger is not None and self._trigger.strikes(call, str(self._path)):
            raise OSError(self._trigger.code, "injected", str(self._path))

    def write(self, octets: bytes) -> int:
        self._perhaps("pwrite")
        return self._file.write(octets)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Shaky:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


create = writing.create


def is_exported(place: Path) -> list[str]:
    found = list((place / "out" / "cur").iterdir()) if (place / "out" / "cur").exists() else []
    return [] if len(found) == 4 else [f"{len(found)} exported messages"]


async def again_export(world: World) -> None:
    """As a person does after a failure: the place is emptied first."""
    import shutil
    shutil.rmtree(world.store.engine.directory.parent / "out", ignore_errors=True)
    await export(world)


async def import_(world: World) -> None:
    plan = ImportPlan(world.store.engine.directory.parent / "out", merge=True)
    report = await world.importing.import_(BOB, plan, lambda done, total: None)
    if report.stopped:
        raise AdminError(report.stopped, **report.values)
    if not report.complete:
        raise AdminError("not complete: {named}", named=report.named)


# -- files and housekeeping --


def tidy(*days: float) -> Deed:
    async def deed(bare: Bare, arm: Arm) -> str:
        assert bare.engine is not None
        arm()
        try:
            for day in days:
                for later_ms in (0, REPLACED_MS):
                    while bare.engine.housekeep(NOW_MS + int(day * DAY_MS) + later_ms):
                        pass
        except EngineFailed as error:
            bare.failed = True
            return f"AWAY {error}"
        return "OK"
    return deed     # type: ignore[return-value]


async def backup(bare: Bare, arm: Arm) -> str:
    assert bare.engine is not None
    arm()
    try:
        with in_words():
            back_up(bare.engine, bare.place / BACKUPS, number=len(list((bare.place / BACKUPS).glob("2*"))) + 1, disk=bare.disk)
    except HouseError as error:
        return f"NO {error}"
    return "OK"


def has_backup(place: Path) -> list[str]:
    found = find_backup(place / BACKUPS)
    verify(found, read_manifest(found), DiskIO())
    left = [path.name for path in (place / BACKUPS).glob(".unfinished*")]
    return [f"left: {left}"] if left else []


async def bring_back(bare: Bare, arm: Arm) -> str:
    arm()
    try:
        with in_words():
            restore(bare.place / "data", bare.place / BACKUPS, NOW_MS + DAY_MS, lambda done, total: None, bare.disk)
    except HouseError as error:
        return f"NO {error}"
    return "OK"


def is_whole(place: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        (place / "data" / "RESTORING").stat()
        return ["RESTORING is still there"]
    return []


WAYS = (
    Way("DATA", "smtp", smtp(SMALL, ALICE, BOB), mail),
    Way("DATA, large", "smtp", smtp(LARGE, ALICE), mail),
    Way("DATA, from the greeting on", "smtp", smtp(SMALL, BOB, cold=True), mail),
    Way("DATA, also forwarded", "smtp", smtp(SMALL, FORWARDED), mail),
    Way("BDAT", "smtp", smtp(SMALL, ALICE, chunks=3), mail),
    Way("BDAT, large", "smtp", smtp(LARGE, BOB, chunks=2), mail),
    Way("LMTP", "smtp", smtp(SMALL, ALICE, BOB, role=Role.LMTP), mail),
    Way("LMTP, large", "smtp", smtp(LARGE, ALICE, BOB, role=Role.LMTP), mail),
    Way("submission", "smtp", submit(SMALL.replace(b"x@b.example", ALICE.encode())), mail),
    Way("submission, large", "smtp", submit(LARGE.replace(b"x@b.example", ALICE.encode())), mail),
    Way("APPEND", "imap", imap(append(SMALL)), mail),
    Way("APPEND, large and small", "imap", imap(append(LARGE, SMALL)), mail),
    Way("COPY", "imap", imap(b"UID COPY 1:3 Trash"), mail),
    Way("MOVE", "imap", imap(b"UID MOVE 1:3 Trash"), mail),
    Way("STORE", "imap", imap(b"UID STORE 1:3 +FLAGS (\\Seen $Label)"), mail),
    Way("EXPUNGE", "imap", imap(b"UID STORE 1:2 +FLAGS.SILENT (\\Deleted)", b"EXPUNGE"), mail, resumes=True),
    Way("CREATE", "imap", imap(b"CREATE a"), mail),
    Way("RENAME", "imap", imap(b"RENAME Archive Old"), mail),
    Way("DELETE", "imap", imap(b"DELETE Junk"), mail),
    Way("FETCH, from the greeting on", "imap", imap(b"FETCH 1:* (FLAGS BODY[])", cold=True), mail),
    Way("DELE, QUIT", "pop3", pop3, mail),
    Way("RETR, from the greeting on", "pop3", pop3_cold, mail),
    Way("attempt, Settle", "queue", attempts(1), queued(SMALL, FORWARDED), resumes=True),
    Way("attempt, Settle, large", "queue", attempts(1), queued(LARGE, FORWARDED), resumes=True),
    Way("DSN", "queue", attempts(2, FAILED), queued(SMALL, FORWARDED), resumes=True, sizes=False),
    Way("local by the queue", "queue", attempts(2), queued(LARGE, ALICE, BOB, notify=1), resumes=True),
    Way("outbox", "queue", drain, queued(LARGE, FORWARDED), resumes=True),
    Way("purge", "tidy", tidy(15, 30), expunged, "engine", resumes=True),
    Way("compaction", "tidy", tidy(42, 43), expunged, "engine", resumes=True),
    Way("backup", "files", backup, mail, "engine", resumes=True, check=has_backup),
    Way("restore", "files", bring_back, nobody, "nothing", check=is_whole),
    Way("export", "admin", administrator(again_export), mail, resumes=True, check=is_exported),
    Way("import", "admin", administrator(import_), exported, resumes=True),
    Way("account add", "admin", administrator(lambda world: world.admin.add_account("carol@a.example", "a long password")), mail),
    Way("alias add", "admin", administrator(lambda world: world.store.commit(AddAlias("team@a.example", (ALICE, BOB)))), mail),
    Way("account passwd", "admin", administrator(change_password), mail, resumes=True),
    Way("policy set", "admin", administrator(lambda world: world.store.commit(SetSetting("limits.recipients", "", "50"))), mail,
        resumes=True),
)
