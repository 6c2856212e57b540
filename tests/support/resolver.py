"""A resolver that answers from a dict: no sockets, no waiting."""

from collections.abc import Iterable, Mapping

from fumibako.net.endpoint import Endpoint
from fumibako.net.resolver import Answer, Resolver, ResolverFailure
from fumibako.proto.dns.records import InvalidDomain, Mx, Rcode, Rdata, ascii_domain
from tests.support.clock import FakeClock

SERVER = "192.0.2.53:53"
TIMEOUT = "timeout"


class FakeResolver(Resolver):
    """Made from {("example.jp", "MX"): [Mx(10, "mail.example.jp")], ("slow.example", "A"): TIMEOUT, ...}.

    A CNAME entry is followed. A name with records of other types only has no such record (NODATA); a name that is
    nowhere does not exist (NXDOMAIN). `asked` lists every question in order. `authenticated` holds for all answers.
    """

    def __init__(self, records: Mapping[tuple[str, str], Iterable[Rdata] | str] | None = None, authenticated: bool = False):
        super().__init__(FakeClock(), [Endpoint("192.0.2.53", 53)])
        self.records = dict(records or {})
        self.authenticated = authenticated
        self.asked: list[tuple[str, str]] = []

    async def resolve(self, name: str, rrtype: str) -> Answer:
        self.asked.append((name, rrtype))
        try:
            name = canonical = ascii_domain(name)
        except InvalidDomain:
            return Answer(name, rrtype, Rcode.NXDOMAIN, (), 0, "", False, name)
        for _ in range(10):
            alias = self.records.get((canonical, "CNAME"))
            if alias is None or rrtype == "CNAME":
                break
            canonical = next(iter(alias))
        found = self.records.get((canonical, rrtype), ())
        if found == TIMEOUT:
            raise ResolverFailure(name, rrtype, (SERVER,), f"{SERVER} did not answer within 5 s")
        exists = any(owner == canonical or owner.endswith("." + canonical) for owner, _ in self.records)
        rcode = Rcode.NOERROR if exists else Rcode.NXDOMAIN
        return Answer(name, rrtype, rcode, tuple(found), 300, SERVER, self.authenticated, canonical)


def zone_of(domain: str, host: str, address: str) -> dict[tuple[str, str], list[Rdata]]:
    """The records of a domain with one mail host."""
    rrtype = "AAAA" if ":" in address else "A"
    return {(domain, "MX"): [Mx(10, host)], (host, rrtype): [address]}
