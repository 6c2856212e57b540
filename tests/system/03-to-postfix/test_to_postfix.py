"""Our queue brings mail to Postfix: route from DNS, STARTTLS, deferrals and retries, and notices to the sender."""

from __future__ import annotations

import email
import email.policy
import hashlib
import json
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import arrived, imap, letter, messages, submit, with_subject
from tests.support.internet import NOBODY, RECIPIENTS, Internet
from tests.support.server import LiveServer, Place, eventually, live_server

pytestmark = [pytest.mark.system, pytest.mark.root]
ALICE = "alice@example.jp"


@pytest.fixture(autouse=True)
def _clean_queue(house: LiveServer) -> Iterator[None]:
    yield
    if house.process is not None and _queue(house):
        house.say("queue", "delete", "--all")


def _queue(server: LiveServer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(server.say("queue", "list", "--json"))
    return found


def _send(server: LiveServer, subject: str, *recipients: str, **options: Any) -> None:
    submit(server, letter(subject, sender=ALICE, to=recipients[0], **options), *recipients)


def _deferred(server: LiveServer, recipient: str) -> dict[str, Any]:
    """The recipient's row in the queue, once an attempt has failed for now."""
    def look() -> dict[str, Any] | None:
        rows = [row for item in _queue(server) for row in item["recipients"] if row["recipient"] == recipient]
        return next((row for row in rows if row["attempts"] and row["status"]), None)
    return eventually(look, f"{recipient} is deferred")


def _at_neighbour(internet: Internet, subject: str, user: str = "bob") -> EmailMessage:
    return eventually(lambda: with_subject(internet.neighbour.inbox(user), subject), f"{subject!r} at the neighbour's {user}")


def _notice(server: LiveServer, about: str) -> EmailMessage:
    """The notice in Alice's mailbox whose report names this recipient."""
    def look() -> EmailMessage | None:
        for raw in messages(client, search='FROM "MAILER-DAEMON"'):
            if f"Final-Recipient: rfc822;{about}".encode() in raw.replace(b"; ", b";"):
                found = email.message_from_bytes(raw, policy=email.policy.default)
                assert isinstance(found, EmailMessage)
                return found
        return None
    with imap(server) as client:
        return eventually(look, f"a notice about {about}")


def _report(notice: EmailMessage) -> str:
    report = next(part for part in notice.walk() if part.get_content_type() == "message/delivery-status")
    return "".join(str(block) for block in report.get_payload())


def test_a_mail_goes_by_mx_over_starttls_past_a_dead_host(internet: Internet, house: LiveServer) -> None:
    """The best MX of neighbour.example does not answer: the second takes it."""
    attachment = hashlib.shake_256(b"outbound").digest(300_000)
    _send(house, "to postfix", "bob@neighbour.example", attachment=attachment)
    found = _at_neighbour(internet, "to postfix")
    assert [part.get_content() for part in found.iter_attachments()] == [attachment]
    received = str(found.get_all("Received")[1])
    assert "from mail.example.jp" in received
    assert house.place.address in received
    assert "TLSv1.3" in received
    assert "with ESMTPS" in received
    assert _queue(house) == []


def test_a_domain_without_mx_is_its_own_host(internet: Internet, house: LiveServer) -> None:
    """RFC 5321 §5.1. Postfix does not serve bare.example and says so: the route was right."""
    _send(house, "implicit", "x@bare.example")
    notice = _notice(house, "x@bare.example")
    assert "554 5.7.1" in _report(notice)
    assert "Relay access denied" in _report(notice)


def test_a_deferral_is_kept_and_retried_by_the_administrator(internet: Internet, house: LiveServer) -> None:
    _send(house, "come back", "grey@neighbour.example", "bob@neighbour.example")
    _at_neighbour(internet, "come back")
    row = _deferred(house, "grey@neighbour.example")
    assert (row["status"], row["state"]) == ("4.7.1", "queued"), row
    assert "Greylisted, come back later" in row["reply"]
    assert row["remote"].startswith("mx.neighbour.example [")
    item = next(one for one in _queue(house) if one["recipients"][0]["recipient"] == "grey@neighbour.example")
    assert "Greylisted" in house.say("queue", "show", str(item["id"]))
    internet.neighbour.relent()
    house.say("queue", "retry", str(item["id"]))
    _at_neighbour(internet, "come back", "grey")
    eventually(lambda: _queue(house) == [], "the queue is empty")
    internet.neighbour.write_recipients(RECIPIENTS)


def test_hold_and_release(internet: Internet, house: LiveServer) -> None:
    _send(house, "held", "grey@neighbour.example")
    _deferred(house, "grey@neighbour.example")
    house.say("queue", "hold", "--all")
    assert _queue(house)[0]["recipients"][0]["state"] == "held"
    internet.neighbour.relent()
    house.say("queue", "release", "--all")
    _at_neighbour(internet, "held", "grey")
    internet.neighbour.write_recipients(RECIPIENTS)


@pytest.mark.parametrize(("recipient", "status", "words"), [
    ("full@neighbour.example", "5.2.2", "552 5.2.2"),
    ("no-such-user@neighbour.example", "5.1.1", "550 5.1.1"),
    ("x@nullmx.example", "5.1.10", "null MX"),
    ("x@no-such-domain.example", "5.1.2", "there is no domain"),
    ("x@circle.example", "5.4.6", "points to this server"),
])
def test_a_failure_is_told_in_two_languages(
        internet: Internet, house: LiveServer, recipient: str, status: str, words: str) -> None:
    _send(house, f"fails for {recipient}", recipient)
    notice = _notice(house, recipient)
    assert notice.get_content_type() == "multipart/report"
    assert (notice["Return-Path"], notice["To"]) == ("<>", ALICE)
    text = next(part for part in notice.walk() if part.get_content_type() == "text/plain").get_content()
    assert "お届けできませんでした" in text
    assert "could not be delivered" in text
    assert words in text
    report = _report(notice)
    assert f"Status: {status}" in report, report
    assert "Action: failed" in report
    assert f"fails for {recipient}" in notice.as_string()
    eventually(lambda: _queue(house) == [], "the queue is empty")


def test_a_neighbour_that_is_down_is_waited_for(internet: Internet, house: LiveServer) -> None:
    internet.neighbour.postfix.stop()
    try:
        _send(house, "you were down", "carol@neighbour.example")
        row = _deferred(house, "carol@neighbour.example")
        assert row["status"].startswith("4.4."), row
    finally:
        internet.neighbour.postfix.start()
    house.say("queue", "retry", "--all")
    _at_neighbour(internet, "you were down", "carol")


def test_a_host_that_never_answers_is_a_deferral(internet: Internet, house: LiveServer) -> None:
    _send(house, "nobody home", "x@away.example")
    row = _deferred(house, "x@away.example")
    assert row["status"] == "4.4.1"
    assert NOBODY in row["remote"]


def test_no_dns_never_bounces(internet: Internet, house: LiveServer) -> None:
    """A resolver that is away, and a domain whose name servers are mute: 4.4.3, whatever comes."""
    internet.unbound.stop()
    try:
        _send(house, "no resolver", "x@uncached.example")
        assert _deferred(house, "x@uncached.example")["status"] == "4.4.3"
    finally:
        internet.unbound.start()
    _send(house, "mute", "x@mute.example")
    assert _deferred(house, "x@mute.example")["status"] == "4.4.3"


def test_an_internationalized_address_goes_out(internet: Internet, house: LiveServer) -> None:
    message = letter("国際化の送信", sender=ALICE, to="bob@neighbour.example")
    message["Cc"] = "受付@neighbour.example"
    submit(house, message, "受付@neighbour.example")
    notice = eventually(lambda: _utf8_notice(house), "the notice about 受付")
    assert "550 5.1.1" in notice.as_string()


def _utf8_notice(server: LiveServer) -> EmailMessage | None:
    with imap(server) as client:
        for raw in messages(client, search='FROM "MAILER-DAEMON"'):
            if "受付@neighbour.example".encode() in raw or b"\\x{53D7}\\x{4ED8}@neighbour.example" in raw:
                found = email.message_from_bytes(raw, policy=email.policy.default)
                assert isinstance(found, EmailMessage)
                return found
    return None


def test_a_smarthost_takes_everything(internet: Internet, tmp_path: Path) -> None:
    with live_server(tmp_path / "data", Place("127.0.25.8"), relay__smarthost='"smarthost.example:25"') as server:
        _send(server, "by smarthost", "bob@neighbour.example")
        assert "from mail.example.jp" in str(_at_neighbour(internet, "by smarthost").get_all("Received")[1])


def test_what_happened_is_in_the_trace(internet: Internet, house: LiveServer) -> None:
    _send(house, "traced outbound", "carol@neighbour.example")
    _at_neighbour(internet, "traced outbound", "carol")
    lines = json.loads(house.say("trace", "carol@neighbour.example", "--json"))
    delivered = [line for line in lines if line["kind"] in ("delivered", "relayed")]
    assert delivered, lines
    assert delivered[-1]["reply"].startswith("250 2.0.0 Ok: queued as ")
    assert delivered[-1]["remote"].startswith("mx.neighbour.example [")


def test_a_mail_to_oneself_stays_inside(house: LiveServer) -> None:
    _send(house, "inside", "bob@example.jp")
    arrived(house, "inside", "bob@example.jp")
