"""The answer algorithm (RFC 1034 §4.3.2), looked at with dnspython as the client."""

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.dns.answer import Answerer
from fumibako.proto.dns.message import format_truncated
from fumibako.proto.dns.records import Record, format_txt
from fumibako.proto.dns.zone import ZoneError, make_zone

SOA = ("example.jp", 3600, "SOA", "mail.example.jp. hostmaster.example.jp. 7 3600 900 1209600 300")
ROWS = [
    SOA,
    ("example.jp", 3600, "NS", "mail.example.jp."),
    ("example.jp", 3600, "MX", "10 mail.example.jp."),
    ("example.jp", 3600, "TXT", format_txt("v=spf1 mx -all")),
    ("mail.example.jp", 3600, "A", "192.0.2.25"),
    ("mail.example.jp", 3600, "AAAA", "2001:db8::25"),
    ("www.example.jp", 3600, "CNAME", "web.example.jp."),
    ("web.example.jp", 3600, "A", "192.0.2.80"),
    ("away.example.jp", 3600, "CNAME", "host.elsewhere.example."),
    ("dangling.example.jp", 3600, "CNAME", "nothing.example.jp."),
    ("ring1.example.jp", 3600, "CNAME", "ring2.example.jp."),
    ("ring2.example.jp", 3600, "CNAME", "ring1.example.jp."),
    ("_imaps._tcp.example.jp", 3600, "SRV", "0 1 993 mail.example.jp."),
    ("*.wild.example.jp", 3600, "A", "192.0.2.99"),
    ("*.wild.example.jp", 3600, "MX", "10 mail.example.jp."),
    ("deep.er.wild.example.jp", 3600, "A", "192.0.2.98"),
    ("*.cwild.example.jp", 3600, "CNAME", "web.example.jp."),
    ("sub.example.jp", 3600, "NS", "ns.sub.example.jp."),
    ("sub.example.jp", 3600, "NS", "ns.elsewhere.example."),
    ("ns.sub.example.jp", 3600, "A", "192.0.2.53"),
    ("tosub.example.jp", 3600, "CNAME", "host.sub.example.jp."),
    *[("big.example.jp", 3600, "TXT", format_txt(f"{number:0200}")) for number in range(20)],
    *[("many.example.jp", 3600, "MX", f"{number} h{number}.many.example.jp.") for number in range(20)],
    *[(f"h{number}.many.example.jp", 3600, "AAAA", f"2001:db8::{number + 1:x}") for number in range(20)],
]
OTHER = [
    ("other.jp", 60, "SOA", "mail.example.jp. hostmaster.other.jp. 1 3600 900 1209600 9999"),
    ("other.jp", 60, "NS", "mail.example.jp."),
    ("to.other.jp", 60, "CNAME", "web.example.jp."),
    ("child.other.jp", 60, "NS", "mail.example.jp."),
]
CHILD = [
    ("child.other.jp", 60, "SOA", "mail.example.jp. hostmaster.other.jp. 1 3600 900 1209600 60"),
    ("child.other.jp", 60, "NS", "mail.example.jp."),
]


def zone(origin, rows):
    return make_zone(origin, [Record(*row) for row in rows])


ZONES = [zone("example.jp", ROWS), zone("other.jp", OTHER), zone("child.other.jp", CHILD)]


def ask(name, rrtype, *, udp=True, edns=None, answerer=None, **options):
    query = dns.message.make_query(name, rrtype, use_edns=edns, **options)
    wire = (answerer or Answerer(ZONES)).respond(query.to_wire(), udp=udp)
    response = dns.message.from_wire(wire)
    assert query.is_response(response)
    assert not response.flags & dns.flags.RA
    return response


def texts(rrsets):
    return [f"{rrset.name} {dns.rdatatype.to_text(rrset.rdtype)} {rdata.to_text()}" for rrset in rrsets for rdata in rrset]


def shape(response):
    return dns.rcode.to_text(response.rcode()), bool(response.flags & dns.flags.AA), texts(response.answer)


