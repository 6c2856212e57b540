"""One server without sockets on a disk that fails when told: every face and service of it, and clients in memory."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fumibako.faces.imap.conversation import ImapServices
from fumibako.faces.imap.session import Session as ImapSession
from fumibako.faces.pop3 import Pop3Services
from fumibako.faces.pop3 import Session as Pop3Session
from fumibako.faces.serve import Session
from fumibako.faces.smtp import Role, SmtpConfig, open_session, refuse_connection
from fumibako.model.ops import AddAccount, AddAlias, AddDomain
from fumibako.net.stream import Stream
from fumibako.proto.imap.server import ServerConfig as ImapConfig
from fumibako.proto.pop3.server import ServerConfig as Pop3Config
from fumibako.services.admin import Admin
from fumibako.services.mailboxes import Mailboxes
from fumibako.services.migrate.exporting import Exporting
from fumibako.services.migrate.importing import Importing
from fumibako.store.base import StoreUnavailable
from fumibako.store.disk import DiskIO
from fumibako.store.local import LocalStore
from fumibako.store.sqlite.engine import Engine
from tests.support.clock import FakeClock
from tests.support.imap_session import PASSWORD, OpenDoor
from tests.support.mailhouse import MailHouse
from tests.support.served import run_served
from tests.support.streams import stream_pair

ALICE, BOB = "alice@a.example", "bob@a.example"
ELSEWHERE = "x@b.example"
FORWARDED = "info@a.example"
ANSWER_S = 20.0
NOW_MS = FakeClock().now_ms()


def make(directory: Path) -> None:
    """Two accounts, and an address for Bob and somebody elsewhere."""
    engine = Engine(directory, now_ms=NOW_MS)
    engine.execute([AddDomain("a.example"), AddAccount(ALICE, PASSWORD), AddAccount(BOB, PASSWORD),
                    AddAlias(FORWARDED, (BOB, ELSEWHERE))], NOW_MS)
    engine.close()


class World(MailHouse):
    """seed: of ids, so that no two lives give the same."""

    def __init__(self, directory: Path, disk: DiskIO, seed: int = 1, later_s: float = 0.0) -> None:
        clock = FakeClock(seed=seed)
        clock.advance(later_s)
        super().__init__(LocalStore(directory, clock.now_ms, disk=disk), clock)
        self.disk = disk
        self.mailboxes = Mailboxes(self.store, clock)
        self.imap_services = ImapServices(self.mailboxes, OpenDoor(self.store), clock)      # type: ignore[arg-type]
        self.admin = Admin(self.store, self._cheap_password)
        self.exporting, self.importing = Exporting(self.store), Importing(self.store, clock)

    @staticmethod
    async def _cheap_password(_: str) -> object:
        return PASSWORD

    @property
    def failed(self) -> bool:
        return self.store.failed is not None

    async def end(self) -> None:
        self.mailboxes.close()
        await self.close()

    @asynccontextmanager
    async def smtp_client(self, role: Role) -> AsyncIterator[Wire]:
        """As a worker opens it: where the settings can't be read nobody is welcome."""
        config = SmtpConfig("mail.a.example", role, None, allow_plaintext=True)

        async def opened(stream: Stream) -> Session | None:
            try:
                return await open_session(config, self.services, stream)
            except StoreUnavailable:
                await stream.write(refuse_connection("temporary failure"))
                return None

        async with self._wired(opened) as wire:
            yield wire

    @asynccontextmanager
    async def imap_client(self) -> AsyncIterator[Wire]:
        config = ImapConfig(hostname="mail.a.example", allow_plaintext_login=True)

        async def opened(stream: Stream) -> Session:
            return ImapSession(config, stream, self.imap_services)

        async with self._wired(opened) as wire:
            yield wire

    @asynccontextmanager
    async def pop3_client(self) -> AsyncIterator[Wire]:
        services = Pop3Services(self.mailboxes, OpenDoor(self.store))       # type: ignore[arg-type]
        config = Pop3Config(auth_without_tls=True, auth_mechanisms=("PLAIN",))

        async def opened(stream: Stream) -> Session:
            return Pop3Session(config, stream, services)

        async with self._wired(opened) as wire:
            yield wire

    @asynccontextmanager
    async def _wired(self, opened: Callable[[Stream], Awaitable[Session | None]]) -> AsyncIterator[Wire]:
        ends = stream_pair(client=("198.51.100.1", 40000))

        async def serve() -> None:
            if (session := await opened(ends[1])) is not None:
                await run_served(session, ends[1], self.stopping)
            ends[1].close()

        async with asyncio.TaskGroup() as group:
            task = group.create_task(serve())
            wire = Wire(ends[0])
            wire.greeting = await wire.line()
            try:
                yield wire
            finally:
                ends[0].close()
            await task


class Bare:
    """Only the engine, or nothing at all."""

    def __init__(self, place: Path, disk: DiskIO, *, opened: bool) -> None:
        self.place, self.disk, self.failed = place, disk, False
        self.engine = Engine(place / "data", disk, NOW_MS) if opened else None

    async def end(self) -> None:
        if self.engine is not None:
            if self.failed:
                self.engine.give_up()
            self.engine.close()


class Wire:
    """Octets out, lines in."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._buffer, self.greeting, self.ended = stream, b"", "", False

    async def send(self, octets: bytes) -> None:
        await self._stream.write(octets)

    async def reply(self) -> str:
        """SMTP: the last line of the next reply."""
        while (line := await self.line())[3:4] == "-":
            pass
        return line

    async def line(self) -> str:
        """The next line; "" at the end of the connection."""
        async with asyncio.timeout(ANSWER_S):
            while b"\r\n" not in self._buffer:
                try:
                    octets = await self._stream.read()
                except OSError:
                    octets = b""
                if not octets:
                    self.ended = True
                    return ""
                self._buffer += octets
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line.decode("utf-8", "replace")

    async def ask(self, octets: bytes) -> str:
        await self._stream.write(octets + b"\r\n")
        return await self.reply()

    async def command(self, text: bytes) -> str:
        """IMAP: the tagged response, "* BYE ..." or ""."""
        await self._stream.write(b"t " + text + b"\r\n")
        answer = await self.line()
        while not self.ended and not answer.startswith(("t ", "* BYE")):
            answer = await self.line()
        return answer


class Log(logging.Handler):
    """What the administrator reads."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def __enter__(self) -> Log:
        self._before = logging.getLogger().handlers[:], logging.getLogger("fumibako").propagate
        logging.getLogger("fumibako").addHandler(self)
        logging.getLogger("fumibako").propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("fumibako").removeHandler(self)
        logging.getLogger("fumibako").propagate = self._before[1]

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.records]

    @property
    def tracebacks(self) -> list[str]:
        return [logging.Formatter().format(record) for record in self.records if record.exc_info]


NAMES_A_PLACE = re.compile(r"(control|queue|mail)\.db|/(spool|seg|queue|backups|data|out|RESTORING)\b|\.seg\b|\.new\b|shard-\d+")
