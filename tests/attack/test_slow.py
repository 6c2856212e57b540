"""Reliability A17 and A18: who sends or reads too slowly is let go, however steadily it does so, and costs little meanwhile."""

import asyncio
import socket

import pytest

from fumibako.faces import pop3
from fumibako.faces.imap.session import BEFORE_LOGIN_S, IDLE_S
from fumibako.faces.imap.session import Session as ImapSession
from fumibako.faces.pop3 import AFTER_LOGIN_S, Pop3Services
from fumibako.faces.serve import LOGIN_S, run_session
from fumibako.faces.smtp import BLOCK_S, COMMAND_S, Role, SmtpConfig, open_session
from fumibako.net.endpoint import endpoint_of
from fumibako.net.listen import Listener, bind, serve
from fumibako.net.stream import Stream
from fumibako.proto.imap.server import ServerConfig as ImapConfig
from fumibako.proto.pop3.server import ServerConfig as Pop3Config
from tests.attack.measure import MIB, measured
from tests.attack.wire import Wire, conversing
from tests.support.imap_session import House
from tests.support.mailhouse import HOSTNAME, MailHouse

DRIP_S = 9.0


async def drip(house: MailHouse, wire: Wire, octet: bytes, at_most_s: float) -> float:
    """Sends one octet every 9 s until the server hangs up; how long it had patience."""
    begun = house.clock.monotonic_s()
    while not (wire.stream.eof.is_set() or wire.stream.closed.is_set()):
        assert house.clock.monotonic_s() - begun < at_most_s, "it waits for ever"
        try:
            await wire.stream.write(octet)
        except ConnectionError:
            break
        await wire.settled()
        house.clock.advance(DRIP_S)
    return house.clock.monotonic_s() - begun


BEFORE = {
    "mx": (b"EHLO c\r\n", COMMAND_S, b"421 4.4.2"), "submission": (b"EHLO c\r\n", COMMAND_S, b"421 4.4.2"),
    "lmtp": (b"LHLO c\r\n", COMMAND_S, b"421 4.4.2"), "imap": (b"a NOOP\r\n", BEFORE_LOGIN_S, b"* BYE"),
    "pop3": (b"CAPA\r\n", pop3.BEFORE_LOGIN_S, b""),
}


@pytest.mark.parametrize("said", ["", "hello"])
@pytest.mark.parametrize("name", BEFORE)
async def test_a_command_that_drips(house: MailHouse, name: str, said: str) -> None:
    """An octet now and then is no sign of life: the deadline is that of the command."""
    hello, limit_s, farewell = BEFORE[name]
    async with conversing(house, name) as wire:
        if said:
            await wire.stream.write(hello)
            await wire.until(b"\r\n")
        waited_s = await drip(house, wire, b"x", limit_s + 100)
        assert limit_s <= waited_s <= limit_s + 3 * DRIP_S
        assert farewell in await wire.rest()
    assert await house.queued() == []


@pytest.mark.parametrize(("name", "line", "farewell"), [
    ("imap", b"a NOOP\r\n", b"* BYE No login for too long\r\n"),
    ("imap", b"a AUTHENTICATE PLAIN\r\n*\r\n", b"* BYE No login for too long\r\n"),
    ("pop3", b"AUTH PLAIN\r\n*\r\n", b"-ERR [SYS/TEMP] No login for too long, connect again\r\n"),
    ("submission", b"NOOP\r\n", b"421 4.4.2 Timeout, closing connection\r\n"),
])
@pytest.mark.parametrize("pause_s", [59.0, 9.0])
async def test_a_login_that_never_comes(house: MailHouse, name: str, line: bytes, farewell: bytes, pause_s: float) -> None:
    """Whoever says something harmless in time, again and again, kept a connection without a login for ever."""
    async with conversing(house, name) as wire:
        begun = house.clock.monotonic_s()
        while not wire.stream.eof.is_set():
            await wire.stream.write(line)
            await wire.settled()
            house.clock.advance(pause_s)
            waited_s = house.clock.monotonic_s() - begun
            assert waited_s <= LOGIN_S + 2 * pause_s, "it waits for ever"
        assert waited_s >= LOGIN_S
        assert (await wire.rest()).endswith(farewell)


@pytest.mark.parametrize("name", ["imap", "pop3", "submission"])
async def test_who_has_logged_in_may_stay(house: MailHouse, name: str) -> None:
    """The login may come at the last moment, and after it only the protocol's own deadlines count."""
    await house.with_password("dora@example.jp", "secret words")
    noop = b"n NOOP" if name == "imap" else b"NOOP"
    async with conversing(house, name, peer="127.0.0.1") as wire:
        if name == "submission":
            await wire.ask(b"EHLO c", b"CHUNKING\r\n")
        for _ in range(5):
            await wire.ask(b"AUTH PLAIN\r\n*" if name == "pop3" else noop, b"-ERR Cancelled\r\n" if name == "pop3" else b"\r\n")
            house.clock.advance(LOGIN_S / 5 - 1)
        if name == "submission":
            assert (await wire.ask(b"AUTH PLAIN AGRvcmFAZXhhbXBsZS5qcABzZWNyZXQgd29yZHM=")).startswith(b"235 ")
        else:
            await logged_in(house, wire, name)
        for _ in range(20):
            house.clock.advance(60)
            await wire.ask(noop)
            assert not wire.stream.eof.is_set()


