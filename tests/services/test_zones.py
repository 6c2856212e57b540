"""What the zones of hosted domains hold, and that they follow the directory."""

import asyncio

import dns.message
import dns.zone
import pytest

from fumibako.model.account import Domain
from fumibako.model.ids import DomainId
from fumibako.model.ops import AddDomain, RemoveDomain
from fumibako.proto.dns.answer import Answerer
from fumibako.proto.dns.records import Record
from fumibako.proto.dns.zone import make_zone
from fumibako.services import StoreUnavailable
from fumibako.services.zones import Listening, NotHosted, ZoneFacts, Zones, zone_records
from tests.support.imap_session import House

ALL_ON = tuple(Listening(name, port) for name, port in [
    ("smtp", 25), ("submission", 587), ("submissions", 465), ("imap", 143), ("imaps", 993), ("pop3", 110), ("pop3s", 995),
])
FACTS = ZoneFacts("mail.example.jp", ("192.0.2.25", "2001:db8::25"), ALL_ON)


def domain(name, modseq=7):
    return Domain(DomainId(1), name, modseq)


def published(facts, name, children=()):
    records = [one.record for one in zone_records(facts, domain(name), children)]
    return {(record.owner, record.rrtype, record.data) for record in records}


def test_the_home_domain_holds_everything():
    assert published(FACTS, "example.jp") == {
        ("example.jp", "SOA", "mail.example.jp. hostmaster.example.jp. 7 3600 900 1209600 300"),
        ("example.jp", "NS", "mail.example.jp."),
        ("example.jp", "MX", "10 mail.example.jp."),
        ("example.jp", "TXT", '"v=spf1 mx -all"'),
        ("mail.example.jp", "A", "192.0.2.25"),
        ("mail.example.jp", "AAAA", "2001:db8::25"),
        ("mail.example.jp", "TXT", '"v=spf1 a -all"'),
        ("_submissions._tcp.example.jp", "SRV", "0 1 465 mail.example.jp."),
        ("_submission._tcp.example.jp", "SRV", "10 1 587 mail.example.jp."),
        ("_imaps._tcp.example.jp", "SRV", "0 1 993 mail.example.jp."),
        ("_imap._tcp.example.jp", "SRV", "10 1 143 mail.example.jp."),
        ("_pop3s._tcp.example.jp", "SRV", "20 1 995 mail.example.jp."),
        ("_pop3._tcp.example.jp", "SRV", "30 1 110 mail.example.jp."),
    }


def test_another_domain_points_at_the_host_without_its_addresses():
    found = published(FACTS, "other.jp")
    assert ("other.jp", "MX", "10 mail.example.jp.") in found
    assert not any(rrtype in {"A", "AAAA"} for _, rrtype, _ in found)
    assert sum(rrtype == "TXT" for _, rrtype, _ in found) == 1


def test_listeners_that_are_off_are_denied():
    facts = ZoneFacts("mail.example.jp", ("192.0.2.25",), (Listening("imaps", 1993),))
    found = published(facts, "example.jp")
    assert ("_imaps._tcp.example.jp", "SRV", "0 1 1993 mail.example.jp.") in found
    for name in ("imap", "pop3", "pop3s", "submission", "submissions"):
        assert (f"_{name}._tcp.example.jp", "SRV", "0 0 0 .") in found
    assert not any(rrtype == "MX" for _, rrtype, _ in found)
    assert ("example.jp", "TXT", '"v=spf1 a:mail.example.jp -all"') in found


def test_a_smarthost_may_send_too():
    facts = ZoneFacts("mail.example.jp", (), ALL_ON, smarthost="smtp.isp.example")
    assert ("example.jp", "TXT", '"v=spf1 mx a:smtp.isp.example ~all"') in published(facts, "example.jp")


def test_the_host_may_be_the_domain_itself():
    facts = ZoneFacts("example.jp", ("192.0.2.25",), ALL_ON)
    found = published(facts, "example.jp")
    assert ("example.jp", "A", "192.0.2.25") in found
    assert [data for _, rrtype, data in found if rrtype == "TXT"] == ['"v=spf1 mx -all"']


def test_a_hosted_child_is_delegated_with_glue():
    found = published(FACTS, "jp", ("example.jp", "sub.example.jp"))
    assert ("example.jp", "NS", "mail.example.jp.") in found
    assert ("sub.example.jp", "NS", "mail.example.jp.") not in found
    assert ("mail.example.jp", "A", "192.0.2.25") in found
    assert ("mail.example.jp", "TXT", '"v=spf1 a -all"') not in found


