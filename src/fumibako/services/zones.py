"""The DNS zones of the hosted domains: what is published, why, and the text of it.

Specification: RFC 1034 §4.2 (zones); RFC 5321 §5.1 (MX); RFC 7208 §2.3 and §3 (SPF); RFC 6186 §3, RFC 8314 §5.1 and
    RFC 2782 (services; "." says: not offered); RFC 1982 §7 (serial).
Contract: every hosted domain has a zone; it names only listeners that are on. Records the administrator or another
    service adds take the place of ours with the same owner and type; a change of theirs counts once it has raised the
    domain's modseq. The serial is that modseq, so it rises with every change in the directory; what the server itself puts
    into all zones is announced there before it is published, so that it rises with that, too. An answer knows of every
    change that was committed before its query came. A domain whose records make no zone keeps its last good zone.
Failure: `NotHosted`; the rest is logged and the zones stay as they are.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol

from fumibako.model.account import Domain
from fumibako.model.ids import DomainId
from fumibako.model.ops import Publish
from fumibako.proto.dns.answer import Answerer
from fumibako.proto.dns.records import Record, ascii_domain, format_txt, is_within
from fumibako.proto.dns.zone import Zone, ZoneError, make_zone
from fumibako.services.following import Following
from fumibako.services.texts import _
from fumibako.store.base import StoreRefused

TTL_S = 3600
NEGATIVE_TTL_S = 300        # a forgotten record is found soon after it is added
# Lower is better, implicit TLS before STARTTLS, IMAP before POP3 (RFC 6186 §3.4, RFC 8314 §3).
SERVICES = (
    ("submissions", 0), ("submission", 10),
    ("imaps", 0), ("imap", 10), ("pop3s", 20), ("pop3", 30),
)

FurtherRecords = Callable[[str], Awaitable[Sequence[Record]]]     # domain -> DKIM keys, a web host, ...

log = logging.getLogger("fumibako.zones")


class Hosting(Protocol):
    """What is needed of the directory (see store.base)."""

    def directory_version(self) -> int: ...
    async def domains(self) -> list[Domain]: ...
    async def commit(self, operation: Publish) -> object: ...


class NotHosted(LookupError):
    """The domain is none of ours."""


@dataclass(frozen=True, slots=True)
class Listening:
    """A listener that is on and reachable from outside: its name in [listen] and its port."""

    name: str
    port: int


@dataclass(frozen=True, slots=True)
class ZoneFacts:
    """What the zones say about this server. addresses: IPv4 and IPv6, as others reach it; smarthost: a name or ""."""

    hostname: str
    addresses: tuple[str, ...]
    listening: tuple[Listening, ...]
    smarthost: str = ""

    def port(self, name: str) -> int | None:
        """The port of a listener, None where it is off."""
        return next((listener.port for listener in self.listening if listener.name == name), None)


@dataclass(frozen=True, slots=True)
class Explained:
    """A record and, in the language in use, what it is for."""

    record: Record
    why: str


@dataclass(frozen=True, slots=True)
class _Made:
    """A zone and what it was made from. children: hosted domains below it; zone: None where the records make none."""

    modseq: int
    children: tuple[str, ...]
    facts: ZoneFacts
    zone: Zone | None


class Zones:
    """All zones of this server."""

    def __init__(self, facts: ZoneFacts, directory: Hosting, further: FurtherRecords | None = None) -> None:
        self._facts, self._directory, self._further = facts, directory, further
        self._made: dict[str, _Made] = {}
        self._announced: ZoneFacts | None = None
        self._answers = Following("the zones", directory.directory_version, self._newest, Answerer(()))

    def current(self) -> Answerer | Awaitable[Answerer]:
        """Answers of what the directory says now: at hand where nothing changed, else to be waited for."""
        return self._answers.current()

    def change(self, facts: ZoneFacts) -> None:
        """The next answer is made of these."""
        if facts != self._facts:
            self._facts = facts
            self._answers.outdate()

    async def refresh(self) -> Answerer:
        """`current`, made now at the latest."""
        return await self._answers.refresh()

    async def _newest(self) -> Answerer:
        """Zones are made anew where the domain or a cut below it changed; with none of them the ready answers stay, too."""
        await self._announce()
        domains = await self._directory.domains()
        below = _below([domain.name for domain in domains])
        made: dict[str, _Made] = {}
        for domain in domains:
            old, source = self._made.get(domain.name), (domain.modseq, below[domain.name], self._facts)
            if old is None or (old.modseq, old.children, old.facts) != source:
                old = _Made(*source, await self._zone(domain, below[domain.name], old.zone if old else None))
                await asyncio.sleep(0)      # many zones must not hold the loop
            made[domain.name] = old
        if made == self._made:
            return self._answers.value
        self._made = made
        return Answerer(one.zone for one in made.values() if one.zone is not None)

    async def _announce(self) -> None:
        """Serials rise before what the server says of itself is another, also where it changed while nothing ran."""
        facts = self._facts
        if facts == self._announced:
            return
        try:
            await self._directory.commit(Publish(_digest(facts)))
        except StoreRefused as refused:     # a full disk: published all the same, announced the next time
            log.warning("the serials of the zones could not rise: %s", refused)
        else:
            self._announced = facts

    async def _zone(self, domain: Domain, children: Sequence[str], last: Zone | None) -> Zone | None:
        explained = await self._explained(domain, children)
        try:
            return make_zone(domain.name, [one.record for one in explained])
        except ZoneError as error:
            log.error("the zone of %s stays as it was: %s", domain.name, error)
            return last

    async def records(self, domain: str) -> list[Explained]:
        """What is published for a domain, in the order to read it. Raises NotHosted."""
        name, domains = ascii_domain(domain), await self._directory.domains()
        for hosted in domains:
            if hosted.name == name:
                return await self._explained(hosted, _below([one.name for one in domains])[name])
        raise NotHosted(domain)

    async def zone_text(self, domain: str) -> str:
        """The zone as a master file (RFC 1035 §5.1), to be pasted or loaded elsewhere. Raises NotHosted."""
        return zone_text(await self.records(domain))

    async def _explained(self, domain: Domain, children: Sequence[str]) -> list[Explained]:
        own = zone_records(self._facts, domain, children)
        further = await self._further(domain.name) if self._further else ()
        return _with_further(own, further)


def _digest(facts: ZoneFacts) -> int:
    """48 bits of what a zone says by itself, whichever domain it is of: our name's own, the one above, any other."""
    names = (facts.hostname, facts.hostname.partition(".")[2] or "invalid", "elsewhere.invalid")
    records = [one.record for name in names for one in zone_records(facts, Domain(DomainId(0), name, 0), (f"child.{name}",))]
    return int.from_bytes(hashlib.blake2b(repr(records).encode(), digest_size=6).digest(), "big")


