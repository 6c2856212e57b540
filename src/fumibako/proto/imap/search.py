"""SEARCH: a program of keys, as a small tree.

Specification: RFC 9051 §6.4.4; RFC 3501 §6.4.4 (RECENT, OLD, NEW); RFC 4731 §3.1 and RFC 5182 §2 (RETURN); RFC 5032 §3
    (OLDER, YOUNGER); RFC 7162 §3.1.5 (MODSEQ); RFC 8474 §6 (EMAILID, THREADID); RFC 8514 §4.3 (SAVED...).
Contract: strings are text, decoded from the CHARSET the client names, else from UTF-8 (which US-ASCII is part of);
    nesting, also of NOT and OR, is at most scanner.MAX_DEPTH.
Failure: `scanner.CommandError`; NO [BADCHARSET (...)] for a charset not in CHARSETS, NO [LIMIT] for a tree too deep.
"""

from __future__ import annotations

from collections.abc import Callable

from fumibako.proto.imap.commands import (
    All,
    And,
    DateIs,
    HasFlag,
    HeaderHas,
    IdIs,
    IsRecent,
    ModSeqIs,
    Not,
    Numbers,
    Or,
    SaveDateSupported,
    Search,
    SearchKey,
    SizeIs,
    TextHas,
    Within,
)
from fumibako.proto.imap.dates import parse_date
from fumibako.proto.imap.scanner import MAX_DEPTH, MAX_UINT63, CommandError, Scanner
from fumibako.proto.message.charset import decode_as

RETURN_OPTIONS = frozenset({"MIN", "MAX", "ALL", "COUNT", "SAVE"})

CHARSETS = ("US-ASCII", "UTF-8", "ISO-2022-JP", "SHIFT_JIS", "EUC-JP")

KeyParser = Callable[["_Program"], SearchKey]


def parse_search(scanner: Scanner, *, uid: bool) -> Search:
    """search = "SEARCH" [SP "RETURN" SP "(" [search-return-opt *(SP search-return-opt)] ")"] SP search-program"""
    scanner.space()
    returns = None
    if scanner.take(b"RETURN "):
        scanner.skip_spaces()
        returns = frozenset(scanner.list_of(lambda: _return_option(scanner), empty=True)) or frozenset({"ALL"})
        scanner.space()
    program = _Program(scanner, _parse_charset(scanner))
    keys = [program.key()]
    while scanner.take_space():
        keys.append(program.key())
    return Search(_all_of(tuple(keys)), returns, uid)


def _return_option(scanner: Scanner) -> str:
    """search-return-opt = "MIN" / "MAX" / "ALL" / "COUNT" / "SAVE" """
    name = scanner.word().decode("ascii")
    if name not in RETURN_OPTIONS:
        raise CommandError("Unknown SEARCH return option")
    return name


def _parse_charset(scanner: Scanner) -> str:
    """search-program = ["CHARSET" SP charset SP] search-key *(SP search-key);  charset = atom / quoted"""
    if not scanner.take(b"CHARSET "):
        return "UTF-8"
    if not scanner.context.charset_allowed:
        raise CommandError("CHARSET may not be given after ENABLE UTF8=ACCEPT")     # RFC 6855 §3
    scanner.skip_spaces()
    octets = scanner.string() if scanner.peek() == b'"' else scanner.atom()
    charset = octets.decode("ascii", "replace").upper()
    if charset not in CHARSETS:
        raise CommandError("Unknown charset", no=True, code=b"BADCHARSET (%b)" % " ".join(CHARSETS).encode("ascii"))
    scanner.space()
    return charset


def _decode(octets: bytes, charset: str) -> str:
    """The text of a search string; the Japanese charsets are read as mail really writes them."""
    try:
        text = octets.decode(charset) if charset in ("US-ASCII", "UTF-8") else decode_as(octets, charset)
    except UnicodeDecodeError:
        text = "\ufffd"
    if "\ufffd" in text:
        raise CommandError("A search string is not in its charset")
    return text


def _all_of(keys: tuple[SearchKey, ...]) -> SearchKey:
    return keys[0] if len(keys) == 1 else And(keys)


