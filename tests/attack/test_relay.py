"""Reliability A14: every known trick to have a stranger's mail sent on. None may be taken, in any of three places."""

import pytest

from fumibako.faces.smtp import Role
from tests.support.mailhouse import MailHouse

# What is put behind RCPT TO:, and the class of the answer. Nothing of it may ever reach the queue.
VICTIM = "victim@target.example"
TRICKS = [
    (f"<{VICTIM}>", "550"),
    (f"<{VICTIM.upper()}>", "550"),
    ("<victim%target.example@example.jp>", "550"),
    ("<victim%target.example@mail.example.jp>", "550"),
    ("<victim%target.example@[192.0.2.25]>", "550"),
    ("<victim%target.example@[127.0.0.1]>", "550"),
    ("<victim%target.example@localhost>", "550"),
    ("<victim%target.example>", "501"),
    ('<"victim%target.example"@example.jp>', "550"),
    (f'<"{VICTIM}"@example.jp>', "550"),
    (f'<"{VICTIM}"@mail.example.jp>', "550"),
    (f'<"{VICTIM}">', "501"),
    (f'<"{VICTIM}"@[192.0.2.25]>', "550"),
    (f"<{VICTIM}@example.jp>", "501"),
    (f"<{VICTIM}@mail.example.jp>", "501"),
    ("<target.example!victim@example.jp>", "550"),
    ("<target.example!victim@[192.0.2.25]>", "550"),
    ("<target.example!victim>", "501"),
    ("<mail.example.jp!target.example!victim@example.jp>", "550"),
    (f"<@example.jp:{VICTIM}>", "550"),
    (f"<@mail.example.jp:{VICTIM}>", "550"),
    (f"<@mail.example.jp,@example.jp:{VICTIM}>", "550"),
    (f"<@[192.0.2.25]:{VICTIM}>", "501"),
    ("<@example.jp:victim%target.example@example.jp>", "550"),
    ("<victim@[192.0.2.200]>", "550"),
    ("<victim@[IPv6:2001:db8::1]>", "550"),
    ("<victim@[::ffff:192.0.2.200]>", "501"),
    ("<victim@[IPv6:::ffff:192.0.2.25]>", "550"),
    ("<victim@192.0.2.200>", "550"),
    ("<victim@target.example.>", "501"),
    ("<victim@example.jp.target.example>", "550"),
    ("<victim@xexample.jp>", "550"),
    ("<victim@sub.example.jp>", "550"),
    ("<@target.example>", "501"),
    ('<""@target.example>', "501"),
    ('<""@example.jp>', "501"),
    ("<victim@>", "501"),
    ("<>", "501"),
    ("<victim@target.example\\r\\nRCPT TO:<x@target.example>>", "501"),
    ("<alice@example.jp>,<victim@target.example>", "501"),
    ("<alice@example.jp> <victim@target.example>", "501"),
    ("<alice@example.jp;victim@target.example>", "501"),
    ("<alice@example.jp,victim@target.example>", "501"),
    ("<alice@example.jp\0victim@target.example>", "500"),
    ("victim@target.example", "501"),
    ("<victim:target.example@example.jp>", "501"),
    ("<victim=target.example@example.jp>", "550"),
    ("<victim#target.example@example.jp>", "550"),
    ("<postmaster@target.example>", "550"),
    ("<abuse@target.example>", "550"),
    ("<MAILER-DAEMON@target.example>", "550"),
]


def test_there_are_enough_tricks() -> None:
    assert len(set(TRICKS)) == len(TRICKS) >= 40


@pytest.mark.parametrize("sender", ["stranger@elsewhere.example", "", "alice@example.jp", "postmaster@example.jp"])
@pytest.mark.parametrize("role", [Role.MX, Role.LMTP])
async def test_no_trick_relays(house: MailHouse, role: Role, sender: str) -> None:
    hello = "LHLO localhost" if role is Role.LMTP else "EHLO mail.example.jp"
    for trick, code in TRICKS:
        async with house.connected(role, peer="127.0.0.1") as client:      # no network, and no name, has relay rights
            await client.ask(hello)
            assert (await client.ask(f"MAIL FROM:<{sender}>")).startswith("250")
            reply = await client.ask(f"RCPT TO:{trick}")
            assert reply.startswith(code), (trick, reply)
            assert (await client.ask("DATA")).startswith("503")
    assert await house.queued() == []
    assert "accepted" not in house.trace.kinds()


async def test_a_catch_all_keeps_the_tricks_at_home(house: MailHouse) -> None:
    await house.alias("@example.jp", "alice@example.jp")
    taken = 0
    for trick, _ in TRICKS:
        async with house.connected() as client:
            await client.ask("EHLO x")
            await client.ask("MAIL FROM:<>")
            if (await client.ask(f"RCPT TO:{trick}")).startswith("250"):
                taken += 1
                await client.ask("DATA")
                assert (await client.ask("\r\n.")).startswith("250")
    assert len(await house.mailbox("alice@example.jp")) == taken > 5
    assert await house.queued() == []


async def test_submission_without_login_relays_nothing(house: MailHouse) -> None:
    async with house.connected(Role.SUBMISSION, peer="127.0.0.1", allow_plaintext=True) as client:
        await client.ask("EHLO x")
        assert (await client.ask("MAIL FROM:<alice@example.jp>")).startswith("530")
        assert (await client.ask(f"RCPT TO:<{VICTIM}>")).startswith("503")
        assert (await client.ask("DATA")).startswith("503")


@pytest.mark.parametrize("line", [
    "XCLIENT LOGIN=alice@example.jp", "XFORWARD ADDR=127.0.0.1", "PROXY TCP4 127.0.0.1 127.0.0.1 1 25",
    "AUTH PLAIN AGFsaWNlQGV4YW1wbGUuanAAeA==",
])
async def test_no_line_of_a_stranger_makes_a_friend(house: MailHouse, line: str) -> None:
    async with house.connected() as client:
        await client.ask("EHLO x")
        assert (await client.ask(line)).startswith("5")
        await client.ask("MAIL FROM:<alice@example.jp> ")
        assert (await client.ask(f"RCPT TO:<{VICTIM}>")).startswith("550 5.7.1")
