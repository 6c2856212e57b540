"""The enhanced status code: what happened, in three numbers that every mail server understands.

Specification: RFC 3463 §2 (syntax), RFC 2034 §4 (in replies).
Contract: a Status is immutable and compares by value; str() gives the wire form "5.7.1".
Failure: ValueError for numbers outside RFC 3463 §2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# status-code = class "." subject "." detail; class = "2"/"4"/"5"; subject, detail = 1*3digit
_STATUS_CODE = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Status:
    """class.subject.detail; klass 2 is success, 4 a persistent transient failure, 5 a permanent failure."""

    klass: int
    subject: int
    detail: int

    def __post_init__(self) -> None:
        if self.klass not in (2, 4, 5) or not 0 <= self.subject <= 999 or not 0 <= self.detail <= 999:
            raise ValueError(f"not a status code: {self.klass}.{self.subject}.{self.detail}")

    def __str__(self) -> str:
        return f"{self.klass}.{self.subject}.{self.detail}"

    @staticmethod
    def parse(text: str) -> Status:
        """"5.7.1" -> Status(5, 7, 1); ValueError otherwise."""
        if not (found := _STATUS_CODE.fullmatch(text)):
            raise ValueError(f"not a status code: {text!r}")
        return Status(int(found[1]), int(found[2]), int(found[3]))


OK = Status(2, 0, 0)
SENDER_OK = Status(2, 1, 0)
RECIPIENT_OK = Status(2, 1, 5)
MESSAGE_ACCEPTED = Status(2, 6, 0)
NO_SUCH_MAILBOX = Status(5, 1, 1)
NO_SUCH_DOMAIN = Status(5, 1, 2)
BAD_RECIPIENT_SYNTAX = Status(5, 1, 3)
NULL_MX = Status(5, 1, 10)
MAILBOX_DISABLED = Status(5, 2, 1)
MAILBOX_FULL = Status(4, 2, 2)
SYSTEM_FULL = Status(4, 3, 1)
SYSTEM_ERROR = Status(4, 3, 0)
SHUTTING_DOWN = Status(4, 3, 2)
MESSAGE_TOO_BIG = Status(5, 3, 4)
NO_ANSWER = Status(4, 4, 1)
DNS_FAILURE = Status(4, 4, 3)
LOOP_DETECTED = Status(5, 4, 6)
EXPIRED = Status(4, 4, 7)
TOO_MANY_RECIPIENTS = Status(4, 5, 3)
BARE_NEWLINE = Status(5, 5, 2)
BAD_MESSAGE = Status(5, 6, 0)
CONVERSION_NEEDED = Status(5, 6, 3)
SMTPUTF8_NEEDED = Status(5, 6, 7)
POLICY_REFUSED = Status(5, 7, 1)
POLICY_DEFERRED = Status(4, 7, 1)
