"""IMAP commands as values: what a client asked, taken out of its octets and checked for form.

Specification: RFC 9051 §6 (commands), §9 (formal syntax); RFC 3501 §6 (LSUB, RECENT, CHECK); RFC 2177, 4315, 6851, 7162,
    7888, 8514, 9208, 5258, 5819, 4731, 5182, 3516 for what they add to those commands.
Contract: mailbox names are decoded to NFC text (modified UTF-7 or UTF-8 by session state) and INBOX in any case is "INBOX".
    Sequence numbers and UIDs are intervals, never expanded (spec/reliability.md B3).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

STAR = 0    # "*" in a sequence-set: the largest number in use


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """ranges: (low, high) as written, STAR allowed on either side, either order. saved: "$" (RFC 9051 §6.4.4.1)."""

    ranges: tuple[tuple[int, int], ...]
    saved: bool = False


# -- any state --


@dataclass(frozen=True, slots=True)
class Capability: ...


@dataclass(frozen=True, slots=True)
class Noop: ...


@dataclass(frozen=True, slots=True)
class Logout: ...


@dataclass(frozen=True, slots=True)
class Id:
    """parameters: what the client says of itself; {} for NIL. RFC 2971 §3.3."""

    parameters: dict[str, str | None]


# -- not authenticated --


@dataclass(frozen=True, slots=True)
class StartTLS: ...


@dataclass(frozen=True, slots=True)
class Authenticate:
    """initial_response: decoded octets, b"" for "=", None when absent (RFC 4959 §3)."""

    mechanism: str
    initial_response: bytes | None


@dataclass(frozen=True, slots=True)
class Login:
    """Octets as sent: what they mean as text is the login service's matter."""

    user: bytes
    password: bytes


# -- authenticated --


@dataclass(frozen=True, slots=True)
class Enable:
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Select:
    """condstore: the CONDSTORE parameter; qresync: (uid_validity, modseq, known_uids|None), None when absent."""

    mailbox: str
    read_only: bool
    condstore: bool = False
    qresync: tuple[int, int, SequenceSet | None] | None = None


@dataclass(frozen=True, slots=True)
class Create:
    """special_use: the USE attributes (RFC 6154 §3)."""

    mailbox: str
    special_use: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Delete:
    mailbox: str


@dataclass(frozen=True, slots=True)
class Rename:
    mailbox: str
    new_name: str


@dataclass(frozen=True, slots=True)
class Subscribe:
    mailbox: str
    on: bool


@dataclass(frozen=True, slots=True)
class List:
    """extended: RFC 9051 §6.3.9 form (options, several patterns or RETURN used). status_items: RETURN (STATUS (...))."""

    reference: str
    patterns: tuple[str, ...]
    selection: frozenset[str] = frozenset()     # SUBSCRIBED REMOTE RECURSIVEMATCH SPECIAL-USE
    returns: frozenset[str] = frozenset()       # SUBSCRIBED CHILDREN SPECIAL-USE STATUS
    status_items: tuple[str, ...] = ()
    extended: bool = False


@dataclass(frozen=True, slots=True)
class Lsub:
    reference: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Namespace: ...


@dataclass(frozen=True, slots=True)
class Status:
    """items in upper case: MESSAGES UIDNEXT UIDVALIDITY UNSEEN DELETED SIZE RECENT HIGHESTMODSEQ MAILBOXID DELETED-STORAGE."""

    mailbox: str
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Append:
    """One APPEND; its octets follow as AppendData events, then AppendEnd.

    internal_date: ms UTC or None. size_octets: of the literal.
    """

    mailbox: str
    flags: tuple[str, ...]
    internal_date: int | None
    size_octets: int
    utf8: bool = False      # UTF8 (~{n} literal8): RFC 6855 §4


@dataclass(frozen=True, slots=True)
class Idle: ...


@dataclass(frozen=True, slots=True)
class GetQuota:
    root: str


@dataclass(frozen=True, slots=True)
class GetQuotaRoot:
    mailbox: str


@dataclass(frozen=True, slots=True)
class SetQuota:
    root: str
    resources: tuple[tuple[str, int], ...]


# -- selected --


@dataclass(frozen=True, slots=True)
class Check: ...


@dataclass(frozen=True, slots=True)
class Close: ...


@dataclass(frozen=True, slots=True)
class Unselect: ...


@dataclass(frozen=True, slots=True)
class Expunge:
    """uids: UID EXPUNGE (RFC 4315 §2.1); None: EXPUNGE."""

    uids: SequenceSet | None = None


class FetchKind(enum.StrEnum):
    ENVELOPE = "ENVELOPE"
    FLAGS = "FLAGS"
    INTERNALDATE = "INTERNALDATE"
    SIZE = "RFC822.SIZE"
    BODY = "BODY"                       # without section: non-extensible BODYSTRUCTURE
    BODYSTRUCTURE = "BODYSTRUCTURE"
    UID = "UID"
    MODSEQ = "MODSEQ"
    EMAILID = "EMAILID"
    THREADID = "THREADID"
    SAVEDATE = "SAVEDATE"
    PREVIEW = "PREVIEW"
    SECTION = "BODY["                   # BODY[...] and BODY.PEEK[...]
    BINARY = "BINARY["                  # BINARY[...] and BINARY.PEEK[...]
    BINARY_SIZE = "BINARY.SIZE["
    RFC822 = "RFC822"
    RFC822_HEADER = "RFC822.HEADER"
    RFC822_TEXT = "RFC822.TEXT"