@pytest.mark.parametrize(("name", "rrtype", "expected"), [
    ("example.jp", "MX", ("NOERROR", True, ["example.jp. MX 10 mail.example.jp."])),
    ("mail.example.jp", "AAAA", ("NOERROR", True, ["mail.example.jp. AAAA 2001:db8::25"])),
    ("www.example.jp", "A", ("NOERROR", True, ["www.example.jp. CNAME web.example.jp.", "web.example.jp. A 192.0.2.80"])),
    ("www.example.jp", "CNAME", ("NOERROR", True, ["www.example.jp. CNAME web.example.jp."])),
    ("www.example.jp", "MX", ("NOERROR", True, ["www.example.jp. CNAME web.example.jp."])),
    ("away.example.jp", "A", ("NOERROR", True, ["away.example.jp. CNAME host.elsewhere.example."])),
    ("dangling.example.jp", "A", ("NXDOMAIN", True, ["dangling.example.jp. CNAME nothing.example.jp."])),
    ("ring1.example.jp", "A", ("SERVFAIL", False, [])),
    ("to.other.jp", "A", ("NOERROR", True, ["to.other.jp. CNAME web.example.jp.", "web.example.jp. A 192.0.2.80"])),
    ("a.wild.example.jp", "A", ("NOERROR", True, ["a.wild.example.jp. A 192.0.2.99"])),
    ("a.b.wild.example.jp", "A", ("NOERROR", True, ["a.b.wild.example.jp. A 192.0.2.99"])),
    ("x.cwild.example.jp", "A", ("NOERROR", True, ["x.cwild.example.jp. CNAME web.example.jp.", "web.example.jp. A 192.0.2.80"])),
    ("a.wild.example.jp", "TXT", ("NOERROR", True, [])),
    # An existing name below the wildcard, and its empty parent, hide it (RFC 1034 §4.3.3).
    ("er.wild.example.jp", "A", ("NOERROR", True, [])),
    ("x.er.wild.example.jp", "A", ("NXDOMAIN", True, [])),
    ("_tcp.example.jp", "SRV", ("NOERROR", True, [])),
    ("no.example.jp", "A", ("NXDOMAIN", True, [])),
    ("example.jp", "A", ("NOERROR", True, [])),
    ("example.org", "A", ("REFUSED", False, [])),
    (".", "NS", ("REFUSED", False, [])),
    ("example.jp", "AXFR", ("REFUSED", False, [])),
    ("example.jp", "IXFR", ("REFUSED", False, [])),
    ("sub.example.jp", "NS", ("NOERROR", False, [])),
    ("host.sub.example.jp", "A", ("NOERROR", False, [])),
    ("sub.example.jp", "DS", ("NOERROR", True, [])),
    ("child.other.jp", "NS", ("NOERROR", True, ["child.other.jp. NS mail.example.jp."])),
    ("example.jp", "ANY", ("NOERROR", True, ['example.jp. HINFO "RFC8482" ""'])),
    ("www.example.jp", "ANY", ("NOERROR", True, ["www.example.jp. CNAME web.example.jp."])),
    ("no.example.jp", "ANY", ("NXDOMAIN", True, [])),
    ("_tcp.example.jp", "ANY", ("NOERROR", True, [])),
    ("example.jp", "TYPE65280", ("NOERROR", True, [])),
])
def test_answer_section(name, rrtype, expected):
    assert shape(ask(name, rrtype)) == expected


def test_negative_answers_carry_the_soa_with_the_negative_ttl():
    for name, rrtype in (("no.example.jp", "A"), ("example.jp", "A"), ("dangling.example.jp", "A")):
        [soa] = ask(name, rrtype).authority
        assert (soa.name.to_text(), soa.ttl, soa[0].serial) == ("example.jp.", 300, 7)
    [soa] = ask("no.other.jp", "A").authority
    assert soa.ttl == 60        # the SOA's own TTL is the lower one
    [soa] = ask("child.other.jp", "DS").authority
    assert soa.name.to_text() == "other.jp."        # DS is the parent's


def test_referral_with_glue():
    response = ask("host.sub.example.jp", "A")
    assert texts(response.authority) == ["sub.example.jp. NS ns.sub.example.jp.", "sub.example.jp. NS ns.elsewhere.example."]
    assert texts(response.additional) == ["ns.sub.example.jp. A 192.0.2.53"]
    behind_alias = ask("tosub.example.jp", "A")
    assert behind_alias.flags & dns.flags.AA and texts(behind_alias.authority) == texts(response.authority)


