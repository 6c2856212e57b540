"""The server's responses as octets: strings, and the data of each untagged response and response code.

Specification: RFC 9051 §7 (responses), §9 (formal syntax); RFC 3501 §7.2 (LSUB, SEARCH, RECENT); RFC 4315 §3, RFC 4731 §3.2,
    RFC 7162 §7, RFC 9208 §4.2, RFC 2971 §3.2, RFC 5258 §6 for what they add.
Contract: functions return what stands after "* " and before CRLF, ready for `ServerConnection.untagged`; those called code_
    return a response code without its brackets. Strings of ours are quoted where that is legal, else literals.
    utf8 is `ServerConnection.utf8`: UTF-8 in quoted strings and mailbox names, else US-ASCII and modified UTF-7.
Failure: none; whatever octets a message holds can be sent, but for NUL, which no IMAP string may hold (`format_binary` may).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from fumibako.proto.imap.names import DELIMITER, format_name
from fumibako.proto.imap.numbers import format_uid_set
from fumibako.proto.message.charset import is_utf8

# Longer strings go as literals: some clients have a line limit.
MAX_QUOTED_OCTETS = 1000

_UNQUOTABLE = re.compile(rb"[\x00\r\n]")
_SPECIAL = re.compile(rb'(["\\])')


def format_string(octets: bytes, *, utf8: bool = False) -> bytes:
    """string = quoted / literal"""
    quotable = len(octets) <= MAX_QUOTED_OCTETS and not _UNQUOTABLE.search(octets)
    if quotable and (octets.isascii() or (utf8 and is_utf8(octets))):
        return format_quoted(octets)
    return b"{%d}\r\n%b" % (len(octets), octets)


def format_quoted(octets: bytes) -> bytes:
    """quoted = DQUOTE *QUOTED-CHAR DQUOTE;  octets hold no CR, LF or NUL"""
    if b'"' in octets or b"\\" in octets:
        octets = _SPECIAL.sub(rb"\\\1", octets)
    return b'"' + octets + b'"'


def format_nstring(octets: bytes | None, *, utf8: bool = False) -> bytes:
    """nstring = string / nil"""
    return b"NIL" if octets is None else format_string(octets, utf8=utf8)


def format_binary(octets: bytes) -> bytes:
    """literal8 = "~{" number64 "}" CRLF *OCTET;  a literal where no NUL needs it (RFC 3516 §4.2)"""
    return b"%b{%d}\r\n%b" % (b"~" if b"\0" in octets else b"", len(octets), octets)


def format_mailbox(name: str, *, utf8: bool) -> bytes:
    """mailbox = "INBOX" / astring;  always a string, so that no name is taken for NIL or a number"""
    return format_string(format_name(name, utf8=utf8), utf8=utf8)


def format_flags(flags: Iterable[str]) -> bytes:
    """flag-list = "(" [flag *(SP flag)] ")" """
    return b"(" + " ".join(flags).encode("ascii") + b")"


# -- mailboxes --


def format_list(
    name: str, attributes: Iterable[str], *, utf8: bool, command: bytes = b"LIST",
    child_info: Iterable[str] = (), old_name: str = "",
) -> bytes:
    """`LIST (\\HasChildren) "/" "name"`; child_info: CHILDINFO options (RFC 9051 §6.3.9.6); old_name: OLDNAME (§6.3.9.7).

    mailbox-list = "(" [mbx-list-flags] ")" SP (DQUOTE QUOTED-CHAR DQUOTE / nil) SP mailbox [SP mbox-list-extended]
    """
    extended = []
    if options := [b'"%b"' % option.encode("ascii") for option in child_info]:
        extended.append(b'"CHILDINFO" (%b)' % b" ".join(options))
    if old_name:
        extended.append(b'"OLDNAME" (%b)' % format_mailbox(old_name, utf8=utf8))
    line = b'%b %b "%b" %b' % (command, format_flags(attributes), DELIMITER.encode("ascii"), format_mailbox(name, utf8=utf8))
    return line + b" (" + b" ".join(extended) + b")" if extended else line


def format_status(name: str, items: Mapping[str, int | str], *, utf8: bool) -> bytes:
    """`STATUS "name" (MESSAGES 3 MAILBOXID (F1))`; a str value is an object id (RFC 8474 §4.3).

    "STATUS" SP mailbox SP "(" [status-att-list] ")"
    """
    parts = [f"{item} {value}" if isinstance(value, int) else f"{item} ({value})" for item, value in items.items()]
    return b"STATUS %b (%b)" % (format_mailbox(name, utf8=utf8), " ".join(parts).encode("ascii"))


def format_namespace(personal: str | None = "") -> bytes:
    """namespace-response = "NAMESPACE" SP namespace SP namespace SP namespace;  others and shared: none"""
    mine = b"NIL" if personal is None else b'((%b "%b"))' % (format_quoted(personal.encode("ascii")), DELIMITER.encode("ascii"))
    return b"NAMESPACE " + mine + b" NIL NIL"


def format_quota(root: str, resources: Iterable[tuple[str, int, int]]) -> bytes:
    """`QUOTA "root" (STORAGE used limit)`; STORAGE is counted in units of 1024 octets.

    quota-response = "QUOTA" SP quota-root-name SP quota-list
    """
    parts = " ".join(f"{name} {used} {limit}" for name, used, limit in resources)
    return b"QUOTA %b (%b)" % (format_string(root.encode("utf-8"), utf8=True), parts.encode("ascii"))


def format_quota_root(mailbox: str, roots: Iterable[str], *, utf8: bool) -> bytes:
    """quotaroot-response = "QUOTAROOT" SP mailbox *(SP quota-root-name)"""
    names = [format_string(root.encode("utf-8"), utf8=True) for root in roots]
    return b" ".join([b"QUOTAROOT", format_mailbox(mailbox, utf8=utf8), *names])


def format_id(parameters: Mapping[str, str | None]) -> bytes:
    """id-response = "ID" SP id-params-list"""
    if not parameters:
        return b"ID NIL"
    fields = [
        format_string(field.encode("utf-8")) + b" " + format_nstring(None if value is None else value.encode("utf-8"))
        for field, value in parameters.items()
    ]
    return b"ID (" + b" ".join(fields) + b")"


# -- messages --


def format_fetch(seq: int, pieces: Sequence[bytes]) -> bytes:
    """`3 FETCH (UID 5 FLAGS ())`; a piece is one item's label and value.

    message-data = nz-number SP "FETCH" SP msg-att;  msg-att = "(" item *(SP item) ")"
    """
    return b"%d FETCH (%b)" % (seq, b" ".join(pieces))


def format_search(numbers: Iterable[int], modseq: int | None = None) -> bytes:
    """`SEARCH 2 3 6 (MODSEQ 917)`.

    obsolete-search-response = "SEARCH" *(SP nz-number) [SP "(" "MODSEQ" SP mod-sequence-value ")"]
    """
    line = b" ".join([b"SEARCH", *map(b"%d".__mod__, numbers)])
    return line if modseq is None else line + b" (MODSEQ %d)" % modseq


def format_esearch(tag: bytes, numbers: Sequence[int], returns: Iterable[str], *, uid: bool, modseq: int | None = None) -> bytes:
    """`ESEARCH (TAG "a1") UID MIN 2 MAX 9 COUNT 4 ALL 2,4:5,9`; numbers ascending. Of no result only COUNT is told.

    esearch-response = "ESEARCH" [search-correlator] [SP "UID"] *(SP search-return-data)
    """
    parts = [b"ESEARCH (TAG %b)" % format_quoted(tag)]
    wanted = frozenset(returns)
    if uid:
        parts.append(b"UID")
    if numbers and "MIN" in wanted:
        parts.append(b"MIN %d" % numbers[0])
    if numbers and "MAX" in wanted:
        parts.append(b"MAX %d" % numbers[-1])
    if "COUNT" in wanted:
        parts.append(b"COUNT %d" % len(numbers))
    if numbers and "ALL" in wanted:
        parts.append(b"ALL " + format_uid_set(numbers))
    if numbers and modseq is not None:
        parts.append(b"MODSEQ %d" % modseq)
    return b" ".join(parts)


def format_vanished(uids: Iterable[int], *, earlier: bool = False) -> bytes:
    """expunged-resp = "VANISHED" [SP "(EARLIER)"] SP known-uids"""
    return b"VANISHED %b%b" % (b"(EARLIER) " if earlier else b"", format_uid_set(uids))


# -- response codes --


def code_append_uid(uid_validity: int, uids: Iterable[int]) -> bytes:
    """resp-code-apnd = "APPENDUID" SP nz-number SP append-uid"""
    return b"APPENDUID %d %b" % (uid_validity, format_uid_set(uids))


def code_copy_uid(uid_validity: int, pairs: Iterable[tuple[int, int]]) -> bytes:
    """The codes of pairs (source uid, target uid), sources ascending.

    resp-code-copy = "COPYUID" SP nz-number SP uid-set SP uid-set
    """
    sources, targets = zip(*pairs, strict=True)
    return b"COPYUID %d %b %b" % (uid_validity, format_uid_set(sources), format_uid_set(targets))


def code_modified(numbers: Iterable[int]) -> bytes:
    """ "MODIFIED" SP sequence-set (RFC 7162 §3.1.3)"""
    return b"MODIFIED " + format_uid_set(numbers)


def code_permanent_flags(flags: Iterable[str], *, more: bool) -> bytes:
    """ "PERMANENTFLAGS" SP "(" [flag-perm *(SP flag-perm)] ")";  more: `\\*`, new keywords may be made"""
    return b"PERMANENTFLAGS " + format_flags([*flags, *(["\\*"] if more else [])])
