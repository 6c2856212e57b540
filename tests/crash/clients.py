"""Small clients without TLS: one SMTP or LMTP transaction for a connection, and an IMAP session that understands answers."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fumibako.proto.imap.client import ClientConnection, Data, Literal, Tagged, Untagged
from tests.support.ledger import MARK, MailboxState, letter_in

ANSWER_S = 30.0
Endpoint = tuple[str, int] | Path
PASSWORD = "secret"


class Broken(Exception):
    """The server went away, or answered what ends the conversation."""


class SmtpPeer:
    """A greeted connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @property
    def port(self) -> int:
        """Our own port number."""
        return int(self._writer.get_extra_info("sockname")[1])

    async def reply(self) -> str:
        """The last line of a reply; Broken at the end of the connection."""
        while True:
            try:
                line = await asyncio.wait_for(self._reader.readline(), ANSWER_S)
            except (OSError, TimeoutError) as error:
                raise Broken(str(error)) from error
            if not line.endswith(b"\n"):
                raise Broken("closed")
            if line[3:4] != b"-":
                return line.decode().rstrip()

    async def ask(self, line: str) -> str:
        await self.send(line.encode() + b"\r\n")
        return await self.reply()

    async def demand(self, line: str, code: str) -> None:
        """Broken when the reply is another."""
        reply = await self.ask(line)
        if not reply.startswith(code):
            raise Broken(f"{line}: {reply}")

    async def send(self, octets: bytes) -> None:
        try:
            self._writer.write(octets)
            await self._writer.drain()
        except OSError as error:
            raise Broken(str(error)) from error


@asynccontextmanager
async def smtp_peer(endpoint: Endpoint, hello: str = "EHLO") -> AsyncIterator[SmtpPeer]:
    """Connected and greeted, hello said."""
    try:
        reader, writer = await (asyncio.open_unix_connection(endpoint, limit=1 << 20) if isinstance(endpoint, Path)
                                else asyncio.open_connection(*endpoint, limit=1 << 20))
    except OSError as error:
        raise Broken(str(error)) from error
    try:
        peer = SmtpPeer(reader, writer)
        if not (greeting := await peer.reply()).startswith("220"):
            raise Broken(greeting)
        await peer.demand(f"{hello} client.example", "250")
        yield peer
    finally:
        writer.transport.abort()


async def log_in(peer: SmtpPeer, address: str) -> None:
    token = base64.b64encode(f"\0{address}\0{PASSWORD}".encode()).decode()
    await peer.demand(f"AUTH PLAIN {token}", "235")


def dotted(octets: bytes) -> bytes:
    """A message as DATA carries it (RFC 5321 §4.5.2)."""
    stuffed = octets.replace(b"\r\n.", b"\r\n..")
    return (b"." + stuffed if stuffed.startswith(b".") else stuffed) + b".\r\n"


