"""Every stream protocol of ours over one mail house, and a client that deals in octets."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fumibako.faces import pop3
from fumibako.faces.imap.conversation import ImapServices
from fumibako.faces.imap.session import Session as ImapSession
from fumibako.faces.serve import run_session
from fumibako.faces.smtp import Role, SmtpConfig, open_session
from fumibako.net.stream import Stream
from fumibako.proto.imap.server import ServerConfig as ImapConfig
from fumibako.proto.pop3.server import ServerConfig as Pop3Config
from fumibako.services.mailboxes import Mailboxes
from tests.support.mailhouse import HOSTNAME, MailHouse
from tests.support.streams import stream_pair


class Wire:
    """The client's end, and what it has heard; server: the other end."""

    def __init__(self, stream: Stream, server: Stream) -> None:
        self.stream, self.server, self.heard = stream, server, b""

    async def settled(self) -> None:
        """Until the session has taken all that was sent and waits for more, or is over."""
        await _turns(4)             # a write arrives a turn of the loop later
        while (self.server._waiting is None or self.server._in) and not self.stream.eof.is_set():
            await asyncio.sleep(0)
        await _turns(4)             # a deadline that is over already ends the wait

    async def until(self, end: bytes) -> bytes:
        """Everything up to and with `end`; AssertionError where the server hangs up before."""
        while end not in self.heard:
            octets = await self.stream.read()
            assert octets, self.heard
            self.heard += octets
        at = self.heard.index(end) + len(end)
        said, self.heard = self.heard[:at], self.heard[at:]
        return said

    async def rest(self) -> bytes:
        """Everything until the server hangs up."""
        try:
            while octets := await self.stream.read():
                self.heard += octets
        except (ConnectionError, ssl.SSLError):
            pass
        said, self.heard = self.heard, b""
        return said

    async def ask(self, line: bytes, end: bytes = b"\r\n") -> bytes:
        """A line, and its answer up to `end`."""
        await self.stream.write(line + b"\r\n")
        return await self.until(end)


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@asynccontextmanager
async def conversing(house: MailHouse, name: str, context: ssl.SSLContext | None = None, *,
                     peer: str = "198.51.100.1") -> AsyncIterator[Wire]:
    """A greeted client of "mx", "submission", "lmtp", "imap" or "pop3"; without `context`, passwords go in the clear.

    The session must end by itself once the client leaves.
    """
    client, server = stream_pair(client=(peer, 40000))
    mailboxes = Mailboxes(house.store, house.clock)

    async def serve() -> None:
        await run_session(await _session(house, name, context, server, mailboxes), server, asyncio.Event())
        server.close()

    try:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(serve())
            wire = Wire(client, server)
            await wire.until(b"\r\n")
            try:
                yield wire
            finally:
                client.abort()
            await task
    finally:
        mailboxes.close()


async def _session(house: MailHouse, name: str, context: ssl.SSLContext | None, stream: Stream, mailboxes: Mailboxes) -> Any:
    tls, clear = context is not None, context is None
    if name == "imap":
        imap = ImapConfig(HOSTNAME, tls_available=tls, allow_plaintext_login=clear, auth_mechanisms=("PLAIN", "SCRAM-SHA-256"))
        return ImapSession(imap, stream, ImapServices(mailboxes, house.login, house.clock), context)
    if name == "pop3":
        config = Pop3Config(tls_available=tls, auth_without_tls=clear, auth_mechanisms=("PLAIN", "SCRAM-SHA-256"))
        return pop3.Session(config, stream, pop3.Pop3Services(mailboxes, house.login), context)
    return await open_session(SmtpConfig(HOSTNAME, Role(name), context, allow_plaintext=clear), house.services, stream)
