"""Where mail for a domain goes, and the connection to get there.

Specification: RFC 5321 §5.1 and §5.2; RFC 7505 §3 and §4.1 (null MX); RFC 2181 §10.3.
Contract: hosts come most preferred first, shuffled within a preference; the caller tries them in order, next host on
    failure. Records at or behind a name or address of our own are dropped (RFC 5321 §5.1), so mail never circles.
    `dial` takes an address, never a name: what was looked up is what is connected to.
Failure: `mx_hosts` returns one of `Route`'s variants and raises nothing; `dial` raises `DialFailure`.
"""

import asyncio
import ipaddress
import itertools
import os
from dataclasses import dataclass

from fumibako.net.clock import Clock
from fumibako.net.endpoint import Endpoint, plain_address
from fumibako.net.resolver import Resolver, ResolverFailure
from fumibako.net.stream import Stream, open_stream
from fumibako.proto.dns.records import Mx, Rcode

MAX_HOSTS = 20          # a domain with more is served by its best ones
MAX_ADDRESSES = 8       # of one host
NULL_EXCHANGE = "."


class DialFailure(OSError):
    """No connection; the text names the address and the reason."""


@dataclass(frozen=True, slots=True)
class Host:
    """One place to try. addresses: in the order to try them."""

    name: str
    preference: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """hosts: in the order to try them, never empty. implicit: the domain has no MX and is its own host."""

    hosts: tuple[Host, ...]
    implicit: bool = False
    authenticated: bool = False     # DNSSEC vouches for the MX records (a DANE prerequisite)


@dataclass(frozen=True, slots=True)
class NullMx:
    """The domain declares that it takes no mail: 556 5.1.10 (RFC 7505 §4.1)."""

    domain: str


@dataclass(frozen=True, slots=True)
class NoSuchDomain:
    """NXDOMAIN: 550 5.1.2."""

    domain: str


@dataclass(frozen=True, slots=True)
class NoUsableAddress:
    """The domain exists but names no host that can be reached: 550 5.4.4."""

    domain: str
    reason: str


@dataclass(frozen=True, slots=True)
class LoopsBack:
    """The best MX is this server, which does not host the domain: 554 5.4.6."""

    domain: str
    host: str


@dataclass(frozen=True, slots=True)
class TemporaryFailure:
    """DNS could not tell: 451 4.4.3, try later. reason names the servers asked and how long they had."""

    domain: str
    reason: str


Route = Found | NullMx | NoSuchDomain | NoUsableAddress | LoopsBack | TemporaryFailure


@dataclass(frozen=True, slots=True)
class OwnPlace:
    """What this server is known by, and whether it lives on loopback (tests). names in lower case."""

    names: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()
    on_loopback: bool = False

    def takes(self, address: str) -> bool:
        """Whether an address can be another mail server at all."""
        parsed = ipaddress.ip_address(plain_address(address))      # ::ffff:127.0.0.1 is 127.0.0.1
        if parsed.is_loopback:
            return self.on_loopback
        if parsed.version == 4 and parsed.is_reserved:      # of IPv6, NAT64's 64:ff9b::/96 counts as reserved too
            return False
        return not (parsed.is_unspecified or parsed.is_multicast or parsed.is_link_local)


async def mx_hosts(resolver: Resolver, domain: str, clock: Clock, own: OwnPlace | None = None) -> Route:
    """Finds the hosts that take mail for a domain, or for an address literal such as `[192.0.2.1]`."""
    own = own or OwnPlace()
    if domain.startswith("["):
        return _literal(domain, own)
    try:
        answer = await resolver.resolve(domain, "MX")
        if answer.rcode == Rcode.NXDOMAIN:
            return NoSuchDomain(domain)
        records = [rdata for rdata in answer.rdatas if isinstance(rdata, Mx)]
        if any(mx.exchange == NULL_EXCHANGE for mx in records) and len(records) == 1:
            return NullMx(domain)
        implicit = not records
        ordered = _ordered(records, clock) if records else [Mx(0, answer.canonical_name)]
        return await _reach(resolver, domain, ordered, own, Found((), implicit, answer.authenticated))
    except ResolverFailure as failure:
        return TemporaryFailure(domain, failure.reason)


