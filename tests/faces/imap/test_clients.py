"""Clients that others wrote, over a real socket: imapclient and the standard library's imaplib and poplib."""

from __future__ import annotations

import asyncio
import imaplib
import poplib
from collections.abc import Callable
from typing import TypeVar

import imapclient

from fumibako.faces.imap.session import Session as ImapSession
from fumibako.faces.pop3 import Pop3Services
from fumibako.faces.pop3 import Session as Pop3Session
from fumibako.faces.serve import Session, run_session
from fumibako.net.stream import Stream
from fumibako.proto.imap.server import ServerConfig
from fumibako.proto.pop3.server import ServerConfig as Pop3Config
from tests.support.imap_session import House

T = TypeVar("T")
MESSAGE = "Subject: =?utf-8?B?6KaL56mN?=\r\nFrom: =?utf-8?B?6Iqx5a2Q?= <hanako@example.jp>\r\n\r\n本文\r\n".encode()


async def with_server(make: Callable[[Stream], Session], use: Callable[[int], T]) -> T:
    """Serves one connection while `use` talks to the port from a thread."""
    connections: asyncio.Queue[Stream] = asyncio.Queue()

    def factory() -> Stream:
        stream = Stream()
        connections.put_nowait(stream)
        return stream

    async def serve_one() -> None:
        stream = await connections.get()
        while stream._transport is None:
            await asyncio.sleep(0)
        await run_session(make(stream), stream, asyncio.Event())
        stream.close()

    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    async with server, asyncio.TaskGroup() as group:
        serving = group.create_task(serve_one())
        result = await asyncio.to_thread(use, server.sockets[0].getsockname()[1])
        await serving
    return result


def imap(house: House) -> Callable[[Stream], Session]:
    config = ServerConfig("mail.example.jp", allow_plaintext_login=True)
    return lambda stream: ImapSession(config, stream, house.services)


async def test_imapclient(house: House) -> None:
    def use(port: int) -> dict[str, object]:
        client = imapclient.IMAPClient("127.0.0.1", port, ssl=False, timeout=10)
        client.login("alice@example.jp", "secret")
        client.create_folder("営業/東京")
        client.append("営業/東京", MESSAGE, ("\\Seen",))
        selected = client.select_folder("営業/東京")
        fetched = client.fetch([1], ["ENVELOPE", "BODYSTRUCTURE", "FLAGS", "BODY.PEEK[]"])
        found = client.search(["SUBJECT", "見積"], "UTF-8")
        client.move(found, "Trash")
        left = client.folder_status("営業/東京", ["MESSAGES"])[b"MESSAGES"]
        folders = {name for _, _, name in client.list_folders()}
        special = client.find_special_folder(b"\\Sent")
        quota = client.get_quota_root("INBOX")
        client.logout()
        return {"selected": selected, "fetched": fetched, "found": found, "left": left, "folders": folders,
                "special": special, "quota": quota}

    seen = await with_server(imap(house), use)
    assert seen["selected"][b"EXISTS"] == 1 and seen["selected"][b"UIDNEXT"] == 2
    message = seen["fetched"][1]
    assert message[b"BODY[]"] == MESSAGE and b"\\Seen" in message[b"FLAGS"]
    assert message[b"ENVELOPE"].from_[0].mailbox == b"hanako"
    assert seen["found"] == [1] and seen["left"] == 0
    assert {"INBOX", "営業", "営業/東京", "Sent"} <= seen["folders"] and seen["special"] == "Sent"


async def test_imaplib(house: House) -> None:
    def use(port: int) -> list[object]:
        with imaplib.IMAP4("127.0.0.1", port, timeout=10) as client:
            client.login("alice@example.jp", "secret")
            client.append("INBOX", "(\\Flagged)", None, MESSAGE)
            return [client.select(), client.fetch("1", "(UID FLAGS RFC822)"), client.expunge(), client.namespace()]

    selected, fetched, expunged, namespace = await with_server(imap(house), use)
    assert selected == ("OK", [b"1"]) and expunged[0] == "OK" and namespace[1] == [b'(("" "/")) NIL NIL']
    assert fetched[1][0][1] == MESSAGE


async def test_poplib(house: House) -> None:
    writer = await house.login()
    await writer.append("INBOX", MESSAGE.decode("latin-1"))
    await writer.leave()

    def use(port: int) -> list[object]:
        client = poplib.POP3("127.0.0.1", port, timeout=10)
        client.user("alice@example.jp")
        client.pass_("secret")
        told = [client.stat(), client.retr(1)[1], client.uidl(1)]
        client.dele(1)
        client.quit()
        return told

    services = Pop3Services(house.mailboxes, house.services.login)
    stat, lines, _ = await with_server(lambda stream: Pop3Session(Pop3Config(auth_without_tls=True), stream, services), use)
    assert stat == (1, len(MESSAGE)) and b"\r\n".join(lines) + b"\r\n" == MESSAGE
    reader = await house.login()
    assert "MESSAGES 0" in (await reader.run("STATUS INBOX (MESSAGES)")).untagged[0]
