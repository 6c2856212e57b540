"""The DNS server on real loopback sockets, asked with dnspython as the client."""

import asyncio
import contextlib

import dns.asyncquery
import dns.message
import dns.rcode
import pytest
import uvloop

from fumibako.faces.dns import BURST, RESPONSES_PER_S, DnsFace, ResponseRate, Verdict
from fumibako.net.endpoint import Endpoint, endpoint_of
from fumibako.net.listen import Listener, bind
from fumibako.net.resolver import Resolver
from fumibako.net.stream import open_stream
from fumibako.proto.dns.answer import Answerer
from fumibako.proto.dns.message import format_framed, parse_framed
from fumibako.proto.dns.records import Mx, Record, format_txt
from fumibako.proto.dns.zone import make_zone
from tests.support.clock import FakeClock
from tests.support.streams import half_close

ZONE = make_zone("example.jp", [
    Record("example.jp", 3600, "SOA", "mail.example.jp. hostmaster.example.jp. 7 3600 900 1209600 300"),
    Record("example.jp", 3600, "NS", "mail.example.jp."),
    Record("example.jp", 3600, "MX", "10 mail.example.jp."),
    Record("mail.example.jp", 3600, "A", "192.0.2.25"),
    *[Record("big.example.jp", 60, "TXT", format_txt(f"{number:0200}")) for number in range(30)],
])
MX_QUERY = dns.message.make_query("example.jp", "MX")


@contextlib.asynccontextmanager
async def running(address="127.0.0.1:0", clock=None, answerer=None):
    """The face on a free port; yields its endpoint."""
    streams = bind(Listener("dns", (address,)))
    port = endpoint_of(streams[0].getsockname()).port
    datagrams = bind(Listener("dns", (address[:-1] + str(port),)), datagrams=True)
    stopping = asyncio.Event()
    ready = Answerer([ZONE])
    face = DnsFace(answerer or (lambda: ready), clock or FakeClock())
    async with asyncio.TaskGroup() as group:
        group.create_task(face.run(datagrams, streams, stopping))
        try:
            yield Endpoint("127.0.0.1", port)
        finally:
            stopping.set()


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_udp_and_tcp(loop_factory):
    async def main():
        async with running() as endpoint:
            where = (endpoint.host, 5, endpoint.port)
            for ask in (dns.asyncquery.udp, dns.asyncquery.tcp):
                response = await ask(MX_QUERY, *where)
                assert response.answer[0][0].to_text() == "10 mail.example.jp."
                foreign = await ask(dns.message.make_query("example.org", "A"), *where)
                assert foreign.rcode() == dns.rcode.REFUSED and not foreign.flags & dns.flags.RA
            big = dns.message.make_query("big.example.jp", "TXT")
            response, over_tcp = await dns.asyncquery.udp_with_fallback(big, *where)
            assert over_tcp and len(response.answer[0]) == 30

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(asyncio.wait_for(main(), 10))


async def test_a_wildcard_socket_answers_from_the_address_that_was_asked():
    async with running(":0") as endpoint:
        for host in ("127.0.0.1", "127.0.0.77", "::1"):
            response = await dns.asyncquery.udp(MX_QUERY, host, 5, endpoint.port)       # checks the source
            assert response.answer


async def test_our_own_resolver_finds_it():
    async with running() as endpoint:
        assert await Resolver(FakeClock(), [endpoint]).resolve_mx("example.jp") == (Mx(10, "mail.example.jp"),)
        assert len(await Resolver(FakeClock(), [endpoint]).resolve_txt("big.example.jp")) == 30


async def test_garbage_over_udp_is_survived():
    async with running() as endpoint:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=(endpoint.host, endpoint.port))
        for octets in (b"", b"\0", b"\xff" * 2000, MX_QUERY.to_wire()[:-3], bytes(12)):
            transport.sendto(octets)
        assert (await dns.asyncquery.udp(MX_QUERY, endpoint.host, 5, endpoint.port)).answer
        transport.close()


