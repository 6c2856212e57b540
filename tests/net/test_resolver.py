"""The stub resolver against real sockets: honest, broken and hostile servers on loopback."""

import asyncio
import contextlib

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import uvloop

from fumibako.net.clock import Clock
from fumibako.net.endpoint import Endpoint, endpoint_of
from fumibako.net.listen import Listener, bind, serve
from fumibako.net.resolver import Resolver, ResolverFailure, ResolverOptions, parse_resolv_conf
from fumibako.proto.dns.records import Mx, Rcode, Srv, Tlsa
from tests.support.clock import FakeClock

FAST = ResolverOptions(timeout_s=0.15)     # where nothing comes
PATIENT = ResolverOptions(timeout_s=5)


class Server(asyncio.DatagramProtocol):
    """Answers UDP with every datagram that `behaviour(query)` yields, TCP with the first that `tcp(query)` yields."""

    def __init__(self, behaviour, tcp=None):
        self.behaviour, self.tcp, self.queries, self.sources, self.tcp_queries = behaviour, tcp, [], [], []

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.queries.append(dns.message.from_wire(data))
        self.sources.append(addr)
        for answer in self.behaviour(self.queries[-1]):
            self.transport.sendto(answer if isinstance(answer, bytes) else answer.to_wire(), addr)

    async def tcp_session(self, stream):
        received = await stream.read()
        query = dns.message.from_wire(received[2:])
        self.tcp_queries.append(query)
        wire = next(iter(self.tcp(query))).to_wire(max_size=65535)
        framed = len(wire).to_bytes(2, "big") + wire
        for start in range(0, len(framed), 7):
            await stream.write(framed[start : start + 7])


@contextlib.asynccontextmanager
async def running(behaviour, tcp=None, host="127.0.0.1"):
    """A server on a free port; yields (server, endpoint)."""
    server = Server(behaviour, tcp)
    sockets = bind(Listener("dns", (f"{host}:0",)))
    endpoint = endpoint_of(sockets[0].getsockname())
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=(endpoint.host, endpoint.port))
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        if tcp:
            group.create_task(serve(sockets, server.tcp_session, stopping=stopping))
        else:
            sockets[0].close()
        try:
            yield server, endpoint
        finally:
            stopping.set()
            transport.close()


def reply(query, *answers, authority=(), rcode=Rcode.NOERROR, flags=dns.flags.RA):
    response = dns.message.make_response(query)
    response.flags |= flags
    response.set_rcode(rcode)
    response.answer = [dns.rrset.from_text(*answer) for answer in answers]
    response.authority = [dns.rrset.from_text(*record) for record in authority]
    return response


def asked(query):
    return query.question[0].name.to_text().lower()


A_RECORD = ("mail.example.", 300, "IN", "A", "192.0.2.1")
SOA = ("example.", 900, "IN", "SOA", "ns.example. hostmaster.example. 1 3600 900 86400 60")


def honest(query):
    yield reply(query, A_RECORD)


def resolver(*endpoints, options=PATIENT, clock=None):
    return Resolver(clock or Clock(), endpoints, options)


async def test_every_kind_of_record_in_our_own_shape():
    data = {
        "A": ("192.0.2.1",), "AAAA": ("2001:db8::1",), "MX": ("10 Mail.Example.", "0 ."), "NS": ("NS.example.",),
        "TXT": ('"v=spf1 " "mx -all"',), "SRV": ("0 1 993 mail.example.",), "TLSA": ("3 1 1 " + "ab" * 32,),
        "PTR": ("mail.example.",), "SOA": (SOA[4],), "CAA": ('0 issue "ca.example"',),
    }
    values = {
        "A": ("192.0.2.1",), "AAAA": ("2001:db8::1",), "MX": (Mx(10, "mail.example"), Mx(0, ".")), "NS": ("ns.example",),
        "TXT": (b"v=spf1 mx -all",), "SRV": (Srv(0, 1, 993, "mail.example"),), "TLSA": (Tlsa(3, 1, 1, b"\xab" * 32),),
        "PTR": ("mail.example",), "SOA": (SOA[4],), "CAA": (b"\x00\x05issueca.example",),
    }

    def behaviour(query):
        rrtype = dns.rdatatype.to_text(query.question[0].rdtype)
        yield reply(query, (asked(query), 300, "IN", rrtype, *data[rrtype]))

    async with running(behaviour) as (_, endpoint):
        found = resolver(endpoint)
        for rrtype, expected in values.items():
            answer = await found.resolve("x.example", rrtype)
            assert set(answer.rdatas) == set(expected), rrtype
            assert (answer.rcode, answer.ttl_s, answer.from_server) == (Rcode.NOERROR, 300, str(endpoint))
        assert await found.resolve_mx("x.example") == (Mx(0, "."), Mx(10, "mail.example"))
        assert await found.resolve_addresses("x.example") == ("192.0.2.1", "2001:db8::1")
        assert await found.resolve_txt("x.example") == (b"v=spf1 mx -all",)
        assert await found.resolve_ptr("192.0.2.1") == ("mail.example",)


