"""Our authoritative DNS: asked with dig, checked with named-checkzone, served by NSD, resolved by Unbound."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import pytest

from tests.support.clients import Wire, tool
from tests.support.internet import Daemon, Internet
from tests.support.server import LiveServer, Place, find_program, live_server, needs

pytestmark = pytest.mark.system


def _dig(server: LiveServer, *question: str, expect: int | None = 0) -> str:
    needs("dig")
    return tool("dig", f"@{server.place.address}", "-p", str(server.place.ports["dns"]), "+tries=1", "+time=5", *question,
                expect=expect)


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_what_mail_needs(house: LiveServer, transport: str) -> None:
    assert _dig(house, transport, "+short", "example.jp", "MX") == "10 mail.example.jp.\n"
    assert _dig(house, transport, "+short", "mail.example.jp", "A") == f"{house.place.address}\n"
    assert "v=spf1" in _dig(house, transport, "+short", "example.jp", "TXT")
    answer = _dig(house, transport, "example.jp", "SOA")
    assert "status: NOERROR" in answer
    assert " aa " in answer.replace(";", " ")
    assert "WARNING: recursion requested but not available" in answer


def test_names_that_are_not(house: LiveServer) -> None:
    absent = _dig(house, "absent.example.jp", "A")
    assert "status: NXDOMAIN" in absent
    assert "SOA" in absent      # RFC 2308 §3
    nodata = _dig(house, "example.jp", "AAAA")
    assert ("status: NOERROR" in nodata, "ANSWER: 0" in nodata) == (True, True)


def test_never_recursive(house: LiveServer) -> None:
    for question in (("neighbour.example", "MX"), (".", "NS"), ("example.jp.evil.example", "A")):
        assert "status: REFUSED" in _dig(house, "+recurse", *question)


def test_case_is_kept_and_ignored(house: LiveServer) -> None:
    answer = _dig(house, "ExAmPlE.jP", "MX")
    assert "ExAmPlE.jP." in answer
    assert "10 mail.example.jp." in answer.lower()


def test_edns_and_odd_questions(house: LiveServer) -> None:
    assert "status: BADVERS" in _dig(house, "+edns=5", "+noednsneg", "example.jp", "SOA")
    assert "udp: " in _dig(house, "+bufsize=4096", "example.jp", "SOA")
    for question in (("example.jp", "AXFR"), ("-c", "CH", "version.bind", "TXT"), ("+opcode=UPDATE", "example.jp", "SOA")):
        answer = _dig(house, *question, expect=None)
        assert "status: NOERROR" not in answer or "ANSWER: 0" in answer, answer


def _ask(server: LiveServer, domain: str, transport: str) -> dns.message.Message:
    """From a port of its own each time, so that the kernel chooses among the workers."""
    ask = dns.query.tcp if transport == "tcp" else dns.query.udp
    return ask(dns.message.make_query(domain, "MX"), server.place.address, 10, server.place.ports["dns"])


@pytest.fixture(scope="module")
def two_workers(network: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    directory = tmp_path_factory.mktemp("two") / "data"
    with live_server(directory, Place(f"{network}.10"), accounts=(), server__workers="2") as server:
        yield server


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_the_first_query_after_a_command_sees_what_it_did(two_workers: LiveServer, transport: str) -> None:
    """DESIGN §10: `domain` holds before it returns, with every worker."""
    for number in range(50):
        domain = f"{transport}{number}.example.org"
        two_workers.say("domain", "add", domain)
        added = [_ask(two_workers, domain, transport) for _ in range(4)]
        assert [[rdata.to_text() for rdata in one.answer[0]] for one in added if one.answer] == [["10 mail.example.jp."]] * 4
        two_workers.say("domain", "remove", domain)
        assert [_ask(two_workers, domain, transport).rcode() for _ in range(4)] == [dns.rcode.REFUSED] * 4


def test_the_first_connection_after_a_command_is_held_to_what_it_set(two_workers: LiveServer) -> None:
    """DESIGN §10: `policy` holds before it returns, for the limits of a listener, too."""
    two_workers.say("policy", "set", "limits.exempt", "192.0.2.0/24")
    try:
        for _ in range(20):
            two_workers.say("policy", "set", "limits.connections_per_address", "0")
            with Wire(two_workers.place.endpoint("smtp")) as wire:
                assert wire.line().startswith("421 ")
            two_workers.say("policy", "set", "limits.connections_per_address", "10")
            with Wire(two_workers.place.endpoint("smtp")) as wire:
                assert wire.line().startswith("220 ")
    finally:
        two_workers.say("policy", "unset", "limits.exempt")
        two_workers.say("policy", "unset", "limits.connections_per_address")


def test_who_is_exempt_from_the_response_rate_is_a_matter_of_policy(two_workers: LiveServer) -> None:
    two_workers.say("policy", "set", "limits.exempt", "192.0.2.0/24")
    try:
        assert _answered_in_a_row(two_workers, 300) < 300
    finally:
        two_workers.say("policy", "unset", "limits.exempt")
    assert _answered_in_a_row(two_workers, 300) == 300


def _answered_in_a_row(server: LiveServer, count: int) -> int:
    """How many questions from one port, so to one worker, are answered up to the first that is not; at most `count`."""
    query = dns.message.make_query("example.jp", "MX").to_wire()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(1)
        asking.connect(server.place.endpoint("dns"))
        for answered in range(count):
            asking.send(query)
            try:
                asking.recv(512)
            except TimeoutError:
                return answered
    return count


def test_the_zone_is_one_for_named_checkzone(house: LiveServer, tmp_path: Path) -> None:
    needs("named-checkzone")
    zone = tmp_path / "zone"
    zone.write_text(house.say("dns", "zone", "example.jp"))
    assert "OK" in tool("named-checkzone", "-i", "local", "example.jp", zone)


@pytest.mark.root
def test_nsd_serves_the_same_answers(internet: Internet, house: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "zone").write_text(house.say("dns", "zone", "example.jp"))
    (tmp_path / "conf").write_text(
        f'server:\n  ip-address: 127.0.53.7\n  username: ""\n  do-ip6: no\n  zonesdir: "{tmp_path}"\n  database: ""\n'
        f'  pidfile: ""\n  zonelistfile: "{tmp_path}/list"\n  xfrdfile: "{tmp_path}/xfrd"\n  xfrdir: "{tmp_path}"\n'
        'remote-control:\n  control-enable: no\nzone:\n  name: "example.jp"\n  zonefile: "zone"\n')
    program = find_program("nsd")
    assert program is not None
    nsd = Daemon("nsd", [program, "-d", "-c", str(tmp_path / "conf")], ("127.0.53.7", 53), tmp_path / "out")
    nsd.start()
    try:
        for record in json.loads(house.say("dns", "records", "example.jp", "--json")):
            ours = _dig(house, "+noall", "+answer", record["owner"], record["type"])
            theirs = tool("dig", "@127.0.53.7", "+noall", "+answer", record["owner"], record["type"])
            assert sorted(ours.split("\n")) == sorted(theirs.split("\n")), record
            assert ours.strip()
    finally:
        nsd.stop()


@pytest.mark.root
def test_the_world_sees_it_and_dns_check_says_so(internet: Internet, house: LiveServer) -> None:
    assert tool("dig", "+short", "example.jp", "MX") == "10 mail.example.jp.\n"      # through Unbound, from the root down
    found = json.loads(house.here("dns", "check", "example.jp", "--json")[1])
    seen = {(row["type"], row["owner"]): row["result"] for row in found}
    assert seen["MX", "example.jp"] == "pass", found
