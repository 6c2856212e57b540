"""Mail from a login: in whose name, completed with what, and to whom."""

import pytest

from fumibako.model.envelope import Envelope, Peer, Recipient
from fumibako.services.intake import Framing
from fumibako.services.policy import Policy
from fumibako.services.submit import completed
from tests.support.mailhouse import MailHouse

LETTER = b"From: Alice <alice@example.jp>\r\nTo: x@example.com\r\nSubject: hi\r\n\r\nHi.\r\n"


async def submit(house: MailHouse, *recipients: str, message: bytes = LETTER, reverse_path: str = "alice@example.jp"):
    """Alice's mail: the verdict that ended it."""
    account = await house.account("alice@example.jp")
    peer = Peer("203.0.113.7", helo="pc", protocol="ESMTPSA", tls="TLSv1.3 X", account_id=account.id, login=account.address)
    transaction = house.submitter.open(Policy(), peer, Envelope(reverse_path, ()), account)
    if (verdict := await transaction.begin()).refused:
        return verdict
    for recipient in recipients:
        if (verdict := await transaction.add_recipient(Recipient(recipient))).refused:
            return verdict
    transaction.write(message)
    [verdict] = await transaction.finish(Framing(len(message), bare_newline=b"\n" in message.replace(b"\r\n", b"")))
    return verdict


async def test_mail_to_the_world_is_queued_and_completed(house: MailHouse) -> None:
    verdict = await submit(house, "x@example.com", "bob@example.jp")
    assert not verdict.refused
    [item] = await house.queued()
    assert [one.forward_path for one in item.recipients] == ["x@example.com"]
    [bobs] = await house.mailbox("bob@example.jp")
    assert bobs.endswith(LETTER) and item.trace_id.hex().encode() in bobs
    octets = await house.queued_octets(item)
    trace_id = item.trace_id.hex()
    assert octets == (
        b"Received: from pc ([203.0.113.7])\r\n by mail.example.jp with ESMTPSA (TLSv1.3 X)\r\n id " + trace_id.encode()
        + b";\r\n Mon, 16 Jun 2025 00:06:40 +0900\r\n"
        b"Message-ID: <" + trace_id.encode() + b"@mail.example.jp>\r\nDate: Mon, 16 Jun 2025 00:06:40 +0900\r\n" + LETTER
    )


async def test_mail_among_ourselves_is_delivered_at_once(house: MailHouse) -> None:
    assert not (await submit(house, "bob@example.jp", "alice@example.jp")).refused
    assert await house.queued() == []
    assert len(await house.mailbox("bob@example.jp")) == len(await house.mailbox("alice@example.jp")) == 1


def letter(fields: bytes) -> bytes:
    return fields + b"To: x@example.com\r\n\r\nHi.\r\n"


NAMES = [
    (b"From: alice@example.jp\r\n", "alice@example.jp", ""),
    (b"From: ALICE@Example.jp\r\n", "Alice@example.JP", ""),
    (b"From: sales@example.jp\r\n", "sales@example.jp", ""),
    (b"From: alice@example.jp, sales@example.jp\r\n", "alice@example.jp", ""),
    (b"From: alice@example.jp\r\nSender: sales@example.jp\r\n", "", ""),
    (b"From: bob@example.jp\r\n", "alice@example.jp", "sender-not-owned"),
    (b"From: alice@example.jp\r\n", "bob@example.jp", "sender-not-owned"),
    (b"From: alice@example.jp\r\n", "alice@example.net", "sender-not-owned"),
    (b"From: ceo@example.net\r\n", "alice@example.jp", "sender-not-owned"),
    (b"From: alice@example.jp, ceo@example.net\r\n", "alice@example.jp", "sender-not-owned"),
    (b"From: alice@example.jp\r\nFrom: ceo@example.net\r\n", "alice@example.jp", "one-from-field"),
    (b"From: alice@example.jp\r\nSender: ceo@example.net\r\n", "alice@example.jp", "sender-not-owned"),
    (b"From: alice@example.jp\r\nResent-From: ceo@example.net\r\n", "alice@example.jp", "sender-not-owned"),
    (b"From : ceo@example.net\r\nFrom: alice@example.jp\r\n", "alice@example.jp", "one-from-field"),
    (b"From:\r\n ceo@example.net\r\n", "alice@example.jp", "sender-not-owned"),
    (b'From: "alice@example.jp" <ceo@example.net>\r\n', "alice@example.jp", "sender-not-owned"),
    (b"From: undisclosed:;\r\n", "alice@example.jp", "one-from-field"),
    (b"From: \r\n", "alice@example.jp", "one-from-field"),
    (b"From: alice\r\n", "alice@example.jp", "one-from-field"),
    (b"", "alice@example.jp", "one-from-field"),
]


async def test_in_whose_name(house: MailHouse) -> None:
    """Reliability A15: MAIL FROM, From, Sender and Resent-From must be the login's, with exactly one From."""
    await house.alias("sales@example.jp", "alice@example.jp", "bob@example.jp")
    for fields, reverse_path, explanation in NAMES:
        verdict = await submit(house, "bob@example.jp", message=letter(fields), reverse_path=reverse_path)
        assert [one.explanation for one in verdict.findings] == ([explanation] if explanation else []), (fields, reverse_path)
    assert len(await house.mailbox("bob@example.jp")) == sum(not explanation for _, _, explanation in NAMES)


async def test_an_unknown_local_recipient_is_refused_to_a_login_too(house: MailHouse) -> None:
    assert str((await submit(house, "nobody@example.jp")).status) == "5.1.1"


async def test_bare_line_ends_are_mended(house: MailHouse) -> None:
    message = b"From: alice@example.jp\nTo: bob@example.jp\n\nHi.\n.\nMore\rend\0."
    verdict = await submit(house, "bob@example.jp", message=message)
    assert not verdict.refused
    [stored] = await house.mailbox("bob@example.jp")
    assert stored.endswith(b"From: alice@example.jp\r\nTo: bob@example.jp\r\n\r\nHi.\r\n.\r\nMore\r\nend.")


@pytest.mark.parametrize(("header", "expected"), [
    (b"Bcc: secret@x\r\nDate: d\r\nMessage-ID: <m>\r\nFrom: a@b\r\n", b"Date: d\r\nMessage-ID: <m>\r\nFrom: a@b\r\n"),
    (b"Date: d\r\nmessage-id: <m>\r\nBCC:\r\n a@b,\r\n c@d\r\nReturn-Path: <x>\r\n\r\n", b"Date: d\r\nmessage-id: <m>\r\n\r\n"),
    (b"From: a@b\r\n", b"Message-ID: <id@h>\r\nDate: now\r\nFrom: a@b\r\n"),
    (b"", b"Message-ID: <id@h>\r\nDate: now\r\n"),
])
def test_what_is_completed(header: bytes, expected: bytes) -> None:
    assert completed(header, "id", "h", "now") == expected
