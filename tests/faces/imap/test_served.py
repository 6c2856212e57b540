"""A session behind `faces.serve.run_session`: greeting, IDLE pushed by itself, the store going away."""

from __future__ import annotations

import asyncio

from fumibako.faces.imap.session import Session
from fumibako.model.account import AccountStatus
from fumibako.model.ops import SetAccountStatus
from fumibako.net.stream import Stream
from fumibako.proto.imap.server import ServerConfig
from fumibako.services.mailboxes import StoreUnavailable
from tests.support.imap_session import House
from tests.support.served import run_served
from tests.support.streams import stream_pair

MESSAGE = "Subject: x\r\n\r\nbody\r\n"
CONFIG = ServerConfig("mail.example.jp", allow_plaintext_login=True)


async def read_until(stream: Stream, end: bytes) -> bytes:
    octets = b""
    while end not in octets:
        piece = await stream.read(5)
        assert piece, octets
        octets += piece
    return octets


async def rest_of(stream: Stream) -> bytes:
    octets = b""
    while piece := await stream.read(5):
        octets += piece
    return octets


class Server:
    """One connection being served; leaving waits for its end."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.stopping = asyncio.Event()

    async def __aenter__(self) -> Stream:
        client, server = stream_pair()
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._group.create_task(self._serve(server))
        await read_until(client, b"ready\r\n")
        await client.write(b"a LOGIN alice@example.jp secret\r\n")
        await read_until(client, b"a OK")
        return client

    async def _serve(self, stream: Stream) -> None:
        await run_served(Session(CONFIG, stream, self.house.services), stream, self.stopping)

    async def __aexit__(self, *failure: object) -> None:
        await self._group.__aexit__(*failure)


async def test_idle_pushes_by_itself(house: House) -> None:
    other = await house.login()
    async with Server(house) as stream:
        await stream.write(b"b SELECT INBOX\r\nc IDLE\r\n")
        await read_until(stream, b"+ idling\r\n")
        await other.append("INBOX", MESSAGE)
        assert await read_until(stream, b"RECENT\r\n") == b"* 1 EXISTS\r\n* 1 RECENT\r\n"
        await stream.write(b"DONE\r\nd LOGOUT\r\n")
        assert (await rest_of(stream)).endswith(b"d OK LOGOUT completed\r\n")


async def test_a_disabled_account_is_told_at_once(house: House) -> None:
    async with Server(house) as stream:
        await stream.write(b"b NOOP\r\n")
        await read_until(stream, b"b OK")
        await house.store.commit(SetAccountStatus("alice@example.jp", AccountStatus.DISABLED))
        assert b"* BYE [UNAVAILABLE]" in await rest_of(stream)


async def test_the_stop_is_told(house: House) -> None:
    server = Server(house)
    async with server as stream:
        server.stopping.set()
        assert b"* BYE [UNAVAILABLE]" in await rest_of(stream)


async def test_without_the_store_no_success_is_claimed(house: House, monkeypatch) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailable("gone")

    async with Server(house) as stream:
        monkeypatch.setattr(house.store, "commit", away)
        await stream.write(b"b CREATE x\r\nc NOOP\r\n")
        said = await rest_of(stream)
        assert b"* BYE [UNAVAILABLE]" in said and b"b " not in said and b"c OK" not in said
