"""Mail from other servers: what is taken, where it goes, and what of it is changed."""

import pytest

from fumibako.model.account import AccountStatus
from fumibako.model.envelope import Envelope, Notify, Recipient
from fumibako.model.ops import AddAccount, SetAccountStatus
from fumibako.services.intake import HEADER_MAX, Framing
from fumibako.services.policy import Policy
from fumibako.services.receive import without_forgeries
from tests.support.mailhouse import MESSAGE, NO_PASSWORD, STRANGER, MailHouse


def statuses(verdicts):
    return [str(verdict.status) for verdict in verdicts]


async def test_a_local_mail_lies_in_the_inbox_when_finish_returns(house: MailHouse) -> None:
    recipients, end = await house.receive("alice@example.jp")
    assert statuses(recipients + end) == ["2.0.0", "2.0.0"]
    [stored] = await house.mailbox("alice@example.jp")
    trace_id = house.trace.events[-1][0].hex()
    assert stored == (
        b"Return-Path: <bob@example.net>\r\n"
        b"Received: from client.example.net ([198.51.100.1])\r\n by mail.example.jp with ESMTP\r\n id "
        + trace_id.encode() + b"\r\n for <alice@example.jp>;\r\n Mon, 16 Jun 2025 00:06:40 +0900\r\n" + MESSAGE
    )
    assert house.trace.kinds() == ["accepted"]
    assert await house.queued() == []


async def test_several_recipients_share_one_blob_and_no_for_clause(house: MailHouse) -> None:
    _, end = await house.receive("alice@example.jp", "bob@example.jp", "Alice@EXAMPLE.jp")
    assert statuses(end) == ["2.0.0"]
    [alices], [bobs] = await house.mailbox("alice@example.jp"), await house.mailbox("bob@example.jp")
    assert alices == bobs
    assert b" for <" not in alices


@pytest.mark.parametrize(("recipient", "status", "text"), [
    ("nobody@example.jp", "5.1.1", "no such mailbox"),
    ("someone@example.com", "5.7.1", "relaying denied"),
    ("off@example.jp", "5.2.1", "disabled"),
    ("moving@example.jp", "4.2.1", "moved"),
    ("round@example.jp", "5.4.6", "leads nowhere"),
])
async def test_recipients_that_are_refused(house: MailHouse, recipient: str, status: str, text: str) -> None:
    for address, state in (("off@example.jp", AccountStatus.DISABLED), ("moving@example.jp", AccountStatus.FROZEN)):
        await house.store.commit(AddAccount(address, NO_PASSWORD))
        await house.store.commit(SetAccountStatus(address, state))
    await house.alias("round@example.jp", "again@example.jp")
    await house.alias("again@example.jp", "round@example.jp")
    [verdict], end = await house.receive(recipient)
    assert (str(verdict.status), end) == (status, [])
    assert text in verdict.text
    assert house.trace.kinds() == ["refused"]


async def test_an_alias_with_a_target_elsewhere_is_one_commit(house: MailHouse) -> None:
    await house.alias("info@example.jp", "alice@example.jp", "friend@example.com", "other@example.org.example")
    _, end = await house.receive("info@example.jp", notify=Notify.NEVER)
    assert statuses(end) == ["2.0.0"]
    [alices] = await house.mailbox("alice@example.jp")
    assert await house.store.queue_items() == []        # not yet
    [item] = await house.queued()
    assert {(one.forward_path, one.original_recipient, one.notify) for one in item.recipients} == {
        ("friend@example.com", "rfc822;info@example.jp", Notify.NEVER),
        ("other@example.org.example", "rfc822;info@example.jp", Notify.NEVER),
    }
    assert item.envelope.reverse_path == "bob@example.net"
    octets = await house.queued_octets(item)
    assert octets.startswith(b"Received: from client.example.net")
    assert alices == b"Return-Path: <bob@example.net>\r\n" + octets
    assert house.house.doorbell.is_set()
    assert house.trace.kinds() == ["accepted", "accepted"]


