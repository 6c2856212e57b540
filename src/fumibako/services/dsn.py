"""Notices to the sender about what became of a mail: in Japanese and English, with the other server's words explained.

Specification: RFC 3464 §2 (the report), RFC 3461 §6.1 (whom to notify, null reverse-path), §6.2 and §4.3 (RET);
    RFC 3463 §3 (what status codes mean); RFC 3834 §3.1 (never answer the null reverse-path).
Contract: nobody is notified about a mail with the null reverse_path, nor at an address of ours that does not exist.
    A notice is an Enqueue of its own trace_id, to be committed together with the outcomes it reports.
Failure: StoreUnavailable and StoreRefused (disk full) pass through.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fumibako.model.envelope import Envelope, Notify, Recipient
from fumibako.model.ids import TraceId
from fumibako.model.ops import Enqueue
from fumibako.model.queue import Outcome, QueuedRecipient, QueueItem
from fumibako.model.status import Status
from fumibako.net.clock import Clock
from fumibako.proto.message.address import format_mailbox
from fumibako.proto.message.dsn import Action, Dsn, RecipientReport, format_dsn
from fumibako.proto.message.header import format_date
from fumibako.services.directory import Directory, Hosted, Nobody
from fumibako.services.explain import explanation_of
from fumibako.services.texts import N_, text
from fumibako.store.base import Store

log = logging.getLogger("fumibako.queue")

HEADER_OCTETS = 64 * 1024       # of the original header section that a notice gives back
FULL_OCTETS = 1024 * 1024       # RET=FULL is honoured up to this size (RFC 3461 §4.3 leaves the rest to us)

_SUBJECTS: dict[str, str] = {
    "failed": N_("Your mail could not be delivered"),
    "delayed": N_("Your mail has not been delivered yet"),
    "delivered": N_("Your mail has been delivered"),
    "relayed": N_("Your mail has been handed on"),
}
_OPENINGS: dict[str, str] = {
    "failed": N_("This is the mail server {hostname}. Your mail could not be delivered to the addresses below. "
                 "It will not be tried again."),
    "delayed": N_("This is the mail server {hostname}. Your mail could not be delivered to the addresses below yet. "
                  "You need not do anything: it will be tried again until {until}."),
    "delivered": N_("This is the mail server {hostname}. As you asked, it tells you that your mail has been delivered "
                    "to the addresses below."),
    "relayed": N_("This is the mail server {hostname}. Your mail has been handed to the mail servers of the addresses below, "
                  "which do not report on delivery any further."),
}
_REMOTE = N_("The server {remote} said:")
_OWN_SUBJECT = N_("The header of your mail is attached.")


@dataclass(frozen=True, slots=True)
class Report:
    """What is to be told about one recipient."""

    recipient: QueuedRecipient
    outcome: Outcome
    action: Action


class Notifier:
    """Writes notices; hostname: this server's, also in their sender's address."""

    def __init__(self, store: Store, directory: Directory, clock: Clock, hostname: str) -> None:
        self._store, self._directory, self._clock, self._hostname = store, directory, clock, hostname

    async def notices(self, item: QueueItem, reports: list[Report]) -> tuple[Enqueue, ...]:
        """One notice for each kind of news; none where nobody may be told."""
        recipients = await self._whom(item.envelope.reverse_path) if reports else ()
        if not recipients:
            return ()
        kinds = dict.fromkeys(report.action for report in reports)
        return tuple([
            await self._notice(item, [report for report in reports if report.action == kind], recipients) for kind in kinds
        ])

    async def _whom(self, reverse_path: str) -> tuple[Recipient, ...]:
        if not reverse_path:
            return ()       # RFC 5321 §6.1: a notice about a notice would go round for ever
        match await self._directory.resolve(reverse_path):
            case Hosted(targets):
                return tuple(Recipient(target.address, Notify.NEVER) for target in targets)
            case Nobody():
                return ()
        return (Recipient(reverse_path, Notify.NEVER),)

    async def _notice(self, item: QueueItem, reports: list[Report], recipients: tuple[Recipient, ...]) -> Enqueue:
        trace_id, now_ms = self._clock.trace_id(), self._clock.now_ms()
        octets = format_dsn(await self._values(item, reports, trace_id, now_ms))
        writer = self._store.body_writer()
        try:
            writer.write(octets)
            body = await writer.finish(trace_id)
        except BaseException:
            writer.abandon()
            raise
        paths = (item.envelope.reverse_path, *(recipient.forward_path for recipient in recipients))
        utf8 = not all(path.isascii() for path in paths)
        envelope = Envelope("", recipients, "7BIT" if octets.isascii() else "8BITMIME", utf8)
        return Enqueue(trace_id, envelope, b"", body, now_ms)

    async def _values(self, item: QueueItem, reports: list[Report], trace_id: TraceId, now_ms: int) -> Dsn:
        zone = self._clock.utc_offset_minutes(now_ms)
        action = reports[0].action
        subject = _SUBJECTS[action]
        full = item.envelope.ret == "FULL" and action == "failed" and item.size_octets <= FULL_OCTETS
        end = item.size_octets if full else min(item.size_octets, HEADER_OCTETS)
        try:
            original = await self._store.read_queued(item.id, 0, end)
        except OSError as error:        # damaged: better a notice without it than none
            log.warning("message %d can't be read, its sender is told without it: %s", item.id, error)
            original = b""
        return Dsn(
            fields=(
                ("From", format_mailbox("Mail Delivery System", f"MAILER-DAEMON@{self._hostname}")),
                ("To", format_mailbox("", item.envelope.reverse_path)),
                ("Subject", f"{text('ja', subject)} / {subject}"),
                ("Date", format_date(now_ms, zone)),
                ("Message-ID", f"<{trace_id.hex()}@{self._hostname}>"),
            ),
            text=letter(item, reports, self._hostname, zone),
            reporting_mta=self._hostname,
            recipients=tuple(_report(report, item, now_ms) for report in reports),
            original=original,
            return_headers=not full or not original,
            envelope_id=item.envelope.envelope_id or None,
            arrival_ms=item.created_ms,
            zone_minutes=zone,
        )


def letter(item: QueueItem, reports: list[Report], hostname: str, zone_minutes: int) -> str:
    """The text for people: all of it in Japanese, then all of it in English."""
    until = format_date(item.expires_ms, zone_minutes)
    halves = []
    for language in ("ja", "en"):
        lines = [text(language, _OPENINGS[reports[0].action], hostname=hostname, until=until), ""]
        for report in reports:
            lines += [*_about(report, language), ""]
        halves.append("\n".join([*lines, text(language, _OWN_SUBJECT)]))
    return ("\n\n" + "-" * 60 + "\n\n").join(halves) + "\n"


def _about(report: Report, language: str) -> list[str]:
    outcome = report.outcome
    lines = [f"<{known_address(report.recipient)}>"]
    if report.action in ("failed", "delayed"):
        lines.append("    " + text(language, explanation_of(outcome)))
    if outcome.reply:
        lines += ["    " + text(language, _REMOTE, remote=outcome.remote), f"    {outcome.reply}"]
    elif outcome.text and report.action in ("failed", "delayed"):
        lines.append(f"    ({outcome.status} {outcome.text})")
    return lines


def known_address(recipient: QueuedRecipient) -> str:
    """The address as the sender knows it: an alias keeps its targets to itself."""
    kind, semicolon, address = recipient.original_recipient.partition(";")
    return address if semicolon and kind.lower() in ("rfc822", "utf-8") else recipient.forward_path


def _report(report: Report, item: QueueItem, now_ms: int) -> RecipientReport:
    outcome, recipient = report.outcome, report.recipient
    return RecipientReport(
        final_recipient=known_address(recipient),
        action=report.action,
        status=_fitting_status(outcome.status, report.action),
        original_recipient=recipient.original_recipient or None,
        remote_mta=outcome.remote.partition(" ")[0] or None,
        diagnostic=outcome.reply or None,
        last_attempt_ms=now_ms,
        will_retry_until_ms=item.expires_ms if report.action == "delayed" else None,
    )


def _fitting_status(text_status: str, action: Action) -> Status:
    """RFC 3464 §2.3.4: the class must agree with the action."""
    status = Status.parse(text_status)
    klass = {"failed": 5, "delayed": 4}.get(action, 2)
    return status if status.klass == klass else Status(klass, status.subject, status.detail)
