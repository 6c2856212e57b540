"""Postfix 3.7 brings mail to our MX, which it finds through DNS that we answer ourselves."""

from __future__ import annotations

import email
import email.policy
import hashlib

import pytest

from tests.support.clients import arrived, hand_in, imap, letter, messages, with_subject
from tests.support.internet import MX, Internet
from tests.support.server import LiveServer, eventually

pytestmark = [pytest.mark.system, pytest.mark.root]
INSIDE = "127.0.25.9"       # a client in the neighbour's own network
SENDER = "bob@neighbour.example"


def _send(internet: Internet, subject: str, *recipients: str, **options: object) -> None:
    message = letter(subject, sender=SENDER, **options)      # type: ignore[arg-type]
    hand_in(internet.neighbour.smtp, message, SENDER, *recipients, source=INSIDE)


def test_a_mail_comes_over_starttls(internet: Internet, house: LiveServer) -> None:
    _send(internet, "from postfix", "alice@example.jp")
    found = arrived(house, "from postfix")
    received = str(found.get_all("Received")[0])
    assert "from mx.neighbour.example" in received
    assert MX in received
    assert "with ESMTPS" in received
    assert found["Return-Path"] == f"<{SENDER}>"


def test_a_certificate_that_it_trusts_proves_our_name(internet: Internet, house: LiveServer) -> None:
    internet.neighbour.trust(house.certificate)
    _send(internet, "proven", "alice@example.jp")
    arrived(house, "proven")
    assert f"Trusted TLS connection established to mail.example.jp[{house.place.address}]:25: TLSv1.3" in internet.neighbour.log()


def test_a_big_mail_arrives_octet_by_octet(internet: Internet, house: LiveServer) -> None:
    attachment = hashlib.shake_256(b"a big mail").digest(7_000_000)
    _send(internet, "ten megabytes", "alice@example.jp", attachment=attachment)
    found = arrived(house, "ten megabytes")
    assert [part.get_content() for part in found.iter_attachments()] == [attachment]


def test_every_recipient_of_ours_gets_it(internet: Internet, house: LiveServer) -> None:
    _send(internet, "to three", "alice@example.jp", "bob@example.jp", "carol@example.jp", "bob@neighbour.example")
    for user in "alice", "bob", "carol":
        arrived(house, "to three", f"{user}@example.jp")
    eventually(lambda: with_subject(internet.neighbour.inbox(), "to three"), "the copy of the neighbour's own Bob")


def test_an_unknown_recipient_is_refused_at_rcpt_and_postfix_tells_its_sender(internet: Internet, house: LiveServer) -> None:
    _send(internet, "to nobody", "alice@example.jp", "nobody-here@example.jp")
    arrived(house, "to nobody")

    def bounce() -> bytes | None:
        return next((one for one in internet.neighbour.inbox() if b"nobody-here@example.jp" in one), None)
    text = eventually(bounce, "Postfix's bounce in Bob's mailbox").decode()
    assert "550 5.1.1" in text
    assert "(in reply to RCPT TO command)" in text


def test_an_internationalized_address(internet: Internet, house: LiveServer) -> None:
    house.say("alias", "add", "受付@example.jp", "alice@example.jp")
    message = letter("国際化", sender=SENDER)
    message.replace_header("To", "受付@example.jp")
    hand_in(internet.neighbour.smtp, message, SENDER, "受付@example.jp", source=INSIDE)
    with imap(house) as client:
        client._get_capabilities()          # those before the login are others
        client.enable("UTF8=ACCEPT")        # who has not said so gets a surrogate (RFC 6858)
        raw = eventually(lambda: next((one for one in messages(client) if "受付@example.jp".encode() in one), None),
                         "the mail to 受付@example.jp")
    assert b"with UTF8SMTPS" in raw
    assert email.message_from_bytes(raw, policy=email.policy.default)["Subject"] == "国際化"
    house.say("alias", "remove", "受付@example.jp")


def test_postfix_waits_while_we_are_away(internet: Internet, house: LiveServer) -> None:
    house.stop()
    _send(internet, "you were away", "alice@example.jp")
    eventually(lambda: "status=deferred" in internet.neighbour.log(), "Postfix defers")
    house.start()
    internet.neighbour.flush()
    arrived(house, "you were away")
