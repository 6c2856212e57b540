"""Reliability E2, E7, E8: no datagram but the answer ends a question, and no question gets more out of us than it brings."""

import asyncio
import struct
import time

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from fumibako.faces.dns import DnsFace
from fumibako.net.clock import Clock
from fumibako.net.endpoint import Endpoint
from fumibako.net.resolver import Resolver, ResolverFailure, ResolverOptions
from fumibako.proto.dns.answer import CACHED_ANSWERS, Answerer
from fumibako.proto.dns.records import Mx, Record, format_txt
from fumibako.proto.dns.zone import make_zone
from tests.attack.measure import MIB, measured
from tests.support.clock import FakeClock

ZONE = make_zone("example.jp", [
    Record("example.jp", 3600, "SOA", "mail.example.jp. hostmaster.example.jp. 7 3600 900 1209600 300"),
    Record("example.jp", 3600, "NS", "mail.example.jp."),
    Record("example.jp", 3600, "MX", "10 mail.example.jp."),
    Record("mail.example.jp", 3600, "A", "192.0.2.25"),
    *[Record("big.example.jp", 60, "TXT", format_txt(f"{number:0200}")) for number in range(5)],
    *[Record("huge.example.jp", 60, "TXT", format_txt(f"{number:0200}")) for number in range(30)],
])
STRANGER, HOME = Endpoint("198.51.100.7", 5353), Endpoint("127.0.0.1", 5353)
HEADER = struct.Struct("!HHHHHH")


def face(clock: FakeClock | None = None) -> DnsFace:
    answerer = Answerer([ZONE])
    return DnsFace(lambda: answerer, clock or FakeClock())


def query(name: str = "example.jp", rrtype: str = "MX", **options: object) -> bytes:
    return dns.message.make_query(name, rrtype, **options).to_wire()


# E2: bad answers do not kill a question


class Liar(asyncio.DatagramProtocol):
    """Answers each query with some datagrams at once, and with the truth once they have been read."""

    def __init__(self, lies: object) -> None:
        self.lies, self.asked = lies, 0

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self.asked += 1
        asked = dns.message.from_wire(data)
        for lie in self.lies(asked):
            self.transport.sendto(lie, address)
        truth = dns.message.make_response(asked)
        truth.answer = [dns.rrset.from_text(asked.question[0].name, 300, "IN", "MX", "10 mail.example.")]
        # Later turns of the loop, so that the lies are looked at first.
        asyncio.get_running_loop().call_later(0.01, self.transport.sendto, truth.to_wire(), address)


def planted(asked: dns.message.Message, **changes: object) -> bytes:
    """An answer with a forged MX and something wrong about it."""
    forged = dns.message.make_response(asked)
    forged.answer = [dns.rrset.from_text(asked.question[0].name, 300, "IN", "MX", "0 evil.example.")]
    for name, value in changes.items():
        setattr(forged, name, value)
    return forged.to_wire()


def other_question(asked: dns.message.Message, name: str, rrtype: str) -> bytes:
    forged = dns.message.make_response(dns.message.make_query(name, rrtype))
    forged.id = asked.id
    forged.answer = [dns.rrset.from_text("example.", 300, "IN", "MX", "0 evil.example.")]
    return forged.to_wire()


LIES = {
    "nothing": lambda asked: [b""],
    "one octet": lambda asked: [b"\0"],
    "noise": lambda asked: [bytes(range(256)) * 4],
    "the query itself": lambda asked: [asked.to_wire()],
    "a header alone": lambda asked: [HEADER.pack(asked.id, 0x8000, 0, 0, 0, 0)],
    "a header and counts": lambda asked: [HEADER.pack(asked.id, 0x8180, 1, 65535, 65535, 65535)],
    "cut off": lambda asked: [planted(asked)[:-5]],
    "a pointer to itself": lambda asked: [HEADER.pack(asked.id, 0x8180, 1, 0, 0, 0) + b"\xc0\x0c\0\x0f\0\1"],
    "another name": lambda asked: [other_question(asked, "other.example", "MX")],
    "another type": lambda asked: [other_question(asked, "example.", "A")],
    "no question": lambda asked: [planted(asked, question=[])],
    "another operation": lambda asked: [planted(asked, flags=int(dns.flags.QR) | 0x2000)],
    "many at once": lambda asked: [b"\xff" * 30] * 14,
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_bad_answer_does_not_end_the_question(lie: str) -> None:
    """TuDoor: what is not the answer is passed over, and the question is not even asked again."""
    liar = Liar(LIES[lie])
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: liar, local_addr=("127.0.0.1", 0))
    try:
        server = Endpoint(*transport.get_extra_info("sockname")[:2])
        found = await Resolver(Clock(), [server], ResolverOptions(timeout_s=5)).resolve("x.example", "MX")
    finally:
        transport.close()
    assert found.rdatas == (Mx(10, "mail.example"),)
    assert liar.asked == 1


GUESSES = {
    "another id": lambda asked: [planted(asked, id=asked.id ^ 1 << bit) for bit in range(14)],
    "another letter case": lambda asked: [
        planted(asked, question=[dns.rrset.RRset(asked.question[0].name.canonicalize(), 1, 15)]),
    ],
}


