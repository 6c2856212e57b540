"""Which checks run when, and what follows from what they find.

Specification: RFC 3463 §3 (status codes); RFC 5321 §4.2.3 (reply codes are the face's business).
Contract: PIPELINE is the whole list of checks, RULES the whole list of consequences. `verdict` is pure; of several findings
    the most severe decides, and all are kept as the explanation.
Failure: KeyError for a finding without a rule: a bug of its check.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from fumibako.model import status as statuses
from fumibako.model.status import Status
from fumibako.model.verdict import ACCEPTED, Action, Finding, Verdict
from fumibako.services.checks import Check, Facts, framing, loop, rate, relaying, size
from fumibako.services.texts import N_, text


class Stage(enum.StrEnum):
    """How far the transaction is."""

    SENDER = "sender"           # MAIL
    RECIPIENT = "recipient"     # RCPT, once each
    MESSAGE = "message"         # the whole message is here


PIPELINE: dict[Stage, tuple[Check, ...]] = {
    Stage.SENDER: (size.declared_size, size.disk_space, rate.messages),
    Stage.RECIPIENT: (relaying.recipient, size.mailbox_space, rate.recipients),
    Stage.MESSAGE: (framing.line_ends, size.message_size, loop.hops),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """What a finding leads to. reply: for the peer, English; explanation: for people, from the catalogue."""

    action: Action
    status: Status
    reply: str
    explanation: str


RULES: dict[str, Rule] = {
    "message-too-big": Rule(Action.REJECT, statuses.MESSAGE_TOO_BIG, "message exceeds the limit of {limit} octets",
                            N_("The message is larger than this server accepts ({limit} octets).")),
    "header-too-big": Rule(Action.REJECT, statuses.MESSAGE_TOO_BIG, "header section too large",
                           N_("The header section of the message is larger than this server accepts.")),
    "too-fast": Rule(Action.DEFER, statuses.POLICY_DEFERRED, "too much mail at once, try again in {seconds} seconds",
                     N_("The sender sends faster than allowed; it should try again in {seconds} seconds.")),
    "relaying-denied": Rule(Action.REJECT, statuses.POLICY_REFUSED, "relaying denied: log in to send elsewhere",
                            N_("{address} is not an address of this server, and the sender has not logged in.")),
    "no-such-mailbox": Rule(Action.REJECT, statuses.NO_SUCH_MAILBOX, "no such mailbox here",
                            N_("There is no account and no alias of that address.")),
    "mailbox-disabled": Rule(Action.REJECT, statuses.MAILBOX_DISABLED, "mailbox disabled",
                             N_("The account of that address is disabled.")),
    "mailbox-frozen": Rule(Action.DEFER, Status(4, 2, 1), "mailbox is being moved, try again later",
                           N_("The account of that address is being moved; mail is taken again afterwards.")),
    "alias-loop": Rule(Action.REJECT, statuses.LOOP_DETECTED, "the alias leads nowhere",
                       N_("The alias of that address leads back to itself or to nobody.")),
    "bad-address": Rule(Action.REJECT, statuses.BAD_RECIPIENT_SYNTAX, "not an address",
                        N_("The recipient's address can't be read.")),
    "mailbox-full": Rule(Action.DEFER, statuses.MAILBOX_FULL, "mailbox full",
                         N_("The mailbox of {address} is full.")),
    "bare-newline": Rule(Action.REJECT, statuses.BARE_NEWLINE, "bare CR or LF in message",
                         N_("The message holds line ends that two servers may read differently (SMTP smuggling).")),
    "nul-octet": Rule(Action.REJECT, statuses.BAD_MESSAGE, "NUL octet in message",
                      N_("The message holds an octet zero, which mail does not allow.")),
    "mail-loop": Rule(Action.REJECT, statuses.LOOP_DETECTED, "mail loop: {hops} hops",
                      N_("The message has passed {hops} servers; it goes round in a loop.")),
    "sender-not-owned": Rule(Action.REJECT, statuses.POLICY_REFUSED, "you may not send as {address}",
                             N_("The login does not own {address}, so it may not send in that name.")),
    "one-from-field": Rule(Action.REJECT, statuses.BAD_MESSAGE, "the message must have exactly one From field with an address",
                           N_("The message has no From field, several of them, or one that can't be read.")),
    "system-full": Rule(Action.DEFER, statuses.SYSTEM_FULL, "insufficient system storage",
                        N_("The disk of this server is full.")),
    "system-error": Rule(Action.DEFER, statuses.SYSTEM_ERROR, "temporary failure, try again later",
                         N_("This server could not store the message; the sender keeps it and tries again.")),
}

_SEVERITY = {action: place for place, action in enumerate(Action)}


async def look(stage: Stage, facts: Facts) -> Verdict:
    """Runs the stage's checks until one of them means a refusal."""
    findings: list[Finding] = []
    for check in PIPELINE[stage]:
        finding = await check(facts)
        if finding is not None:
            findings.append(finding)
            if RULES[finding.explanation].action in (Action.DEFER, Action.REJECT):
                break
    return verdict(findings)


def verdict(findings: Sequence[Finding]) -> Verdict:
    """The most severe of the rules that the findings call; nothing found: accept."""
    if not findings:
        return ACCEPTED
    ordered = sorted(findings, key=lambda finding: _SEVERITY[RULES[finding.explanation].action], reverse=True)
    rule = RULES[ordered[0].explanation]
    return Verdict(rule.action, rule.status, rule.reply.format(**dict(ordered[0].facts)), tuple(ordered))


def refuse(explanation: str, **facts: str) -> Verdict:
    """The verdict of a single finding that no check makes: what a service met while it worked."""
    return verdict([Finding("service", explanation, tuple(facts.items()))])


def explain(finding: Finding, language: str) -> str:
    """The finding in words, "ja" or "en"."""
    return text(language, RULES[finding.explanation].explanation, **dict(finding.facts))
