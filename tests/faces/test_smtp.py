"""SMTP, submission and LMTP sessions over a real store."""

import asyncio
import base64
import itertools
import ssl

import pytest

from fumibako.faces.smtp import ERRORS_MAX, Role, refuse_connection
from fumibako.model.ops import AddAccount, Charge, Deliver, Refusal
from fumibako.net.tls import ServerTls, end_point_binding, opportunistic_client, read_pair
from fumibako.proto.sasl.scram import ScramClient
from fumibako.store.base import StoreRefused, StoreUnavailable
from fumibako.store.disk import DiskIO
from tests.support.certificates import write_pair
from tests.support.mailhouse import MESSAGE, NO_PASSWORD, MailHouse


async def test_a_mail_from_banner_to_inbox(house: MailHouse) -> None:
    async with house.connected() as client:
        hello = await client.ask("EHLO client.example.net")
        assert hello.split("\n") == [
            "250-mail.example.jp greets 198.51.100.1", "250-PIPELINING", "250-SIZE 52428800", "250-ENHANCEDSTATUSCODES",
            "250-8BITMIME", "250-SMTPUTF8", "250-DSN", "250 CHUNKING",
        ]
        replies = await client.mail("alice@example.jp", "nobody@example.jp", "x@example.com")
        assert replies[:5] == [
            "250 2.1.0 Sender ok", "250 2.1.5 Recipient ok", "550 5.1.1 no such mailbox here",
            "550 5.7.1 relaying denied: log in to send elsewhere", "354 Start mail input; end with <CRLF>.<CRLF>",
        ]
        assert replies[5].startswith("250 2.0.0 Message accepted, id ")
        assert await client.ask("QUIT") == "221 2.0.0 mail.example.jp closing connection"
        assert await client.reply() == ""
    [stored] = await house.mailbox("alice@example.jp")
    assert stored.endswith(MESSAGE)
    assert b"with ESMTP\r\n id " + replies[5].rpartition(" ")[2].encode() in stored
    [(_, kind, fields)] = [event for event in house.trace.events if event[1] == "accepted"]
    assert (kind, fields["peer"], fields["helo"], fields["recipients"]) == (
        "accepted", "198.51.100.1", "client.example.net", ("alice@example.jp",))


async def test_everything_pipelined(house: MailHouse) -> None:
    async with house.connected() as client:
        await client.ask("EHLO c")
        await client.send(b"MAIL FROM:<>\r\nRCPT TO:<alice@example.jp>\r\nDATA\r\n")
        assert [(await client.reply())[:3] for _ in range(3)] == ["250", "250", "354"]
        await client.send(b"Subject: 1\r\n\r\n..dot\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.jp>\r\n")
        assert [(await client.reply())[:3] for _ in range(3)] == ["250", "250", "250"]
    [stored] = await house.mailbox("alice@example.jp")
    assert stored.endswith(b"\r\nSubject: 1\r\n\r\n.dot\r\n")


async def test_chunking(house: MailHouse) -> None:
    async with house.connected() as client:
        await client.ask("EHLO c")
        await client.send(b"MAIL FROM:<>\r\nRCPT TO:<alice@example.jp>\r\nBDAT 14\r\nSubject: 1\r\n\r\nBDAT 7 LAST\r\nhello\r\n")
        assert [(await client.reply())[:3] for _ in range(4)] == ["250"] * 4
    [stored] = await house.mailbox("alice@example.jp")
    assert stored.endswith(b"\r\nSubject: 1\r\n\r\nhello\r\n")


@pytest.mark.parametrize(("line", "reply"), [
    ("VRFY alice", "252 2.1.5"), ("EXPN list", "502 5.7.0"), ("HELP", "214 2.0.0"), ("NOOP", "250 2.0.0"), ("RSET", "250 2.0.0"),
    ("AUTH PLAIN", "502 5.5.1"), ("STARTTLS", "502 5.5.1"), ("RCPT TO:<alice@example.jp>", "503 5.5.1"),
    ("MAIL FROM:<a@b> SIZE=99999999999", "552 5.3.4"), ("NONSENSE", "500 5.5.2"), ("GET / HTTP/1.1", "521 5.5.1"),
])
async def test_single_commands(house: MailHouse, line: str, reply: str) -> None:
    async with house.connected() as client:
        await client.ask("EHLO c")
        assert (await client.ask(line)).startswith(reply)
        if line.startswith("GET"):
            assert await client.reply() == ""