DRIPPING = {
    "DATA": b"DATA\r\n", "BDAT": b"BDAT 100000 LAST\r\n",
}


@pytest.mark.parametrize("command", DRIPPING)
async def test_a_message_that_drips(house: MailHouse, command: str) -> None:
    """500 octets a second is the least a message may come with, once a grace time is over; nothing of it is kept."""
    async with conversing(house, "mx") as wire:
        await wire.ask(b"EHLO c", b"CHUNKING\r\n")
        await wire.ask(b"MAIL FROM:<>")
        await wire.ask(b"RCPT TO:<alice@example.jp>")
        await wire.stream.write(DRIPPING[command])
        if command == "DATA":
            await wire.until(b"354 Start mail input; end with <CRLF>.<CRLF>\r\n")
        waited_s = await drip(house, wire, b"x" * 100, BLOCK_S + 100)
        assert BLOCK_S <= waited_s <= BLOCK_S + 3 * DRIP_S
        assert b"421 4.4.2" in await wire.rest()
    assert await house.mailbox("alice@example.jp") == []


async def test_a_message_at_the_pace_of_a_modem_arrives(house: MailHouse) -> None:
    """A slow line is no attack: 1,000 octets a second, for as long as it takes."""
    async with conversing(house, "mx") as wire:
        await wire.ask(b"EHLO c", b"CHUNKING\r\n")
        await wire.ask(b"MAIL FROM:<>")
        await wire.ask(b"RCPT TO:<alice@example.jp>")
        await wire.ask(b"DATA")
        await wire.stream.write(b"Subject: slow\r\n\r\n")
        for _ in range(60):
            await wire.stream.write(b"x" * 68 + b"\r\n" + (b"y" * 68 + b"\r\n") * 128)
            await wire.settled()
            house.clock.advance(9)
        assert (await wire.ask(b".")).startswith(b"250 2.0.0")
    assert len(await house.mailbox("alice@example.jp")) == 1


async def logged_in(house: MailHouse, wire: Wire, name: str) -> None:
    if name == "imap":
        assert (await wire.ask(b"a LOGIN dora@example.jp {12+}\r\nsecret words", b"\r\n")).startswith(b"a OK")
    else:
        await wire.ask(b"USER dora@example.jp")
        assert (await wire.ask(b"PASS secret words")).startswith(b"+OK")


@pytest.mark.parametrize(("name", "begin", "limit_s"), [
    ("imap", b"b SELECT ", IDLE_S), ("imap", b"b SELECT {90000}\r\n", IDLE_S), ("imap", b"b IDLE\r\n", IDLE_S),
    ("imap", b"b APPEND INBOX {100000+}\r\n", BLOCK_S), ("imap", b"b APPEND nowhere {100000+}\r\n", IDLE_S),
    ("pop3", b"RETR ", AFTER_LOGIN_S),
])
async def test_what_drips_after_login(house: MailHouse, name: str, begin: bytes, limit_s: float) -> None:
    """A login makes nobody's octets come faster."""
    await house.with_password("dora@example.jp", "secret words")
    async with conversing(house, name, peer="127.0.0.1") as wire:
        await logged_in(house, wire, name)
        await wire.stream.write(begin)
        waited_s = await drip(house, wire, b"x", limit_s + 100)
        assert limit_s <= waited_s <= limit_s + 4 * DRIP_S
    assert await house.mailbox("dora@example.jp") == []


@pytest.mark.parametrize("name", BEFORE)
async def test_junk_is_not_listened_to_for_ever(house: MailHouse, name: str) -> None:
    """Lines that mean nothing: a few are answered, then the connection ends, whatever the core makes of them."""
    async with conversing(house, name) as wire:
        await wire.stream.write(b"JUNK\r\n" * 200)
        assert (await wire.rest()).count(b"\r\n") <= 60