async def conversation(endpoint, octets):
    """Sends octets over TCP, half-closes, and returns the messages that come back before the server closes."""
    stream = await open_stream(endpoint, 5)
    await stream.write(octets)
    half_close(stream)
    received, messages = bytearray(), []
    while data := await stream.read(timeout_s=5):
        received += data
        while (message := parse_framed(received)) is not None:
            messages.append(dns.message.from_wire(message))
    stream.abort()
    return messages


async def test_pipelined_queries_over_tcp_however_cut():
    queries = [dns.message.make_query(name, "MX") for name in ("example.jp", "no.example.jp", "example.org")]
    octets = b"".join(format_framed(query.to_wire()) for query in queries)
    async with running() as endpoint:
        messages = await conversation(endpoint, octets)
        assert [message.id for message in messages] == [query.id for query in queries]
        for position in range(0, len(octets), 5):
            stream = await open_stream(endpoint, 5)
            await stream.write(octets[:position])
            await asyncio.sleep(0)
            await stream.write(octets[position:])
            received = bytearray()
            found = []
            while len(found) < 3:
                received += await stream.read(timeout_s=5)
                while (message := parse_framed(received)) is not None:
                    found.append(dns.message.from_wire(message).id)
            assert found == [query.id for query in queries]
            stream.abort()


async def test_garbage_over_tcp_closes_the_connection():
    async with running() as endpoint:
        assert await conversation(endpoint, b"\0\5abcde" + format_framed(MX_QUERY.to_wire())) == []
        assert await conversation(endpoint, b"\0\0" + format_framed(MX_QUERY.to_wire())) == []


async def test_an_idle_connection_is_closed(monkeypatch):
    monkeypatch.setattr("fumibako.faces.dns.TCP_IDLE_S", 0.05)
    async with running() as endpoint:
        stream = await open_stream(endpoint, 5)
        await stream.write(b"\0")
        assert await stream.read(timeout_s=5) == b""
        stream.abort()


def face(clock):
    return DnsFace(lambda: Answerer([ZONE]), clock)


def test_a_network_that_asks_too_much_is_sent_to_tcp_or_hears_nothing():
    clock = FakeClock()
    asked = face(clock)
    flooding, other = Endpoint("198.51.100.7", 5353), Endpoint("203.0.113.7", 5353)
    answers = [asked.respond(MX_QUERY.to_wire(), flooding) for _ in range(50)]
    assert all(dns.message.from_wire(answer).answer for answer in answers)
    silence = asked.respond(MX_QUERY.to_wire(), Endpoint("198.51.100.200", 53))        # the same /24
    slip = dns.message.from_wire(asked.respond(MX_QUERY.to_wire(), flooding))
    assert silence is None and slip.flags & dns.flags.TC and not slip.answer
    assert asked.respond(b"\xff" * 20, flooding) is None
    assert dns.message.from_wire(asked.respond(MX_QUERY.to_wire(), other)).answer
    clock.advance(1)
    answers = [asked.respond(MX_QUERY.to_wire(), flooding) for _ in range(10)]
    assert all(dns.message.from_wire(answer).answer for answer in answers)


def verdicts(rate, size_octets, count):
    return [rate.judge("198.51.100.7", size_octets) for _ in range(count)]


def test_a_large_answer_counts_as_many():
    clock = FakeClock()
    rate = ResponseRate(clock)
    refused = [Verdict.DROP, Verdict.TRUNCATE]
    assert verdicts(rate, 1280, 7) == [*[Verdict.SEND] * 5, *refused]      # 10 ordinary ones each
    clock.advance(1)
    assert verdicts(rate, 1280, 3) == [Verdict.SEND, *refused]
    clock.advance(0.5)
    assert verdicts(rate, 1280, 2) == refused               # half of one is saved up,
    assert verdicts(rate, 20, 7) == [*[Verdict.SEND] * 5, *refused]        # which is five of the least


