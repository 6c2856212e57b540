"""A mail house without sockets: a real store, a clock that stands still, services, and SMTP sessions in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fumibako.faces.smtp import Role, Services, SmtpConfig, open_session
from fumibako.model.account import Account, PasswordRecord
from fumibako.model.envelope import Envelope, Peer, Recipient
from fumibako.model.ops import AddAccount, AddAlias, AddDomain, DrainOutbox, SetSetting
from fumibako.model.queue import QueueItem
from fumibako.net.offload import Offload
from fumibako.net.stream import Stream
from fumibako.services.deliver import Deliverer
from fumibako.services.directory import Directory
from fumibako.services.dsn import Notifier
from fumibako.services.intake import Framing, House
from fumibako.services.login import Login, make_password_record
from fumibako.services.policy import Policy
from fumibako.services.queue import QueueRunner
from fumibako.services.receive import Receiver
from fumibako.services.submit import Submitter
from fumibako.store.local import LocalStore
from fumibako.store.sqlite.engine import create
from tests.support.clock import FakeClock
from tests.support.served import run_served
from tests.support.streams import stream_pair
from tests.support.target import RecordingTarget, RecordingTrace

HOSTNAME = "mail.example.jp"
NO_PASSWORD = PasswordRecord("", b"salt", 4096, b"k" * 32, b"s" * 32)
MESSAGE = b"From: bob@example.net\r\nTo: alice@example.jp\r\nSubject: hello\r\n\r\nHello.\r\n"
STRANGER = Peer("198.51.100.1", helo="client.example.net", protocol="ESMTP")


class MailHouse:
    """accounts: alice and bob @example.jp, carol@example.org; aliases are added by the test."""

    def __init__(self, store: LocalStore, clock: FakeClock) -> None:
        self.store, self.clock = store, clock
        self.trace = RecordingTrace()
        self.directory = Directory(store, HOSTNAME, frozenset({"192.0.2.25"}))
        self.house = House(HOSTNAME, store, self.directory, clock, self.trace, asyncio.Event())
        self.offload = Offload()
        self.login = Login(store, self.directory, self.offload, clock)
        self.receiver, self.submitter = Receiver(self.house), Submitter(self.house)
        self.services = Services(self.receiver, self.submitter, self.login, clock)
        self.relay = RecordingTarget()
        self.notifier = Notifier(store, self.directory, clock, HOSTNAME)
        self.stopping = asyncio.Event()

    # -- the directory --

    async def account(self, address: str) -> Account:
        found = await self.store.account(address)
        assert found is not None
        return found

    async def alias(self, address: str, *targets: str) -> None:
        await self.store.commit(AddAlias(address, targets))

    async def set(self, key: str, value: str) -> None:
        await self.store.commit(SetSetting(key, "", value))

    async def with_password(self, address: str, password: str) -> Account:
        record = make_password_record(password, b"a" * 16, b"b" * 16)
        await self.store.commit(AddAccount(address, record))
        return await self.account(address)

    # -- mail --

    async def receive(self, *recipients: str, message: bytes = MESSAGE, reverse_path: str = "bob@example.net",
                      lmtp: bool = False, notify: int = 0):
        """One transaction of a stranger; the verdicts of its recipients, then those of its end."""
        envelope = Envelope(reverse_path, ())
        transaction = self.receiver.open(Policy(), STRANGER, envelope, one_reply_each=lmtp)
        assert not (await transaction.begin()).refused
        first = [await transaction.add_recipient(Recipient(one, notify)) for one in recipients]
        if not transaction.accepted:
            return first, []
        transaction.write(message)
        return first, await transaction.finish(Framing(len(message)))

    async def mailbox(self, address: str, name: str = "INBOX") -> list[bytes]:
        """The messages of a mailbox, whole."""
        account = await self.account(address)
        for mailbox in await self.store.mailboxes(account.id):
            if mailbox.name == name:
                view = await self.store.view(account.id, mailbox.id)
                assert view is not None
                entries = await self.store.entries(account.id, mailbox.id, list(view.uids))
                return [await self.store.read(account.id, one.email_id, 0, one.size_octets) for one in entries]
        return []

    async def queued(self) -> list[QueueItem]:
        """What waits for others, in the queue or on the way to it."""
        await self.store.commit(DrainOutbox())
        return await self.store.queue_items()

    async def queued_octets(self, item: QueueItem) -> bytes:
        return await self.store.read_queued(item.id, 0, item.size_octets)

    def runner(self) -> QueueRunner:
        local = Deliverer(self.store, self.directory, self.clock)
        return QueueRunner(self.house, self.notifier, local=local, relay=self.relay)

    # -- sessions --

    @asynccontextmanager
    async def connected(self, role: Role = Role.MX, *, peer: str = "198.51.100.1", allow_plaintext: bool = False,
                        early: bytes = b"", tls=None) -> AsyncIterator[SmtpClient]:
        """A client of a running session, greeted. early: what it says before it is, without waiting for the greeting."""
        ends = stream_pair(client=(peer, 40000))
        config = SmtpConfig(HOSTNAME, role, tls, allow_plaintext)

        async def serve(stream: Stream) -> None:
            await run_served(await open_session(config, self.services, stream), stream, self.stopping)

        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            client = SmtpClient(ends[0])
            await client.send(early)
            task = group.create_task(serve(ends[1]))
            if not early:
                assert (await client.reply()).startswith("220 ")
            try:
                yield client
            finally:
                ends[0].close()
            await task

    async def close(self) -> None:
        self.offload.close()
        await self.store.close()


class SmtpClient:
    """Lines out, replies in."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self._buffer = stream, b""

    async def send(self, octets: bytes) -> None:
        await self.stream.write(octets)

    async def reply(self) -> str:
        """The next reply, its lines joined; "" at the end of the connection."""
        lines: list[str] = []
        while True:
            while b"\r\n" not in self._buffer:
                octets = await self.stream.read()
                if not octets:
                    return ""
                self._buffer += octets
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            lines.append(line.decode())
            if line[3:4] != b"-":
                return "\n".join(lines)

    async def ask(self, line: str) -> str:
        await self.send(line.encode() + b"\r\n")
        return await self.reply()

    async def all_replies(self) -> list[str]:
        """Everything until the server closes."""
        found = []
        while reply := await self.reply():
            found.append(reply)
        return found

    async def mail(self, *recipients: str, message: bytes = MESSAGE, reverse_path: str = "bob@example.net") -> list[str]:
        """A transaction, step by step: the replies to MAIL, each RCPT, DATA and the message."""
        replies = [await self.ask(f"MAIL FROM:<{reverse_path}>")]
        replies += [await self.ask(f"RCPT TO:<{one}>") for one in recipients]
        replies.append(await self.ask("DATA"))
        if replies[-1].startswith("354"):
            await self.send(message.replace(b"\r\n.", b"\r\n..") + b".\r\n")
            replies.append(await self.reply())
        return replies


@asynccontextmanager
async def mail_house(directory: Path, *, quota_limit_octets: int = 0) -> AsyncIterator[MailHouse]:
    """Opens the house on an empty directory."""
    clock = FakeClock()
    create(directory, clock.now_ms())
    house = MailHouse(LocalStore(directory, clock.now_ms), clock)
    try:
        for domain in ("example.jp", "example.org"):
            await house.store.commit(AddDomain(domain))
        for address in ("alice@example.jp", "bob@example.jp", "carol@example.org"):
            await house.store.commit(AddAccount(address, NO_PASSWORD, quota_limit_octets))
        yield house
    finally:
        await house.close()