class _Program:
    """The keys of one SEARCH and the charset of their strings."""

    __slots__ = ("charset", "depth", "scanner")

    def __init__(self, scanner: Scanner, charset: str) -> None:
        self.scanner, self.charset, self.depth = scanner, charset, 0

    def key(self) -> SearchKey:
        """search-key = sequence-set / "(" search-key *(SP search-key) ")" / a name of KEYS with its arguments"""
        if self.depth > MAX_DEPTH:
            raise CommandError("The search is nested too deep", no=True, code=b"LIMIT")
        scanner = self.scanner
        following = scanner.peek()
        self.depth += 1
        if following == b"(":
            key = _all_of(scanner.list_of(self.key))
        elif following.isdigit() or following in (b"*", b"$"):
            key = Numbers(scanner.sequence_set())
        elif parser := KEYS.get(scanner.word()):
            key = parser(self)
        else:
            raise CommandError("Unknown search key")
        self.depth -= 1
        return key

    def next_key(self) -> SearchKey:
        """SP search-key"""
        self.scanner.space()
        return self.key()

    def text(self) -> str:
        """SP astring, decoded."""
        self.scanner.space()
        return _decode(self.scanner.astring(), self.charset)

    def ascii(self) -> str:
        """SP astring, US-ASCII."""
        self.scanner.space()
        try:
            return self.scanner.astring().decode("ascii")
        except UnicodeDecodeError:
            raise CommandError("Expected US-ASCII") from None

    def number(self, smallest: int = 0) -> int:
        """SP number64"""
        self.scanner.space()
        return self.scanner.number(MAX_UINT63, smallest)

    def date(self) -> int:
        """SP (date-text / DQUOTE date-text DQUOTE)"""
        self.scanner.space()
        return parse_date(self.scanner.string() if self.scanner.peek() == b'"' else self.scanner.atom())


def _key(key: SearchKey) -> KeyParser:
    return lambda _: key


def _date_key(what: str, how: str) -> KeyParser:
    return lambda program: DateIs(what, how, program.date())


def _header_key(field: str) -> KeyParser:
    return lambda program: HeaderHas(field, program.text())


def _header(program: _Program) -> SearchKey:
    """ "HEADER" SP header-fld-name SP astring"""
    field = program.ascii().lower()
    return HeaderHas(field, program.text())


def _keyword(program: _Program, *, present: bool) -> SearchKey:
    """("KEYWORD" / "UNKEYWORD") SP flag-keyword"""
    program.scanner.space()
    return HasFlag(program.scanner.atom().decode("ascii"), present)


def _uid(program: _Program) -> SearchKey:
    """ "UID" SP sequence-set"""
    program.scanner.space()
    return Numbers(program.scanner.sequence_set(), uid=True)


def _modseq(program: _Program) -> SearchKey:
    """ "MODSEQ" [SP entry-name SP entry-type-req] SP mod-sequence-valzer;  our modseq is one for all entries of a message"""
    scanner = program.scanner
    scanner.space()
    if scanner.peek() == b'"':
        scanner.string()
        scanner.space()
        if scanner.word() not in (b"PRIV", b"SHARED", b"ALL"):
            raise CommandError("Expected priv, shared or all")
        scanner.space()
    return ModSeqIs(scanner.number(MAX_UINT63))


_SYSTEM = {b"ANSWERED": "\\Answered", b"DELETED": "\\Deleted", b"DRAFT": "\\Draft", b"FLAGGED": "\\Flagged", b"SEEN": "\\Seen"}
_DATES = ((b"", "internal"), (b"SENT", "sent"), (b"SAVED", "saved"))

KEYS: dict[bytes, KeyParser] = {
    b"ALL": _key(All()),
    **{name: _key(HasFlag(flag)) for name, flag in _SYSTEM.items()},
    **{b"UN" + name: _key(HasFlag(flag, present=False)) for name, flag in _SYSTEM.items()},
    b"KEYWORD": lambda program: _keyword(program, present=True),
    b"UNKEYWORD": lambda program: _keyword(program, present=False),
    b"RECENT": _key(IsRecent()),
    b"OLD": _key(IsRecent(present=False)),
    b"NEW": _key(And((IsRecent(), HasFlag("\\Seen", present=False)))),
    **{
        prefix + how.upper().encode("ascii"): _date_key(what, how)
        for prefix, what in _DATES for how in ("before", "on", "since")
    },
    b"SAVEDATESUPPORTED": _key(SaveDateSupported()),
    **{field.upper().encode("ascii"): _header_key(field) for field in ("bcc", "cc", "from", "subject", "to")},
    b"HEADER": _header,
    b"BODY": lambda program: TextHas(program.text(), body_only=True),
    b"TEXT": lambda program: TextHas(program.text(), body_only=False),
    b"LARGER": lambda program: SizeIs(larger=True, octets=program.number()),
    b"SMALLER": lambda program: SizeIs(larger=False, octets=program.number()),
    b"OLDER": lambda program: Within(younger=False, seconds=program.number(1)),
    b"YOUNGER": lambda program: Within(younger=True, seconds=program.number(1)),
    b"EMAILID": lambda program: IdIs("email", program.ascii()),
    b"THREADID": lambda program: IdIs("thread", program.ascii()),
    b"MODSEQ": _modseq,
    b"UID": _uid,
    b"NOT": lambda program: Not(program.next_key()),
    b"OR": lambda program: Or(program.next_key(), program.next_key()),
}


def names_modseq(key: SearchKey) -> bool:
    """Whether the tree holds a MODSEQ key anywhere."""
    match key:
        case ModSeqIs():
            return True
        case Not(key=inner):
            return names_modseq(inner)
        case And(keys=keys):
            return any(map(names_modseq, keys))
        case Or(left=left, right=right):
            return names_modseq(left) or names_modseq(right)
    return False