def test_addresses_of_mail_and_service_hosts_come_along():
    addresses = ["mail.example.jp. A 192.0.2.25", "mail.example.jp. AAAA 2001:db8::25"]
    for name, rrtype in (("example.jp", "MX"), ("example.jp", "NS"), ("_imaps._tcp.example.jp", "SRV"), ("other.jp", "NS")):
        assert texts(ask(name, rrtype).additional) == addresses


def test_udp_answers_are_cut_and_tcp_answers_are_whole():
    short = ask("big.example.jp", "TXT")
    assert short.flags & dns.flags.TC and not short.answer
    assert ask("big.example.jp", "TXT", edns=0, payload=65535).flags & dns.flags.TC
    whole = ask("big.example.jp", "TXT", udp=False)
    assert len(whole.answer[0]) == 20 and not whole.flags & dns.flags.TC


def test_optional_addresses_are_left_out_before_anything_is_cut():
    for options, limit in (({}, 512), ({"edns": 0, "payload": 4096}, 1232)):
        response = ask("many.example.jp", "MX", **options)
        assert len(response.answer[0]) == 20 and not response.flags & dns.flags.TC
        assert len(response.to_wire()) <= limit


def test_edns_is_answered_with_edns():
    response = ask("example.jp", "MX", edns=0, payload=4096, want_dnssec=True)
    assert (response.edns, response.payload) == (0, 1232) and response.ednsflags & dns.flags.DO
    assert ask("example.jp", "MX").edns == -1
    bad = ask("example.jp", "MX", edns=1)
    assert (bad.rcode(), bad.edns, bad.answer) == (dns.rcode.BADVERS, 0, [])


def test_other_classes_are_refused():
    assert ask("version.bind", "TXT", rdclass="CH").rcode() == dns.rcode.REFUSED
    assert ask("example.jp", "MX", rdclass="ANY").rcode() == dns.rcode.REFUSED


def test_letter_case_of_the_question_comes_back():
    query = dns.message.make_query("eXaMpLe.Jp", "MX")
    response = dns.message.from_wire(Answerer(ZONES).respond(query.to_wire(), udp=True))
    assert response.question[0].name.labels == (b"eXaMpLe", b"Jp", b"")
    assert response.answer[0].name.labels == (b"eXaMpLe", b"Jp", b"")


def header(flags, counts=(1, 0, 0, 0)):
    return b"\xab\xcd" + flags.to_bytes(2, "big") + b"".join(count.to_bytes(2, "big") for count in counts)


QUESTION = b"\7example\2jp\0\0\x0f\0\1"


@pytest.mark.parametrize(("wire", "rcode"), [
    (b"", None),
    (b"\xab\xcd\0\0\0\1\0\0\0\0\0", None),
    (header(0x8000) + QUESTION, None),                      # a response: never answered
    (header(0x1000) + QUESTION, dns.rcode.NOTIMP),          # STATUS
    (header(0x2000) + QUESTION, dns.rcode.NOTIMP),          # NOTIFY
    (header(0x2800) + QUESTION, dns.rcode.NOTIMP),          # UPDATE
    (header(0x0100, (0, 0, 0, 0)), dns.rcode.FORMERR),
    (header(0x0100, (2, 0, 0, 0)) + QUESTION * 2, dns.rcode.FORMERR),
    (header(0x0100, (1, 1, 0, 0)) + QUESTION, dns.rcode.FORMERR),
    (header(0x0100, (1, 0, 9, 0)) + QUESTION, dns.rcode.FORMERR),
    (header(0x0100) + QUESTION[:-1], dns.rcode.FORMERR),
    (header(0x0100) + QUESTION + b"junk", dns.rcode.FORMERR),
    (header(0x0100) + b"\xc0\x0c\0\1\0\1", dns.rcode.FORMERR),      # a name that points at itself
    (header(0x0100) + b"\x40abc\0\0\1\0\1", dns.rcode.FORMERR),     # a label type nobody defines
    (header(0x0100, (1, 0, 0, 1)) + QUESTION + b"\0\0\x29\x04\xd0\0\0\0\0" + (4 * 17).to_bytes(2, "big") + b"\xfd\xe9\0\0" * 17,
     dns.rcode.FORMERR),
])
def test_malformed(wire, rcode):
    response = Answerer(ZONES).respond(wire, udp=True)
    if rcode is None:
        assert response is None
    else:
        parsed = dns.message.from_wire(response)
        assert (parsed.id, parsed.rcode(), len(response)) == (0xABCD, rcode, 12)
        assert parsed.opcode() == (wire[2] >> 3) & 15