@dataclass(frozen=True, slots=True)
class Section:
    """part: (1, 2) for "1.2"; text: "", "HEADER", "HEADER.FIELDS", "HEADER.FIELDS.NOT", "TEXT", "MIME"; fields as written."""

    part: tuple[int, ...] = ()
    text: str = ""
    fields: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class FetchItem:
    """partial: (first octet, count). label: the item name as the response must carry it, e.g. b"BODY[HEADER]<0>"."""

    kind: FetchKind
    section: Section = Section()
    peek: bool = False
    partial: tuple[int, int] | None = None
    label: bytes = b""


@dataclass(frozen=True, slots=True)
class Fetch:
    numbers: SequenceSet
    items: tuple[FetchItem, ...]        # macros ALL FAST FULL are expanded
    uid: bool = False
    changed_since: int | None = None    # RFC 7162 §3.1.4.1
    vanished: bool = False              # RFC 7162 §3.2.6


@dataclass(frozen=True, slots=True)
class Store:
    """mode: "" replace, "+" add, "-" remove; flags: names as sent, system flags in RFC spelling."""

    numbers: SequenceSet
    mode: str
    flags: tuple[str, ...]
    silent: bool
    uid: bool = False
    unchanged_since: int | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    numbers: SequenceSet
    mailbox: str
    uid: bool = False


@dataclass(frozen=True, slots=True)
class Move:
    numbers: SequenceSet
    mailbox: str
    uid: bool = False


# -- search keys: a small tree --


@dataclass(frozen=True, slots=True)
class All: ...


@dataclass(frozen=True, slots=True)
class HasFlag:
    """flag: "\\Seen" or a keyword; present False for UNSEEN, UNKEYWORD..."""

    flag: str
    present: bool = True


@dataclass(frozen=True, slots=True)
class IsRecent:
    """RECENT (True), OLD (False); NEW is And(IsRecent, HasFlag(\\Seen, False))."""

    present: bool = True


@dataclass(frozen=True, slots=True)
class Numbers:
    numbers: SequenceSet
    uid: bool = False


@dataclass(frozen=True, slots=True)
class SizeIs:
    """LARGER (True), SMALLER (False)."""

    larger: bool
    octets: int


@dataclass(frozen=True, slots=True)
class DateIs:
    """what: "internal", "sent", "saved"; how: "before", "on", "since".

    day: days since 1970-01-01, no time zone (RFC 9051 §6.4.4).
    """

    what: str
    how: str
    day: int


@dataclass(frozen=True, slots=True)
class Within:
    """OLDER/YOUNGER seconds (RFC 5032)."""

    younger: bool
    seconds: int


@dataclass(frozen=True, slots=True)
class HeaderHas:
    """field in lower case: "subject", "from", ... ; text "" means: the field exists."""

    field: str
    text: str


@dataclass(frozen=True, slots=True)
class TextHas:
    """body_only: BODY, else TEXT (header and body)."""

    text: str
    body_only: bool


@dataclass(frozen=True, slots=True)
class ModSeqIs:
    """MODSEQ n: at least n (RFC 7162 §3.1.5)."""

    modseq: int


@dataclass(frozen=True, slots=True)
class IdIs:
    """EMAILID / THREADID (RFC 8474 §6). kind: "email" or "thread"."""

    kind: str
    id: str


@dataclass(frozen=True, slots=True)
class SaveDateSupported: ...


@dataclass(frozen=True, slots=True)
class Not:
    key: SearchKey


@dataclass(frozen=True, slots=True)
class And:
    keys: tuple[SearchKey, ...]


@dataclass(frozen=True, slots=True)
class Or:
    left: SearchKey
    right: SearchKey


SearchKey = (
    All | HasFlag | IsRecent | Numbers | SizeIs | DateIs | Within | HeaderHas | TextHas
    | ModSeqIs | IdIs | SaveDateSupported | Not | And | Or
)


@dataclass(frozen=True, slots=True)
class Search:
    """returns: None for the plain form, else a subset of MIN MAX ALL COUNT SAVE; RETURN () is {"ALL"}."""

    key: SearchKey
    returns: frozenset[str] | None = None
    uid: bool = False


# -- what follows a command --


@dataclass(frozen=True, slots=True)
class AppendData:
    """At most 64 KiB of the literal; needs no answer."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class AppendEnd:
    """The literal is complete, and so is the command unless `more` (MULTIAPPEND, RFC 3502: another Append follows)."""

    more: bool


@dataclass(frozen=True, slots=True)
class AppendAborted:
    """What followed a message of APPEND was malformed and is answered already: drop what was written. Needs no answer."""


@dataclass(frozen=True, slots=True)
class IdleDone: ...


@dataclass(frozen=True, slots=True)
class SaslResponse:
    """octets: decoded; None: the client sent "*" (cancelled)."""

    octets: bytes | None


Command = (
    Capability | Noop | Logout | Id | StartTLS | Authenticate | Login | Enable | Select | Create | Delete | Rename
    | Subscribe | List | Lsub | Namespace | Status | Append | Idle | GetQuota | GetQuotaRoot | SetQuota
    | Check | Close | Unselect | Expunge | Fetch | Store | Copy | Move | Search
)
