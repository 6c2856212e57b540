"""Compares the DNS as the world sees it with what it should be, record by record.

Specification: RFC 1034 §3.6 (an RRset is compared whole); RFC 7208 §3.2 (other TXT records may stand beside ours);
    reverse DNS is looked at too, because many servers refuse mail from an address without it.
Contract: asks the configured resolver only. "unknown" is said where nobody could tell; it is not a failure of the record.
Failure: NotHosted; a resolver that does not answer is a row, not an exception.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fumibako.net.resolver import Resolver, ResolverFailure
from fumibako.proto.dns.records import Mx, Rdata, Srv, reverse_domain
from fumibako.services.texts import _
from fumibako.services.zones import Explained, Zones


@dataclass(frozen=True, slots=True)
class Surveyed:
    """result: "pass", "fail", "unknown". why: what the record is for, or the next step, in the language in use."""

    owner: str
    rrtype: str
    expected: tuple[str, ...]
    seen: tuple[str, ...]
    result: str
    why: str


class Survey:
    """hostname, addresses: this server's, for the reverse DNS."""

    def __init__(self, zones: Zones, resolver: Resolver, hostname: str, addresses: tuple[str, ...]) -> None:
        self._zones, self._resolver, self._hostname, self._addresses = zones, resolver, hostname, addresses

    async def look(self, domain: str) -> list[Surveyed]:
        """Every RRset of the domain's zone, then the reverse DNS of the server."""
        rows = [await self._rrset(*one) for one in _rrsets(await self._zones.records(domain))]
        return rows + [await self._reverse(address) for address in self._addresses]

    async def _rrset(self, owner: str, rrtype: str, expected: tuple[str, ...], why: str) -> Surveyed:
        try:
            answer = await self._resolver.resolve(owner, rrtype)
        except ResolverFailure as failure:
            return Surveyed(owner, rrtype, expected, (), "unknown", failure.reason)
        seen = tuple(sorted(_shown(rdata) for rdata in answer.rdatas))
        if _agree(rrtype, expected, seen):
            return Surveyed(owner, rrtype, expected, seen, "pass", why)
        if not seen:
            return Surveyed(owner, rrtype, expected, seen, "fail", _("publish this record where the domain's DNS is managed"))
        step = _("change this record where the domain's DNS is managed; it takes effect within {ttl_s} s", ttl_s=answer.ttl_s)
        return Surveyed(owner, rrtype, expected, seen, "fail", step)

    async def _reverse(self, address: str) -> Surveyed:
        owner, expected = reverse_domain(address), (self._hostname,)
        try:
            answer = await self._resolver.resolve(owner, "PTR")
        except ResolverFailure as failure:
            return Surveyed(owner, "PTR", expected, (), "unknown", failure.reason)
        seen = tuple(sorted(_shown(rdata) for rdata in answer.rdatas))
        if self._hostname in seen:
            return Surveyed(owner, "PTR", expected, seen, "pass", _("reverse DNS of the server"))
        return Surveyed(owner, "PTR", expected, seen, "fail", _("ask the provider of the address to set its reverse DNS"))


def _rrsets(explained: Iterable[Explained]) -> list[tuple[str, str, tuple[str, ...], str]]:
    """(owner, type, data, why) of each RRset in the order of its first record."""
    sets: dict[tuple[str, str], list[str]] = {}
    reasons: dict[tuple[str, str], str] = {}
    for one in explained:
        key = one.record.owner, one.record.rrtype
        sets.setdefault(key, []).append(_plain(one.record.rrtype, one.record.data))
        reasons.setdefault(key, one.why)
    return [(owner, rrtype, tuple(sorted(data)), reasons[owner, rrtype]) for (owner, rrtype), data in sets.items()]


def _agree(rrtype: str, expected: tuple[str, ...], seen: tuple[str, ...]) -> bool:
    if rrtype == "SOA":     # its numbers are the other server's own affair
        return bool(seen)
    if rrtype == "TXT":
        return set(expected) <= set(seen)
    return expected == seen


def _plain(rrtype: str, data: str) -> str:
    """Record data in the form of `_shown`: without quotes, final dots and capitals."""
    if rrtype == "TXT":
        return data.strip('"').replace('" "', "")
    words = [word.rstrip(".") or "." for word in data.lower().split()]
    return " ".join(words)


def _shown(rdata: Rdata) -> str:
    match rdata:
        case Mx(preference, exchange):
            return f"{preference} {exchange}".lower()
        case Srv(priority, weight, port, target):
            return f"{priority} {weight} {port} {target}".lower()
        case bytes():
            return rdata.hex()
        case str():
            return rdata
        case _:
            return str(rdata).lower()
