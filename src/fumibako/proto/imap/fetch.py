"""FETCH: which messages, and what of each.

Specification: RFC 9051 §6.4.5; RFC 7162 §3.1.4 (CHANGEDSINCE), §3.2.6 (VANISHED); RFC 3516 §4.2 (BINARY); RFC 8474 §5.3
    (EMAILID, THREADID); RFC 8514 §4.2 (SAVEDATE); RFC 8970 §3 (PREVIEW).
Contract: macros are expanded; every item carries the label its response must bear.
Failure: `scanner.CommandError`.
"""

from __future__ import annotations

from fumibako.proto.imap.commands import Fetch, FetchItem, FetchKind, Section
from fumibako.proto.imap.scanner import MAX_DEPTH, MAX_UINT63, CommandError, Scanner

MAX_ITEMS = 1000


def _plain(kind: FetchKind) -> FetchItem:
    # RFC822.HEADER alone leaves \\Seen as it is (RFC 3501 §6.4.5).
    return FetchItem(kind, peek=kind is FetchKind.RFC822_HEADER, label=kind.value.encode("ascii"))


_PLAIN = {
    kind.value.encode("ascii"): _plain(kind) for kind in FetchKind
    if kind not in (FetchKind.SECTION, FetchKind.BINARY, FetchKind.BINARY_SIZE)
}
_FAST = tuple(map(_plain, (FetchKind.FLAGS, FetchKind.INTERNALDATE, FetchKind.SIZE)))
_ALL = (*_FAST, _plain(FetchKind.ENVELOPE))
_MACROS = {b"FAST": _FAST, b"ALL": _ALL, b"FULL": (*_ALL, _plain(FetchKind.BODY))}

_SECTIONS = {     # name before "[" -> what it is, and whether it leaves \\Seen alone
    b"BODY": (FetchKind.SECTION, False), b"BODY.PEEK": (FetchKind.SECTION, True),
    b"BINARY": (FetchKind.BINARY, False), b"BINARY.PEEK": (FetchKind.BINARY, True),
    b"BINARY.SIZE": (FetchKind.BINARY_SIZE, True),
}


def parse_fetch(scanner: Scanner, *, uid: bool) -> Fetch:
    """fetch = "FETCH" SP sequence-set SP ("ALL" / "FULL" / "FAST" / fetch-att / "(" fetch-att *(SP fetch-att) ")")
    [fetch-modifiers]
    """
    scanner.space()
    numbers = scanner.sequence_set()
    scanner.space()
    if scanner.peek() == b"(":
        items = scanner.list_of(lambda: _parse_item(scanner))
    else:
        start = scanner.pos
        items = _MACROS.get(scanner.word(), ())
        if not items:
            scanner.pos = start
            items = (_parse_item(scanner),)
    if len(items) > MAX_ITEMS:
        raise CommandError(f"FETCH has more than {MAX_ITEMS} items")
    changed_since, vanished = _parse_modifiers(scanner)
    if vanished and (changed_since is None or not uid):
        raise CommandError("VANISHED needs UID FETCH and CHANGEDSINCE")      # RFC 7162 §3.2.6
    return Fetch(numbers, tuple(dict.fromkeys(items)), uid, changed_since, vanished)


def _parse_modifiers(scanner: Scanner) -> tuple[int | None, bool]:
    """fetch-modifiers = SP "(" fetch-modifier *(SP fetch-modifier) ")"

    fetch-modifier = "CHANGEDSINCE" SP mod-sequence-value / "VANISHED"
    """
    changed_since: int | None = None
    vanished = False

    def modifier() -> None:
        nonlocal changed_since, vanished
        if scanner.take(b"CHANGEDSINCE"):
            scanner.space()
            changed_since = scanner.number(MAX_UINT63)
        elif scanner.take(b"VANISHED"):
            vanished = True
        else:
            scanner.fail("CHANGEDSINCE or VANISHED")

    if scanner.take_space():
        scanner.list_of(modifier)
    return changed_since, vanished