async def test_an_alias_with_a_full_mailbox_and_a_target_elsewhere_goes_through_the_queue(house: MailHouse) -> None:
    await house.store.commit(AddAccount("small@example.jp", NO_PASSWORD, 600))
    await house.alias("info@example.jp", "small@example.jp", "friend@example.com")
    _, end = await house.receive("info@example.jp", message=BIG)
    assert statuses(end) == ["2.0.0"]
    [item] = await house.queued()
    assert {one.forward_path for one in item.recipients} == {"small@example.jp", "friend@example.com"}


async def test_a_forward_of_a_large_body_shares_its_file(house: MailHouse) -> None:
    await house.alias("info@example.jp", "alice@example.jp", "friend@example.com")
    large = MESSAGE + b"x" * 70 * 8_000 + b"\r\n"
    await house.receive("info@example.jp", message=large)
    [item] = await house.queued()
    assert (await house.queued_octets(item)).endswith(large)
    [alices] = await house.mailbox("alice@example.jp")
    assert alices.endswith(large)
    directory = house.store.engine.directory
    [in_shard], [in_queue] = (directory / "shard-001" / "seg").iterdir(), (directory / "queue").iterdir()
    assert in_shard.stat().st_ino == in_queue.stat().st_ino
    assert list((directory / "spool").iterdir()) == []


async def test_a_dsn_wanted_on_success_goes_through_the_queue(house: MailHouse) -> None:
    await house.receive("alice@example.jp", notify=Notify.SUCCESS)
    assert [one.forward_path for item in await house.queued() for one in item.recipients] == ["alice@example.jp"]


async def test_a_full_mailbox_is_refused_before_the_message(house: MailHouse) -> None:
    await house.store.commit(AddAccount("small@example.jp", NO_PASSWORD, 600))
    assert statuses((await house.receive("small@example.jp"))[1]) == ["2.0.0"]
    transaction = house.receiver.open(Policy(), STRANGER, Envelope("b@example.net", ()), declared_octets=500)
    verdict = await transaction.add_recipient(Recipient("small@example.jp"))
    assert (str(verdict.status), verdict.findings[0].explanation) == ("4.2.2", "mailbox-full")


BIG = MESSAGE + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 10


async def test_one_full_mailbox_among_others_takes_the_spool_path(house: MailHouse) -> None:
    await house.store.commit(AddAccount("small@example.jp", NO_PASSWORD, 600))
    _, end = await house.receive("alice@example.jp", "small@example.jp", message=BIG)
    assert statuses(end) == ["2.0.0"]
    assert len((await house.queued())[0].recipients) == 2
    assert await house.mailbox("alice@example.jp") == []      # all or nothing was nothing


async def test_one_full_mailbox_alone_is_told_to_the_client(house: MailHouse) -> None:
    await house.store.commit(AddAccount("small@example.jp", NO_PASSWORD, 600))
    _, end = await house.receive("small@example.jp", message=BIG)
    assert statuses(end) == ["4.2.2"]
    assert await house.queued() == []


async def test_lmtp_has_a_verdict_for_each_recipient(house: MailHouse) -> None:
    await house.store.commit(AddAccount("small@example.jp", NO_PASSWORD, 600))
    _, end = await house.receive("alice@example.jp", "small@example.jp", "bob@example.jp", message=BIG, lmtp=True)
    assert statuses(end) == ["2.0.0", "4.2.2", "2.0.0"]
    assert await house.queued() == []
    assert len(await house.mailbox("bob@example.jp")) == 1


def received(count: int) -> bytes:
    return b"Received: from a by b; Mon, 16 Jun 2025 00:06:40 +0900\r\n" * count + MESSAGE


