"""Delivery status notifications: what became of a message, for people and for programs.

Specification: RFC 3464 §2 (fields), RFC 6522 §3 (multipart/report), §4 (text/rfc822-headers), RFC 6533 §4 (UTF-8 forms),
    RFC 3461 §6.3 (content return), RFC 3834 §5 (Auto-Submitted).
Contract: one notification for one sender about any number of recipients; the text for people comes from the caller. Send
    it with the null reverse-path. Its message/global forms are used as soon as an address or the header is not ASCII.
Failure: ValueError on CR, LF or NUL in a value that goes into a field, and on a report without recipients.
"""

import re
from dataclasses import dataclass
from typing import Literal

from fumibako.model.status import Status
from fumibako.proto.message.compose import Entity, Fields, compose, multipart_entity, raw_entity, text_entity
from fumibako.proto.message.header import fields, format_date

Action = Literal["failed", "delayed", "delivered", "relayed", "expanded"]
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]+")
_FORBIDDEN = re.compile("[\r\n\x00]")
_DIAGNOSTIC_CHARACTERS = 900


@dataclass(frozen=True, slots=True)
class RecipientReport:
    """What became of one recipient (RFC 3464 §2.3). Addresses without `<>`; times are milliseconds UTC.

    `original_recipient` is an ORCPT value, `type;address`, decoded. `remote_mta` is the host that answered `diagnostic`, the
    text of its reply with the code.
    """

    final_recipient: str
    action: Action
    status: Status
    original_recipient: str | None = None
    remote_mta: str | None = None
    diagnostic: str | None = None
    last_attempt_ms: int | None = None
    will_retry_until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Dsn:
    """A notification. `fields` are From, To, Subject, Date, Message-ID and the like; `text` is for people.

    `original` is the message as it was received, or only its header when `return_headers` (RFC 3461 §4.3, RET).
    `envelope_id` is the decoded ENVID. `zone_minutes` (east of UTC) is for the dates within.
    """

    fields: Fields
    text: str
    reporting_mta: str
    recipients: tuple[RecipientReport, ...]
    original: bytes
    return_headers: bool = True
    envelope_id: str | None = None
    arrival_ms: int | None = None
    zone_minutes: int = 0

    def __post_init__(self) -> None:
        if not self.recipients:
            raise ValueError("a delivery status notification needs a recipient")


def format_dsn(dsn: Dsn) -> bytes:
    """The notification as a message: `multipart/report; report-type=delivery-status` of three parts."""
    header = original_header(dsn.original)
    addresses = (text for report in dsn.recipients for text in (report.final_recipient, report.original_recipient or ""))
    is_global = not header.isascii() or not all(map(str.isascii, addresses))
    parts = (text_entity(dsn.text), _status_entity(dsn, is_global), _original_entity(dsn, header, is_global))
    report = multipart_entity("report", parts, {"report-type": "delivery-status"})
    return compose((*dsn.fields, ("Auto-Submitted", "auto-replied")), [report])


def original_header(message: bytes) -> bytes:
    """The header fields of a message, without the blank line."""
    end = 0
    for field in fields(message):
        end = field.end
    return message[:end]


def _original_entity(dsn: Dsn, header: bytes, is_global: bool) -> Entity:
    """RFC 6522 §3 (third part); RFC 6533 §4.2, §4.3."""
    if dsn.return_headers:
        return raw_entity("message/global-headers" if is_global else "text/rfc822-headers", header)
    return raw_entity("message/global" if is_global else "message/rfc822", dsn.original)


def _status_entity(dsn: Dsn, is_global: bool) -> Entity:
    """`delivery-status-content = per-message-fields 1*( CRLF per-recipient-fields )`, RFC 3464 §2.1."""
    groups = [_per_message(dsn), *(_per_recipient(report, dsn.zone_minutes, is_global) for report in dsn.recipients)]
    body = "\r\n".join("".join(_line(name, value) for name, value in group if value is not None) for group in groups)
    kind = "message/global-delivery-status" if is_global else "message/delivery-status"
    return raw_entity(kind, body.encode("utf-8", "replace"))


def _line(name: str, value: str) -> str:
    if _FORBIDDEN.search(value):
        raise ValueError(f"CR, LF or NUL in {name}")
    return f"{name}: {value}\r\n"


def _per_message(dsn: Dsn) -> list[tuple[str, str | None]]:
    """RFC 3464 §2.2."""
    return [
        ("Original-Envelope-Id", dsn.envelope_id),
        ("Reporting-MTA", f"dns; {dsn.reporting_mta}"),
        ("Arrival-Date", _date(dsn.arrival_ms, dsn.zone_minutes)),
    ]


def _per_recipient(report: RecipientReport, zone_minutes: int, is_global: bool) -> list[tuple[str, str | None]]:
    """RFC 3464 §2.3. In a plain report a diagnostic that is not ASCII loses what is not (RFC 6533 §4.1 lets it stay)."""
    diagnostic = report.diagnostic
    if diagnostic is not None:
        diagnostic = "smtp; " + _CONTROLS.sub(" ", diagnostic)[:_DIAGNOSTIC_CHARACTERS]
        diagnostic = diagnostic if is_global else diagnostic.encode("ascii", "replace").decode("ascii")
    kind = "rfc822" if report.final_recipient.isascii() else "utf-8"
    return [
        ("Original-Recipient", report.original_recipient and report.original_recipient.replace(";", "; ", 1)),
        ("Final-Recipient", f"{kind}; {report.final_recipient}"),
        ("Action", report.action),
        ("Status", str(report.status)),
        ("Remote-MTA", f"dns; {report.remote_mta}" if report.remote_mta else None),
        ("Diagnostic-Code", diagnostic),
        ("Last-Attempt-Date", _date(report.last_attempt_ms, zone_minutes)),
        ("Will-Retry-Until", _date(report.will_retry_until_ms, zone_minutes)),
    ]


def _date(instant_ms: int | None, zone_minutes: int) -> str | None:
    return None if instant_ms is None else format_date(instant_ms, zone_minutes)