@pytest.mark.parametrize("guess", GUESSES)
async def test_a_guess_is_never_taken(guess: str) -> None:
    """A near miss is somebody guessing: what they planted does not come out."""
    liar = Liar(GUESSES[guess])
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: liar, local_addr=("127.0.0.1", 0))
    try:
        server = Endpoint(*transport.get_extra_info("sockname")[:2])
        found = await Resolver(Clock(), [server], ResolverOptions(timeout_s=2)).resolve("x.example", "MX")
    except ResolverFailure:
        pass
    else:
        assert found.rdatas == (Mx(10, "mail.example"),)
    finally:
        transport.close()


# E7: amplification, recursion, ANY


def test_nobody_gets_recursion() -> None:
    for name in ("example.org", ".", "com", "localhost", "version.bind", "example.jp.evil.example", "25.2.0.192.in-addr.arpa"):
        for peer in (STRANGER, HOME):
            response = dns.message.from_wire(face().respond(query(name, "A"), peer))
            assert response.rcode() == dns.rcode.REFUSED, name
            assert not response.flags & (dns.flags.RA | dns.flags.AA)
            assert not (response.answer or response.authority or response.additional)
    chaos = dns.message.make_query("version.bind", "TXT", "CH").to_wire()
    assert dns.message.from_wire(face().respond(chaos, STRANGER)).rcode() == dns.rcode.REFUSED


@pytest.mark.parametrize("name", ["example.jp", "big.example.jp", "huge.example.jp", "mail.example.jp"])
def test_any_is_answered_with_next_to_nothing(name: str) -> None:
    for options in ({}, {"use_edns": 0, "payload": 65535, "want_dnssec": True}):
        octets = query(name, "ANY", **options)
        response = face().respond(octets, STRANGER)
        assert [rrset.rdtype for rrset in dns.message.from_wire(response).answer] == [dns.rdatatype.HINFO]
        assert len(response) < len(octets) + 64


@pytest.mark.parametrize("rrtype", ["AXFR", "IXFR"])
def test_nobody_gets_the_zone(rrtype: str) -> None:
    response = dns.message.from_wire(face().respond(query("example.jp", rrtype), STRANGER))
    assert response.rcode() == dns.rcode.REFUSED and not response.answer


def test_no_answer_over_udp_needs_fragments() -> None:
    for name in ("big.example.jp", "huge.example.jp"):
        for payload in (0, 511, 512, 1232, 4096, 65535):
            response = face().respond(query(name, "TXT", use_edns=0, payload=payload), STRANGER)
            assert len(response) <= 1232
        whole = face().respond(query(name, "TXT", use_edns=0, payload=65535), STRANGER)
        assert (len(whole) > 1000) == (name == "big.example.jp")
        plain = face().respond(query(name, "TXT"), STRANGER)
        assert len(plain) <= 512 and dns.message.from_wire(plain).flags & dns.flags.TC