@given(st.binary(max_size=120))
def test_any_octets_get_silence_or_a_small_response(octets):
    response = Answerer(ZONES).respond(octets, udp=True)
    assert response is None or (response[:2] == octets[:2] and response[2] & 0x80 and 12 <= len(response) <= 1232)


@given(st.binary(max_size=60), st.integers(0, 3))
def test_any_octets_behind_a_header(octets, records):
    response = Answerer(ZONES).respond(header(0x0100, (1, 0, 0, records)) + octets, udp=True)
    assert response is not None and 12 <= len(response) <= 1232


@given(st.integers(12, 60), st.integers(0, 255))
def test_one_octet_changed(position, value):
    wire = bytearray(dns.message.make_query("www.example.jp", "A", use_edns=0).to_wire())
    wire[position % len(wire)] = value
    response = Answerer(ZONES).respond(bytes(wire), udp=True)
    assert response is None or len(response) <= 1232


def test_ready_answers_differ_in_the_id_only_and_are_bounded():
    answerer = Answerer(ZONES)
    first = ask("example.jp", "MX", answerer=answerer)
    second = ask("example.jp", "MX", answerer=answerer)
    assert first.to_wire()[2:] == second.to_wire()[2:]
    assert len(answerer._ready) == 1
    for number in range(5000):
        ask(f"n{number}.example.jp", "A", answerer=answerer)
    assert len(answerer._ready) == 4096


def test_amplification_over_udp_is_small():
    """E7: what a forged sender can get per octet, over all names here, without EDNS trickery."""
    for name in ("big.example.jp", "example.jp", "www.example.jp"):
        query = dns.message.make_query(name, "ANY").to_wire()
        assert len(Answerer(ZONES).respond(query, udp=True)) <= 1.8 * len(query)


def test_truncated_answer_repeats_the_question():
    query = dns.message.make_query("example.jp", "MX", use_edns=0)
    response = dns.message.from_wire(format_truncated(query.to_wire()))
    assert query.is_response(response) and response.flags & dns.flags.TC and not response.answer


@pytest.mark.parametrize(("rows", "text"), [
    (ROWS[1:], "exactly one SOA"),
    ([*ROWS, ("example.jp", 1, "SOA", "a. b. 2 1 1 1 1")], "more than one SOA"),
    ([SOA], "needs an NS"),
    ([*ROWS, ("www.example.jp", 60, "A", "192.0.2.1")], "CNAME beside"),
    ([*ROWS, ("www.example.jp", 60, "CNAME", "b.example.jp.")], "more than one CNAME"),
    ([*ROWS, ("example.org", 60, "A", "192.0.2.1")], "does not lie in"),
    ([*ROWS, ("a.example.jp", 60, "A", "192.0.2.300")], "A 192.0.2.300"),
    ([*ROWS, ("a.example.jp", 60, "NOTYPE", "x")], "NOTYPE"),
    ([*ROWS, ("a..example.jp", 60, "A", "192.0.2.3")], "not a domain name"),
    ([*ROWS, ("mail.example.jp", 60, "SOA", SOA[3])], "not the top"),
])
def test_records_that_make_no_zone(rows, text):
    with pytest.raises(ZoneError, match=text):
        zone("example.jp", rows)


def test_one_ttl_an_rrset_the_lowest():
    rows = [*ROWS[:2], ("a.example.jp", 600, "A", "192.0.2.1"), ("a.example.jp", 60, "A", "192.0.2.2")]
    response = ask("a.example.jp", "A", answerer=Answerer([zone("example.jp", rows)]))
    assert response.answer[0].ttl == 60 and len(response.answer[0]) == 2