async def test_polite_nonsense_is_not_listened_to_for_ever(house: MailHouse) -> None:
    """NOOP, RSET, VRFY and the like without ever a mail: 100 of them are enough for anybody."""
    for line in (b"NOOP\r\n", b"RSET\r\n", b"VRFY x\r\n", b"HELP\r\n", b"EHLO c\r\n", b"MAIL FROM:<>\r\nRSET\r\n"):
        async with conversing(house, "mx") as wire:
            await wire.ask(b"EHLO c", b"CHUNKING\r\n")
            answered = 0
            for _ in range(300):
                try:
                    await wire.stream.write(line)
                except ConnectionError:
                    break
                answer = await wire.until(b"\r\n")
                while answer.rpartition(b"\r\n")[0].rpartition(b"\r\n")[2][3:4] == b"-":
                    answer += await wire.until(b"\r\n")
                if answer.startswith(b"421 4.7.0"):
                    break
                answered += 1
            assert answered <= 200, line


# A18: who does not read


class SlowReader:
    """A client on loopback that says things and reads nothing; its window is as small as the system lets it be."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        self.socket.setblocking(False)
        self.port = port

    async def connect(self) -> None:
        await asyncio.get_running_loop().sock_connect(self.socket, ("127.0.0.1", self.port))

    async def say(self, octets: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, octets)

    async def hear(self, end: bytes) -> bytes:
        heard = b""
        while end not in heard:
            heard += await asyncio.get_running_loop().sock_recv(self.socket, 1024)
        return heard


class Server:
    """Sessions on a loopback socket; `ended` counts those that are over."""

    def __init__(self, make: object) -> None:
        self.make, self.ended, self.stopping = make, 0, asyncio.Event()
        self.sockets = bind(Listener("slow", ("127.0.0.1:0",)))
        self.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.port = endpoint_of(self.sockets[0].getsockname()).port

    async def session(self, stream: Stream) -> None:
        try:
            await run_session(await self.make(stream), stream, self.stopping)
        finally:
            self.ended += 1

    async def run(self) -> None:
        await serve(self.sockets, self.session, stopping=self.stopping)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The minute a reader may take is a fifth of a second here."""
    monkeypatch.setattr(Stream.write, "__defaults__", (0.2,))


async def held_up(server: Server, octets: bytes, login: bytes, logged_in: bytes) -> int:
    """A client logs in, asks for everything and reads nothing until it is cut off; the peak of memory meanwhile."""
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(server.run())
        reader = SlowReader(server.port)
        await reader.connect()
        await reader.hear(b"\r\n")
        if login:
            await reader.say(login)
            await reader.hear(logged_in)
        with measured() as memory:
            saying = asyncio.ensure_future(reader.say(octets))
            while not server.ended:
                await asyncio.sleep(0.01)
        saying.cancel()
        reader.socket.close()
        server.stopping.set()
    return memory.peak_octets


async def with_mail(readers: House, count: int) -> None:
    client = await readers.login()
    for _ in range(count):
        assert (await client.append("INBOX", "Subject: big\r\n\r\n" + ("x" * 76 + "\r\n") * 25_000)).ok
    await client.leave()


async def test_an_imap_client_that_reads_nothing(readers: House, impatient: None) -> None:
    """FETCH 1:* BODY[] of a mailbox of 20 MB, asked for a hundred times at once."""
    await with_mail(readers, 10)
    config = ImapConfig(HOSTNAME, allow_plaintext_login=True)

    async def make(stream: Stream) -> ImapSession:
        return ImapSession(config, stream, readers.services)

    octets = b"b SELECT INBOX\r\n" + b"c FETCH 1:* (BODY.PEEK[] BODY.PEEK[])\r\n" * 100
    assert await held_up(Server(make), octets, b"a LOGIN alice@example.jp secret\r\n", b"a OK") < 4 * MIB
    await readers.login()


async def test_a_pop3_client_that_reads_nothing(readers: House, impatient: None) -> None:
    """The maildrop is free again once it is cut off, and nothing is deleted."""
    await with_mail(readers, 3)
    config = Pop3Config(auth_without_tls=True)

    async def make(stream: Stream) -> pop3.Session:
        return pop3.Session(config, stream, Pop3Services(readers.mailboxes, readers.services.login))

    login = b"USER alice@example.jp\r\nPASS secret\r\n"
    octets = b"DELE 1\r\n" + b"RETR 2\r\nRETR 3\r\n" * 100 + b"QUIT\r\n"
    assert await held_up(Server(make), octets, login, b"+OK 3 messages") < 4 * MIB
    drop = await readers.mailboxes.open_maildrop(await readers.account(), lambda: None)
    assert len(drop.messages) == 3
    await drop.close()


async def test_an_smtp_client_that_reads_nothing(house: MailHouse, impatient: None) -> None:
    """Pipelined for ever: the server stops reading when nobody reads it."""
    async def make(stream: Stream) -> object:
        return await open_session(SmtpConfig(HOSTNAME, Role.MX), house.services, stream)

    octets = b"EHLO c\r\n"
    server = Server(make)
    assert await held_up(server, (b"HELP\r\n" * 50 + b"NOOP\r\n") * 20_000, octets, b"CHUNKING\r\n") < 4 * MIB
