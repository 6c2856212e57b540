"""Delivery status notifications, as other programs read them."""

import email
import email.message
import email.policy
from dataclasses import replace

import pytest

from fumibako.model.status import Status
from fumibako.proto.message.dsn import Dsn, RecipientReport, format_dsn, original_header
from tests.proto.message.messages import NESTED, PLAIN

BOB = RecipientReport(
    "bob@example.com", "failed", Status(5, 1, 1), "rfc822;robert@example.org", "mx.example.com", "550 5.1.1 <bob>\r\nunknown", 0
)
CAROL = RecipientReport("carol@example.com", "delayed", Status(4, 4, 1), will_retry_until_ms=432_000_000)
FIELDS = (
    ("From", "MAILER-DAEMON <postmaster@mail.example.jp>"),
    ("To", "<alice@example.jp>"),
    ("Subject", "配送できませんでした"),
)
REPORT = Dsn(
    FIELDS,
    "お届けできませんでした。\nCould not be delivered.\n",
    "mail.example.jp",
    (BOB, CAROL),
    PLAIN,
    envelope_id="QQ314159",
    arrival_ms=1758863100_000,
    zone_minutes=540,
)


def parsed(dsn: Dsn) -> email.message.EmailMessage:
    message = email.message_from_bytes(format_dsn(dsn), policy=email.policy.default)
    assert isinstance(message, email.message.EmailMessage)
    return message


def test_report() -> None:
    message = parsed(REPORT)
    assert (message.get_content_type(), message.get_param("report-type")) == ("multipart/report", "delivery-status")
    assert message["auto-submitted"] == "auto-replied"
    text, status, original = message.iter_parts()
    assert text.get_content().replace("\r\n", "\n") == REPORT.text
    assert (status.get_content_type(), original.get_content_type()) == ("message/delivery-status", "text/rfc822-headers")
    groups = [dict(group.items()) for group in status.get_payload()]
    assert groups == [
        {
            "Original-Envelope-Id": "QQ314159",
            "Reporting-MTA": "dns; mail.example.jp",
            "Arrival-Date": "Fri, 26 Sep 2025 14:05:00 +0900",
        },
        {
            "Original-Recipient": "rfc822; robert@example.org",
            "Final-Recipient": "rfc822; bob@example.com",
            "Action": "failed",
            "Status": "5.1.1",
            "Remote-MTA": "dns; mx.example.com",
            "Diagnostic-Code": "smtp; 550 5.1.1 <bob> unknown",
            "Last-Attempt-Date": "Thu, 1 Jan 1970 09:00:00 +0900",
        },
        {
            "Final-Recipient": "rfc822; carol@example.com",
            "Action": "delayed",
            "Status": "4.4.1",
            "Will-Retry-Until": "Tue, 6 Jan 1970 09:00:00 +0900",
        },
    ]
    assert "Subject: Hello" in original.get_payload() and "One line" not in original.get_payload()


def test_the_whole_message_comes_back_octet_for_octet() -> None:
    octets = format_dsn(replace(REPORT, original=NESTED, return_headers=False))
    assert b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\n" + NESTED + b"\r\n--=_" in octets


def test_internationalised() -> None:
    utf8 = RecipientReport("太郎@例.jp", "failed", Status(5, 1, 1), diagnostic="550 5.1.1 いません")
    message = parsed(replace(REPORT, recipients=(utf8,), original="Subject: 日\r\n\r\n本\r\n".encode(), return_headers=False))
    _, status, original = message.iter_parts()
    assert (status.get_content_type(), original.get_content_type()) == ("message/global-delivery-status", "message/global")
    octets = format_dsn(replace(REPORT, recipients=(utf8,)))
    assert "Final-Recipient: utf-8; 太郎@例.jp\r\n".encode() in octets
    assert "Diagnostic-Code: smtp; 550 5.1.1 いません\r\n".encode() in octets
    assert b"message/global-headers" in octets
    plain = format_dsn(replace(REPORT, recipients=(replace(BOB, diagnostic="550 いません"),)))
    assert b"Diagnostic-Code: smtp; 550 ????\r\n" in plain and b"message/delivery-status" in plain


def test_original_header() -> None:
    assert original_header(b"A: b\r\n c\r\n\r\nbody") == b"A: b\r\n c\r\n"
    assert original_header(b"A: b") == b"A: b"
    assert original_header(b"") == b""


def test_refusals() -> None:
    with pytest.raises(ValueError, match="recipient"):
        replace(REPORT, recipients=())
    with pytest.raises(ValueError, match="Final-Recipient"):
        format_dsn(replace(REPORT, recipients=(replace(BOB, final_recipient="a\r\nAction: delivered"),)))
    with pytest.raises(ValueError, match="Original-Envelope-Id"):
        format_dsn(replace(REPORT, envelope_id="a\nb"))
