"""Mail addresses as text: taken apart, compared and quoted, without ever changing what the owner wrote.

Specification: RFC 5321 §4.1.2 (Local-part, Domain), §2.4 (the local part belongs to its domain).
Contract: addresses travel as text in wire form without angle brackets; the null reverse_path is "".
    `address_key` is the form to look up: unquoted, ASCII letters folded, so `"a..b"@D` and `a..b@d` are one.
Failure: ValueError where there is no "@" or one side is empty.
"""

from __future__ import annotations

import re

_DOT_STRING = re.compile(r"[^\s\x00-\x20()<>\[\]:;@\\,.\"\x7f]+(?:\.[^\s\x00-\x20()<>\[\]:;@\\,.\"\x7f]+)*")
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)


def split_address(address: str) -> tuple[str, str]:
    """'"a..b"@Example.JP' -> ('a..b', 'example.jp'): the local part without quotes, the domain in lower case."""
    local, at, domain = address.rpartition("@")
    if len(local) >= 2 and local[0] == local[-1] == '"':
        local = _QUOTED_PAIR.sub(r"\1", local[1:-1])
    if not at or not local or not domain:
        raise ValueError(f"not an address: {address!r}")
    return local, _fold(domain)


def join_address(local_part: str, domain: str) -> str:
    """('a..b', 'd') -> '"a..b"@d': quotes the local part only where a dot-string can't hold it."""
    if _DOT_STRING.fullmatch(local_part):
        return f"{local_part}@{domain}"
    escaped = local_part.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"@{domain}'


def address_key(address: str) -> str:
    """The form under which the directory knows an address."""
    local, domain = split_address(address)
    return f"{_fold(local)}@{domain}"


def domain_of(address: str) -> str:
    """'a@B.jp' -> 'b.jp'; "" for the null reverse_path."""
    return split_address(address)[1] if address else ""


def _fold(text: str) -> str:
    # Only ASCII letters: str.lower() would fold U+212A (KELVIN SIGN) into "k" and join two people's addresses.
    return text.lower() if text.isascii() else text.translate(_ASCII_LOWER)


_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
