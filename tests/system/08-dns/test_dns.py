"""Our authoritative DNS: asked with dig, checked with named-checkzone, served by NSD, resolved by Unbound."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.clients import tool
from tests.support.internet import Daemon, Internet
from tests.support.server import LiveServer, eventually, find_program, needs

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


def test_a_new_domain_is_answered_for(house: LiveServer) -> None:
    house.say("domain", "add", "new.example.org")
    eventually(lambda: "10 mail.example.jp." in _dig(house, "+short", "new.example.org", "MX"), "the new domain's MX")
    house.say("domain", "remove", "new.example.org")
    eventually(lambda: "status: REFUSED" in _dig(house, "new.example.org", "MX"), "the removed domain is refused")


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