def test_no_answer_is_too_large_for_a_whole_budget():
    rate = ResponseRate(FakeClock(), burst=2)
    assert verdicts(rate, 65535, 2) == [Verdict.SEND, Verdict.DROP]


def test_asking_for_large_answers_brings_no_more_octets():
    def octets_out(size_octets, per_s, seconds=60, workers=1):
        clock, sent = FakeClock(), 0
        rate = ResponseRate(clock, workers=workers)
        for _ in range(seconds * per_s):
            sent += size_octets if rate.judge("198.51.100.7", size_octets) is Verdict.SEND else 0
            clock.advance(1 / per_s)
        return sent

    for per_s in (1, 10, 100, 1000):
        for size_octets in (128, 300, 476, 800, 1232):
            assert octets_out(size_octets, per_s) <= 128 * (50 + 60 * 10) + 1
            assert octets_out(size_octets, per_s, workers=16) <= 128 * (50 + 60 * 10) / 16 + size_octets


class Changing:
    """An answerer that has to be waited for while its zones are made anew."""

    def __init__(self):
        self.ready, self.asked = asyncio.Event(), 0

    def __call__(self):
        self.asked += 1
        return Answerer([ZONE]) if self.ready.is_set() else self.wait()

    async def wait(self):
        await self.ready.wait()
        return Answerer([ZONE])


@pytest.mark.parametrize("ask", [dns.asyncquery.udp, dns.asyncquery.tcp])
async def test_a_query_waits_for_zones_that_are_being_made(ask):
    changing = Changing()
    async with running(answerer=changing) as endpoint:
        where = (endpoint.host, 5, endpoint.port)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(ask(dns.message.make_query("example.jp", "MX"), *where)) for _ in range(5)]
            while not changing.asked:
                await asyncio.sleep(0)
            assert not any(one.done() for one in asked)
            changing.ready.set()
        assert all(one.result().answer for one in asked)
        assert (await ask(MX_QUERY, *where)).answer


def test_who_is_exempt_is_asked_at_every_answer():
    exempt = set()
    asked = DnsFace(lambda: Answerer([ZONE]), FakeClock(), exempt.__contains__)
    stranger = Endpoint("198.51.100.7", 5353)
    while asked.respond(MX_QUERY.to_wire(), stranger):
        pass
    exempt.add(stranger.host)
    assert all(asked.respond(MX_QUERY.to_wire(), stranger) for _ in range(500))


def test_loopback_is_exempt():
    asked = face(FakeClock())
    for _ in range(500):
        assert asked.respond(MX_QUERY.to_wire(), Endpoint("127.0.0.9", 53))


def test_workers_share_the_rate():
    """The kernel spreads a network's queries; together the workers say no more than one would."""
    clock = FakeClock()
    rates = [ResponseRate(clock, workers=4) for _ in range(4)]
    sent = [sum(rate.judge("192.0.2.1", 100) is Verdict.SEND for _ in range(100)) for rate in rates]
    assert sent == [BURST // 4] * 4
    clock.advance(4)
    assert [sum(rate.judge("192.0.2.1", 100) is Verdict.SEND for _ in range(100)) for rate in rates] == [RESPONSES_PER_S] * 4
    assert ResponseRate(clock, workers=1000).judge("192.0.2.1", 4096) is Verdict.SEND       # a whole budget is enough for any


def test_rate_table_is_bounded_and_ipv6_counts_by_56():
    rate = ResponseRate(FakeClock(), burst=1)
    assert rate.judge("2001:db8:0:1::1", 100) is Verdict.SEND
    assert rate.judge("2001:db8:0:ff::2", 100) is Verdict.DROP
    for number in range(10_500):
        rate.judge(f"10.{number // 256}.{number % 256}.1", 100)
    assert len(rate._buckets) == 10_000
