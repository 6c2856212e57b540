"""The paths of MAIL and RCPT: the strict grammar, plus the addresses that Japanese carriers once handed out.

Specification: RFC 5321 §4.1.2 (Path, Mailbox), §4.1.3 (address literals), §4.5.3.1 (lengths);
    RFC 6531 §3.3 (UTF-8 in both sides).
Contract: `parse_path` gives the mailbox in wire form without angle brackets and without its source route; nothing is
    folded, unquoted or repaired.
Failure: PathError; NonAsciiPath where only the missing SMTPUTF8 is at fault.
"""

import ipaddress
import re

LOCAL_PART_MAX = 255    # RFC 5321 §4.5.3.1.1 asks for 64 at least; longer ones are in use
DOMAIN_MAX = 255        # RFC 5321 §4.5.3.1.2
LABEL_MAX = 63          # RFC 1035 §2.3.4

_ATEXT = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]"
_QUOTED = rb'"(?:[\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\x20-\x7e])+"'
_NAME = rb"[A-Za-z0-9.\x80-\xff-]+"
_LITERAL = rb"\[[\x21-\x5a\x5e-\x7e]+\]"
# Quirk legacy_dots: `a..b@docomo.ne.jp`, `.abc@ezweb.ne.jp` and `abc.@...` were handed out until 2009 and are
# still in use, so dots may stand anywhere in an unquoted local part.
_LOCAL = rb"(?:" + _ATEXT + rb"|\.)+|" + _QUOTED
_PATH = re.compile(rb"<(?:(@" + _NAME + rb"(?:,@" + _NAME + rb")*):)?(" + _LOCAL + rb")@(" + _NAME + rb"|" + _LITERAL + rb")>")
_DOT_STRING = re.compile(_ATEXT + rb"+(?:\." + _ATEXT + rb"+)*")
_LABEL = re.compile(rb"[A-Za-z0-9\x80-\xff](?:[A-Za-z0-9\x80-\xff-]*[A-Za-z0-9\x80-\xff])?")
_CONTROL = re.compile("[\x80-\x9f\u2028\u2029]")    # non-ASCII characters that some reader takes for a line end


class PathError(ValueError):
    """Not a path."""


class NonAsciiPath(PathError):
    """A path that is valid only in a transaction with SMTPUTF8."""


def split_path(octets: bytes) -> tuple[bytes, bytes]:
    """`<a@b> SIZE=1` -> (`<a@b>`, ` SIZE=1`): cuts behind the path, which may hold quoted spaces and brackets."""
    if octets.startswith(b"<>"):
        return octets[:2], octets[2:]
    if found := _PATH.match(octets) or re.match(rb"<postmaster>", octets, re.IGNORECASE):
        return octets[: found.end()], octets[found.end() :]
    raise PathError("expected <local-part@domain>")


def parse_path(octets: bytes, *, smtputf8: bool = False) -> str:
    """The mailbox of a path.

        Path    = "<" [ A-d-l ":" ] Mailbox ">"
        Mailbox = Local-part "@" ( Domain / address-literal )

    `<>` gives "" (the null reverse_path), `<Postmaster>` gives "Postmaster" (RFC 5321 §4.5.1): the caller says
    which of them it allows.  A source route is accepted and ignored (RFC 5321 §4.1.1.3).
    """
    if octets == b"<>":
        return ""
    if octets[1:-1].lower() == b"postmaster" and octets[:1] + octets[-1:] == b"<>":
        return octets[1:-1].decode("ascii")
    if not (found := _PATH.fullmatch(octets)):
        raise PathError("expected <local-part@domain>")
    route, local_part, domain = found.groups()
    if route:
        for hop in _decode(route, smtputf8).encode("utf-8").split(b","):
            _check_domain(hop[1:])
    if len(local_part) > LOCAL_PART_MAX:
        raise PathError("local part too long")
    if domain.startswith(b"["):
        _check_literal(domain[1:-1].decode("ascii"))
    else:
        _check_domain(domain)
    return _decode(local_part + b"@" + domain, smtputf8)


def format_path(mailbox: str) -> bytes:
    """`a@b` -> `<a@b>`; refuses (PathError) whatever `parse_path` would not read back as the same mailbox."""
    try:
        octets = b"<" + mailbox.encode("utf-8") + b">"
    except UnicodeEncodeError as error:
        raise PathError("not encodable") from error
    if parse_path(octets, smtputf8=True) != mailbox:
        raise PathError("not a mailbox")
    return octets


def quoted_form(mailbox: str) -> str:
    """`a..b@d` -> `"a..b"@d`: the form RFC 5321 §4.1.2 has for a local part that is no Dot-string; others stay as they are."""
    local_part, at, domain = mailbox.rpartition("@")
    if not at or local_part.startswith('"') or _DOT_STRING.fullmatch(local_part.encode("utf-8")):
        return mailbox
    return f'"{local_part}"@{domain}'


def is_domain(octets: bytes) -> bool:
    """Domain = sub-domain *("." sub-domain); UTF-8 labels pass, their meaning is IDNA's business."""
    return len(octets) <= DOMAIN_MAX and all(len(label) <= LABEL_MAX and _LABEL.fullmatch(label) for label in octets.split(b"."))


def _check_domain(octets: bytes) -> None:
    if not is_domain(octets):
        raise PathError("not a domain")


def _check_literal(text: str) -> None:
    """address-literal; a General-address-literal is refused, since no tag but IPv6 was ever registered."""
    tag, colon, address = text.partition(":")
    try:
        if colon and tag.lower() == "ipv6" and "%" not in address:
            ipaddress.IPv6Address(address)
        else:
            ipaddress.IPv4Address(text)
    except ValueError as error:
        raise PathError("not an address literal") from error


def _decode(octets: bytes, smtputf8: bool) -> str:
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PathError("not UTF-8") from error
    if _CONTROL.search(text):
        raise PathError("control character in address")
    if not smtputf8 and not text.isascii():
        raise NonAsciiPath("non-ASCII address without SMTPUTF8")
    return text
