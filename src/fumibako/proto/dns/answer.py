"""What an authoritative server answers: the algorithm, and the answers kept as octets.

Specification: RFC 1034 §4.3.2 and §4.3.3; RFC 2308 §2; RFC 6604 §3; RFC 8482 §4.2; RFC 9471 §3.1; RFC 6891 §6.1.3.
Contract: never recurses; names outside the zones are REFUSED, and so are transfers (RFC 5936 §4 leaves that to us).
    The same question in the same words is answered from a bounded table of ready octets.
Failure: `respond` returns None where silence is right; a bug is an exception.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import dns.name
import dns.rdata
import dns.rdatatype
import dns.rrset
from dns.name import Name
from dns.rcode import Rcode
from dns.rdataclass import IN
from dns.rdatatype import AAAA, ANY, AXFR, CNAME, DS, HINFO, IXFR, MX, NS, SRV, A, RdataType
from dns.rrset import RRset

from fumibako.proto.dns.message import TCP_OCTETS, BadQuery, Query, Response, format_response, parse_query
from fumibako.proto.dns.zone import Node, Zone
from fumibako.proto.reader import ProtocolError

MAX_ALIASES = 10
CACHED_ANSWERS = 4096
CACHED_QUERY_OCTETS = 512
ANY_TTL_S = 3600

Zones = Mapping[Name, Zone]


@dataclass(slots=True)
class _Draft:
    """A response while it is being put together."""

    answer: list[RRset] = field(default_factory=list)

    def found(self, rrsets: Iterable[RRset], zones: Zones) -> Response:
        self.answer += rrsets
        return Response(Rcode.NOERROR, True, self.answer, (), _addresses_beside(self.answer, zones))

    def none(self, zone: Zone, rcode: Rcode) -> Response:
        """No such name (NXDOMAIN) or no such type (NOERROR): the SOA says for how long (RFC 2308 §2)."""
        return Response(rcode, True, self.answer, [zone.negative_soa])

    def referral(self, zone: Zone, delegation: RRset) -> Response:
        glue = [rrset for target in _targets(delegation) for rrset in _addresses(zone, target)]
        return Response(Rcode.NOERROR, bool(self.answer), self.answer, [delegation], glue, glue_required=True)


def answer(zones: Zones, query: Query) -> Response:
    """RFC 1034 §4.3.2, steps 2, 3 and 6; aliases are followed through all our zones, at most ten."""
    zone = _zone_of(zones, query.name, query.rrtype)
    if zone is None or query.rrclass != IN or query.rrtype in {AXFR, IXFR}:
        return Response(Rcode.REFUSED)
    draft, name = _Draft(), query.name
    for _ in range(MAX_ALIASES + 1):
        if (delegation := _cut(zone, name, query.rrtype)) is not None:
            return draft.referral(zone, delegation)
        node = _node(zone, name)
        if node is None:
            return draft.none(zone, Rcode.NXDOMAIN)     # of the last name of a chain (RFC 6604 §3)
        alias = node.get(CNAME)
        if alias is None or query.rrtype in {CNAME, ANY}:
            rrset = _any(node, name) if query.rrtype == ANY else node.get(query.rrtype)
            return draft.none(zone, Rcode.NOERROR) if rrset is None else draft.found([_owned(rrset, name)], zones)
        draft.answer.append(_owned(alias, name))
        name = alias[0].target
        next_zone = _zone_of(zones, name, query.rrtype)
        if next_zone is None:       # leads out of our zones: the asker goes on from here
            return draft.found([], zones)
        zone = next_zone
    return Response(Rcode.SERVFAIL)     # a ring or an overlong chain


def _zone_of(zones: Zones, name: Name, rrtype: RdataType) -> Zone | None:
    """The nearest zone above a name (step 2). A DS record belongs to the parent's side of a cut (RFC 4035 §3.1.4.1)."""
    if rrtype == DS and name in zones and name != dns.name.root:
        above = _zone_of(zones, name.parent(), A)
        if above is not None:
            return above
    while name not in zones:
        if name == dns.name.root:
            return None
        name = name.parent()
    return zones[name]