async def test_a_client_that_talks_first_is_turned_away(house: MailHouse) -> None:
    """Reliability A4."""
    async with house.connected(early=b"EHLO spammer\r\nMAIL FROM:<>\r\n") as client:
        assert await client.all_replies() == ["554 5.5.0 The client talked before the greeting"]


async def test_too_many_errors_end_the_session(house: MailHouse) -> None:
    async with house.connected() as client:
        await client.ask("EHLO c")
        await client.send(b"NONSENSE\r\n" * (ERRORS_MAX + 9))
        replies = await client.all_replies()
    assert replies == ["500 5.5.2 Command not recognized"] * len(replies[:-1]) + ["421 4.7.0 Too many errors, closing connection"]
    assert len(replies) <= ERRORS_MAX + 10


async def test_too_many_recipients(house: MailHouse) -> None:
    await house.set("limits.recipients", "2")
    async with house.connected() as client:
        await client.ask("EHLO c")
        replies = await client.mail("alice@example.jp", "bob@example.jp", "carol@example.org")
        assert [reply[:9] for reply in replies[1:4]] == ["250 2.1.5", "250 2.1.5", "452 4.5.3"]
        assert replies[-1].startswith("250 2.0.0")


async def test_a_message_beyond_the_limit_is_read_to_its_end(house: MailHouse) -> None:
    await house.set("limits.message_size", "2K")
    async with house.connected() as client:
        await client.ask("EHLO c")
        replies = await client.mail("alice@example.jp", message=MESSAGE + b"x" * 60 + b"\r\n" + (b"y" * 70 + b"\r\n") * 100)
        assert replies[-1].startswith("552 5.3.4 message exceeds")
        assert (await client.ask("NOOP")).startswith("250")
    assert await house.mailbox("alice@example.jp") == []


async def test_a_hop_too_many(house: MailHouse) -> None:
    async with house.connected() as client:
        await client.ask("EHLO c")
        replies = await client.mail("alice@example.jp", message=b"Received: x\r\n" * 50 + MESSAGE)
    assert replies[-1] == "554 5.4.6 mail loop: 50 hops"


@pytest.mark.parametrize("path", ["a@example.net", "", "postmaster@example.com"])
async def test_a_transaction_can_begin_again(house: MailHouse, path: str) -> None:
    async with house.connected() as client:
        await client.ask("EHLO c")
        await client.ask(f"MAIL FROM:<{path}>")
        assert (await client.ask("MAIL FROM:<b@example.net>")).startswith("503")
        await client.ask("RSET")
        assert (await client.mail("alice@example.jp", reverse_path=path))[-1].startswith("250")
        assert (await client.mail("postmaster", reverse_path=path))[-1].startswith("250")
    assert len(await house.mailbox("alice@example.jp")) == 2


async def test_the_server_stops(house: MailHouse) -> None:
    async with house.connected() as client:
        await client.ask("EHLO c")
        house.stopping.set()
        assert await client.all_replies() == ["421 4.3.2 Server is shutting down"]


def go_away(house: MailHouse, monkeypatch: pytest.MonkeyPatch, *kinds: type) -> None:
    """From now on no operation of these kinds has an answer."""
    commit = house.store.commit

    async def broken(operation):
        if isinstance(operation, kinds):
            raise StoreUnavailable("storage died")
        return await commit(operation)

    monkeypatch.setattr(house.store, "commit", broken)


NO_ANSWER = "451 4.3.0 Temporary failure, try again later"