@pytest.mark.parametrize(("per_s", "seconds"), [(500, 10), (5_000, 1)])
def test_a_flood_in_a_forged_name_is_not_amplified(per_s: int, seconds: int) -> None:
    """The worst question again and again from one network: no more than 1.5 octets out for each that came in."""
    clock = FakeClock()
    asked = face(clock)
    octets = query("big.example.jp", "TXT", use_edns=0, payload=1232)
    received = sent = 0
    for number in range(seconds * per_s):
        received += len(octets)
        sent += len(asked.respond(octets, Endpoint(f"198.51.100.{number % 250}", 53)) or b"")
        if number % (per_s // 100) == 0:
            clock.advance(0.01)
    assert sent / received <= 1.5


@pytest.mark.parametrize("per_s", [5, 10, 40])
def test_a_trickle_in_a_forged_name_gets_no_more_for_large_answers(per_s: int) -> None:
    """Below the rate that silence is for, the size is what counts: 1280 octets a second for a network, and a burst."""
    clock = FakeClock()
    asked = face(clock)
    octets = query("big.example.jp", "TXT", use_edns=0, payload=1232)
    whole = 0
    for _ in range(60 * per_s):
        response = asked.respond(octets, STRANGER) or b""
        whole += len(response) if len(response) > len(octets) else 0
        clock.advance(1 / per_s)
    assert whole <= 60 * 1280 + 6400


def test_answers_are_never_answered() -> None:
    """Two servers that answer each other's answers would never stop."""
    asked = face()
    response = asked.respond(query(), HOME)
    assert asked.respond(response, HOME) is None
    for flags in (0x8000, 0x8180, 0xFFFF):
        assert asked.respond(HEADER.pack(1, flags, 1, 0, 0, 0) + query()[12:], HOME) is None
    for error in (asked.respond(HEADER.pack(1, 0x2800, 0, 0, 0, 0), HOME), asked.respond(query()[:-2], HOME)):
        assert error is not None and asked.respond(error, HOME) is None


# E8: bombs


def question(name: bytes, rest: bytes = b"", counts: tuple[int, int, int, int] = (1, 0, 0, 0)) -> bytes:
    return HEADER.pack(7, 0x0100, *counts) + name + b"\0\x0f\0\1" + rest


def opt(rdata: bytes, payload: int = 1232, version: int = 0) -> bytes:
    """OPT pseudo-RR: RFC 6891 §6.1.2."""
    return b"\0" + struct.pack("!HHBBHH", 41, payload, 0, version, 0, len(rdata)) + rdata


NAME = b"\7example\2jp\0"
LABELS = b"\1a" * 120 + NAME
BOMBS = {
    "a pointer to itself": question(b"\xc0\x0c"),
    "two pointers in a ring": question(b"\xc0\x0e\xc0\x0c"),
    "a pointer into the header": question(b"\xc0\x00"),
    "a pointer ahead": question(b"\xc0\x14", b"\0" * 10),
    "a pointer out of the message": question(b"\xff\xff"),
    "a label and a pointer to it": question(b"\1a\xc0\x0c"),
    "a chain of pointers": HEADER.pack(7, 0x0100, 1, 0, 1, 1) + b"\xc0\x0c" * 200,
    "a name too long": question(b"\x3f" + b"a" * 63 + (b"\x3f" + b"a" * 63) * 4 + b"\0"),
    "a label of a kind unknown": question(b"\x80abc\0"),
    "an extended label": question(b"\x41\x01\x02\0"),
    "a label cut off": question(b"\x3fabc"),
    "a thousand questions": HEADER.pack(7, 0x0100, 1000, 0, 0, 0) + (NAME + b"\0\x0f\0\1") * 200,
    "no question": HEADER.pack(7, 0x0100, 0, 0, 0, 0),
    "answers in a question": question(NAME, NAME + b"\0\1\0\1\0\0\0\0\0\4abcd", (1, 1, 0, 0)),
    "records that are not there": question(NAME, b"", (1, 0, 1, 2)),
    "counts of 65535": question(NAME, b"", (1, 65535, 65535, 65535)),
    "options without end": question(NAME, opt(b"\0\x0a\0\0" * 900), (1, 0, 0, 1)),
    "options of odd length": question(NAME, opt(b"\0\x0a\xff\xff\0"), (1, 0, 0, 1)),
    "17 options": question(NAME, opt(b"\xff\xf0\0\0" * 17), (1, 0, 0, 1)),
    "two OPTs": question(NAME, opt(b"") * 2, (1, 0, 0, 2)),
    "an OPT that is not at the root": question(NAME, b"\1a" + opt(b""), (1, 0, 0, 1)),
    "a version to come": question(NAME, opt(b"", version=200), (1, 0, 0, 1)),
    "a huge client cookie": question(NAME, opt(b"\0\x0a\x0e\x10" + b"c" * 3600), (1, 0, 0, 1)),
    "a broken client subnet": question(NAME, opt(b"\0\x08\0\4\0\1\xff\xff"), (1, 0, 0, 1)),
    "junk behind it": question(NAME, b"\xff" * 3000),
    "too long": question(NAME, b"\0" * 60_000),
    "a TSIG of nobody": question(NAME, b"\1k\0\0\xfa\0\xff\0\0\0\0\0\x1a\1h\0" + b"\0" * 6 + b"\1\x2c\0\4abcd\0\7" + b"\0" * 4,
                                 (1, 0, 0, 1)),
    "every octet 255": b"\xff" * 512,
    "an operation unknown": HEADER.pack(7, 0x7800, 1, 0, 0, 0) + NAME + b"\0\1\0\1",
    "an UPDATE": HEADER.pack(7, 0x2800, 1, 0, 1, 0) + NAME + b"\0\6\0\1" + NAME + b"\0\1\0\1\0\0\0\0\0\4abcd",
    "a NOTIFY": HEADER.pack(7, 0x2000, 1, 0, 0, 0) + NAME + b"\0\6\0\1",
    "120 labels": question(LABELS),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_gets_silence_or_an_error(bomb: str) -> None:
    """Never an exception, never an answer as such, never more than came in, and at once."""
    octets = BOMBS[bomb]
    asked = face()
    begun = time.process_time()
    with measured() as memory:
        responses = [asked.respond(octets[:2] + octets[2:], HOME) for _ in range(20)]
    assert (time.process_time() - begun) / 20 < 0.05
    assert memory.peak_octets < MIB
    assert len(set(responses)) == 1
    if responses[0] is not None:
        response = dns.message.from_wire(responses[0], ignore_trailing=True)
        assert response.rcode() not in (dns.rcode.NOERROR, dns.rcode.SERVFAIL), response
        assert len(responses[0]) <= max(len(octets), 512)
        assert not response.answer
    assert dns.message.from_wire(asked.respond(query(), HOME)).answer       # it still works


def test_the_table_of_ready_answers_is_bounded() -> None:
    """Questions of random names fill no memory."""
    answerer = Answerer([ZONE])
    for number in range(CACHED_ANSWERS + 100):
        assert answerer.respond(question(b"\x08%08d" % number + NAME), udp=True) is not None
    assert len(answerer._ready) == CACHED_ANSWERS