def _cut(zone: Zone, name: Name, rrtype: RdataType) -> RRset | None:
    """The delegation between the origin and a name, if there is one (step 3b)."""
    depth = len(zone.origin.labels)
    for count in range(depth + 1, len(name.labels) + 1):
        above = Name(name.labels[-count:])
        delegation = zone.rrset(above, NS)
        if delegation is not None and not (above == name and rrtype == DS):
            return delegation
    return None


def _node(zone: Zone, name: Name) -> Node | None:
    """The node of a name, or the wildcard at its closest encloser (step 3c, RFC 1034 §4.3.3)."""
    node = zone.nodes.get(name)
    if node is not None:
        return node
    encloser = name.parent()
    while encloser not in zone.nodes:
        encloser = encloser.parent()
    return zone.nodes.get(Name((b"*", *encloser.labels)))


def _owned(rrset: RRset, owner: Name) -> RRset:
    """The records under the name that was asked, which differs where they come from a wildcard."""
    if rrset.name == owner:
        return rrset
    return dns.rrset.from_rdata_list(owner, rrset.ttl, list(rrset))


def _any(node: Node, name: Name) -> RRset | None:
    """One small rrset instead of everything (RFC 8482 §4.2): no use for amplification."""
    if not node:
        return None
    if CNAME in node:
        return node[CNAME]
    rrset = RRset(name, IN, HINFO)
    rrset.add(dns.rdata.from_text(IN, HINFO, '"RFC8482" ""'), ANY_TTL_S)
    return rrset


def _targets(rrset: RRset) -> list[Name]:
    """The hosts that records of a type point to."""
    if rrset.rdtype == MX:
        return [rdata.exchange for rdata in rrset]
    if rrset.rdtype in {NS, SRV}:
        return [rdata.target for rdata in rrset]
    return []


def _addresses(zone: Zone, host: Name) -> list[RRset]:
    found = (zone.rrset(host, A), zone.rrset(host, AAAA))
    return [rrset for rrset in found if rrset is not None]


def _addresses_beside(answers: Iterable[RRset], zones: Zones) -> list[RRset]:
    """Addresses the asker will want next (step 6; RFC 1035 §3.3.9 for MX)."""
    hosts = dict.fromkeys(host for rrset in answers for host in _targets(rrset))
    found: list[RRset] = []
    for host in hosts:
        zone = _zone_of(zones, host, A)
        if zone is not None and _cut(zone, host, A) is None:
            found += _addresses(zone, host)
    return found


class Answerer:
    """Answers wire queries from a fixed set of zones; make a new one when a zone changes."""

    def __init__(self, zones: Iterable[Zone]) -> None:
        self._zones: Zones = {zone.origin: zone for zone in zones}
        self._ready: OrderedDict[bytes, bytes] = OrderedDict()

    def respond(self, wire: bytes, *, udp: bool) -> bytes | None:
        """The response to a query, or None for octets that deserve none."""
        if not udp:
            return self._make(wire, udp)
        key = wire[2:]      # all but the query's id
        if (ready := self._ready.get(key)) is not None:
            self._ready.move_to_end(key)
            return wire[:2] + ready
        response = self._make(wire, udp)
        if response is not None and len(wire) <= CACHED_QUERY_OCTETS:
            self._ready[key] = response[2:]
            if len(self._ready) > CACHED_ANSWERS:
                self._ready.popitem(last=False)
        return response

    def _make(self, wire: bytes, udp: bool) -> bytes | None:
        try:
            query = parse_query(wire)
        except BadQuery as error:
            return error.response
        except ProtocolError:
            return None
        if query.edns_version:      # anything above 0 (RFC 6891 §6.1.3)
            response = Response(Rcode.BADVERS)
        else:
            response = answer(self._zones, query)
        return format_response(query, response, query.payload_octets if udp else TCP_OCTETS)