class ImapPeer:
    """A logged-in session; Broken when it ends or a command is not OK."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer, self._core = reader, writer, ClientConnection(literal_plus=True)
        self.untagged: list[Untagged] = []

    async def _receive(self) -> None:
        try:
            octets = await asyncio.wait_for(self._reader.read(1 << 18), ANSWER_S)
        except (OSError, TimeoutError) as error:
            raise Broken(str(error)) from error
        if not octets:
            raise Broken("closed")
        self._core.receive_data(octets)

    async def greeting(self) -> None:
        while (response := self._core.next_response()) is None:
            await self._receive()
        if not isinstance(response, Untagged) or response.kind != "OK":
            raise Broken(str(response))

    async def answer(self, name: str, *arguments: bytes | str | int | Literal) -> tuple[Tagged, list[Untagged]]:
        """Tagged and untagged responses of one command, whatever they say."""
        tag = self._core.command(name, *arguments)
        try:
            self._writer.write(self._core.data_to_send())
            await self._writer.drain()
        except OSError as error:
            raise Broken(str(error)) from error
        untagged: list[Untagged] = []
        while True:
            response = self._core.next_response()
            if response is None:
                await self._receive()
            elif isinstance(response, Tagged) and response.tag == tag:
                return response, untagged
            elif isinstance(response, Untagged):
                if response.kind == "BYE" and name != "LOGOUT":
                    raise Broken(response.text)
                untagged.append(response)

    async def command(self, name: str, *arguments: bytes | str | int | Literal) -> tuple[Tagged, list[Untagged]]:
        tagged, untagged = await self.answer(name, *arguments)
        if tagged.status != "OK":
            raise Broken(f"{name}: {tagged.status} [{tagged.code}] {tagged.text}")
        return tagged, untagged

    async def select(self, mailbox: str) -> dict[str, int]:
        """Codes of the answer that are numbers: UIDVALIDITY, UIDNEXT, HIGHESTMODSEQ; and EXISTS."""
        _, untagged = await self.command("SELECT", mailbox, b"(CONDSTORE)")
        found = {one.kind: one.number or 0 for one in untagged if one.kind == "EXISTS"}
        for one in untagged:
            name, _, value = one.code.partition(" ")
            if value.isdigit():
                found[name] = int(value)
        return found

    async def fetch(self, uids: str, what: bytes) -> list[dict[str, Data]]:
        """One dict of data items for each message."""
        _, untagged = await self.command("UID FETCH", uids.encode(), what)
        rows = []
        for one in untagged:
            if one.kind == "FETCH" and one.data:
                items = one.data[0]
                assert isinstance(items, list)
                rows.append({str(name).upper(): value for name, value in zip(items[::2], items[1::2], strict=True)})
        return rows

    async def state(self, mailbox: str) -> MailboxState:
        """The mailbox as a whole, letters by their mark."""
        facts = await self.select(mailbox)
        messages: dict[int, tuple[str, frozenset[str], int]] = {}
        if facts["EXISTS"]:
            for row in await self.fetch("1:*", b"(UID FLAGS MODSEQ BODY.PEEK[HEADER.FIELDS (X-Ledger)])"):
                uid, flags, modseq = row["UID"], row["FLAGS"], row["MODSEQ"]
                header = next(value for name, value in row.items() if name.startswith("BODY["))
                assert isinstance(uid, int) and isinstance(flags, list) and isinstance(modseq, list) and isinstance(header, bytes)
                letter_id = header[len(MARK):].strip().decode() if header.startswith(MARK) else ""
                value = modseq[0]
                assert isinstance(value, int)
                messages[uid] = letter_id, frozenset(str(flag) for flag in flags) - {"\\Recent"}, value
        assert len(messages) == facts["EXISTS"], (len(messages), facts)
        return MailboxState(facts["UIDVALIDITY"], facts["UIDNEXT"], facts["HIGHESTMODSEQ"], messages)

    async def letters(self, uids: str) -> dict[int, tuple[str, str]]:
        """uid -> (letter id, SHA-256), from the whole octets."""
        found = {}
        for row in await self.fetch(uids, b"(UID BODY.PEEK[])"):
            uid, octets = row["UID"], row["BODY[]"]
            assert isinstance(uid, int) and isinstance(octets, bytes)
            found[uid] = letter_in(octets)
        return found


@asynccontextmanager
async def imap_peer(endpoint: Endpoint, address: str) -> AsyncIterator[ImapPeer]:
    """Logged in."""
    assert not isinstance(endpoint, Path)
    try:
        reader, writer = await asyncio.open_connection(*endpoint, limit=1 << 20)
    except OSError as error:
        raise Broken(str(error)) from error
    try:
        peer = ImapPeer(reader, writer)
        await peer.greeting()
        await peer.command("LOGIN", address, PASSWORD)
        yield peer
    finally:
        writer.transport.abort()


async def pop3_unique_ids(endpoint: tuple[str, int], address: str) -> list[str]:
    """Unique-ids of a maildrop, in order (RFC 1939 §7)."""
    reader, writer = await asyncio.open_connection(*endpoint)
    try:
        assert (await reader.readline()).startswith(b"+OK")
        for line in (f"USER {address}", f"PASS {PASSWORD}", "UIDL"):
            writer.write(line.encode() + b"\r\n")
            assert (answer := await asyncio.wait_for(reader.readline(), ANSWER_S)).startswith(b"+OK"), (line, answer)
        found = []
        while (row := await asyncio.wait_for(reader.readline(), ANSWER_S)) != b".\r\n":
            found.append(row.split()[1].decode())
        return found
    finally:
        writer.transport.abort()
