"""IMAP and POP3 sessions over a real store, without a socket: text in, text out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from fumibako.faces.imap.conversation import ImapServices
from fumibako.faces.imap.session import Session
from fumibako.model.account import Account, PasswordRecord
from fumibako.model.ops import AddAccount, AddDomain
from fumibako.net.endpoint import Endpoint
from fumibako.proto.imap.server import ServerConfig
from fumibako.proto.reader import Need
from fumibako.services.login import Denied
from fumibako.services.mailboxes import Mailboxes
from fumibako.store.base import Store
from fumibako.store.local import LocalStore
from fumibako.store.sqlite.engine import create
from tests.support.clock import FakeClock

PASSWORD = PasswordRecord("", b"salt", 4096, b"k" * 32, b"s" * 32)


class OpenDoor:
    """A login service that knows one password: "secret"."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def check(self, authcid: str, password: str, peer_address: str) -> Account | Denied:
        account = await self._store.account(authcid)
        return account if account is not None and password == "secret" else Denied()

    def exchange(self, mechanism: str, peer_address: str, channel_binding: bytes | None = None) -> PlainExchange:
        return PlainExchange(self)


class PlainExchange:
    def __init__(self, door: OpenDoor) -> None:
        self._door = door

    async def step(self, octets: bytes | None) -> bytes | Account | Denied:
        if octets is None:
            return b""
        _, authcid, password = octets.split(b"\0")
        return await self._door.check(authcid.decode(), password.decode(), "")


class MemoryStream:
    """As much of net.Stream as a session uses; `sent` holds what was written."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.peer = Endpoint("127.0.0.1", 40000)
        self.tls = None
        self.writes: list[int] = []

    async def write(self, data: bytes, timeout_s: float = 60.0) -> None:
        self.sent += data
        self.writes.append(len(data))
        await asyncio.sleep(0)


class House:
    """A store in a directory of its own, with accounts, and sessions in it."""

    def __init__(self, store: LocalStore, clock: FakeClock) -> None:
        self.store, self.clock = store, clock
        self.mailboxes = Mailboxes(store, clock)
        self.services = ImapServices(self.mailboxes, OpenDoor(store), clock)

    @classmethod
    async def build(cls, directory: Path, *addresses: str, quota_limit_octets: int = 0) -> House:
        clock = FakeClock()
        create(directory, clock.now_ms())
        house = cls(LocalStore(directory, clock.now_ms), clock)
        await house.store.commit(AddDomain("example.jp"))
        for address in addresses or ("alice@example.jp",):
            await house.store.commit(AddAccount(address, PASSWORD, quota_limit_octets))
        return house

    async def account(self, address: str = "alice@example.jp") -> Account:
        account = await self.store.account(address)
        assert account is not None
        return account

    def connect(self, **config: object) -> Client:
        settings = {"hostname": "mail.example.jp", "allow_plaintext_login": True, **config}
        return Client(Session(ServerConfig(**settings), MemoryStream(), self.services))

    async def login(self, address: str = "alice@example.jp") -> Client:
        client = self.connect()
        assert (await client.run(f"LOGIN {address} secret")).ok
        client.take()
        return client

    async def close(self) -> None:
        self.mailboxes.close()
        await self.store.close()


class Reply:
    """What a command brought: its untagged responses, whole with their literals, and its completion."""

    def __init__(self, untagged: Sequence[str], completion: str) -> None:
        self.untagged, self.completion = list(untagged), completion

    @property
    def ok(self) -> bool:
        return self.status == "OK"

    @property
    def status(self) -> str:
        return self.completion.split(" ")[1]

    @property
    def code(self) -> str:
        found = re.match(r"\S+ \S+ \[([^\]]*)\]", self.completion)
        return found[1] if found else ""

    def __repr__(self) -> str:
        return "\n".join([*self.untagged, self.completion])


class Client:
    """Speaks to one session; octets in and out are latin-1 text."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._number = 0
        self._pending = ""

    @property
    def closed(self) -> bool:
        return self.session.closed

    async def send(self, text: str) -> None:
        """Octets to the server; every event they make is answered."""
        core = self.session.core
        core.receive_data(text.encode("latin-1"))
        while not self.session.closed and (event := core.next_event()) is not Need.BYTES:
            assert event is not Need.REPLY, "an event was left unanswered"
            await self.session.on_event(event)

    def take(self) -> str:
        """Everything the server has sent since the last time."""
        stream = self.session._talk.stream
        sent = bytes(stream.sent) + self.session.core.data_to_send()
        stream.sent.clear()
        return sent.decode("latin-1")

    def responses(self) -> list[str]:
        """The same as whole responses, without their last CRLF."""
        return list(split_responses(self.take()))

    async def run(self, command: str, *, tag: str = "") -> Reply:
        self._number += 1
        tag = tag or f"t{self._number}"
        await self.send(f"{tag} {command}\r\n")
        responses = self.responses()
        done = [line for line in responses if line.startswith(f"{tag} ")]
        assert len(done) == 1, responses
        return Reply([line for line in responses if not line.startswith(f"{tag} ")], done[0])

    async def append(self, mailbox: str, message: str, options: str = "") -> Reply:
        size = len(message.encode("latin-1"))
        return await self.run(f"APPEND {mailbox} {options}{{{size}+}}\r\n{message}")

    async def pushed(self) -> list[str]:
        """What an idling session tells by itself, once something has woken it."""
        push = self.session.idle()
        assert push is not None
        async with asyncio.timeout(5):
            await push
        return self.responses()

    async def leave(self) -> None:
        await self.session.on_end()


def split_responses(text: str) -> list[str]:
    """Lines, but a literal belongs to the response it stands in."""
    found, at, start = [], 0, 0
    while (end := text.find("\r\n", at)) >= 0:
        if literal := re.search(r"\{(\d+)\}\Z", text[start:end]):
            at = end + 2 + int(literal[1])
            continue
        found.append(text[start:end])
        at = start = end + 2
    assert start == len(text), text[start:]
    return found
