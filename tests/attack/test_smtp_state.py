"""Reliability A4-A7 and A13: no order of commands, no line and no argument confuses which transaction this is."""

from collections.abc import Callable

import pytest

from fumibako.faces.smtp import ERRORS_MAX, Role
from fumibako.proto.imap.server import ServerConfig as ImapConfig
from fumibako.proto.imap.server import ServerConnection as ImapConnection
from fumibako.proto.pop3.response import Response
from fumibako.proto.pop3.server import ServerConfig as Pop3Config
from fumibako.proto.pop3.server import ServerConnection as Pop3Connection
from fumibako.proto.reader import Need, ProtocolError
from fumibako.proto.smtp import server as smtp_server
from fumibako.proto.smtp.extensions import ServerConfig as SmtpConfig
from fumibako.proto.smtp.reply import Reply
from fumibako.proto.smtp.server import ServerConnection as SmtpConnection
from tests.attack.measure import MIB, measured
from tests.support.mailhouse import MESSAGE, MailHouse, SmtpClient

FORGED = b"MAIL FROM:<ceo@example.jp>\r\nRCPT TO:<alice@example.jp>\r\nDATA\r\nSubject: forged\r\n\r\nPay.\r\n.\r\n"
OPEN = ["EHLO c", "MAIL FROM:<>", "RCPT TO:<alice@example.jp>"]
DATA_EARLY = b"Subject: 1\r\n\r\nx\r\n.\r\n"


async def nothing_came_in(house: MailHouse) -> bool:
    """No mailbox, no queue, no word of acceptance."""
    boxes = [await house.mailbox(one) for one in ("alice@example.jp", "bob@example.jp", "carol@example.org")]
    return not any(boxes) and await house.queued() == [] and "accepted" not in house.trace.kinds()


async def greeted(client: SmtpClient, *lines: str) -> None:
    """EHLO, then lines that must all succeed."""
    assert (await client.ask("EHLO c")).startswith("250")
    for line in lines:
        assert (await client.ask(line)).startswith("250"), line


# A4: who does not wait


