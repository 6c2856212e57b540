"""Notices: readable by people in two languages, and by programs."""

import email
import email.policy

import pytest

from fumibako.model.queue import Outcome, OutcomeKind
from fumibako.services.explain import explanation_of
from fumibako.services.texts import text
from tests.services.test_queue import DOWN, NEVER, enqueue, notices
from tests.support.mailhouse import MailHouse


async def notice_of(house: MailHouse, outcome: Outcome, **options: object):
    house.relay.outcomes = {"x@example.com": [outcome]}
    await enqueue(house, "x@example.com", **options)
    await house.runner().step()
    [octets] = await notices(house)
    return email.message_from_bytes(octets, policy=email.policy.default)


async def test_a_notice_whole(house: MailHouse) -> None:
    notice = await notice_of(house, NEVER)
    assert notice["From"] == "Mail Delivery System <MAILER-DAEMON@mail.example.jp>"
    assert notice["To"] == "alice@example.jp"
    assert notice["Auto-Submitted"].startswith("auto-")
    assert notice["Subject"].endswith(" / Your mail could not be delivered")
    assert notice.get_content_type() == "multipart/report"
    letter, report, original = notice.iter_parts()
    words = letter.get_content()
    assert "<x@example.com>" in words and "550 5.1.1 No such user" in words and "mx.example.com [192.0.2.9]" in words
    assert text("ja", explanation_of(NEVER)) in words and explanation_of(NEVER) in words
    assert words.index(text("ja", explanation_of(NEVER))) < words.index(explanation_of(NEVER))
    fields = report.get_payload()[1]
    assert (fields["Final-Recipient"], fields["Action"], fields["Status"]) == ("rfc822; x@example.com", "failed", "5.1.1")
    assert fields["Remote-MTA"] == "dns; mx.example.com"
    assert fields["Diagnostic-Code"] == "smtp; 550 5.1.1 No such user"
    assert report.get_payload()[0]["Reporting-MTA"] == "dns; mail.example.jp"
    assert original.get_content_type() == "text/rfc822-headers"
    assert "Subject: hello" in original.get_payload() and "Hello." not in original.get_payload()


async def test_the_whole_message_comes_back_when_asked_for(house: MailHouse) -> None:
    notice = await notice_of(house, NEVER, ret="FULL")
    assert b"Hello." in list(notice.iter_parts())[2].as_bytes()


async def test_a_message_that_cannot_be_read_has_its_notice_all_the_same(
        house: MailHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its failure was a bug, again and again, until the message was set aside without a word to anybody."""
    async def damaged(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(house.store, "read_queued", damaged)
    house.relay.outcomes = {"x@example.com": [NEVER]}
    await enqueue(house, "x@example.com", ret="FULL")
    await house.runner().step()
    monkeypatch.undo()
    [octets] = await notices(house)
    assert b"Final-Recipient: rfc822; x@example.com" in octets and b"text/rfc822-headers" in octets


async def test_an_alias_keeps_its_targets_to_itself(house: MailHouse) -> None:
    await house.alias("team@example.jp", "secret@example.com")
    house.relay.outcomes = {"secret@example.com": [NEVER]}
    await house.receive("team@example.jp", reverse_path="alice@example.jp")
    await house.runner().step()
    [octets] = await notices(house)
    assert b"secret@example.com" not in octets
    assert b"Final-Recipient: rfc822; team@example.jp" in octets


async def test_a_sender_whose_address_is_an_alias_is_told(house: MailHouse) -> None:
    await house.alias("sales@example.jp", "bob@example.jp")
    house.relay.outcomes = {"x@example.com": [NEVER]}
    await enqueue(house, "x@example.com", reverse_path="sales@example.jp")
    await house.runner().step()
    await house.runner().step()
    assert b"To: sales@example.jp" in (await house.mailbox("bob@example.jp"))[0]


async def test_our_own_findings_are_told_without_a_remote(house: MailHouse) -> None:
    outcome = Outcome(OutcomeKind.FAILED, "5.1.2", "there is no domain example.com")
    notice = await notice_of(house, outcome)
    words = next(notice.iter_parts()).get_content()
    assert "(5.1.2 there is no domain example.com)" in words
    assert DOWN.reply == ""