def _parse_item(scanner: Scanner) -> FetchItem:
    """fetch-att = "ENVELOPE" / "FLAGS" / "INTERNALDATE" / "RFC822" [".HEADER" / ".SIZE" / ".TEXT"] / "BODY" ["STRUCTURE"] / "UID"
    / "BODY" [".PEEK"] section [partial] / "BINARY" [".PEEK"] section-binary [partial] / "BINARY.SIZE" section-binary
    / "MODSEQ" / "EMAILID" / "THREADID" / "SAVEDATE" / "PREVIEW" [SP "(" "LAZY" ")"]
    """
    name = scanner.word()
    if scanner.peek() == b"[":
        if name not in _SECTIONS:
            raise CommandError("Unknown FETCH item")
        return _parse_section_item(scanner, name)
    if not (item := _PLAIN.get(name)):
        raise CommandError("Unknown FETCH item")
    if item.kind is FetchKind.PREVIEW and scanner.take(b" (LAZY)"):
        # RFC 8970 §4.1: LAZY lets the server decline; ours are made at delivery, so it never has to.
        return item
    return item


def _parse_section_item(scanner: Scanner, name: bytes) -> FetchItem:
    kind, peek = _SECTIONS[name]
    section = _parse_section(scanner, binary=kind is not FetchKind.SECTION)
    label = name.removesuffix(b".PEEK") + b"[" + _format_section(section) + b"]"
    partial = None
    if kind is not FetchKind.BINARY_SIZE and scanner.peek() == b"<":
        partial = _parse_partial(scanner)
        label += b"<%d>" % partial[0]
    return FetchItem(kind, section, peek, partial, label)


def _parse_section(scanner: Scanner, *, binary: bool) -> Section:
    """section = "[" [section-msgtext / (section-part ["." section-text])] "]";  section-binary = "[" [section-part] "]" """
    scanner.expect(b"[")
    part = _parse_part(scanner)
    if scanner.take(b"]"):
        return Section(part)
    if binary or (part and not scanner.take(b".")):
        scanner.fail("]")
    text = scanner.word()
    fields: tuple[bytes, ...] = ()
    if text in (b"HEADER.FIELDS", b"HEADER.FIELDS.NOT"):
        scanner.space()
        fields = scanner.list_of(lambda: _parse_field_name(scanner))
    elif text not in (b"HEADER", b"TEXT") and not (text == b"MIME" and part):
        raise CommandError("Unknown section")
    scanner.expect(b"]")
    return Section(part, text.decode("ascii"), fields)


def _parse_part(scanner: Scanner) -> tuple[int, ...]:
    """section-part = nz-number *("." nz-number)"""
    part: list[int] = []
    while scanner.peek().isdigit():
        part.append(scanner.number(smallest=1))
        if len(part) > 2 * MAX_DEPTH:
            raise CommandError("A section has too many levels", no=True, code=b"LIMIT")
        if not scanner.octets[scanner.pos:scanner.pos + 2][1:].isdigit() or not scanner.take(b"."):
            break
    return tuple(part)


def _parse_field_name(scanner: Scanner) -> bytes:
    """header-fld-name = astring"""
    name = scanner.astring()
    # What RFC 5322 §2.2 calls a field name: it is echoed in the response's label.
    if not name or not name.isascii() or any(octet <= 32 or octet == 127 for octet in name):
        raise CommandError("Not a header field name")
    return name


def _parse_partial(scanner: Scanner) -> tuple[int, int]:
    """partial = "<" number64 "." nz-number64 ">" """
    scanner.expect(b"<")
    first = scanner.number(MAX_UINT63)
    scanner.expect(b".")
    count = scanner.number(MAX_UINT63, 1)
    scanner.expect(b">")
    return first, count


def _format_section(section: Section) -> bytes:
    """section-spec, the reverse of _parse_section"""
    spec = ".".join([*map(str, section.part), *([section.text] if section.text else [])]).encode("ascii")
    if not section.fields:
        return spec
    return spec + b" (" + b" ".join(map(_format_field_name, section.fields)) + b")"


def _format_field_name(name: bytes) -> bytes:
    """header-fld-name = astring"""
    if name.translate(None, b'(){}%*"\\') == name:
        return name
    return b'"' + name.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
