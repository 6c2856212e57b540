"""The server's half of the wire format: queries in, responses out.

Specification: RFC 1035 §4.1; RFC 6891 §6 and §7; RFC 2181 §9 (truncation); RFC 9471 §3.1 (glue that must fit);
    RFC 1035 §4.2.2 (framing over TCP).
Contract: work is bounded by the header's counts before the codec sees a record; a response never exceeds what the
    asker can take, nor 1232 octets over UDP (no fragments: they can be forged).
Failure: `ProtocolError` where silence is the answer; `BadQuery` where an error response is due.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
from dns.flags import AA, DO, QR, RD, TC
from dns.name import Name
from dns.rcode import Rcode
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType
from dns.rrset import RRset

from fumibako.proto.reader import ProtocolError

UDP_OCTETS = 1232           # fits every path without fragments
PLAIN_UDP_OCTETS = 512      # without EDNS (RFC 1035 §2.3.4)
TCP_OCTETS = 65535
MAX_QUERY_OCTETS = 4096
MAX_OPTIONS = 16
HEADER = struct.Struct("!HHHHHH")
OPCODE_MASK = 0x7800


@dataclass(frozen=True, slots=True)
class Query:
    """One question. payload_octets: what fits a UDP answer; edns_version: None without EDNS."""

    query_id: int
    name: Name
    rrtype: RdataType
    rrclass: RdataClass
    recursion_desired: bool
    edns_version: int | None
    dnssec_ok: bool
    payload_octets: int


@dataclass(frozen=True, slots=True)
class Response:
    """What to answer. glue_required: without its additional section the answer is of no use (a referral)."""

    rcode: Rcode
    authoritative: bool = False
    answer: Sequence[RRset] = ()
    authority: Sequence[RRset] = ()
    additional: Sequence[RRset] = ()
    glue_required: bool = False


class BadQuery(Exception):
    """A message that gets an error and nothing else. response: the octets to send."""

    def __init__(self, wire: bytes, rcode: Rcode) -> None:
        super().__init__(dns.rcode.to_text(rcode))
        query_id, flags = struct.unpack_from("!HH", wire)
        echoed = flags & (OPCODE_MASK | RD)
        self.response = HEADER.pack(query_id, QR | echoed | rcode, 0, 0, 0, 0)


def parse_query(wire: bytes) -> Query:
    """Reads a query of any transport. Raises ProtocolError (say nothing) or BadQuery (say this)."""
    if len(wire) < HEADER.size:
        raise ProtocolError("shorter than a DNS header")
    _, flags, questions, answers, authorities, additionals = HEADER.unpack_from(wire)
    if flags & QR:
        raise ProtocolError("a response, not a query")      # answering one could start a loop between two servers
    if dns.opcode.from_flags(flags) != dns.opcode.QUERY:
        raise BadQuery(wire, Rcode.NOTIMP)
    # Only the OPT and a TSIG may follow the question; IXFR brings one SOA (RFC 1995 §3).
    if questions != 1 or answers or authorities > 1 or additionals > 2 or len(wire) > MAX_QUERY_OCTETS:
        raise BadQuery(wire, Rcode.FORMERR)
    try:
        message = dns.message.from_wire(wire)
    except dns.message.UnknownTSIGKey:
        raise BadQuery(wire, Rcode.NOTAUTH) from None
    except (dns.exception.DNSException, ValueError, struct.error):
        raise BadQuery(wire, Rcode.FORMERR) from None
    if len(message.options) > MAX_OPTIONS:
        raise BadQuery(wire, Rcode.FORMERR)
    return _query(message)


def _query(message: dns.message.Message) -> Query:
    question = message.question[0]
    has_edns = message.edns >= 0
    payload = max(PLAIN_UDP_OCTETS, min(message.payload, UDP_OCTETS)) if has_edns else PLAIN_UDP_OCTETS
    return Query(
        query_id=message.id,
        name=question.name,
        rrtype=question.rdtype,
        rrclass=question.rdclass,
        recursion_desired=bool(message.flags & RD),
        edns_version=message.edns if has_edns else None,
        dnssec_ok=bool(message.ednsflags & DO) if has_edns else False,
        payload_octets=payload,
    )


def format_response(query: Query, response: Response, limit_octets: int) -> bytes:
    """The response in at most limit_octets: what is optional goes first, then everything, with TC set."""
    whole = _message(query, response)
    whole.answer, whole.authority = list(response.answer), list(response.authority)
    attempts = [list(response.additional)] if response.glue_required else [list(response.additional), []]
    for additional in attempts:
        whole.additional = additional
        try:
            return whole.to_wire(max_size=limit_octets, want_shuffle=False)
        except dns.exception.TooBig:
            continue
    cut = _message(query, response)
    cut.flags |= TC
    return cut.to_wire(max_size=limit_octets)


def _message(query: Query, response: Response) -> dns.message.Message:
    message = dns.message.QueryMessage(id=query.query_id)
    message.flags = QR | (AA if response.authoritative else 0) | (RD if query.recursion_desired else 0)
    message.question = [RRset(query.name, query.rrclass, query.rrtype)]
    if query.edns_version is not None:
        message.use_edns(0, ednsflags=DO if query.dnssec_ok else 0, payload=UDP_OCTETS)
    message.set_rcode(response.rcode)
    return message


def format_truncated(wire: bytes) -> bytes:
    """The least answer to a well-formed query: "ask again over TCP" (its header with QR and TC, and its question)."""
    query = parse_query(wire)
    cut = _message(query, Response(Rcode.NOERROR))
    cut.flags |= TC
    return cut.to_wire()


def format_framed(message: bytes) -> bytes:
    """A message as it goes over TCP, its length before it (RFC 1035 §4.2.2)."""
    return len(message).to_bytes(2, "big") + message


def parse_framed(received: bytearray) -> bytes | None:
    """Takes the first whole message off what came over TCP; None while it is not whole. At most 64 KiB are ever needed."""
    if len(received) < 2:
        return None
    end = 2 + int.from_bytes(received[:2], "big")
    if len(received) < end:
        return None
    message = bytes(received[2:end])
    del received[:end]
    return message
