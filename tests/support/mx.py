"""A mail server of somebody else's, on loopback: says what it is told to say, remembers what it heard."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar


class OtherServer:
    """replies: verb (or "banner", "."), or "verb argument" for one path only -> reply lines; "CLOSE" hangs up,
    "HANG" says nothing.

    extensions: what EHLO offers. heard: every command line; messages: the octets of each message, with stuffing.
    """

    def __init__(self, replies: dict[str, str] | None = None, extensions: tuple[str, ...] = ("PIPELINING", "8BITMIME", "DSN"),
                 tls: ssl.SSLContext | None = None, behind_starttls: bytes = b"") -> None:
        self.replies, self.extensions, self.tls, self.behind_starttls = replies or {}, extensions, tls, behind_starttls
        self.heard: list[str] = []
        self.messages: list[bytes] = []
        self.connections = 0
        self.port = 0

    @asynccontextmanager
    async def listening(self, host: str = "127.0.0.1", port: int = 0):
        server = await asyncio.start_server(self._serve, host, port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            if await self._say(writer, self.replies.get("banner", "220 mx.example.com ESMTP")):
                while line := await reader.readline():
                    if not await self._answer(line.decode().rstrip("\r\n"), reader, writer):
                        break
        except (ConnectionError, ssl.SSLError):
            pass
        writer.close()

    async def _say(self, writer: asyncio.StreamWriter, reply: str) -> bool:
        if reply == "HANG":
            return True
        if reply == "CLOSE":
            writer.transport.abort()
            return False
        writer.write(reply.encode() + b"\r\n")
        await writer.drain()
        return not reply.startswith(("221", "421"))

    async def _answer(self, line: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        self.heard.append(line)
        verb, path = line.partition(" ")[0].upper(), line.partition(">")[0] + ">"
        usual = {"QUIT": "221 bye", "DATA": "354 go on", "EHLO": self._ehlo(), "STARTTLS": "220 go on"}
        reply = self.replies.get(path) or self.replies.get(verb) or usual.get(verb, "250 2.0.0 ok")
        if verb == "STARTTLS" and reply.startswith("220"):
            return await self._start_tls(reply, writer)
        if not await self._say(writer, reply):
            return False
        if verb == "DATA" and reply.startswith("354"):
            return await self._take_message(reader, writer)
        return True

    def _ehlo(self) -> str:
        lines = ["mx.example.com", *self.extensions, *(["STARTTLS"] if self.tls or self.behind_starttls else [])]
        return "\r\n".join(f"250{'-' if number < len(lines) - 1 else ' '}{line}" for number, line in enumerate(lines))

    async def _start_tls(self, reply: str, writer: asyncio.StreamWriter) -> bool:
        writer.write(reply.encode() + b"\r\n" + self.behind_starttls)
        await writer.drain()
        if self.tls is None:
            return not self.behind_starttls
        await writer.start_tls(self.tls)
        self.tls = None         # not offered again
        return True

    async def _take_message(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if self.replies.get(".") == "CLOSE":
            await reader.readline()
            return await self._say(writer, "CLOSE")
        octets = b"\r\n"       # of the command line: an empty message is just a dot
        while not octets.endswith(b"\r\n.\r\n"):
            line = await reader.readline()
            if not line:
                return False
            octets += line
        self.messages.append(octets[2:-3])
        return await self._say(writer, self.replies.get(".", "250 2.0.0 queued as 1"))


Other = TypeVar("Other", bound=OtherServer)


@contextmanager
def in_a_thread(server: Other, host: str, port: int) -> Iterator[Other]:
    """The server listens while the block runs, in an event loop of its own."""
    loop, up, over = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with server.listening(host, port):
            up.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert up.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
