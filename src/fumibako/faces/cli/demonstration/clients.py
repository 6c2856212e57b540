"""The demonstration's mail programs: SMTP, IMAP and POP3 over TLS, just enough to send, read and watch.

Specification: RFC 8314 §3.3 (implicit TLS); RFC 5321 §3.3; RFC 9051 §6; RFC 1939 §5 and §6.
Contract: each call waits for its answer, REPLY_S at most, and gives it as the server worded it; a refusal is an answer.
Failure: Failed where the server refuses what must work; OSError and ProtocolError of the connection pass through.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fumibako.faces.cli.demonstration.failed import Failed
from fumibako.model.envelope import Envelope, Recipient
from fumibako.net.clock import Clock
from fumibako.net.endpoint import Endpoint
from fumibako.net.stream import Stream, open_stream
from fumibako.net.tls import verified_client
from fumibako.proto.imap import client as imap
from fumibako.proto.pop3 import client as pop3
from fumibako.proto.reader import Need
from fumibako.proto.sasl.client import client_mechanism
from fumibako.proto.sasl.scram import PLUS
from fumibako.proto.smtp import client as smtp
from fumibako.proto.smtp.reply import Reply

CONNECT_S = 5.0
REPLY_S = 20.0


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in where. authority: path of the certificate that the server must prove; hostname: the name it must have."""

    address: str
    password: str
    hostname: str
    authority: str


@asynccontextmanager
async def _stream(endpoint: Endpoint, login: Login | None) -> AsyncIterator[Stream]:
    """A connection, under verified TLS from its start where there is a login."""
    stream = await open_stream(endpoint, CONNECT_S)
    try:
        if login is not None:
            await _start_tls(stream, verified_client(login.authority), login.hostname)
        yield stream
    finally:
        stream.abort()


async def _start_tls(stream: Stream, context: ssl.SSLContext, hostname: str) -> None:
    await stream.start_tls(context, server_side=False, server_hostname=hostname, timeout_s=CONNECT_S)


async def _more(stream: Stream, timeout_s: float = REPLY_S) -> bytes:
    octets = await stream.read(timeout_s)
    if not octets:
        raise ConnectionResetError("the server closed the connection")
    return octets


class SmtpClient:
    """One SMTP connection. message_is_out: the final dot has left; until its reply comes, only the server knows more."""

    def __init__(self, stream: Stream, hostname: str) -> None:
        self.stream, self._core = stream, smtp.ClientConnection(hostname)
        self.message_is_out = False

    async def hello(self) -> None:
        await self._event()     # the greeting
        self._core.hello()
        reply = await self._reply()
        if not reply.is_positive:
            raise Failed(str(reply))

    async def authenticate(self, login: Login, clock: Clock) -> tuple[str, Reply]:
        """By SCRAM with channel binding: no password crosses the wire, and no one can sit in between. (mechanism, reply)"""
        binding = self.stream.tls.server_end_point if self.stream.tls else b""
        nonce = clock.token(18).hex().encode("ascii")
        self._core.auth(client_mechanism(PLUS, login.address, login.password, nonce, binding))
        return PLUS, await self._reply()

    async def send(self, reverse_path: str, forward_path: str, octets: bytes) -> Reply:
        """One message for one recipient; the reply that decided it."""
        self.message_is_out = False
        self._core.transaction(Envelope(reverse_path, (Recipient(forward_path),), "8BITMIME"), len(octets))
        event = await self._event()
        if isinstance(event, smtp.SendMessage):
            self._core.send_message(octets)
            self._core.end_message()
            self.message_is_out = True
            event = await self._event()
        if not isinstance(event, smtp.TransactionResult):
            raise Failed(repr(event))
        return event.recipients[0].reply

    async def quit(self) -> None:
        self._core.quit()
        await self._reply()

    async def _reply(self) -> Reply:
        event = await self._event()
        if not isinstance(event, smtp.Replied):
            raise Failed(repr(event))
        return event.reply

    async def _event(self) -> smtp.Event:
        while isinstance(event := self._core.next_event(), Need):
            await self.stream.write(self._core.data_to_send(), REPLY_S)
            self._core.receive_data(await _more(self.stream))
        return event


@asynccontextmanager
async def smtp_client(endpoint: Endpoint, hostname: str, login: Login | None = None) -> AsyncIterator[SmtpClient]:
    """A greeted connection: with a login as a mail program's (TLS from the start), without one as a mail server's."""
    async with _stream(endpoint, login) as stream:
        client = SmtpClient(stream, hostname)
        await client.hello()
        yield client


