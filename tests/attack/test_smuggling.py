"""Reliability A1: no ending but CRLF.CRLF ends a message, however the octets are cut, so one mail never becomes two."""

import pytest

from fumibako.faces.smtp import Role
from tests.support.mailhouse import MailHouse

ENDINGS = [b"\n.\n", b"\r.\r", b"\r.\n", b"\n.\r", b"\n.\r\n", b"\r\n.\n", b"\r.\r\n", b"\r\n.\r", b"\r\n\0.\r\n", b"\r\n.\0\r\n",
           b"\r\n.\r\r\n"]
FIRST = b"MAIL FROM:<a@elsewhere.example>\r\nRCPT TO:<alice@example.jp>\r\n"
SECOND = b"MAIL FROM:<ceo@example.jp>\r\nRCPT TO:<bob@example.jp>\r\nDATA\r\nSubject: smuggled\r\n\r\nPay.\r\n.\r\n"


async def session(house: MailHouse, payload: bytes, pieces: list[bytes], role: Role = Role.MX) -> list[str]:
    """Everything the server says to a message sent in pieces."""
    assert b"".join(pieces) == payload
    async with house.connected(role) as client:
        await client.ask("LHLO x" if role is Role.LMTP else "EHLO x")
        await client.send(FIRST)
        await client.reply()
        await client.reply()
        assert (await client.ask("DATA")).startswith("354")
        for piece in pieces:
            await client.send(piece)
        replies = [await client.reply()]
        await client.send(b"QUIT\r\n")
        return [*replies, *(await client.all_replies())]


async def accepted(house: MailHouse) -> tuple[int, int]:
    return len(await house.mailbox("alice@example.jp")), len(await house.mailbox("bob@example.jp"))


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.hex())
async def test_every_ending_in_every_cut(house: MailHouse, ending: bytes) -> None:
    head = b"Subject: first\r\n\r\nHello." + ending
    payload = head + SECOND
    cuts = range(len(head) - len(ending) - 3, len(head) + 4)
    ways = [[payload], [bytes([octet]) for octet in payload], *([payload[:cut], payload[cut:]] for cut in cuts)]
    for pieces in ways:
        replies = await session(house, payload, pieces)
        # Bare line ends and NUL are refused; the connection is closed before what follows could be read as commands.
        assert replies[0].startswith(("550 5.5.2", "554 5.6.0")), replies
        if replies[0].startswith("550 5.5.2"):
            assert replies[1:] == []
    assert await accepted(house) == (0, 0)


async def test_lmtp_is_no_more_lenient(house: MailHouse) -> None:
    for ending in ENDINGS:
        payload = b"Subject: first\r\n\r\nHello." + ending + SECOND
        assert (await session(house, payload, [payload], Role.LMTP))[0].startswith("55")
    assert await accepted(house) == (0, 0)


async def test_the_true_ending_in_every_cut(house: MailHouse) -> None:
    message = b"Subject: first\r\n\r\n..\r\n..Hello.\r\n"
    payload = message + b".\r\n"
    for cut in range(len(payload)):
        replies = await session(house, payload, [payload[:cut], payload[cut:]])
        assert replies[0].startswith("250 2.0.0")
    found = await house.mailbox("alice@example.jp")
    assert len(found) == len(payload)
    assert all(one.endswith(b"\r\nSubject: first\r\n\r\n.\r\n.Hello.\r\n") for one in found)


async def test_chunks_can_hide_nothing(house: MailHouse) -> None:
    """BDAT counts octets: what looks like an end, or like commands, is message."""
    body = b"Subject: first\r\n\r\nHello.\r\n.\r\n" + SECOND
    async with house.connected() as client:
        await client.ask("EHLO x")
        await client.send(FIRST + b"BDAT %d LAST\r\n" % len(body) + body)
        assert [(await client.reply())[:3] for _ in range(3)] == ["250", "250", "250"]
        assert (await client.ask("NOOP")).startswith("250")
    assert await accepted(house) == (1, 0)
    assert (await house.mailbox("alice@example.jp"))[0].endswith(body)


async def test_what_was_accepted_leaves_in_one_piece(house: MailHouse) -> None:
    """A login's bare line ends are mended before the message is stored, so no next hop can split it."""
    await house.with_password("dora@example.jp", "secret words")
    for number, ending in enumerate(ENDINGS):
        async with house.connected(Role.SUBMISSION, peer="127.0.0.1", allow_plaintext=True) as client:
            await client.ask("EHLO x")
            assert (await client.ask("AUTH PLAIN AGRvcmFAZXhhbXBsZS5qcABzZWNyZXQgd29yZHM=")).startswith("235")
            await client.ask("MAIL FROM:<dora@example.jp>")
            await client.ask("RCPT TO:<x@elsewhere.example>")
            await client.ask("DATA")
            await client.send(b"From: dora@example.jp\r\n\r\nHello." + ending + b"MAIL FROM:<>\r\n\r\n.\r\n")
            assert (await client.reply()).startswith("250"), ending
        items = await house.queued()
        assert len(items) == number + 1
        octets = await house.queued_octets(items[-1])
        assert octets.count(b"\r") == octets.count(b"\n") == octets.count(b"\r\n")
        assert b"\0" not in octets
