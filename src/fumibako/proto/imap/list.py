"""LIST and LSUB: which mailboxes there are.

Specification: RFC 9051 §6.3.9; RFC 3501 §6.3.9 (LSUB); RFC 5258 §3 (options, several patterns); RFC 5819 §2 (RETURN STATUS);
    RFC 6154 §2 (SPECIAL-USE).
Contract: parsers of what follows the verb.
Failure: `scanner.CommandError`; an option that isn't supported is BAD (RFC 5258 §3).
"""

from __future__ import annotations

from fumibako.proto.imap.commands import List, Lsub
from fumibako.proto.imap.scanner import CommandError, Scanner
from fumibako.proto.imap.select import parse_status_items

SELECTION_OPTIONS = frozenset({"SUBSCRIBED", "REMOTE", "RECURSIVEMATCH", "SPECIAL-USE"})
BASE_OPTIONS = frozenset({"SUBSCRIBED", "SPECIAL-USE"})
RETURN_OPTIONS = frozenset({"SUBSCRIBED", "CHILDREN", "SPECIAL-USE", "STATUS"})
MAX_PATTERNS = 100
MAX_PATTERNS_OCTETS = 8000      # of all together: each of them is compared with each name


def parse_list(scanner: Scanner) -> List:
    """list = "LIST" [SP list-select-opts] SP mailbox SP mbox-or-pat [SP list-return-opts]"""
    scanner.space()
    selection: frozenset[str] = frozenset()
    returns: frozenset[str] = frozenset()
    status_items: tuple[str, ...] = ()
    extended = scanner.peek() == b"("
    if extended:
        selection = _parse_selection(scanner)
        scanner.space()
    reference = scanner.mailbox()
    scanner.space()
    several = scanner.peek() == b"("
    patterns = scanner.list_of(scanner.list_mailbox) if several else (scanner.list_mailbox(),)
    if len(patterns) > MAX_PATTERNS:
        raise CommandError(f"LIST has more than {MAX_PATTERNS} patterns")
    if sum(len(pattern) for pattern in patterns) > MAX_PATTERNS_OCTETS:
        raise CommandError("The LIST patterns are too long", no=True, code=b"LIMIT")
    if returned := scanner.take_space():
        returns, status_items = _parse_returns(scanner)
    return List(reference, patterns, selection, returns, status_items, extended or several or returned)


def _parse_selection(scanner: Scanner) -> frozenset[str]:
    """list-select-opts = "(" [list-select-opt *(SP list-select-opt)] ")" """
    options = frozenset(scanner.list_of(lambda: scanner.word().decode("ascii"), empty=True))
    if options - SELECTION_OPTIONS:
        raise CommandError("Unknown LIST selection option")
    if "RECURSIVEMATCH" in options and not options & BASE_OPTIONS:
        raise CommandError("RECURSIVEMATCH needs SUBSCRIBED or SPECIAL-USE")     # RFC 5258 §3.1
    return options


def _parse_returns(scanner: Scanner) -> tuple[frozenset[str], tuple[str, ...]]:
    """list-return-opts = "RETURN" SP "(" [return-option *(SP return-option)] ")" """
    scanner.expect(b"RETURN")
    scanner.space()
    status_items: tuple[str, ...] = ()

    def option() -> str:
        """return-option = "SUBSCRIBED" / "CHILDREN" / "SPECIAL-USE" / "STATUS" SP "(" status-att *(SP status-att) ")" """
        nonlocal status_items
        name = scanner.word().decode("ascii")
        if name not in RETURN_OPTIONS:
            raise CommandError("Unknown LIST return option")
        if name == "STATUS":
            scanner.space()
            status_items = parse_status_items(scanner)
        return name

    return frozenset(scanner.list_of(option, empty=True)), status_items


def parse_lsub(scanner: Scanner) -> Lsub:
    """lsub = "LSUB" SP mailbox SP list-mailbox"""
    scanner.space()
    reference = scanner.mailbox()
    scanner.space()
    return Lsub(reference, scanner.list_mailbox())
