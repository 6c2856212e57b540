"""The way to a domain's mail hosts (RFC 5321 §5.1), and the connection there."""

import asyncio

import pytest

from fumibako.net.clock import Clock
from fumibako.net.dial import (
    DialFailure,
    Found,
    Host,
    LoopsBack,
    NoSuchDomain,
    NoUsableAddress,
    NullMx,
    OwnPlace,
    TemporaryFailure,
    dial,
    mx_hosts,
)
from fumibako.net.endpoint import endpoint_of
from fumibako.net.listen import Listener, bind
from fumibako.proto.dns.records import Mx
from tests.support.clock import FakeClock
from tests.support.resolver import SERVER, TIMEOUT, FakeResolver

HOSTS = {("a.example", "A"): ["192.0.2.1"], ("b.example", "A"): ["192.0.2.2"], ("b.example", "AAAA"): ["2001:db8::2"]}
OURS = OwnPlace(frozenset({"b.example"}), frozenset({"192.0.2.9"}))

CASES = [
    ("nowhere.example", {}, NoSuchDomain("nowhere.example")),
    ("d.example", {("d.example", "MX"): [Mx(0, ".")]}, NullMx("d.example")),
    ("d.example", {("d.example", "MX"): [Mx(20, "a.example"), Mx(10, "b.example")]},
     Found((Host("b.example", 10, ("192.0.2.2", "2001:db8::2")), Host("a.example", 20, ("192.0.2.1",))))),
    # No MX: the domain is its own host; behind an alias, the name it leads to.
    ("d.example", {("d.example", "AAAA"): ["2001:db8::7"]}, Found((Host("d.example", 0, ("2001:db8::7",)),), implicit=True)),
    ("d.example", {("d.example", "CNAME"): ["a.example"]}, Found((Host("a.example", 0, ("192.0.2.1",)),), implicit=True)),
    ("d.example", {("d.example", "CNAME"): ["e.example"], ("e.example", "MX"): [Mx(5, "a.example")]},
     Found((Host("a.example", 5, ("192.0.2.1",)),))),
    # MX present but useless: never fall back to the domain's own address.
    ("d.example", {("d.example", "MX"): [Mx(10, "gone.example")], ("d.example", "A"): ["192.0.2.7"]},
     NoUsableAddress("d.example", "gone.example has no address")),
    ("d.example", {("d.example", "MX"): [Mx(10, "lo.example")], ("lo.example", "A"): ["127.0.0.1"]},
     NoUsableAddress("d.example", "lo.example has only 127.0.0.1")),
    ("d.example", {("d.example", "MX"): [Mx(10, "zero.example")], ("zero.example", "A"): ["0.0.0.0"]},
     NoUsableAddress("d.example", "zero.example has only 0.0.0.0")),
    ("d.example", {("d.example", "TXT"): [b"x"]}, NoUsableAddress("d.example", "d.example has no address")),
    # A null MX among others is no host and no declaration.
    ("d.example", {("d.example", "MX"): [Mx(0, "."), Mx(10, "a.example")]}, Found((Host("a.example", 10, ("192.0.2.1",)),))),
    ("d.example", {("d.example", "MX"): TIMEOUT}, TemporaryFailure("d.example", f"{SERVER} did not answer within 5 s")),
    ("d.example", {("d.example", "MX"): [Mx(10, "slow.example")], ("slow.example", "A"): TIMEOUT,
                   ("slow.example", "AAAA"): TIMEOUT},
     TemporaryFailure("d.example", f"{SERVER} did not answer within 5 s")),
    ("d.example", {("d.example", "MX"): [Mx(10, "slow.example"), Mx(20, "a.example")], ("slow.example", "A"): TIMEOUT},
     Found((Host("a.example", 20, ("192.0.2.1",)),))),
    ("[192.0.2.3]", {}, Found((Host("[192.0.2.3]", 0, ("192.0.2.3",)),), implicit=True)),
    ("[IPv6:2001:db8::3]", {}, Found((Host("[IPv6:2001:db8::3]", 0, ("2001:db8::3",)),), implicit=True)),
    ("[127.0.0.1]", {}, NoUsableAddress("[127.0.0.1]", "mail is not sent to 127.0.0.1")),
    ("[mail]", {}, NoUsableAddress("[mail]", "[mail] is not an IP address")),
    ("a..b", {}, NoSuchDomain("a..b")),
]