@pytest.mark.parametrize(("message", "framing", "status"), [
    (received(49), Framing(1), "2.0.0"),
    (received(50), Framing(1), "5.4.6"),
    (MESSAGE, Framing(1, bare_newline=True), "5.5.2"),
    (MESSAGE, Framing(1, nul=True), "5.6.0"),
    (MESSAGE, Framing(1, too_big=True), "5.3.4"),
    (MESSAGE, Framing(60 * 1024 * 1024), "5.3.4"),
    (b"X: " + b"x" * HEADER_MAX + b"\r\n\r\n", Framing(1), "5.3.4"),
])
async def test_the_message_decides(house: MailHouse, message: bytes, framing: Framing, status: str) -> None:
    transaction = house.receiver.open(Policy(), STRANGER, Envelope("", ()))
    await transaction.add_recipient(Recipient("alice@example.jp"))
    transaction.write(message)
    [verdict] = await transaction.finish(framing)
    assert str(verdict.status) == status
    assert len(await house.mailbox("alice@example.jp")) == (status == "2.0.0")


@pytest.mark.parametrize("message", [b"", b"\r\nbody\r\n", b"Subject: only a header\r\n", b"no header at all", MESSAGE])
async def test_any_octets_are_stored_as_they_came_in_any_cut(house: MailHouse, message: bytes) -> None:
    for cut in (1, 2, 3, len(message) or 1):
        transaction = house.receiver.open(Policy(), STRANGER, Envelope("", ()))
        await transaction.add_recipient(Recipient("alice@example.jp"))
        for start in range(0, len(message), cut):
            transaction.write(message[start : start + cut])
        await transaction.finish(Framing(len(message)))
    stored = await house.mailbox("alice@example.jp")
    assert len(stored) == len((1, 2, 3, 4))
    assert all(one.endswith(b"+0900\r\n" + message) for one in stored)


@pytest.mark.parametrize(("header", "kept"), [
    (b"A: 1\r\nReturn-Path: <x@y>\r\nB: 2\r\n", b"A: 1\r\nB: 2\r\n"),
    (b"return-path:\r\n <x@y>\r\nB: 2\r\n\r\n", b"B: 2\r\n\r\n"),
    (b"Authentication-Results: mail.example.jp; spf=pass\r\nB: 2\r\n", b"B: 2\r\n"),
    (b"AUTHENTICATION-RESULTS : (c) Mail.Example.JP 1;\r\n\tdkim=pass\r\nB: 2\r\n", b"B: 2\r\n"),
    (b'Authentication-Results: "mail.example.jp"; spf=pass\r\nB: 2\r\n', b"B: 2\r\n"),
    (b"Authentication-Results: mx.example.net; spf=pass\r\n", b"Authentication-Results: mx.example.net; spf=pass\r\n"),
    (b"", b""),
])
def test_what_is_taken_out_of_the_header(header: bytes, kept: bytes) -> None:
    assert without_forgeries(header, "mail.example.jp") == kept


async def test_a_forged_field_is_not_stored(house: MailHouse) -> None:
    await house.receive("alice@example.jp", message=b"Authentication-Results: mail.example.jp; spf=pass\r\n" + MESSAGE)
    [stored] = await house.mailbox("alice@example.jp")
    assert b"Authentication-Results" not in stored
    assert stored.endswith(MESSAGE)


async def test_a_body_beyond_the_inline_limit(house: MailHouse) -> None:
    message = MESSAGE + b"z" * 76 + b"\r\n"
    message += (b"0123456789" * 7 + b"\r\n") * 5000
    _, end = await house.receive("alice@example.jp", "bob@example.jp", message=message)
    assert statuses(end) == ["2.0.0"]
    [stored] = await house.mailbox("bob@example.jp")
    assert stored.endswith(message)


async def test_abandon_leaves_nothing(house: MailHouse) -> None:
    transaction = house.receiver.open(Policy(), STRANGER, Envelope("", ()))
    await transaction.add_recipient(Recipient("alice@example.jp"))
    transaction.write(MESSAGE * 5000)
    transaction.abandon()
    transaction.abandon()
    assert await house.mailbox("alice@example.jp") == []
