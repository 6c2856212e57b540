"""One mailbox as a whole: SELECT, EXAMINE, CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE and STATUS.

Specification: RFC 9051 §6.3.2-§6.3.8, §6.3.11; RFC 7162 §3.1.8 and §3.2.5 (CONDSTORE, QRESYNC); RFC 6154 §3 (USE);
    RFC 8438 §3 (SIZE); RFC 8474 §4.3 (MAILBOXID); RFC 9208 §4.1.4 (DELETED-STORAGE).
Contract: parsers of what follows the verb.
Failure: `scanner.CommandError`.
"""

from __future__ import annotations

from fumibako.proto.imap.commands import Create, Delete, Rename, Select, SequenceSet, Status, Subscribe
from fumibako.proto.imap.names import DELIMITER
from fumibako.proto.imap.scanner import MAX_UINT63, CommandError, Scanner

STATUS_ITEMS = frozenset({
    "MESSAGES", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "DELETED", "SIZE", "RECENT", "HIGHESTMODSEQ", "MAILBOXID", "DELETED-STORAGE",
})
SPECIAL_USES = {
    use.lower(): use for use in ("\\All", "\\Archive", "\\Drafts", "\\Flagged", "\\Important", "\\Junk", "\\Sent", "\\Trash")
}


def parse_select(scanner: Scanner, *, read_only: bool) -> Select:
    """select = ("SELECT" / "EXAMINE") SP mailbox [SP "(" select-param *(SP select-param) ")"]"""
    scanner.space()
    mailbox = scanner.mailbox()
    condstore, qresync = False, None
    if scanner.take_space():
        for name, value in scanner.list_of(lambda: _select_param(scanner)):
            condstore = condstore or name == b"CONDSTORE"
            qresync = value or qresync
    return Select(mailbox, read_only, condstore, qresync)


def _select_param(scanner: Scanner) -> tuple[bytes, tuple[int, int, SequenceSet | None] | None]:
    """select-param = "CONDSTORE" / "QRESYNC" SP "(" uidvalidity SP mod-sequence-value [SP known-uids] [SP seq-match-data] ")" """
    name = scanner.word()
    if name == b"CONDSTORE":
        return name, None
    if name != b"QRESYNC":
        raise CommandError("Unknown SELECT parameter")
    scanner.space()
    scanner.expect(b"(")
    uid_validity = scanner.number(smallest=1)
    scanner.space()
    modseq = scanner.number(MAX_UINT63, 1)
    known_uids = None
    if scanner.take_space() and scanner.peek() != b"(":
        known_uids = scanner.sequence_set()
        scanner.take_space()
    if scanner.peek() == b"(":
        # seq-match-data only spares the server work; without it the answer is longer, and right (RFC 7162 §3.2.5.2).
        scanner.expect(b"(")
        scanner.sequence_set()
        scanner.space()
        scanner.sequence_set()
        scanner.expect(b")")
    scanner.expect(b")")
    return name, (uid_validity, modseq, known_uids)


def parse_create(scanner: Scanner) -> Create:
    """create = "CREATE" SP mailbox [SP "(" "USE" SP "(" [use-attr *(SP use-attr)] ")" ")"]"""
    scanner.space()
    # RFC 9051 §6.3.4: a delimiter at the end only declares that names will be made below it.
    mailbox = scanner.mailbox().removesuffix(DELIMITER)
    uses: tuple[str, ...] = ()
    if scanner.take_space():
        scanner.expect(b"(USE")
        scanner.space()
        uses = scanner.list_of(lambda: _special_use(scanner), empty=True)
        scanner.expect(b")")
    return Create(mailbox, uses)


def _special_use(scanner: Scanner) -> str:
    scanner.expect(b"\\")
    name = "\\" + scanner.atom().decode("ascii")
    return SPECIAL_USES.get(name.lower(), name)


def parse_delete(scanner: Scanner) -> Delete:
    """delete = "DELETE" SP mailbox"""
    scanner.space()
    return Delete(scanner.mailbox())


def parse_rename(scanner: Scanner) -> Rename:
    """rename = "RENAME" SP mailbox SP mailbox"""
    scanner.space()
    mailbox = scanner.mailbox()
    scanner.space()
    return Rename(mailbox, scanner.mailbox())


def parse_subscribe(scanner: Scanner, *, on: bool) -> Subscribe:
    """subscribe = "SUBSCRIBE" SP mailbox;  unsubscribe = "UNSUBSCRIBE" SP mailbox"""
    scanner.space()
    return Subscribe(scanner.mailbox(), on)


def parse_status(scanner: Scanner) -> Status:
    """status = "STATUS" SP mailbox SP "(" status-att *(SP status-att) ")" """
    scanner.space()
    mailbox = scanner.mailbox()
    scanner.space()
    return Status(mailbox, parse_status_items(scanner))


def parse_status_items(scanner: Scanner) -> tuple[str, ...]:
    """ "(" status-att *(SP status-att) ")" """
    return tuple(dict.fromkeys(scanner.list_of(lambda: _status_item(scanner))))


def _status_item(scanner: Scanner) -> str:
    name = scanner.word().decode("ascii")
    if name not in STATUS_ITEMS:
        raise CommandError("Unknown STATUS item")
    return name