class Directory:
    """Every assignment to `hosted` is a change; `away`: it can't be read; `gate`: reads wait for it."""

    def __init__(self, *domains):
        self.version, self.reads, self.away, self.gate, self.published = 0, 0, False, None, []
        self.hosted = domains

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if name == "hosted":
            self.version += 1

    def directory_version(self):
        return self.version

    async def commit(self, operation):
        self.published.append(operation.digest)

    async def domains(self):
        self.reads += 1
        found = list(self.hosted)
        if self.gate:
            await self.gate.wait()
        if self.away:
            raise StoreUnavailable("restarting")
        return found


async def current(zones):
    found = zones.current()
    return found if isinstance(found, Answerer) else await found


async def ask(zones, name, rrtype):
    wire = dns.message.make_query(name, rrtype).to_wire()
    return dns.message.from_wire((await current(zones)).respond(wire, udp=True))


async def serial(zones, name):
    response = await ask(zones, name, "SOA")
    return response.answer[0][0].serial if response.answer else response.rcode()


async def test_zones_follow_the_directory():
    directory = Directory()
    zones = Zones(FACTS, directory)
    assert await serial(zones, "example.jp") == dns.rcode.REFUSED
    directory.hosted = [domain("example.jp", 3)]
    assert await serial(zones, "example.jp") == 3
    answerer = zones.current()      # at hand
    assert zones.current() is answerer and directory.reads == 2
    directory.hosted = [domain("example.jp", 3)]
    assert await current(zones) is answerer     # none of our domains changed: ready answers stay
    directory.hosted = [domain("example.jp", 2**32 + 9)]
    assert await serial(zones, "example.jp") == 9
    directory.hosted = []
    assert await serial(zones, "example.jp") == dns.rcode.REFUSED


async def test_while_the_store_is_away_the_zones_stay(caplog):
    directory = Directory(domain("example.jp", 3))
    zones = Zones(FACTS, directory)
    await zones.refresh()
    directory.hosted, directory.away = [], True
    assert [await serial(zones, "example.jp") for _ in range(3)] == [3, 3, 3]
    assert [record.message for record in caplog.records] == ["the zones stay as they are: restarting"]
    directory.away = False
    assert await serial(zones, "example.jp") == dns.rcode.REFUSED


async def test_only_what_changed_is_made_anew(monkeypatch):
    made = []
    monkeypatch.setattr("fumibako.services.zones.make_zone", lambda name, records: made.append(name) or make_zone(name, records))
    directory = Directory(domain("example.jp", 1), domain("other.jp", 2))
    zones = Zones(FACTS, directory)
    await zones.refresh()
    directory.hosted = [domain("example.jp", 1), domain("other.jp", 3)]
    await zones.refresh()
    directory.hosted = [domain("a.b.example.jp", 4), domain("example.jp", 1), domain("other.jp", 3)]     # a cut in its parent
    await zones.refresh()
    directory.hosted = [domain("example.jp", 1), domain("other.jp", 3)]
    await zones.refresh()
    assert made == ["example.jp", "other.jp", "other.jp", "a.b.example.jp", "example.jp", "example.jp"]
    assert await serial(zones, "a.b.example.jp") == dns.rcode.NXDOMAIN


async def test_a_server_that_is_called_otherwise_publishes_anew_though_the_directory_is_the_same():
    zones = Zones(FACTS, Directory(domain("example.jp")))
    await zones.refresh()
    zones.change(ZoneFacts("post.example.jp", FACTS.addresses, ALL_ON))
    answerer = await current(zones)
    assert [rdata.to_text() for rdata in (await ask(zones, "example.jp", "MX")).answer[0]] == ["10 post.example.jp."]
    zones.change(ZoneFacts("post.example.jp", FACTS.addresses, ALL_ON))
    assert await current(zones) is answerer


async def test_what_the_server_says_of_itself_is_announced_before_it_is_published():
    directory = Directory(domain("example.jp"))
    zones = Zones(FACTS, directory)
    assert directory.published == []
    for facts in (FACTS, ZoneFacts("post.example.jp", FACTS.addresses, ALL_ON), FACTS, FACTS):
        zones.change(facts)
        await current(zones)
        await current(zones)
    first, second, third = directory.published
    assert first == third != second
    await Zones(FACTS, directory).refresh()     # another worker, or the next start
    assert directory.published[3:] == [first] and first < 2**48