class ImapClient:
    """One IMAP connection. What comes before IDLE's continuation is kept for `until`."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self._core = stream, imap.ClientConnection(literal_plus=True)
        self._pushed: list[imap.Untagged] = []

    async def command(self, name: str, *arguments: bytes | str | int | imap.Literal) -> tuple[str, list[imap.Untagged]]:
        """(the completion line, what came before it); Failed unless it is OK."""
        tag = self._core.command(name, *arguments)
        untagged: list[imap.Untagged] = []
        while True:
            match await self._response(REPLY_S):
                case imap.Untagged() as response:
                    untagged.append(response)
                case imap.Tagged(tag=done) as response if done == tag:
                    line = imap_line(response)
                    if response.status != "OK":
                        raise Failed(f"{name}: {line}")
                    return line, untagged

    async def idle(self) -> None:
        """RFC 2177 §3: from now on the server tells by itself."""
        self._pushed.clear()
        self._core.command("IDLE")
        while not isinstance(response := await self._response(REPLY_S), imap.Continuation):
            self._pushed += [response] if isinstance(response, imap.Untagged) else []

    async def done(self) -> None:
        """Ends IDLE."""
        self._core.send_line(b"DONE")
        while not isinstance(await self._response(REPLY_S), imap.Tagged):
            pass

    async def until(self, kind: str, word: str = "") -> str:
        """Waits until the server says `kind` by itself, with `word` somewhere in it; its line."""
        async with asyncio.timeout(REPLY_S):
            while True:
                response = self._pushed.pop(0) if self._pushed else await self._response(REPLY_S)
                if isinstance(response, imap.Untagged) and response.kind == kind and word in (line := imap_line(response)):
                    return line

    async def octets(self, uid: int, section: str = "") -> bytes:
        """The octets of a message or of a section of it, without setting \\Seen."""
        item = f"BODY.PEEK[{section}]".encode("ascii")
        _, untagged = await self.command("UID FETCH", uid, item)
        for response in untagged:
            for items in response.data if response.kind == "FETCH" else ():
                content = items[-1] if isinstance(items, list) and items else None
                if isinstance(content, bytes):
                    return content
        raise Failed(f"UID FETCH {uid} {item.decode()}: no octets came")

    async def search(self, *criteria: bytes | str | imap.Literal) -> list[int]:
        """The UIDs that the server finds."""
        # RFC 9755 §3: a session with UTF8=ACCEPT may not name a charset.
        charset = () if all(isinstance(one, bytes) for one in criteria) else (b"CHARSET UTF-8",)
        _, untagged = await self.command("UID SEARCH", *charset, *criteria)
        return [uid for response in untagged if response.kind == "SEARCH" for uid in response.data if isinstance(uid, int)]

    async def _response(self, timeout_s: float) -> imap.Response:
        while (response := self._core.next_response()) is None:
            await self.stream.write(self._core.data_to_send(), REPLY_S)
            self._core.receive_data(await _more(self.stream, timeout_s))
        return response


@asynccontextmanager
async def imap_client(endpoint: Endpoint, login: Login) -> AsyncIterator[tuple[ImapClient, str]]:
    """A logged-in connection with INBOX selected, and the line that answered the login."""
    async with _stream(endpoint, login) as stream:
        client = ImapClient(stream)
        await client._response(REPLY_S)     # the greeting
        line, _ = await client.command("LOGIN", login.address, login.password)
        await client.command("SELECT", b"INBOX")
        yield client, line


def imap_line(response: imap.Response) -> str:
    """A response as it stood on the wire, but for the way strings were quoted."""
    match response:
        case imap.Untagged(kind, number, data, code, text) if kind not in ("OK", "NO", "BAD", "BYE", "PREAUTH"):
            words = ["*", *([str(number)] if number is not None else []), kind, *(_shown(value) for value in data)]
            return " ".join(words)
        case imap.Untagged(kind, _, _, code, text):
            return f"* {kind} " + (f"[{code}] " if code else "") + text
        case imap.Tagged(tag, status, code, text):
            return f"{tag.decode()} {status} " + (f"[{code}] " if code else "") + text
        case imap.Continuation(text=octets):
            return f"+ {octets.decode('utf-8', 'replace')}"


def _shown(value: imap.Data) -> str:
    match value:
        case None:
            return "NIL"
        case list():
            return f"({' '.join(_shown(one) for one in value)})"
        case bytes():
            return f'"{value.decode("utf-8", "replace")}"'
    return str(value)


class PopClient:
    """One POP3 connection."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._core = stream, pop3.ClientConnection()

    async def command(self, keyword: str, argument: str | None = None) -> str:
        """A command with a one-line answer: that line; Failed unless it is +OK."""
        self._core.command(keyword, argument)
        return await self.reply()

    async def retrieve(self, number: int) -> bytes:
        """RETR: the octets of a message."""
        self._core.command("RETR", str(number), lines=True)
        await self.reply()
        pieces: list[bytes] = []
        while not isinstance(event := await self._event(), pop3.EndOfLines):
            pieces.append(event.octets if isinstance(event, pop3.Chunk) else b"")
        return b"".join(pieces)

    async def reply(self) -> str:
        """The status line that is due."""
        event = await self._event()
        if not isinstance(event, pop3.Replied) or not event.response.ok:
            raise Failed(repr(event))
        return f"+OK {event.response.text}".rstrip()

    async def _event(self) -> pop3.Event:
        while isinstance(event := self._core.next_event(), Need):
            await self._stream.write(self._core.data_to_send(), REPLY_S)
            self._core.receive_data(await _more(self._stream))
        return event


@asynccontextmanager
async def pop_client(endpoint: Endpoint, login: Login) -> AsyncIterator[PopClient]:
    """A logged-in connection: the maildrop is ours until QUIT."""
    async with _stream(endpoint, login) as stream:
        client = PopClient(stream)
        await client.reply()        # the greeting
        await client.command("USER", login.address)
        await client.command("PASS", login.password)
        yield client