async def test_octets_before_the_greeting(house: MailHouse) -> None:
    for early in (b"EHLO c\r\n", b"EHLO c\r\n" + FORGED, b"\r\n", b"x", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00"):
        async with house.connected(early=early) as client:
            assert await client.all_replies() == ["554 5.5.0 The client talked before the greeting"], early
    assert await nothing_came_in(house)


EARLY = [
    ([], b"EHLO c\r\n" + FORGED, ["554 5.5.0"]),
    ([], b"HELO c\r\nNOOP\r\n", ["554 5.5.0"]),
    (["EHLO c"], b"EHLO again\r\nMAIL FROM:<>\r\n", ["554 5.5.0"]),
    (OPEN, b"DATA\r\n" + DATA_EARLY, ["554 5.5.0"]),
    (OPEN, b"DATA\r\n.\r\n", ["554 5.5.0"]),
    (["EHLO c"], b"MAIL FROM:<>\r\nRCPT TO:<alice@example.jp>\r\nDATA\r\n" + DATA_EARLY, ["250 2.1.0", "250 2.1.5", "554 5.5.0"]),
]


async def test_octets_before_the_reply_they_need(house: MailHouse) -> None:
    for before, octets, replies in EARLY:
        async with house.connected() as client:
            for line in before:
                await client.ask(line)
            await client.send(octets)
            assert [reply[:9] for reply in await client.all_replies()] == replies, octets
    assert await nothing_came_in(house)


METHODS = ["GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "DELETE", "PATCH", "TRACE", "post"]


@pytest.mark.parametrize("greet", [True, False])
async def test_a_web_client(house: MailHouse, greet: bool) -> None:
    """A page that makes its reader's browser post a mail: the first line ends it, however polite it was before."""
    for method in METHODS:
        async with house.connected() as client:
            if greet:
                await client.ask("EHLO c")
            request = f"{method} / HTTP/1.1\r\nHost: mail.example.jp:25\r\nContent-Length: {len(FORGED)}\r\n\r\nEHLO c\r\n"
            await client.send(request.encode() + FORGED)
            assert await client.all_replies() == ["521 5.5.1 This is not a web server"], method
    assert await nothing_came_in(house)


# A5: BDAT


BDAT = [
    # A chunk where none belongs is read and dropped, so that its octets are no commands.
    (["EHLO c"], b"BDAT 6 LAST\r\nRSET\r\nNOOP\r\n", ["503 5.5.1", "250 2.0.0"], True),
    (["EHLO c", "MAIL FROM:<>"], b"BDAT 6\r\nRSET\r\nDATA\r\n", ["503 5.5.1", "503 5.5.1"], True),
    ([], b"BDAT 6\r\nRSET\r\nNOOP\r\n", ["503 5.5.1", "250 2.0.0"], True),
    # DATA, MAIL and RCPT do not mix with chunks.
    (OPEN, b"BDAT 3\r\nX: DATA\r\n", ["250 2.0.0", "503 5.5.1"], True),
    (OPEN, b"BDAT 3\r\nX: RCPT TO:<bob@example.jp>\r\n", ["250 2.0.0", "503 5.5.1"], True),
    (OPEN, b"BDAT 3\r\nX: MAIL FROM:<>\r\n", ["250 2.0.0", "503 5.5.1"], True),
    (OPEN, b"BDAT 3\r\nX: RSET\r\nBDAT 3 LAST\r\nX: NOOP\r\n",
     ["250 2.0.0", "250 2.0.0", "503 5.5.1", "250 2.0.0"], True),
    (OPEN, b"BDAT 3\r\nX: EHLO c\r\n", ["250 2.0.0", "250-mail."], True),
    # Where the chunk ends can't be known: nothing behind it is read.
    *[(OPEN, b"BDAT" + argument + b"\r\n" + FORGED, ["501 5.5.4"], False)
      for argument in (b"", b" ", b" -1", b" +1", b" 1_0", b" 0x10", b" 1 2", b" 1 FIRST", b" 1.0", b"  5", b" \xd9\xa1 LAST",
                       b" 123456789012345678901", b" 5 LAST LAST")],
    (OPEN, b"BDAT 5\0\r\n" + FORGED, ["501 5.5.4"], False),
    (OPEN, b"BDAT " + b"0" * 600 + b"5\r\n" + FORGED, ["500 5.5.2"], False),
    # More than may still come: refused before it is read, and not read.
    (OPEN, b"BDAT 99999999999 LAST\r\n" + FORGED, ["552 5.3.4"], False),
    (["EHLO c"], b"BDAT 99999999999\r\n" + FORGED, ["552 5.3.4"], False),
]


async def test_chunks_out_of_order(house: MailHouse) -> None:
    for before, octets, replies, stays in BDAT:
        async with house.connected() as client:
            for line in before:
                assert (await client.ask(line)).startswith("250")
            await client.send(octets)
            assert [(await client.reply())[:9] for _ in replies] == replies, octets
            if stays:
                assert (await client.ask("NOOP")).startswith("250"), octets
            else:
                assert await client.reply() == "", octets
    assert await nothing_came_in(house)


async def test_a_verb_that_only_begins_like_bdat(house: MailHouse) -> None:
    """No chunk: what follows is commands, as they were sent."""
    async with house.connected() as client:
        await greeted(client, *OPEN[1:])
        await client.send(b"BDAT\x005\r\nRSET\r\nNOOP\r\n")
        assert [(await client.reply())[:9] for _ in range(3)] == ["500 5.5.2", "250 2.0.0", "250 2.0.0"]
    assert await nothing_came_in(house)


async def test_a_chunk_that_never_comes_whole(house: MailHouse) -> None:
    async with house.connected() as client:
        await greeted(client, *OPEN[1:])
        await client.send(b"BDAT 52428800\r\n" + FORGED)
        client.stream.abort()
    assert await nothing_came_in(house)


async def test_a_chunk_too_many(house: MailHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tiny chunks cost more than their octets."""
    assert smtp_server._BDAT_PER_MESSAGE == 10_000
    monkeypatch.setattr(smtp_server, "_BDAT_PER_MESSAGE", 100)
    for count, last in ((99, "250 2.0.0"), (100, "552 5.3.4")):
        async with house.connected() as client:
            await greeted(client, *OPEN[1:])
            await client.send(b"BDAT 1\r\nx" * count)
            for _ in range(count):
                assert (await client.reply()).startswith("250 2.0.0 1 octets")
            assert (await client.ask("BDAT 0 LAST")).startswith(last)
            if last.startswith("552"):
                assert await client.reply() == ""
    assert len(await house.mailbox("alice@example.jp")) == 1


async def test_chunks_beyond_the_limit_are_not_read(house: MailHouse) -> None:
    await house.set("limits.message_size", "4K")
    async with house.connected() as client:
        await greeted(client, "MAIL FROM:<>", "RCPT TO:<alice@example.jp>")
        await client.send(b"BDAT 3000\r\n" + b"x" * 3000)
        assert (await client.reply()).startswith("250 2.0.0")
        await client.send(b"BDAT 3000 LAST\r\n" + FORGED)
        assert (await client.reply()).startswith("552 5.3.4")
        assert await client.reply() == ""
    assert await nothing_came_in(house)


# A6 and A7: what is forgotten, and what is not


ENDS = [
    ("a refused message", b"DATA\r\n", b"Subject: x\r\n\r\nbare\nlf\r\n.\r\n", "550 5.5.2", False),
    ("a loop", b"DATA\r\n", b"Received: x\r\n" * 50 + b"\r\n.\r\n", "554 5.4.6", True),
    ("an octet zero", b"DATA\r\n", b"\0\r\n.\r\n", "554 5.6.0", True),
    ("too big", b"DATA\r\n", b"Subject: x\r\n\r\n" + (b"y" * 70 + b"\r\n") * 100 + b".\r\n", "552 5.3.4", True),
    ("accepted", b"DATA\r\n", b"Subject: x\r\n\r\n.\r\n", "250 2.0.0", True),
    ("refused in chunks", b"", b"BDAT 3 LAST\r\n\0\r\n", "554 5.6.0", True),
    ("accepted in chunks", b"", b"BDAT 2 LAST\r\n\r\n", "250 2.0.0", True),
]


@pytest.mark.parametrize(("command", "octets", "reply", "stays"), [end[1:] for end in ENDS], ids=[end[0] for end in ENDS])
async def test_after_the_end_of_a_message_the_envelope_is_empty(
    house: MailHouse, command: bytes, octets: bytes, reply: str, stays: bool
) -> None:
    await house.set("limits.message_size", "4K")
    for role in (Role.MX, Role.LMTP):
        async with house.connected(role) as client:
            await client.ask("LHLO c" if role is Role.LMTP else "EHLO c")
            await client.ask("MAIL FROM:<a@elsewhere.example>")
            await client.ask("RCPT TO:<alice@example.jp>")
            if command:
                assert (await client.ask("DATA")).startswith("354")
            await client.send(octets)
            assert (await client.reply()).startswith(reply)
            if stays:
                assert (await client.ask("DATA")).startswith("503 5.5.1")
                assert (await client.ask("RCPT TO:<bob@example.jp>")).startswith("503 5.5.1")
                await client.send(b"BDAT 2 LAST\r\n\r\n")
                assert (await client.reply()).startswith("503 5.5.1")
                assert (await client.ask("MAIL FROM:<b@elsewhere.example>")).startswith("250")
            else:
                assert await client.reply() == ""
    assert await house.mailbox("bob@example.jp") == []
    assert len(await house.mailbox("alice@example.jp")) == 2 * reply.startswith("250")


STRAY = [
    ("VRFY alice", "252 2.1.5"), ("VRFY alice@example.jp", "252 2.1.5"), ("VRFY nobody@example.jp", "252 2.1.5"),
    ("VRFY 送信@example.jp", "252 2.1.5"), ("VRFY alice@example.jp SMTPUTF8", "252 2.1.5"), ("EXPN staff", "502 5.7.0"),
    ("EXPN 名簿", "502 5.7.0"), ("HELP", "214 2.0.0"), ("HELP VRFY", "214 2.0.0"), ("NOOP", "250 2.0.0"), ("NOOP x", "250 2.0.0"),
    ("VRFY", "501 5.5.4"), ("MAIL FROM:<>", "503 5.5.1"), ("MAIL FROM:<b@example.net>", "503 5.5.1"), ("AUTH PLAIN", "502 5.5.1"),
    ("STARTTLS", "502 5.5.1"), ("NONSENSE", "500 5.5.2"), ("LHLO c", "500 5.5.2"), ("EHLO", "501 5.5.4"),
    ("RSET now", "501 5.5.4"),
    ("RCPT TO:<nobody@example.jp>", "550 5.1.1"), ("RCPT TO:<x@elsewhere.example>", "550 5.7.1"), ("DATA now", "501 5.5.4"),
    ("RCPT TO:<>", "501 5.1.3"), ("SEND FROM:<a@b.example>", "502 5.5.1"), ("TURN", "502 5.5.1"), ("QUIT now", "501 5.5.4"),
]


async def test_a_stray_command_changes_nothing(house: MailHouse) -> None:
    """Within a transaction it clears nothing, before one it opens none."""
    for line, reply in STRAY:
        async with house.connected() as client:
            await greeted(client, "MAIL FROM:<a@elsewhere.example>", "RCPT TO:<alice@example.jp>")
            assert (await client.ask(line)).startswith(reply), line
            assert (await client.ask("DATA")).startswith("354"), line
            await client.send(MESSAGE + b".\r\n")
            assert (await client.reply()).startswith("250 2.0.0"), line
            if not line.startswith("MAIL"):
                await client.ask(line)
                assert (await client.ask("DATA")).startswith("503"), line
    stored = await house.mailbox("alice@example.jp")
    assert len(stored) == len(STRAY)
    assert all(one.startswith(b"Return-Path: <a@elsewhere.example>\r\n") for one in stored)
    assert await house.queued() == []


# A13: lines and arguments


def _answer(event: object, core: object) -> None:
    """A face that says yes."""
    if isinstance(core, SmtpConnection):
        core.reply(Reply.of("220 hello" if type(event).__name__ == "Connected" else "250 2.0.0 ok"))
    elif isinstance(core, Pop3Connection):
        core.reply(Response(True))
    else:
        core.complete("OK", "done")


CORES: dict[str, Callable[[], object]] = {
    "smtp": lambda: SmtpConnection(SmtpConfig("mail.example.jp", auth_mechanisms=("PLAIN",), auth_without_tls=True)),
    "lmtp": lambda: SmtpConnection(SmtpConfig("mail.example.jp", lmtp=True)),
    "pop3": lambda: Pop3Connection(Pop3Config(auth_without_tls=True, auth_mechanisms=("PLAIN",))),
    "imap": lambda: ImapConnection(ImapConfig("mail.example.jp", allow_plaintext_login=True)),
}


BEGINS = [b"", b"EHLO ", b"MAIL FROM:<", b"AUTH PLAIN ", b"USER ", b"a LOGIN ", b'a LOGIN "', b"\r", b"BDAT "]


@pytest.mark.parametrize("name", CORES)
def test_a_line_without_end_is_not_kept(name: str) -> None:
    """100 MB without a line end are refused or skipped, in less memory than one message takes."""
    for begin in BEGINS:
        core, octets, heard = CORES[name](), begin + b"x" * 65536, b""
        with measured() as memory:
            try:
                for _ in range(160 if begin else 1600):
                    heard += _fed(core, octets)
                    octets = octets[-65536:]
                heard += _fed(core, b"\r\nNOOP\r\n")
                assert (b"-ERR Line too long" if name == "pop3" else b"500 5.5.2 Line too long") in heard
            except ProtocolError:
                heard += core.data_to_send()
                assert name == "imap" or begin == b"BDAT "
        assert memory.peak_octets < MIB, begin
        assert len(heard) < 500


def _fed(core: object, octets: bytes) -> bytes:
    """What the server says to these octets."""
    core.receive_data(octets)
    while not isinstance(event := core.next_event(), Need):
        _answer(event, core)
    return core.data_to_send()


async def test_a_long_line_is_one_error_and_no_command(house: MailHouse) -> None:
    async with house.connected() as client:
        await greeted(client)
        for length in (512, 513, 4096, 65536, 200_000):
            line = b"NOOP " + b"x" * (length - 7) + b"\r\n"
            await client.send(line)
            assert (await client.reply()).startswith("250" if length <= 512 else "500 5.5.2"), length
        # The end of a line that was too long is no command of its own, wherever it is cut.
        for cut in range(1, 30):
            line = b"NOOP " + b"x" * 600 + b"\rMAIL FROM:<a@b.example>\r\n"
            await client.send(line[:-cut])
            await client.send(line[-cut:])
            reply = await client.reply()
            if reply.startswith("421"):
                assert cut > ERRORS_MAX - 4
                break
            assert reply.startswith("500 5.5.2 Line too long")
    assert await nothing_came_in(house)


BREAKS = ["\r", "\n", "\0", "\r\r", "\n\n", "\x0b", "\x0c", "\x1b[2J", "\x7f", "\x08", "\x85", "\u2028", "\u2029", "\u0085"]
PLACES = [
    "MAIL FROM:<a{}b@elsewhere.example>", "MAIL FROM:<a@else{}where.example>", "MAIL FROM:<a@elsewhere.example> {}SIZE=1",
    "MAIL FROM:<a@elsewhere.example> SIZE=1{}", "MAIL FROM:<a@elsewhere.example> ENVID=x{}y", "EHLO a{}b",
    "MAIL FROM:<a@elsewhere.example> RET=HDRS{}", 'MAIL FROM:<"a{}b"@elsewhere.example>', "MAIL{} FROM:<a@b.example>",
    'MAIL FROM:<"a\\{}b"@elsewhere.example>', "MAIL FROM:<@a{}.example:a@elsewhere.example>",
]


@pytest.mark.parametrize("place", PLACES)
async def test_breaks_in_paths_and_parameters(house: MailHouse, place: str) -> None:
    for found in BREAKS:
        async with house.connected() as client:
            await greeted(client)
            await client.send(place.format(found).encode("utf-8") + b"\r\n")
            reply = await client.reply()
            assert reply[:3] in ("500", "501", "550", "555"), (place, found, reply)
            assert (await client.ask("RCPT TO:<alice@example.jp>")).startswith("503 5.5.1"), (place, found)
    assert await nothing_came_in(house)


ESCAPED = ["+0D+0A", "+0A", "+00", "+1B", "+7F", "+C2+85", "+E2+80+A8", "+FF", "+0d", "+", "+G0", "=", "a=b", "+0D+0ABcc:+20x@y"]


async def test_breaks_in_xtext(house: MailHouse) -> None:
    """What is escaped is looked at too, since it ends up in the header of a DSN."""
    for escaped in ESCAPED:
        async with house.connected() as client:
            await greeted(client)
            assert (await client.ask(f"MAIL FROM:<a@elsewhere.example> ENVID=x{escaped}")).startswith("501 5.5.4"), escaped
            assert (await client.ask("MAIL FROM:<a@elsewhere.example>")).startswith("250")
            assert (await client.ask(f"RCPT TO:<alice@example.jp> ORCPT=rfc822;x{escaped}")).startswith("501 5.5.4"), escaped
            assert (await client.ask("DATA")).startswith("503 5.5.1")
    assert await nothing_came_in(house)


LENGTHS = [
    ("MAIL FROM:<{}@elsewhere.example>", "x", 255, 256, "501 5.1.7"),
    ("MAIL FROM:<a@{}.example>", "x", 63, 64, "501 5.1.7"),
    ("MAIL FROM:<a@elsewhere.example> ENVID={}", "x", 100, 101, "501 5.5.4"),
    ("MAIL FROM:<a@elsewhere.example> SIZE=0{}", "0", 19, 20, "501 5.5.4"),
]


async def test_arguments_end_where_they_must(house: MailHouse) -> None:
    for line, letter, longest, too_long, bad in LENGTHS:
        async with house.connected() as client:
            await greeted(client, line.format(letter * longest), "RSET")
            assert (await client.ask(line.format(letter * too_long))).startswith(bad), line
            assert (await client.ask("RCPT TO:<alice@example.jp>")).startswith("503 5.5.1"), line
    assert await nothing_came_in(house)
