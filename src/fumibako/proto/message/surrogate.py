"""The header of an internationalized message for a client that has not said it takes UTF-8.

Specification: RFC 6858 §2 (what is preserved, what is lost); RFC 2047 §2 (encoded words); RFC 6532 §3 (what it may have been).
Contract: a field of ASCII stays octet by octet; of the others Subject is encoded, addresses outside ASCII become invalid
    ones, parameters and fields outside ASCII go. What comes out is ASCII.
Failure: none.
"""

from __future__ import annotations

import re

from fumibako.proto.message.address import Address, format_mailbox, parse_addresses
from fumibako.proto.message.header import HeaderField, fields, format_field, unfold
from fumibako.proto.message.params import format_parameters, parse_parameters
from fumibako.proto.message.words import decode_words

# RFC 6858 §2.1; Return-Path holds no name, but the same octets.
_ADDRESSES = frozenset({b"bcc", b"cc", b"from", b"reply-to", b"resent-bcc", b"resent-cc", b"resent-from", b"resent-sender",
                        b"resent-to", b"return-path", b"sender", b"to"})
_PARAMETERS = frozenset({b"content-type", b"content-disposition"})
_INVALID = "invalid@internationalized-address.invalid"
_NOBODY = "internationalized-address:;"
_END = re.compile(rb"(?:\A|\n)\r?\n")
_DOT_STRING = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]+")


def header_end(octets: bytes) -> int:
    """Where the header section ends, its blank line included; -1 where it is not all there."""
    match = _END.search(octets)
    return match.end() if match else -1


def format_surrogate(header: bytes) -> bytes:
    """A header section, with its blank line or without, as RFC 6858 has it."""
    out: list[bytes] = []
    end = 0
    for field in fields(header):
        end = field.end
        octets = header[field.start : end]
        out.append(octets if octets.isascii() else _downgraded(field))
    return b"".join(out) + header[end:]


def _downgraded(field: HeaderField) -> bytes:
    """b"" where nothing of it can be kept."""
    name = field.name.lower()
    if name == b"subject":
        text = _CONTROLS.sub(" ", decode_words(unfold(field.value_raw)))
    elif name in _ADDRESSES:
        text = ", ".join(_mailbox(one) for one in parse_addresses(field.value_raw) if one.host is not None) or _NOBODY
    elif name in _PARAMETERS:
        text = _ascii_parameters(field.value_raw)
    else:
        return b""
    return format_field(field.name.decode("ascii"), text) if text else b""


def _mailbox(address: Address) -> str:
    """An address of ASCII stays one whatever the name is; another's name says what it was."""
    local, host = address.mailbox or b"", address.host or b""
    name = _CONTROLS.sub(" ", decode_words(address.name)) if address.name else ""
    spec = f"{_quoted(_text(local))}@{_text(host)}"
    if not spec.isascii():
        return format_mailbox(name or spec, _INVALID)
    return format_mailbox(name, spec)


def _text(octets: bytes) -> str:
    return _CONTROLS.sub("", octets.decode("utf-8", "replace"))


def _quoted(local: str) -> str:
    if not local.isascii() or _DOT_STRING.fullmatch(local):
        return local
    return '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _ascii_parameters(value_raw: bytes) -> str:
    """RFC 6858 §2.2."""
    head, parameters = parse_parameters(value_raw)
    kept = {name: value for name, value in parameters if (name + value).isascii() and not _CONTROLS.search(_text(name + value))}
    if not head.isascii():
        return ""
    return format_parameters(head.decode("ascii"), {name.decode("ascii"): value.decode("ascii") for name, value in kept.items()})
