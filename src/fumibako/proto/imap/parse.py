"""One IMAP command from its octets: the tag, the verb, and the parser of its family.

Specification: RFC 9051 §6 (commands), §9 (command, uid); RFC 3501 §6; each family names the RFCs that extend it.
Contract: parse_command(octets) -> the tag and a `commands` value, in time linear in the octets.
Failure: `scanner.CommandError` or ProtocolError; `tag_of` still tells whom to answer.
"""

from __future__ import annotations

from collections.abc import Callable

from fumibako.proto.imap import append, fetch, login, quota, search, select, store
from fumibako.proto.imap import list as listing
from fumibako.proto.imap.commands import (
    Capability,
    Check,
    Close,
    Command,
    Copy,
    Expunge,
    Fetch,
    FetchKind,
    Idle,
    Logout,
    Move,
    Namespace,
    Noop,
    Search,
    Select,
    StartTLS,
    Status,
    Store,
    Unselect,
)
from fumibako.proto.imap.framer import find_tag
from fumibako.proto.imap.scanner import CommandError, Context, Scanner

Parser = Callable[[Scanner], Command]

# command-any / command-nonauth / command-auth / command-select, each after its verb.
COMMANDS: dict[bytes, Parser] = {
    b"CAPABILITY": lambda _: Capability(),
    b"NOOP": lambda _: Noop(),
    b"LOGOUT": lambda _: Logout(),
    b"ID": login.parse_id,
    b"STARTTLS": lambda _: StartTLS(),
    b"AUTHENTICATE": login.parse_authenticate,
    b"LOGIN": login.parse_login,
    b"ENABLE": login.parse_enable,
    b"SELECT": lambda scanner: select.parse_select(scanner, read_only=False),
    b"EXAMINE": lambda scanner: select.parse_select(scanner, read_only=True),
    b"CREATE": select.parse_create,
    b"DELETE": select.parse_delete,
    b"RENAME": select.parse_rename,
    b"SUBSCRIBE": lambda scanner: select.parse_subscribe(scanner, on=True),
    b"UNSUBSCRIBE": lambda scanner: select.parse_subscribe(scanner, on=False),
    b"STATUS": select.parse_status,
    b"LIST": listing.parse_list,
    b"LSUB": listing.parse_lsub,
    b"NAMESPACE": lambda _: Namespace(),
    b"APPEND": append.parse_append,
    b"IDLE": lambda _: Idle(),
    b"GETQUOTA": quota.parse_get_quota,
    b"GETQUOTAROOT": quota.parse_get_quota_root,
    b"SETQUOTA": quota.parse_set_quota,
    b"CHECK": lambda _: Check(),
    b"CLOSE": lambda _: Close(),
    b"UNSELECT": lambda _: Unselect(),
    b"EXPUNGE": lambda _: Expunge(),
    b"FETCH": lambda scanner: fetch.parse_fetch(scanner, uid=False),
    b"STORE": lambda scanner: store.parse_store(scanner, uid=False),
    b"COPY": lambda scanner: store.parse_copy(scanner, Copy, uid=False),
    b"MOVE": lambda scanner: store.parse_copy(scanner, Move, uid=False),
    b"SEARCH": lambda scanner: search.parse_search(scanner, uid=False),
}

# uid = "UID" SP (copy / move / fetch / search / store / uid-expunge)
UID_COMMANDS: dict[bytes, Parser] = {
    b"FETCH": lambda scanner: fetch.parse_fetch(scanner, uid=True),
    b"STORE": lambda scanner: store.parse_store(scanner, uid=True),
    b"COPY": lambda scanner: store.parse_copy(scanner, Copy, uid=True),
    b"MOVE": lambda scanner: store.parse_copy(scanner, Move, uid=True),
    b"SEARCH": lambda scanner: search.parse_search(scanner, uid=True),
    b"EXPUNGE": store.parse_uid_expunge,
}


def parse_command(octets: bytes, context: Context) -> tuple[bytes, Command]:
    """One whole command without its final CRLF -> (tag, command).

    command = tag SP (command-any / command-auth / command-nonauth / command-select)
    """
    tag = find_tag(octets)
    if tag is None:
        raise CommandError("Expected a tag and a command")
    scanner = Scanner(octets, context)
    scanner.pos = len(tag)
    scanner.space()
    verb, parsers = scanner.word(), COMMANDS
    if verb == b"UID":
        scanner.space()
        verb, parsers = scanner.word(), UID_COMMANDS
    if not (parser := parsers.get(verb)):
        raise CommandError("Unknown command")
    command = parser(scanner)
    scanner.end()
    return tag, command


def enables_condstore(command: Command) -> bool:
    """Whether the command makes the server send MODSEQ from now on: a "CONDSTORE enabling command" (RFC 7162 §3.1)."""
    match command:
        case Select(condstore=condstore, qresync=qresync):
            return condstore or qresync is not None
        case Status(items=items):
            return "HIGHESTMODSEQ" in items
        case Fetch(items=fetched, changed_since=since):
            return since is not None or any(item.kind is FetchKind.MODSEQ for item in fetched)
        case Store(unchanged_since=since):
            return since is not None
        case Search(key=key):
            return search.names_modseq(key)
    return False
