"""Domain names and resource records as values of their own, free of the codec.

Specification: RFC 1035 §2.3.4 (sizes) and §5.1 (text form); RFC 5890 (A-labels and U-labels); RFC 3597 §5 (unknown types).
Contract: a domain is a str of A-labels in lower case without the final dot; the root is ".".
Failure: `InvalidDomain` (a ValueError) names the text that cannot be a domain.
"""

import ipaddress
from dataclasses import dataclass

import dns.rcode
import idna

MAX_LABEL_OCTETS = 63
MAX_NAME_OCTETS = 253       # as text without the final dot: 255 on the wire
MAX_TEXT_CHARACTERS = 1000  # of a name that still has to be converted
ROOT = "."

Rcode = dns.rcode.Rcode      # the codec's enumeration is ours too: NOERROR, NXDOMAIN, SERVFAIL ...


class InvalidDomain(ValueError):
    """Text that cannot be a domain name."""


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record. owner: a domain; data: the text form of RFC 1035 §5.1 with absolute names."""

    owner: str
    ttl_s: int
    rrtype: str
    data: str


@dataclass(frozen=True, slots=True)
class Mx:
    """Mail exchanger; exchange "." is a null MX (RFC 7505 §3)."""

    preference: int
    exchange: str


@dataclass(frozen=True, slots=True)
class Srv:
    """Location of a service (RFC 2782); target ".": decidedly not available."""

    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class Tlsa:
    """Certificate association (RFC 6698 §2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes


# A, AAAA: address; NS, CNAME, PTR: domain; SOA: text; TXT: its strings joined; other types: the rdata as on the wire.
Rdata = str | bytes | Mx | Srv | Tlsa


def ascii_domain(domain: str) -> str:
    """The A-label form: `例え.JP.` -> `xn--r8jz45g.jp`. Underscores pass (`_dmarc`). Raises InvalidDomain."""
    if domain == ROOT:
        return ROOT
    text = domain[:-1] if domain.endswith((".", "。")) else domain
    if not text or len(text) > MAX_TEXT_CHARACTERS:
        raise InvalidDomain(f"{domain[:80]!r} is not a domain name")
    labels = [_ascii_label(label, domain) for label in text.replace("。", ".").split(".")]
    name = ".".join(labels)
    if len(name) > MAX_NAME_OCTETS:
        raise InvalidDomain(f"{domain[:80]!r} is longer than {MAX_NAME_OCTETS} characters")
    return name


def _ascii_label(label: str, domain: str) -> str:
    if not label.isascii():
        try:
            label = idna.alabel(idna.uts46_remap(label, std3_rules=True)).decode("ascii")
        except UnicodeError as error:       # idna.IDNAError is one
            raise InvalidDomain(f"{domain!r}: {error}") from error
    if not 0 < len(label) <= MAX_LABEL_OCTETS or not all("!" <= character <= "~" for character in label):
        raise InvalidDomain(f"{domain[:80]!r} has a part that is empty, too long or not printable")
    return label.lower()


def parent_domain(domain: str) -> str:
    """`mail.example.jp` -> `example.jp`; the parent of a top-level domain is the root."""
    return domain.partition(".")[2] or ROOT


def is_within(domain: str, ancestor: str) -> bool:
    """Whether a domain is the ancestor itself or lies below it."""
    return ancestor in {domain, ROOT} or domain.endswith("." + ancestor)


def reverse_domain(address: str) -> str:
    """The name whose PTR record names an IP address (RFC 1035 §3.5): `192.0.2.1` -> `1.2.0.192.in-addr.arpa`."""
    return ipaddress.ip_address(address).reverse_pointer


def format_txt(text: str) -> str:
    """The data of a TXT record: `"v=spf1 mx -all"`, cut into strings of 255 octets (RFC 1035 §3.3.14, RFC 7208 §3.3)."""
    octets = text.encode()
    pieces = [octets[start : start + 255] for start in range(0, len(octets), 255)] or [b""]
    return " ".join(f'"{_escaped(piece)}"' for piece in pieces)


def _escaped(octets: bytes) -> str:
    r"""`\"`, `\\` and `\DDD` (RFC 1035 §5.1)."""
    quoted = (chr(octet) if 32 <= octet < 127 else f"\\{octet:03}" for octet in octets)
    return "".join("\\" + character if character in '"\\' else character for character in quoted)
