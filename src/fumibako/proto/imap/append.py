"""APPEND up to its message, which is announced here and streamed by the server core.

Specification: RFC 9051 §6.3.12; RFC 3502 §6.3.11 (several messages); RFC 6855 §4 (UTF8); RFC 3516 §4.4 (literal8).
Contract: the octets end with the header of the message literal, as `framer.read_command` leaves them.
Failure: `scanner.CommandError`.
"""

from __future__ import annotations

import re

from fumibako.proto.imap.commands import Append
from fumibako.proto.imap.dates import parse_date_time
from fumibako.proto.imap.scanner import Context, Scanner
from fumibako.proto.reader import parse_uint

_MESSAGE = re.compile(rb"(UTF8 +\( *~)?~?\{(\d{1,19})\+?\}\Z", re.IGNORECASE)


def parse_append(scanner: Scanner) -> Append:
    """append = "APPEND" SP mailbox 1*append-message"""
    scanner.space()
    return _parse_message(scanner, scanner.mailbox())


def parse_next_message(octets: bytes, mailbox: str, context: Context) -> Append:
    """What stands between one message literal and the next: the same APPEND's next message."""
    return _parse_message(Scanner(octets, context), mailbox)


# Deviation: RFC 9755 §4 has the server refuse eight-bit headers of a session that has not enabled UTF8=ACCEPT. Mail programs
# move old mail with such headers from server to server; it would be lost there.
def _parse_message(scanner: Scanner, mailbox: str) -> Append:
    """append-message = [SP flag-list] [SP date-time] SP append-data

    append-data = literal / literal8 / "UTF8" SP "(" literal8 ")"
    """
    scanner.space()
    flags: tuple[str, ...] = ()
    internal_date = None
    if scanner.peek() == b"(":
        flags = tuple(dict.fromkeys(scanner.list_of(scanner.flag, empty=True)))
        scanner.space()
    if scanner.peek() == b'"':
        internal_date = parse_date_time(scanner.string())
        scanner.space()
    if not (found := _MESSAGE.match(scanner.octets, scanner.pos)):
        scanner.fail("a message literal")
    scanner.pos = found.end()
    return Append(mailbox, flags, internal_date, parse_uint(found[2], 19), utf8=found[1] is not None)