def _literal(domain: str, own: OwnPlace) -> Route:
    """`[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3)."""
    text = domain[1:-1]
    try:
        address = plain_address(text[5:] if text[:5].lower() == "ipv6:" else text)
    except ValueError:
        return NoUsableAddress(domain, f"{domain} is not an IP address")
    if address in own.addresses:
        return LoopsBack(domain, address)
    if not domain.endswith("]") or not own.takes(address):
        return NoUsableAddress(domain, f"mail is not sent to {address}")
    return Found((Host(domain, 0, (address,)),), implicit=True)


def _ordered(records: list[Mx], clock: Clock) -> list[Mx]:
    """By preference, at random within one (RFC 5321 §5.1). A "." among others is no host (RFC 7505 §3)."""
    shuffled = clock.shuffle([mx for mx in records if mx.exchange != NULL_EXCHANGE])
    return sorted(shuffled, key=lambda mx: mx.preference)[:MAX_HOSTS]


async def _reach(resolver: Resolver, domain: str, records: list[Mx], own: OwnPlace, found: Found) -> Route:
    """Adds addresses, group by group of equal preference, until a group holds ourselves."""
    hosts: list[Host] = []
    reasons: list[str] = []
    temporary = False
    for preference, group in itertools.groupby(records, key=lambda mx: mx.preference):
        names = [mx.exchange for mx in group]
        async with asyncio.TaskGroup() as tasks:
            lookups = [tasks.create_task(_addresses(resolver, name)) for name in names]
        results = [lookup.result() for lookup in lookups]
        ours = _ourselves(names, results, own)
        if ours:
            if not hosts and not temporary:
                return LoopsBack(domain, ours)
            break
        for name, result in zip(names, results, strict=True):
            if isinstance(result, ResolverFailure):
                temporary = True
                reasons.append(result.reason)
                continue
            usable = tuple(address for address in result if own.takes(address))[:MAX_ADDRESSES]
            if usable:
                hosts.append(Host(name, preference, usable))
            else:
                reasons.append(f"{name} has " + (f"only {', '.join(result)}" if result else "no address"))
    if hosts:
        return Found(tuple(hosts), found.implicit, found.authenticated)
    reason = "; ".join(reasons) or "its MX record names no host"
    return TemporaryFailure(domain, reason) if temporary else NoUsableAddress(domain, reason)


async def _addresses(resolver: Resolver, name: str) -> tuple[str, ...] | ResolverFailure:
    try:
        return await resolver.resolve_addresses(name)
    except ResolverFailure as failure:
        return failure


def _ourselves(names: list[str], results: list[tuple[str, ...] | ResolverFailure], own: OwnPlace) -> str:
    """The first of the hosts that is this server, or ""; ::ffff:192.0.2.1 is 192.0.2.1."""
    for name, result in zip(names, results, strict=True):
        addresses = map(plain_address, result) if isinstance(result, tuple) else ()
        if name in own.names or not own.addresses.isdisjoint(addresses):
            return name
    return ""


async def dial(host_ip: str, port: int, timeout_s: float, source: str = "") -> Stream:
    """Connects to an address. source: the local IP address to come from, used where the family fits."""
    endpoint = Endpoint(plain_address(host_ip), port)
    same_family = bool(source) and (":" in source) == (":" in endpoint.host)
    try:
        return await open_stream(endpoint, timeout_s, source if same_family else "")
    except TimeoutError:
        raise DialFailure(f"{endpoint} did not answer within {timeout_s:g} s") from None
    except OSError as error:
        raise DialFailure(f"{endpoint}: {os.strerror(error.errno) if error.errno else error}") from error