@pytest.mark.parametrize("how", ["DATA", "BDAT"])
async def test_a_commit_without_an_answer_is_451_and_the_session_goes_on(
    house: MailHouse, monkeypatch: pytest.MonkeyPatch, how: str,
) -> None:
    """RFC 5321 §4.2.5: without 250 the mail stays the client's; DESIGN §3: it is never sent again by us."""
    async with house.connected() as client:
        await client.ask("EHLO c")
        with monkeypatch.context() as away:
            go_away(house, away, Deliver)
            if how == "DATA":
                replies = await client.mail("alice@example.jp")
            else:
                await client.send(b"MAIL FROM:<>\r\nRCPT TO:<alice@example.jp>\r\nBDAT 14\r\nSubject: 1\r\n\r\nBDAT 0 LAST\r\n")
                replies = [await client.reply() for _ in range(4)]
            assert replies[-1] == NO_ANSWER and {reply[0] for reply in replies[:-1]} <= {"2", "3"}
            assert (await client.ask("RCPT TO:<alice@example.jp>")).startswith("503")     # nothing of it is left
        assert (await client.mail("alice@example.jp"))[-1].startswith("250 2.0.0")
    assert len(await house.mailbox("alice@example.jp")) == 1


async def test_by_lmtp_each_recipient_of_a_commit_without_an_answer_is_told(
    house: MailHouse, monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house.connected(Role.LMTP) as client:
        await client.ask("LHLO c")
        with monkeypatch.context() as away:
            go_away(house, away, Deliver)
            replies = await client.mail("alice@example.jp", "nobody@example.jp", "bob@example.jp")
            assert [*replies[-1:], await client.reply()] == [NO_ANSWER] * 2
        assert (await client.mail("alice@example.jp"))[-1].startswith("250 2.0.0")


async def test_by_lmtp_what_was_delivered_before_the_store_went_away_is_250(
    house: MailHouse, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One full mailbox has them delivered one by one; a 451 for all would have the first one's mail come twice."""
    await house.store.commit(AddAccount("small@example.jp", NO_PASSWORD, 100))
    commit = house.store.commit

    async def broken(operation):
        if isinstance(operation, Deliver) and [one.address for one in operation.recipients] == ["bob@example.jp"]:
            raise StoreUnavailable("storage died")
        return await commit(operation)

    monkeypatch.setattr(house.store, "commit", broken)
    async with house.connected(Role.LMTP) as client:
        await client.ask("LHLO c")
        replies = await client.mail("alice@example.jp", "small@example.jp", "bob@example.jp")
        replies += [await client.reply() for _ in range(2)]
        assert [reply[:9] for reply in replies[-3:]] == ["250 2.0.0", "452 4.2.2", "451 4.3.0"]
    assert len(await house.mailbox("alice@example.jp")) == 1


async def test_elsewhere_a_store_that_is_away_ends_the_session(house: MailHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """MAIL of a stranger is charged to its address; RCPT only reads."""
    async with house.connected() as client:
        await client.ask("EHLO c")
        go_away(house, monkeypatch, Charge)
        assert await client.ask("MAIL FROM:<bob@example.net>") == "421 4.3.0 Temporary failure, try again later"
        assert await client.reply() == ""


async def test_the_disk_is_full(house: MailHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = type(house.store.body_writer())

    def full(self, octets):
        raise StoreRefused(Refusal.DISK_FULL)

    monkeypatch.setattr(writer, "write", full)
    async with house.connected() as client:
        await client.ask("EHLO c")
        assert (await client.mail("alice@example.jp"))[-1] == "452 4.3.1 insufficient system storage"
        assert (await client.ask("NOOP")).startswith("250")


async def test_lmtp(house: MailHouse) -> None:
    await house.store.commit(AddAccount("small@example.jp", NO_PASSWORD, 100))
    async with house.connected(Role.LMTP) as client:
        assert (await client.ask("EHLO c")).startswith("500")
        assert (await client.ask("LHLO c")).startswith("250")
        await client.send(b"MAIL FROM:<>\r\n" + b"".join(
            b"RCPT TO:<%b>\r\n" % one for one in (b"alice@example.jp", b"nobody@example.jp", b"small@example.jp")) + b"DATA\r\n")
        assert [(await client.reply())[:9] for _ in range(5)] == [
            "250 2.1.0", "250 2.1.5", "550 5.1.1", "250 2.1.5", "354 Start"]
        await client.send(MESSAGE + b".\r\n")
        assert [(await client.reply())[:9] for _ in range(2)] == ["250 2.0.0", "452 4.2.2"]
    [stored] = await house.mailbox("alice@example.jp")
    assert b"with LMTP\r\n" in stored


def plain(user: str, password: str) -> str:
    return "AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()).decode()


async def test_submission(house: MailHouse) -> None:
    await house.with_password("dora@example.jp", "secret words")
    letter = b"From: dora@example.jp\r\nBcc: x@example.com\r\n\r\nHi.\r\n"
    async with house.connected(Role.SUBMISSION, peer="127.0.0.1", allow_plaintext=True) as client:
        hello = await client.ask("EHLO [127.0.0.1]")
        assert "250-AUTH SCRAM-SHA-256 PLAIN LOGIN" in hello
        assert (await client.ask("MAIL FROM:<dora@example.jp>")).startswith("530 5.7.0")
        assert await client.ask(plain("dora@example.jp", "wrong")) == "535 5.7.8 Authentication credentials invalid"
        assert await client.ask("AUTH PLAIN AGRvcmE=") == "501 5.5.2 Malformed authentication message"
        assert await client.ask("AUTH LOGIN") == "334 VXNlcm5hbWU6"
        assert (await client.ask("*")).startswith("501")
        assert await client.ask(plain("dora@example.jp", "secret words")) == "235 2.7.0 Authentication successful"
        assert (await client.ask("MAIL FROM:<alice@example.jp>")).startswith("550 5.7.1")
        replies = await client.mail("x@example.com", "nobody@example.jp", message=letter, reverse_path="dora@example.jp")
        assert [reply[:9] for reply in replies[:3]] == ["250 2.1.0", "250 2.1.5", "550 5.1.1"]
        assert replies[-1].startswith("250 2.0.0")
        replies = await client.mail("x@example.com", message=letter.replace(b"dora", b"alice"), reverse_path="dora@example.jp")
        assert replies[-1].startswith("550 5.7.1 you may")
    [item] = await house.queued()
    octets = await house.queued_octets(item)
    assert b"with ESMTPA\r\n" in octets and b"Bcc" not in octets


async def test_no_login_without_tls_and_none_on_port_25(house: MailHouse) -> None:
    async with house.connected(Role.SUBMISSION) as client:
        assert "AUTH" not in await client.ask("EHLO c")
        assert (await client.ask(plain("a", "b"))).startswith("538 5.7.11")
    async with house.connected(Role.MX, allow_plaintext=True) as client:
        assert "AUTH" not in await client.ask("EHLO c")


async def test_three_wrong_passwords_end_the_session(house: MailHouse) -> None:
    await house.with_password("dora@example.jp", "secret words")
    async with house.connected(Role.SUBMISSION, peer="127.0.0.1", allow_plaintext=True) as client:
        await client.ask("EHLO c")
        for _ in range(2):
            assert (await client.ask(plain("dora@example.jp", "wrong"))).startswith("535")
        await client.send(plain("dora@example.jp", "wrong").encode() + b"\r\n")
        assert (await client.all_replies())[-1].startswith("421 4.7.0")


async def test_a_slow_sender_is_cut_off(house: MailHouse) -> None:
    async with house.connected() as client:
        await client.ask("EHLO c")
        await client.ask("MAIL FROM:<>")
        await client.ask("RCPT TO:<alice@example.jp>")
        await client.ask("DATA")
        house.clock.advance(181)
        await client.send(b"X: 1\r\n")
        assert await client.all_replies() == ["421 4.4.2 Timeout, closing connection"]


async def test_a_peer_that_leaves_in_the_middle_leaves_nothing(house: MailHouse) -> None:
    async with house.connected() as client:
        await client.ask("EHLO c")
        await client.ask("MAIL FROM:<>")
        await client.ask("RCPT TO:<alice@example.jp>")
        await client.ask("DATA")
        await client.send(MESSAGE)
        client.stream.abort()
    assert await house.mailbox("alice@example.jp") == []
    assert await house.queued() == []


async def test_smtputf8_and_dsn_parameters(house: MailHouse) -> None:
    await house.alias("info@example.jp", "x@example.com")
    async with house.connected() as client:
        await client.ask("EHLO c")
        assert (await client.ask("MAIL FROM:<送信@例え.jp> SMTPUTF8 BODY=8BITMIME RET=HDRS ENVID=abc")).startswith("250")
        assert (await client.ask("RCPT TO:<info@example.jp> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;i@example.jp")).startswith("250")
        await client.ask("DATA")
        await client.send("Subject: こんにちは\r\n\r\n本文\r\n.\r\n".encode())
        assert (await client.reply()).startswith("250")
    [item] = await house.queued()
    envelope, [recipient] = item.envelope, item.recipients
    assert (envelope.reverse_path, envelope.smtputf8, envelope.body, envelope.ret, envelope.envelope_id) == (
        "送信@例え.jp", True, "8BITMIME", "HDRS", "abc")
    assert (recipient.forward_path, recipient.notify) == ("x@example.com", 10)
    assert recipient.original_recipient == "rfc822;i@example.jp"
    assert b"with UTF8SMTP\r\n" in await house.queued_octets(item)


def test_what_a_connection_beyond_the_caps_is_told() -> None:
    assert refuse_connection("too many connections") == b"421 4.7.0 Too many connections, try again later\r\n"


async def test_sessions_side_by_side(house: MailHouse) -> None:
    async def one(number: int) -> None:
        async with house.connected(peer=f"198.51.100.{number}") as client:
            await client.ask("EHLO c")
            assert (await client.mail("alice@example.jp", message=b"Subject: %d\r\n\r\n" % number))[-1].startswith("250")

    async with asyncio.TaskGroup() as group:
        for number in range(1, 21):
            group.create_task(one(number))
    assert len(await house.mailbox("alice@example.jp")) == 20


@pytest.fixture
def server_tls(tmp_path) -> ssl.SSLContext:
    return ServerTls([read_pair(*write_pair(tmp_path, "mail.example.jp"))]).context("submission")


async def test_starttls_then_login_with_channel_binding(house: MailHouse, server_tls: ssl.SSLContext) -> None:
    """RFC 3207 §4.2: what was said before TLS is forgotten; RFC 5802 §6: SCRAM is bound to this TLS."""
    dora = await house.with_password("dora@example.jp", "secret words")
    async with house.connected(Role.SUBMISSION, peer="127.0.0.1", tls=server_tls) as client:
        hello = await client.ask("EHLO c")
        assert "STARTTLS" in hello and "AUTH" not in hello
        assert await client.ask("STARTTLS") == "220 2.0.0 Ready to start TLS"
        await client.stream.start_tls(opportunistic_client(), server_side=False)
        assert (await client.ask("MAIL FROM:<dora@example.jp>")).startswith(("503", "530"))
        hello = await client.ask("EHLO c")
        assert "STARTTLS" not in hello and "250-AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN" in hello
        binding = end_point_binding(client.stream.tls.peer_certificate)
        scram = ScramClient("SCRAM-SHA-256-PLUS", "dora@example.jp", "secret words", b"fyko+d2lbbFgONRv9qkxdawL", binding)
        line = b"AUTH SCRAM-SHA-256-PLUS " + base64.b64encode(scram.step(None))
        while (reply := await client.ask(line.decode())).startswith("334 "):
            line = base64.b64encode(scram.step(base64.b64decode(reply[4:])) or b"")
        assert reply == "235 2.7.0 Authentication successful"
        assert scram.is_complete
        letter = b"From: dora@example.jp\r\n\r\nHi.\r\n"
        assert (await client.mail("alice@example.jp", message=letter, reverse_path=dora.address))[-1].startswith("250")
    [stored] = await house.mailbox("alice@example.jp")
    assert b"with ESMTPSA (TLSv1.3 TLS_" in stored


async def test_commands_pipelined_behind_starttls_are_never_run(house: MailHouse, server_tls: ssl.SSLContext) -> None:
    """Reliability A8, CVE-2011-0411."""
    async with house.connected(tls=server_tls) as client:
        await client.ask("EHLO c")
        await client.send(b"STARTTLS\r\nMAIL FROM:<evil@example.net>\r\n")
        replies = await client.all_replies()
    assert not any(reply.startswith("220") for reply in replies)


async def test_under_tls_login_is_offered_and_tls_is_not(house: MailHouse, server_tls: ssl.SSLContext) -> None:
    async with house.connected(Role.SUBMISSION, tls=server_tls) as client:
        await client.ask("EHLO c")
        await client.ask("STARTTLS")
        await client.stream.start_tls(opportunistic_client(), server_side=False)
        assert "AUTH" in await client.ask("EHLO c")
        assert (await client.ask("STARTTLS")).startswith("503")


# Groups a client may send in one go (RFC 2920 §3.1), with the replies to each.
DIALOGUE = [
    (b"EHLO client.example.net\r\n", ["250-mail.example.jp greets 198.51.100.1"]),
    (b"MAIL FROM:<bob@example.net> SIZE=50\r\nRCPT TO:<nobody@example.jp>\r\nRCPT TO:<alice@example.jp>\r\nDATA\r\n",
     ["250 2.1.0 Sender ok", "550 5.1.1 no such mailbox here", "250 2.1.5 Recipient ok", "354 Start mail input"]),
    (b"Subject: a\r\n\r\n..\r\n...\r\n.\r\nNONSENSE\r\nRSET\r\n"
     b"MAIL FROM:<>\r\nRCPT TO:<alice@example.jp>\r\nBDAT 12\r\nSubject: b\r\nBDAT 0 LAST\r\nNOOP\r\n",
     ["250 2.0.0 Message accepted", "500 5.5.2", "250 2.0.0 Reset", "250 2.1.0", "250 2.1.5", "250 2.0.0 12 octets",
      "250 2.0.0 Message accepted", "250 2.0.0 Ok"]),
    (b"QUIT\r\n", ["221 2.0.0"]),
]
OCTETS = sum(len(sent) for sent, _ in DIALOGUE)


@pytest.mark.parametrize("cuts", ["whole", "octet by octet", "at each position"])
async def test_a_dialogue_however_its_octets_arrive(house: MailHouse, cuts: str) -> None:
    """The answers, and what is stored, do not depend on where the stream is cut."""
    ways = {"whole": [{0}], "octet by octet": [set(range(OCTETS))], "at each position": [{at} for at in range(1, OCTETS)]}
    places = ways[cuts]
    for where in places:
        await _speak(house, where)
    stored = [one.partition(b"+0900\r\n")[2] for one in await house.mailbox("alice@example.jp")]
    assert stored == [b"Subject: a\r\n\r\n.\r\n..\r\n", b"Subject: b\r\n"] * len(places)


async def _speak(house: MailHouse, where: set[int]) -> None:
    async with house.connected() as client:
        position = 0
        for sent, expected in DIALOGUE:
            edges = [0, *sorted(at - position for at in where if 0 < at - position < len(sent)), len(sent)]
            for start, end in itertools.pairwise(edges):
                await client.send(sent[start:end])
            position += len(sent)
            for beginning in expected:
                reply = await client.reply()
                assert reply.startswith(beginning), (where, beginning, reply)


async def test_a_disk_that_is_nearly_full_is_told_at_mail(house: MailHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DiskIO, "free_octets", lambda self, path: 100 * 1024 * 1024)
    monkeypatch.setattr(DiskIO, "capacity_octets", lambda self, path: 1 << 40)
    await house.set("limits.message_size", "200M")
    async with house.connected() as client:
        await client.ask("EHLO c.example")
        full = await client.ask(f"MAIL FROM:<bob@example.net> SIZE={70 * 1024 * 1024}")
        assert full == "452 4.3.1 insufficient system storage"
        assert (await client.ask(f"MAIL FROM:<bob@example.net> SIZE={60 * 1024 * 1024}")).startswith("250 ")
    monkeypatch.setattr(DiskIO, "free_octets", lambda self, path: 1024 * 1024)
    async with house.connected() as client:
        await client.ask("EHLO c.example")
        assert (await client.ask("MAIL FROM:<bob@example.net>")).startswith("452 4.3.1 ")