def _below(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Each hosted domain and the hosted domains below it."""
    below: dict[str, list[str]] = {name: [] for name in names}
    for name in names:
        above = name
        while above := above.partition(".")[2]:
            if above in below:
                below[above].append(name)
    return {name: tuple(children) for name, children in below.items()}


def zone_text(explained: Iterable[Explained]) -> str:
    """A master file: each record after a comment line that says what it is for."""
    lines: list[str] = []
    for one in explained:
        comment = f"; {one.why}"
        if comment not in lines[-2:]:
            lines.append(comment)
        record = one.record
        lines.append(f"{record.owner}. {record.ttl_s} IN {record.rrtype} {record.data}")
    return "\n".join(lines) + "\n"


def zone_records(facts: ZoneFacts, domain: Domain, children: Sequence[str] = ()) -> list[Explained]:
    """Our own records of one domain. children: hosted domains below it, which have zones of their own."""
    return [
        *_authority(facts, domain, children),
        *_mail(facts, domain.name),
        *_host(facts, domain.name, children),
        *_services(facts, domain.name),
    ]


def _authority(facts: ZoneFacts, domain: Domain, children: Sequence[str]) -> Iterator[Explained]:
    serial = domain.modseq % 2**32 or 1
    soa = f"{facts.hostname}. hostmaster.{domain.name}. {serial} 3600 900 1209600 {NEGATIVE_TTL_S}"
    yield Explained(Record(domain.name, TTL_S, "SOA", soa), _("start of the zone: its server, its contact, its serial number"))
    yield Explained(Record(domain.name, TTL_S, "NS", f"{facts.hostname}."), _("the name server of the domain"))
    for child in children:
        if not any(is_within(child, other) for other in children if other != child):    # the topmost cuts only
            why = _("{domain} is a zone of its own", domain=child)
            yield Explained(Record(child, TTL_S, "NS", f"{facts.hostname}."), why)


def _mail(facts: ZoneFacts, domain: str) -> Iterator[Explained]:
    if facts.port("smtp") is not None:
        yield Explained(Record(domain, TTL_S, "MX", f"10 {facts.hostname}."), _("mail for the domain goes to this server"))
    if facts.smarthost:
        # What a smarthost sends from is its own affair: soft, until its include: is published.
        why = _("mail from the domain comes from this server or its smarthost (SPF); better: the include: your provider names")
        yield Explained(Record(domain, TTL_S, "TXT", format_txt(f"v=spf1 mx a:{facts.smarthost} ~all")), why)
    elif facts.port("smtp") is not None:
        why = _("mail from the domain comes from this server only (SPF)")
        yield Explained(Record(domain, TTL_S, "TXT", format_txt("v=spf1 mx -all")), why)
    else:
        why = _("mail from the domain comes from this server only (SPF)")
        yield Explained(Record(domain, TTL_S, "TXT", format_txt(f"v=spf1 a:{facts.hostname} -all")), why)


def _host(facts: ZoneFacts, domain: str, children: Sequence[str]) -> Iterator[Explained]:
    """The server's own name, where it lies in the domain; below a child's cut the addresses are its glue."""
    if not is_within(facts.hostname, domain):
        return
    for address in facts.addresses:
        rrtype = "A" if ip_address(address).version == 4 else "AAAA"
        yield Explained(Record(facts.hostname, TTL_S, rrtype, address), _("the address of this server"))
    if facts.hostname != domain and not any(is_within(facts.hostname, child) for child in children):
        why = _("this server's own name in EHLO is genuine (SPF, RFC 7208 §2.3)")
        yield Explained(Record(facts.hostname, TTL_S, "TXT", format_txt("v=spf1 a -all")), why)


def _services(facts: ZoneFacts, domain: str) -> Iterator[Explained]:
    for name, priority in SERVICES:
        port = facts.port(name)
        owner = f"_{name}._tcp.{domain}"
        if port is None:
            yield Explained(Record(owner, TTL_S, "SRV", "0 0 0 ."), _("mail programs learn that this service is not offered"))
        else:
            data = f"{priority} 1 {port} {facts.hostname}."
            yield Explained(Record(owner, TTL_S, "SRV", data), _("mail programs find their server by themselves"))


def _with_further(own: list[Explained], further: Sequence[Record]) -> list[Explained]:
    """Theirs beside ours, in place of ours where owner and type are the same; two SPF records would be an error."""
    replaced = {_place(record) for record in further}
    kept = [one for one in own if _place(one.record) not in replaced or one.record.rrtype in {"SOA", "NS"}]
    return kept + [Explained(record, _("added by the administrator or by another part of the server")) for record in further]


def _place(record: Record) -> tuple[str, str, bool]:
    """What a record would collide with. TXT records live side by side, except those of SPF (RFC 7208 §3.2)."""
    is_spf = record.rrtype == "TXT" and record.data.lower().lstrip('"').startswith("v=spf1")
    kind = record.rrtype if record.rrtype != "TXT" or is_spf else f"TXT {record.data}"
    return record.owner, kind, is_spf