@pytest.mark.parametrize(("domain", "records", "route"), CASES)
async def test_route(domain, records, route):
    assert await mx_hosts(FakeResolver(HOSTS | records), domain, FakeClock()) == route


@pytest.mark.parametrize(("mx", "route"), [
    ([Mx(10, "a.example"), Mx(20, "b.example")], Found((Host("a.example", 10, ("192.0.2.1",)),))),
    ([Mx(10, "b.example"), Mx(20, "a.example")], LoopsBack("d.example", "b.example")),
    ([Mx(10, "b.example"), Mx(10, "a.example")], LoopsBack("d.example", "b.example")),
    ([Mx(10, "alias.example")], LoopsBack("d.example", "alias.example")),
])
async def test_hosts_at_or_behind_ourselves_are_dropped(mx, route):
    records = HOSTS | {("d.example", "MX"): mx, ("alias.example", "A"): ["192.0.2.9"]}
    assert await mx_hosts(FakeResolver(records), "d.example", FakeClock(), OURS) == route


async def test_a_better_host_that_cannot_be_looked_up_is_no_loop():
    mx = [Mx(10, "slow.example"), Mx(20, "b.example")]
    records = HOSTS | {("d.example", "MX"): mx, ("slow.example", "A"): TIMEOUT, ("slow.example", "AAAA"): TIMEOUT}
    route = await mx_hosts(FakeResolver(records), "d.example", FakeClock(), OURS)
    assert isinstance(route, TemporaryFailure)


async def test_loopback_hosts_only_for_a_server_on_loopback():
    records = {("d.example", "MX"): [Mx(10, "lo.example")], ("lo.example", "A"): ["127.0.0.9"]}
    route = await mx_hosts(FakeResolver(records), "d.example", FakeClock(), OwnPlace(on_loopback=True))
    assert route == Found((Host("lo.example", 10, ("127.0.0.9",)),))


@pytest.mark.parametrize(("address", "usable"), [
    ("192.0.2.1", True), ("10.0.0.1", True), ("2001:db8::1", True), ("64:ff9b::192.0.2.1", True), ("fd00::1", True),
    ("127.0.0.1", False), ("127.9.9.9", False), ("::1", False), ("::ffff:127.0.0.1", False), ("0.0.0.0", False), ("::", False),
    ("224.0.0.1", False), ("255.255.255.255", False), ("240.0.0.1", False), ("169.254.1.1", False), ("fe80::1", False),
])
def test_addresses_that_can_be_a_mail_server(address, usable):
    assert OwnPlace().takes(address) is usable


async def test_equal_preferences_are_shuffled_and_a_flood_of_records_is_cut():
    names = [f"h{number}.example" for number in range(100)]
    records = {(name, "A"): ["192.0.2.1"] for name in names} | {("d.example", "MX"): [Mx(10, name) for name in names]}
    first_names = set()
    for seed in range(20):
        resolver = FakeResolver(records)
        route = await mx_hosts(resolver, "d.example", FakeClock(seed=seed))
        assert len(route.hosts) == 20 and len(resolver.asked) == 41
        first_names.add(route.hosts[0].name)
    assert len(first_names) > 10


async def test_authenticated_is_passed_on():
    records = HOSTS | {("d.example", "MX"): [Mx(10, "a.example")]}
    assert (await mx_hosts(FakeResolver(records, authenticated=True), "d.example", Clock())).authenticated


async def test_dial_names_the_address_that_refused():
    listening = bind(Listener("test", ("127.0.0.1:0",)))[0]
    endpoint = endpoint_of(listening.getsockname())
    stream = await dial(endpoint.host, endpoint.port, 5, source="127.0.0.3")
    assert stream.local.host == "127.0.0.3" and stream.peer == endpoint
    stream.abort()
    listening.close()
    with pytest.raises(DialFailure, match=f"127.0.0.1:{endpoint.port}: Connection refused"):
        await dial(endpoint.host, endpoint.port, 5, source="2001:db8::1")     # another family: not used


async def test_dial_names_the_time_it_waited(monkeypatch):
    async def never(*arguments, **options):
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", never)
    with pytest.raises(DialFailure, match=r"192\.0\.2\.1:25 did not answer within 0\.01 s"):
        await dial("192.0.2.1", 25, 0.01)
