"""The client's half of the wire format: questions out, trusted parts of answers in.

Specification: RFC 1035 §7.3; RFC 2308 §5; RFC 6840 §5.7 (AD asks for AD).
Contract: only records that belong to the question are read (the alias chain from its name, and the SOA of a negative
    answer); everything else in a response is ignored, so nothing can be planted.
Failure: `ProtocolError` for octets that are not the answer to this question: ignore them and go on waiting.
    `NearMiss` (one of them) when the form fits and only the secret is wrong: somebody may be guessing.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rdata
import dns.rdatatype
import dns.rdtypes.ANY.SOA
import dns.rdtypes.ANY.TLSA
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.SRV
import dns.rdtypes.mxbase
import dns.rdtypes.nsbase
from dns.flags import AD, QR, RA, RD, TC
from dns.name import Name
from dns.rcode import Rcode
from dns.rdataclass import IN
from dns.rdatatype import AAAA, CNAME, NS, SOA, A, RdataType
from dns.rrset import RRset

from fumibako.proto.dns.message import HEADER, UDP_OCTETS
from fumibako.proto.dns.records import Mx, Rdata, Srv, Tlsa
from fumibako.proto.reader import ProtocolError

MAX_ALIASES = 10
MAX_RECORDS = 256
MAX_TTL_S = 86_400
MAX_NEGATIVE_TTL_S = 3_600


class NearMiss(ProtocolError):
    """A response whose id or letter case is wrong."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question as it goes out. name: with the letter case that the answer must repeat."""

    query_id: int
    name: str
    rrtype: str
    edns: bool = True


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server said. canonical_name: the end of the alias chain; rdatas: the records there.

    ttl_s: how long to keep it, 0 for not at all; chain_only: the chain ends in an alias whose target was not looked up.
    """

    rcode: Rcode
    truncated: bool
    authenticated: bool
    canonical_name: str
    rdatas: tuple[Rdata, ...]
    ttl_s: int
    chain_only: bool
    is_referral: bool


def format_question(question: Question) -> bytes:
    """A recursive query for one name and type."""
    message = dns.message.QueryMessage(id=question.query_id)
    message.flags = RD | AD
    name = dns.name.from_text(question.name, dns.name.root)
    message.question = [RRset(name, IN, dns.rdatatype.from_text(question.rrtype))]
    if question.edns:
        message.use_edns(0, payload=UDP_OCTETS)
    return message.to_wire()


def mix_case(name: str, chance: bytes) -> str:
    """The name with letters in upper case where the bits say so: more to guess for who forges answers."""
    bits = int.from_bytes(chance, "big")
    return "".join(letter.upper() if bits >> index & 1 else letter for index, letter in enumerate(name))


def parse_reply(wire: bytes, question: Question, *, exact_case: bool = True) -> Reply:
    """Reads the response to a question. Raises ProtocolError or NearMiss; then the question is still open."""
    if len(wire) < HEADER.size:
        raise ProtocolError("shorter than a DNS header")
    query_id, flags, questions, *_ = HEADER.unpack_from(wire)
    if not flags & QR or dns.opcode.from_flags(flags) != dns.opcode.QUERY:
        raise ProtocolError("not a response to a query")
    if query_id != question.query_id:
        raise NearMiss("another id")
    if questions == 0 and Rcode(flags & 15) in {Rcode.FORMERR, Rcode.NOTIMP, Rcode.SERVFAIL, Rcode.REFUSED}:
        # A server that does not know EDNS may answer with a header alone (RFC 6891 §7).
        return Reply(Rcode(flags & 15), False, False, question.name, (), 0, False, False)
    try:
        message = dns.message.from_wire(wire, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, struct.error) as error:
        raise ProtocolError(f"not a DNS message: {error}") from error
    _check_question(message, question, exact_case)
    return _reply(message, question)


def _check_question(message: dns.message.Message, question: Question, exact_case: bool) -> None:
    asked = dns.name.from_text(question.name, dns.name.root)
    rrtype = dns.rdatatype.from_text(question.rrtype)
    if len(message.question) != 1:
        raise ProtocolError("not one question")
    echoed = message.question[0]
    if echoed.name != asked or echoed.rdtype != rrtype or echoed.rdclass != IN:
        raise ProtocolError("another question")
    if exact_case and echoed.name.labels != asked.labels:
        raise NearMiss("another letter case")


def _reply(message: dns.message.Message, question: Question) -> Reply:
    name = dns.name.from_text(question.name, dns.name.root)
    rrtype = dns.rdatatype.from_text(question.rrtype)
    owner, ttls = _follow(message.answer, name, rrtype)
    has_alias = bool(ttls)
    rrset = _find(message.answer, owner, rrtype)
    rdatas = tuple(_value(rdata) for rdata in list(rrset or ())[:MAX_RECORDS])
    negative_ttl_s = _negative_ttl_s(message.authority, owner)
    if rrset is not None:
        ttls.append(rrset.ttl)
    elif negative_ttl_s is not None:
        ttls.append(min(negative_ttl_s, MAX_NEGATIVE_TTL_S))
    no_soa = not rdatas and negative_ttl_s is None
    chain_only = no_soa and has_alias and message.rcode() == Rcode.NOERROR
    return Reply(
        rcode=message.rcode(),
        truncated=bool(message.flags & TC),
        authenticated=bool(message.flags & AD),
        canonical_name=_text(owner),
        rdatas=rdatas,
        ttl_s=0 if no_soa and not chain_only else min([*ttls, MAX_TTL_S]),
        chain_only=chain_only,
        is_referral=no_soa and not message.flags & RA and any(found.rdtype == NS for found in message.authority),
    )


def _follow(answers: list[RRset], name: Name, rrtype: RdataType) -> tuple[Name, list[int]]:
    """Goes along the CNAME records of a response; the name at their end and the TTLs met (RFC 2181 §10.1)."""
    ttls: list[int] = []
    while rrtype != CNAME and len(ttls) < MAX_ALIASES:
        alias = _find(answers, name, CNAME)
        if alias is None:
            break
        ttls.append(alias.ttl)
        name = alias[0].target
    return name, ttls


def _find(answers: Iterable[RRset], name: Name, rrtype: RdataType) -> RRset | None:
    matching = (rrset for rrset in answers if rrset.rdtype == rrtype and rrset.name == name and rrset.rdclass == IN)
    return next(matching, None)


def _negative_ttl_s(authority: Iterable[RRset], name: Name) -> int | None:
    """How long "there is none" holds; None without the SOA of a zone above the name (RFC 2308 §5)."""
    for rrset in authority:
        if rrset.rdtype == SOA and name.is_subdomain(rrset.name):
            rdata = rrset[0]
            if isinstance(rdata, dns.rdtypes.ANY.SOA.SOA):
                return min(rrset.ttl, rdata.minimum)
    return None


def _value(rdata: dns.rdata.Rdata) -> Rdata:
    """One record's data in our own shape."""
    match rdata:
        case dns.rdtypes.mxbase.MXBase():
            return Mx(rdata.preference, _text(rdata.exchange))
        case dns.rdtypes.nsbase.NSBase():       # NS, CNAME, PTR, DNAME
            return _text(rdata.target)
        case dns.rdtypes.ANY.TXT.TXT():
            return b"".join(rdata.strings)
        case dns.rdtypes.IN.SRV.SRV():
            return Srv(rdata.priority, rdata.weight, rdata.port, _text(rdata.target))
        case dns.rdtypes.ANY.TLSA.TLSA():
            return Tlsa(rdata.usage, rdata.selector, rdata.mtype, rdata.cert)
    if rdata.rdtype in {A, AAAA, SOA}:
        return rdata.to_text().lower()      # names are compressed against the question's mixed case
    return rdata.to_wire() or b""


def _text(name: Name) -> str:
    return name.to_text(omit_final_dot=True).lower()
