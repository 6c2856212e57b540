"""What the usual refusals of mail servers mean, in words a sender understands, with the next step.

Specification: RFC 3463 §3 (enumerated status codes); RFC 5321 §4.2.2 (reply codes).
Contract: pure; every outcome gets an explanation, the most particular one that fits.
Failure: none.
"""

from __future__ import annotations

import re

from fumibako.model.queue import Outcome
from fumibako.services.texts import N_

_UNKNOWN_USER = N_("There is no such address at the recipient's server. "
                   "Check the address for typing errors and send the mail again.")
_AUTHENTICATION = N_("The recipient's server could not verify that the mail really comes from your domain (SPF, DKIM, DMARC). "
                     "Show this notice to your mail administrator.")
_BLOCKED = N_("The recipient's server refuses mail from our mail server because it stands on a block list. "
              "Show this notice to your mail administrator.")

# By what the server wrote, where its status code says less than its words.
_WORDS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"user (?:is )?unknown|unknown user|no such (?:user|mailbox|recipient)|does not exist|recipient not found", re.I),
     _UNKNOWN_USER),
    (re.compile(r"\b(?:spf|dkim|dmarc)\b|5\.7\.(?:2[0-9]|515)", re.I), _AUTHENTICATION),
    (re.compile(r"spamhaus|block ?list|blacklist|barracuda|\bS31[45]0\b|\bdnsbl\b|\brbl\b", re.I), _BLOCKED),
    (re.compile(r"gr[ae]y-?list", re.I),
     N_("The recipient's server takes mail from new senders only at the second attempt. The mail is tried again by itself.")),
)

# By status: class may be any where it is "x".
_STATUSES: dict[str, str] = {
    "x.1.1": _UNKNOWN_USER,
    "x.1.2": N_("The domain of the address does not exist. Check the part behind the @ for typing errors."),
    "x.1.3": N_("The address is not written the way addresses have to be. Check it for typing errors."),
    "x.1.10": N_("The domain of the address takes no mail at all. Ask the recipient for another address."),
    "x.2.1": N_("The recipient's mailbox is closed or not in use at present. Reach the recipient in another way."),
    "x.2.2": N_("The recipient's mailbox is full. Reach the recipient in another way, or send the mail again later."),
    "x.2.3": N_("The mail is too large for the recipient. Send it with smaller attachments, or share the files in another way."),
    "x.3.4": N_("The mail is too large for the recipient's server. "
                "Send it with smaller attachments, or share the files in another way."),
    "x.4.1": N_("The recipient's server can't be reached. This is usually a passing fault at their side."),
    "x.4.2": N_("The connection to the recipient's server broke or was too slow. This is usually a passing fault."),
    "x.4.3": N_("The recipient's domain could not be looked up (DNS). This is usually a passing fault."),
    "x.4.4": N_("No mail server of the recipient's domain can be reached. "
                "Check the address, or ask the recipient's administrator."),
    "x.4.6": N_("The mail would go round in a loop between servers. Show this notice to your mail administrator."),
    "x.4.7": N_("The mail could not be delivered within the time allowed, although it was tried many times. "
                "Reach the recipient in another way, or send the mail again later."),
    "x.6.3": N_("The recipient's server can't take mail in this form. Show this notice to your mail administrator."),
    "x.6.7": N_("The recipient's server does not take addresses with Japanese or other non-ASCII letters."),
    "4.7.x": N_("The recipient's server does not take the mail at present (a limit or a safety rule). "
                "The mail is tried again by itself."),
    "5.7.x": N_("The recipient's server refuses the mail by its rules. "
                "If you know the recipient, ask them in another way to allow your address."),
    "4.x.x": N_("The recipient's server can't take the mail at present. The mail is tried again by itself."),
    "5.x.x": N_("The recipient's server refuses the mail. Its words below say why."),
}


def explanation_of(outcome: Outcome) -> str:
    """The catalogue text for an outcome that is not a success."""
    klass, subject, detail = outcome.status.split(".")
    for pattern, explanation in _WORDS:
        if pattern.search(outcome.reply):
            return explanation
    for key in (f"x.{subject}.{detail}", f"{klass}.{subject}.x", f"{klass}.x.x"):
        if key in _STATUSES:
            return _STATUSES[key]
    return _STATUSES["5.x.x"]