async def test_query_asks_with_recursion_edns_and_mixed_case_from_new_ports():
    async with running(honest) as (server, endpoint):
        for _ in range(8):
            await resolver(endpoint).resolve("mail.example", "A")
        assert all(query.flags & dns.flags.RD and query.payload == 1232 for query in server.queries)
        assert len({query.id for query in server.queries}) > 4
        assert len({port for _, port in server.sources}) > 4
        assert len({query.question[0].name.labels for query in server.queries}) > 4


async def test_nxdomain_and_nodata_are_values_and_held_for_the_soa_minimum():
    def behaviour(query):
        missing = asked(query) == "no.example."
        yield reply(query, authority=[SOA], rcode=Rcode.NXDOMAIN if missing else Rcode.NOERROR)

    clock = FakeClock()
    async with running(behaviour) as (server, endpoint):
        found = resolver(endpoint, clock=clock)
        no_name = await found.resolve("no.example", "MX")
        no_data = await found.resolve("yes.example", "MX")
        assert (no_name.rcode, no_name.rdatas, no_name.ttl_s) == (Rcode.NXDOMAIN, (), 60)
        assert (no_data.rcode, no_data.rdatas, no_data.ttl_s) == (Rcode.NOERROR, (), 60)
        clock.advance(59)
        await found.resolve("NO.example.", "MX")
        assert len(server.queries) == 2
        clock.advance(2)
        await found.resolve("no.example", "MX")
        assert len(server.queries) == 3


@pytest.mark.parametrize(("minimum", "ttl", "held"), [(999_999, 999_999, 3600), (60, 5, 5)])
async def test_negative_ttl_is_bounded(minimum, ttl, held):
    soa = ("example.", ttl, "IN", "SOA", f"ns.example. h.example. 1 1 1 1 {minimum}")
    async with running(lambda query: [reply(query, authority=[soa], rcode=Rcode.NXDOMAIN)]) as (_, endpoint):
        assert (await resolver(endpoint).resolve("no.example", "A")).ttl_s == held


async def test_negative_answer_without_soa_is_not_held():
    async with running(lambda query: [reply(query, rcode=Rcode.NXDOMAIN)]) as (server, endpoint):
        found = resolver(endpoint)
        for _ in range(2):
            await found.resolve("no.example", "A")
        assert len(server.queries) == 2


async def test_positive_ttl_is_bounded_and_expires():
    clock = FakeClock()
    record = ("mail.example.", 999_999, "IN", "A", "192.0.2.1")
    async with running(lambda query: [reply(query, record)]) as (server, endpoint):
        found = resolver(endpoint, clock=clock)
        assert (await found.resolve("mail.example", "A")).ttl_s == 86_400
        clock.advance(86_399)
        await found.resolve("mail.example", "A")
        assert len(server.queries) == 1
        clock.advance(1)
        await found.resolve("mail.example", "A")
        assert len(server.queries) == 2


async def test_cache_is_bounded_in_octets():
    def behaviour(query):
        yield reply(query, (asked(query), 300, "IN", "A", "192.0.2.1"))

    async with running(behaviour) as (_, endpoint):
        found = resolver(endpoint, options=ResolverOptions(timeout_s=1, cache_octets=10_000))
        for number in range(200):
            await found.resolve(f"n{number}.example", "A")
        assert 5_000 < found._cache._octets <= 10_000
        assert len(found._cache._entries) < 40


async def test_aliases_are_followed_in_one_answer_and_over_several():
    alias = ("www.example.", 30, "IN", "CNAME", "mail.example.")

    def whole(query):
        yield reply(query, alias, A_RECORD)

    def piecemeal(query):
        yield reply(query, alias if asked(query) == "www.example." else A_RECORD)

    for behaviour, queries in ((whole, 1), (piecemeal, 2)):
        async with running(behaviour) as (server, endpoint):
            answer = await resolver(endpoint).resolve("www.example", "A")
            assert (answer.canonical_name, answer.rdatas, answer.ttl_s) == ("mail.example", ("192.0.2.1",), 30)
            assert len(server.queries) == queries


async def test_alias_ring_and_endless_chain_end():
    def ring(query):
        yield reply(query, ("a.example.", 30, "IN", "CNAME", "b.example."), ("b.example.", 30, "IN", "CNAME", "a.example."))

    def endless(query):
        yield reply(query, (asked(query), 30, "IN", "CNAME", "x" + asked(query)))

    for behaviour in (ring, endless):
        async with running(behaviour) as (server, endpoint):
            with pytest.raises(ResolverFailure, match="aliases in a row"):
                await resolver(endpoint).resolve("a.example", "A")
            assert len(server.queries) <= 10


