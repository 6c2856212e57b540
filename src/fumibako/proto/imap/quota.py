"""GETQUOTA, GETQUOTAROOT and SETQUOTA.

Specification: RFC 9208 §4.1 (commands), §7 (formal syntax).
Contract: parsers of what follows the verb; resource names in upper case,
    limits in the unit of the resource (STORAGE: 1024 octets).
Failure: `scanner.CommandError`.
"""

from __future__ import annotations

from fumibako.proto.imap.commands import GetQuota, GetQuotaRoot, SetQuota
from fumibako.proto.imap.scanner import MAX_UINT63, CommandError, Scanner


def parse_get_quota(scanner: Scanner) -> GetQuota:
    """getquota = "GETQUOTA" SP quota-root-name"""
    scanner.space()
    return GetQuota(_root(scanner))


def parse_get_quota_root(scanner: Scanner) -> GetQuotaRoot:
    """getquotaroot = "GETQUOTAROOT" SP mailbox"""
    scanner.space()
    return GetQuotaRoot(scanner.mailbox())


def parse_set_quota(scanner: Scanner) -> SetQuota:
    """setquota = "SETQUOTA" SP quota-root-name SP setquota-list;  setquota-list = "(" [setquota-resource *(SP ...)] ")" """
    scanner.space()
    root = _root(scanner)
    scanner.space()
    return SetQuota(root, scanner.list_of(lambda: _resource(scanner), empty=True))


def _resource(scanner: Scanner) -> tuple[str, int]:
    """setquota-resource = resource-name SP resource-limit"""
    name = scanner.atom().decode("ascii").upper()
    scanner.space()
    return name, scanner.number(MAX_UINT63)


def _root(scanner: Scanner) -> str:
    """quota-root-name = astring"""
    try:
        return scanner.astring().decode("utf-8")
    except UnicodeDecodeError:
        raise CommandError("A quota root is not UTF-8") from None
