"""A zone as a value: its records by owner and type, checked once.

Specification: RFC 1034 §4.2 and §3.6.2; RFC 2181 §5.2 (one TTL an rrset), §10.1 (CNAME stands alone); RFC 2308 §3.
Contract: every name between the origin and an owner is a node, so that an empty non-terminal is found by a look-up.
Failure: `ZoneError` names the owner and what is wrong.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.SOA
import dns.rrset
from dns.name import Name
from dns.rdataclass import IN
from dns.rdatatype import CNAME, NS, SOA, RdataType
from dns.rrset import RRset

from fumibako.proto.dns.records import Record

Node = Mapping[RdataType, RRset]


class ZoneError(ValueError):
    """Records that do not make a zone."""


@dataclass(frozen=True, slots=True)
class Zone:
    """nodes: owner -> type -> rrset; negative_soa: the SOA for negative answers, with the TTL these have."""

    origin: Name
    nodes: Mapping[Name, Node]
    negative_soa: RRset

    def rrset(self, owner: Name, rrtype: RdataType) -> RRset | None:
        """The records of one owner and type, whether authoritative or glue."""
        node = self.nodes.get(owner)
        return node.get(rrtype) if node else None


def make_zone(origin: str, records: Iterable[Record]) -> Zone:
    """Checks the records and puts them in order. Raises ZoneError."""
    apex = _name(origin)
    nodes: dict[Name, dict[RdataType, RRset]] = {apex: {}}
    for record in records:
        owner = _name(record.owner)
        if not owner.is_subdomain(apex):
            raise ZoneError(f"{record.owner} does not lie in {origin}")
        _add(_node(nodes, owner, apex), owner, record)
    _check(nodes, apex)
    return Zone(apex, nodes, _negative_soa(nodes[apex][SOA]))


def _name(domain: str) -> Name:
    try:
        return dns.name.from_text(domain, dns.name.root)
    except (dns.exception.DNSException, UnicodeError) as error:
        raise ZoneError(f"{domain!r} is not a domain name: {error}") from error


def _node(nodes: dict[Name, dict[RdataType, RRset]], owner: Name, apex: Name) -> dict[RdataType, RRset]:
    """The node of an owner; makes it and the empty ones above it."""
    above = owner
    while above != apex:
        nodes.setdefault(above, {})
        above = above.parent()
    return nodes[owner]


def _add(node: dict[RdataType, RRset], owner: Name, record: Record) -> None:
    try:
        rrtype = dns.rdatatype.from_text(record.rrtype)
        rdata = dns.rdata.from_text(IN, rrtype, record.data, origin=dns.name.root, relativize=False)
    except (dns.exception.DNSException, ValueError) as error:
        raise ZoneError(f"{record.owner} {record.rrtype} {record.data}: {error}") from error
    rrset = node.setdefault(rrtype, RRset(owner, IN, rrtype))
    if rrtype in {SOA, CNAME} and len(rrset) and rdata not in rrset:    # the codec would keep the last in silence
        raise ZoneError(f"{record.owner} has more than one {record.rrtype} record")
    rrset.add(rdata, record.ttl_s)      # the lowest TTL holds for all (RFC 2181 §5.2)


def _check(nodes: Mapping[Name, Node], apex: Name) -> None:
    if len(nodes[apex].get(SOA, ())) != 1:
        raise ZoneError(f"{apex} needs exactly one SOA record (RFC 1035 §5.2)")
    if NS not in nodes[apex]:
        raise ZoneError(f"{apex} needs an NS record")
    for owner, node in nodes.items():
        if owner != apex and SOA in node:
            raise ZoneError(f"{owner} has an SOA record but is not the top of the zone")
        if CNAME in node and len(node) > 1:
            raise ZoneError(f"{owner} has a CNAME beside other records (RFC 2181 §10.1)")


def _negative_soa(soa: RRset) -> RRset:
    """The SOA that tells how long "there is none" holds: the lower of its own TTL and its minimum field (RFC 2308 §3)."""
    rdata = soa[0]
    if not isinstance(rdata, dns.rdtypes.ANY.SOA.SOA):
        raise ZoneError("the SOA record is not readable")
    negative = RRset(soa.name, IN, SOA)
    negative.add(rdata, min(soa.ttl, rdata.minimum))
    return negative