async def test_records_of_other_names_are_not_taken():
    """E3: extra records in any section plant nothing."""
    def behaviour(query):
        response = reply(query, A_RECORD, ("bank.example.", 86400, "IN", "A", "203.0.113.66"))
        response.additional = [dns.rrset.from_text("bank.example.", 86400, "IN", "A", "203.0.113.66")]
        yield response if asked(query) == "mail.example." else reply(query, authority=[SOA])

    async with running(behaviour) as (server, endpoint):
        found = resolver(endpoint)
        assert (await found.resolve("mail.example", "A")).rdatas == ("192.0.2.1",)
        assert (await found.resolve("bank.example", "A")).rdatas == ()
        assert len(server.queries) == 2


def other_question(query):
    other = dns.message.make_query("other.example.", "A")
    other.id = query.id
    return reply(other, ("other.example.", 300, "IN", "A", "203.0.113.66"))


GARBAGE = {
    "empty": lambda query: b"",
    "short": lambda query: b"\0\1\2",
    "noise": lambda query: bytes(range(40)),
    "header only": lambda query: query.id.to_bytes(2, "big") + b"\x81\x80" + b"\0" * 8,
    "cut": lambda query: reply(query, A_RECORD).to_wire()[:-5],
    "not a response": lambda query: query.to_wire(),
    "pointer loop": lambda query: query.id.to_bytes(2, "big") + b"\x81\x80\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1",
    "other question": other_question,
    "other opcode": lambda query: query.id.to_bytes(2, "big") + b"\xa1\x80" + reply(query, A_RECORD).to_wire()[4:],
    "wrong id": lambda query: (query.id ^ 1).to_bytes(2, "big") + reply(query, A_RECORD).to_wire()[2:],
    "wrong case": lambda query: query.id.to_bytes(2, "big") + reply(query, A_RECORD).to_wire()[2:].swapcase(),
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_bad_answers_do_not_end_the_wait(kind):
    """E2, TuDoor: the forged answer comes first, the true one is still used."""
    def behaviour(query):
        yield GARBAGE[kind](query)
        yield reply(query, ("mail.example.", 300, "IN", "A", "192.0.2.7"))

    async with running(behaviour) as (server, endpoint):
        answer = await resolver(endpoint).resolve("mail.example", "A")
        assert answer.rdatas == ("192.0.2.7",)
        assert len(server.queries) == 1


async def test_only_bad_answers_is_a_timeout_that_names_the_server():
    async with running(lambda query: [b"junk" * 10] * 100) as (server, endpoint):
        with pytest.raises(ResolverFailure, match=rf"{endpoint} did not answer within 0\.3 s") as caught:
            await resolver(endpoint, options=FAST).resolve("mail.example", "MX")
        assert caught.value.servers == (str(endpoint),)
        assert (caught.value.name, caught.value.rrtype) == ("mail.example", "MX")
        assert len(server.queries) == 2


async def test_a_guess_of_the_id_moves_the_question_to_tcp():
    """E1: a near miss means somebody is guessing; over TCP there is nothing to guess."""
    def behaviour(query):
        yield (query.id ^ 1).to_bytes(2, "big") + reply(query, A_RECORD).to_wire()[2:]

    def tcp(query):
        yield reply(query, ("mail.example.", 300, "IN", "A", "192.0.2.7"))

    async with running(behaviour, tcp) as (server, endpoint):
        assert (await resolver(endpoint).resolve("mail.example", "A")).rdatas == ("192.0.2.7",)
        assert len(server.tcp_queries) == 1


async def test_long_answers_come_over_tcp():
    texts = [f'"{number:0200}"' for number in range(60)]

    def truncated(query):
        yield reply(query, flags=dns.flags.RA | dns.flags.TC)

    def tcp(query):
        yield reply(query, ("big.example.", 300, "IN", "TXT", *texts))

    async with running(truncated, tcp) as (_, endpoint):
        assert len(await resolver(endpoint).resolve_txt("big.example")) == 60


async def test_truncated_without_tcp_is_a_failure():
    async with running(lambda query: [reply(query, A_RECORD, flags=dns.flags.TC)]) as (_, endpoint):
        with pytest.raises(ResolverFailure, match=r"127\.0\.0\.1:\d+: .*refused|Connect call failed"):
            await resolver(endpoint).resolve("mail.example", "A")


@pytest.mark.parametrize("rcode", [Rcode.FORMERR, Rcode.NOTIMP])
async def test_a_server_without_edns_is_asked_without(rcode):
    def behaviour(query):
        if query.edns >= 0:
            yield query.id.to_bytes(2, "big") + bytes([0x80, rcode]) + b"\0" * 8
        else:
            yield reply(query, A_RECORD)

    async with running(behaviour) as (_, endpoint):
        assert (await resolver(endpoint).resolve("mail.example", "A")).rdatas == ("192.0.2.1",)


async def test_next_server_when_one_fails_and_all_are_named_when_none_can_tell():
    def servfail(query):
        yield reply(query, rcode=Rcode.SERVFAIL)

    def referral(query):
        yield reply(query, authority=[("example.", 300, "IN", "NS", "ns.example.")], flags=0)

    async with running(servfail) as (_, first), running(referral) as (_, second), running(honest) as (_, third):
        answer = await resolver(first, second, third).resolve("mail.example", "A")
        assert answer.from_server == str(third)
        with pytest.raises(ResolverFailure) as caught:
            await resolver(first, second).resolve("mail.example", "A")
        assert caught.value.reason == f"{first} answered SERVFAIL; {second} answered a referral"


async def test_nobody_at_the_port():
    async with running(honest) as (_, endpoint):
        pass
    with pytest.raises(ResolverFailure, match=str(endpoint)):
        await resolver(endpoint).resolve("mail.example", "A")


async def test_failures_are_held_for_a_second():
    clock = FakeClock()
    async with running(lambda query: [reply(query, rcode=Rcode.REFUSED)]) as (server, endpoint):
        found = resolver(endpoint, clock=clock)
        for _ in range(3):
            with pytest.raises(ResolverFailure, match="REFUSED"):
                await found.resolve("mail.example", "A")
        assert len(server.queries) == 2
        clock.advance(1)
        with pytest.raises(ResolverFailure):
            await found.resolve("mail.example", "A")
        assert len(server.queries) == 4


async def test_one_question_for_many_who_wait():
    async with running(honest) as (server, endpoint):
        found = resolver(endpoint)
        answers = await asyncio.gather(*(found.resolve("mail.example", "A") for _ in range(50)))
        assert {answer.rdatas for answer in answers} == {("192.0.2.1",)}
        assert len(server.queries) == 1


async def test_cancelling_the_one_who_asked_leaves_the_others_waiting():
    silent = asyncio.Event()

    def behaviour(query):
        silent.set()
        if len(server.queries) > 1:
            yield reply(query, A_RECORD)

    async with running(behaviour) as (server, endpoint):
        found = resolver(endpoint)
        leader = asyncio.create_task(found.resolve("mail.example", "A"))
        await silent.wait()
        follower = asyncio.create_task(found.resolve("mail.example", "A"))
        await asyncio.sleep(0)
        leader.cancel()
        assert (await follower).rdatas == ("192.0.2.1",)
        with pytest.raises(asyncio.CancelledError):
            await leader
        assert not found._asking


async def test_authenticated_only_from_a_loopback_server_that_says_so():
    for flags, expected in ((dns.flags.AD, True), (0, False)):
        async with running(lambda query, flags=flags: [reply(query, A_RECORD, flags=flags)]) as (_, endpoint):
            assert (await resolver(endpoint).resolve("mail.example", "A")).authenticated is expected


@pytest.mark.parametrize(
    "name", ["", "a..b", "x" * 64 + ".example", ("x" * 60 + ".") * 5 + "example", "sp ace.example", "xn--\u3042"])
async def test_names_that_cannot_exist_are_not_asked_for(name):
    async with running(honest) as (server, endpoint):
        assert (await resolver(endpoint).resolve(name, "A")).rcode == Rcode.NXDOMAIN
        assert server.queries == []


async def test_u_labels_are_asked_as_a_labels():
    def behaviour(query):
        yield reply(query, (asked(query), 300, "IN", "MX", "10 mail.example."))

    async with running(behaviour) as (server, endpoint):
        assert await resolver(endpoint).resolve_mx("日本語。JP") == (Mx(10, "mail.example"),)
        assert asked(server.queries[0]) == "xn--wgv71a119e.jp."


def test_on_uvloop_too():
    async def main():
        async with running(honest) as (_, endpoint):
            return (await resolver(endpoint).resolve("mail.example", "A")).rdatas

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == ("192.0.2.1",)


def test_resolv_conf():
    octets = (
        b"# c\nsearch x\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n"
        b"nameserver fe80::1%eth0\nnameserver nonsense\nnameserver\n"
    )
    assert parse_resolv_conf(octets) == (Endpoint("192.0.2.53", 53), Endpoint("2001:db8::53", 53))
    assert parse_resolv_conf(b"") == (Endpoint("127.0.0.1", 53),)
