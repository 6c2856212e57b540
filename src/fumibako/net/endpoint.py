"""An IP address and port as a value, and the text forms people write.

Specification: RFC 3986 §3.2.2 (brackets around IPv6).
Contract: addresses are literals in their shortest form; an IPv4-mapped IPv6 address is its IPv4 address; no name is looked up.
Failure: `ValueError` that quotes the text.
"""

import ipaddress
import os
from dataclasses import dataclass
from functools import cache, lru_cache

from fumibako.proto.reader import ProtocolError, parse_uint

SUN_PATH_OCTETS = 107


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a connection. host: an IP address, or the path of a Unix socket (then port is 0)."""

    host: str
    port: int

    def __str__(self) -> str:
        if not self.port and "/" in self.host:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@lru_cache(maxsize=4096)        # asked three times a connection, mostly about the same peers
def plain_address(host: str) -> str:
    """The address without IPv6 scope or IPv4 mapping: `::ffff:192.0.2.1` -> `192.0.2.1`. Raises ValueError on a name."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def parse_port(text: str) -> int:
    """A port in decimal, 0..65535; ValueError quotes the text."""
    try:
        port = parse_uint(text.encode(), 5)
    except ProtocolError:
        port = -1
    if not 0 <= port <= 65535:
        raise ValueError(f"{text!r} is not a port (0 to 65535)")
    return port


def parse_endpoint(text: str, default_port: int | None = None) -> Endpoint:
    """`192.0.2.1:53`, `[2001:db8::1]:53`; without a port only where a default is given."""
    host, colon, port = text.rpartition(":")
    if default_port is not None and (not colon or (text.count(":") > 1 and not host.endswith("]"))):
        host, port = text, str(default_port)
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return Endpoint(plain_address(bare), parse_port(port))
    except ValueError as error:
        raise ValueError(f"{text!r} is not an IP address and port like 192.0.2.1:53 or [2001:db8::1]:53") from error


def endpoint_of(sockname: object) -> Endpoint:
    """What getsockname() or getpeername() gave, of any family, as a value."""
    if isinstance(sockname, tuple):
        return Endpoint(plain_address(str(sockname[0])), int(sockname[1]))
    return Endpoint(sockname if isinstance(sockname, str) else "", 0)


@cache
def unix_path(path: str) -> str:
    """A name for a Unix socket that fits into the 107 octets of sun_path (unix(7)): the path itself, or one through /proc.

    The directory that such a name goes through stays open, so the name is good for this process only.
    """
    if len(os.fsencode(path)) <= SUN_PATH_OCTETS:
        return path
    directory, name = os.path.split(path)
    return f"/proc/self/fd/{os.open(directory or '.', os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)}/{name}"
