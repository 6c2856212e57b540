"""What changes messages or moves them about: STORE, COPY, MOVE and UID EXPUNGE.

Specification: RFC 9051 §6.4.6-§6.4.9; RFC 7162 §3.1.3 (UNCHANGEDSINCE); RFC 6851 §3 (MOVE); RFC 4315 §2.1 (UID EXPUNGE).
Contract: parsers of what follows the verb.
Failure: `scanner.CommandError`.
"""

from __future__ import annotations

from fumibako.proto.imap.commands import Copy, Expunge, Move, Store
from fumibako.proto.imap.scanner import MAX_UINT63, Scanner


def parse_store(scanner: Scanner, *, uid: bool) -> Store:
    """store = "STORE" SP sequence-set [SP "(" "UNCHANGEDSINCE" SP mod-sequence-valzer ")"] SP store-att-flags

    store-att-flags = (["+" / "-"] "FLAGS" [".SILENT"]) SP (flag-list / (flag *(SP flag)))
    """
    scanner.space()
    numbers = scanner.sequence_set()
    scanner.space()
    unchanged_since = None
    if scanner.take(b"("):
        scanner.expect(b"UNCHANGEDSINCE")
        scanner.space()
        unchanged_since = scanner.number(MAX_UINT63)
        scanner.expect(b")")
        scanner.space()
    mode = "+" if scanner.take(b"+") else "-" if scanner.take(b"-") else ""
    scanner.expect(b"FLAGS")
    silent = scanner.take(b".SILENT")
    scanner.space()
    return Store(numbers, mode, _flags(scanner), silent, uid, unchanged_since)


def _flags(scanner: Scanner) -> tuple[str, ...]:
    """flag-list / (flag *(SP flag))"""
    if scanner.peek() == b"(":
        return tuple(dict.fromkeys(scanner.list_of(scanner.flag, empty=True)))
    flags = [scanner.flag()]
    while scanner.take_space():
        flags.append(scanner.flag())
    return tuple(dict.fromkeys(flags))


def parse_copy(scanner: Scanner, command: type[Copy] | type[Move], *, uid: bool) -> Copy | Move:
    """copy = "COPY" SP sequence-set SP mailbox;  move = "MOVE" SP sequence-set SP mailbox"""
    scanner.space()
    numbers = scanner.sequence_set()
    scanner.space()
    return command(numbers, scanner.mailbox(), uid)


def parse_uid_expunge(scanner: Scanner) -> Expunge:
    """uid-expunge = "EXPUNGE" SP sequence-set"""
    scanner.space()
    return Expunge(scanner.sequence_set())