async def test_serials_rise_with_what_the_zones_say(tmp_path):
    """RFC 1035 §3.3.13: in a real directory, for a delegation and for another name of the server, and only then."""
    house = await House.build(tmp_path / "data")

    async def serials(facts):
        zones = Zones(facts, house.store)
        return [await serial(zones, name) for name in ("example.jp", "other.jp")]

    await house.store.commit(AddDomain("other.jp"))
    before = await serials(FACTS)
    assert await serials(FACTS) == before
    await house.store.commit(AddDomain("deep.sub.example.jp"))
    parent, other = await serials(FACTS)
    assert parent > before[0] and other == before[1]
    await house.store.commit(RemoveDomain("deep.sub.example.jp"))
    removed = await serials(FACTS)
    assert removed[0] > parent and removed[1] == other
    renamed = await serials(ZoneFacts("post.example.jp", FACTS.addresses, ALL_ON))
    assert renamed[0] > removed[0] and renamed[1] > removed[1]
    await house.close()


async def test_queries_share_one_reading_of_the_directory_but_none_from_before_they_came():
    directory = Directory(domain("example.jp", 1))
    zones = Zones(FACTS, directory)
    directory.gate = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        early = [group.create_task(serial(zones, "example.jp")) for _ in range(10)]
        while not directory.reads:
            await asyncio.sleep(0)
        directory.hosted = [domain("example.jp", 2)]        # committed while the first reading is under way
        late = [group.create_task(serial(zones, "example.jp")) for _ in range(10)]
        await asyncio.sleep(0)
        directory.gate.set()
    assert [task.result() for task in late] == [2] * 10
    assert {task.result() for task in early} <= {1, 2}
    assert directory.reads == 2


async def test_a_query_that_is_given_up_leaves_the_work_to_the_next():
    directory = Directory(domain("example.jp", 1))
    zones = Zones(FACTS, directory)
    directory.gate = asyncio.Event()
    first, second = (asyncio.create_task(serial(zones, "example.jp")) for _ in range(2))
    while not directory.reads:
        await asyncio.sleep(0)
    first.cancel()
    directory.gate.set()
    assert await second == 1


async def test_further_records_stand_beside_or_in_place_of_ours():
    async def further(name):
        return [
            Record("example.jp", 60, "MX", "5 mx.provider.example."),
            Record("example.jp", 60, "TXT", '"v=spf1 include:provider.example -all"'),
            Record("example.jp", 60, "TXT", '"verification=1"'),
            Record("k1._domainkey.example.jp", 60, "TXT", '"v=DKIM1; p=abc"'),
            Record("www.example.jp", 60, "A", "192.0.2.80"),
        ]

    zones = Zones(FACTS, Directory(domain("example.jp")), further)
    await zones.refresh()
    assert [rdata.to_text() for rdata in (await ask(zones, "example.jp", "MX")).answer[0]] == ["5 mx.provider.example."]
    texts = {rdata.to_text() for rdata in (await ask(zones, "example.jp", "TXT")).answer[0]}
    assert texts == {'"v=spf1 include:provider.example -all"', '"verification=1"'}
    assert (await ask(zones, "www.example.jp", "A")).answer and (await ask(zones, "k1._domainkey.example.jp", "TXT")).answer


async def test_records_that_make_no_zone_leave_the_last_good_one(caplog):
    extra = []

    async def further(name):
        return extra if name == "example.jp" else []

    directory = Directory(domain("example.jp", 1), domain("other.jp", 1))
    zones = Zones(FACTS, directory, further)
    await zones.refresh()
    extra.append(Record("mail.example.jp", 60, "CNAME", "a.example."))
    directory.hosted = [domain("example.jp", 2), domain("other.jp", 2)]
    assert (await serial(zones, "example.jp"), await serial(zones, "other.jp")) == (1, 2)
    assert "CNAME beside other records" in caplog.text


async def test_zone_text_is_a_master_file():
    zones = Zones(FACTS, Directory(domain("xn--r8jz45g.jp"), domain("example.jp")))
    text = await zones.zone_text("example.jp")
    parsed = dns.zone.from_text(text, "example.jp.", relativize=False)
    assert len(list(parsed.iterate_rdatas())) == 13
    assert "; mail for the domain goes to this server\nexample.jp. 3600 IN MX 10 mail.example.jp.\n" in text
    assert (await zones.records("例え.jp"))[0].record.owner == "xn--r8jz45g.jp"
    assert all(one.why for one in await zones.records("example.jp"))
    with pytest.raises(NotHosted):
        await zones.records("elsewhere.example")
