"""A server that opens its second and third shard while it runs: every way in and out reaches the accounts of each."""

from __future__ import annotations

import json
import poplib
import smtplib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.clients import WIRE_S, arrived, hand_in, imap, letter, messages, submit, trusting
from tests.support.server import PASSWORD, LiveServer, Place, eventually

pytestmark = pytest.mark.system

# `fumibako` as it is, but for shards that are full with two accounts.
SMALL = ("from fumibako.store.sqlite import engine; engine.SHARD_ACCOUNTS = 2; "
         "from fumibako.__main__ import main; import sys; sys.exit(main())")
PEOPLE = tuple(f"{name}@example.jp" for name in ("alice", "bob", "carol", "dave", "eve"))
SHARDS = dict(zip(PEOPLE, (1, 1, 2, 2, 3), strict=True))
ONE_EACH = ("bob@example.jp", "carol@example.jp", "eve@example.jp")
STRANGER = "bob@neighbour.example"
AGAIN = 6       # connections: each of two workers gets some of them


@pytest.fixture(scope="module")
def server(network: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Two workers; the accounts are added while it runs."""
    server = LiveServer(tmp_path_factory.mktemp("shards") / "data", Place(f"{network}.10"))
    server.program = (sys.executable, "-c", SMALL)
    server.init(server__workers="2", listen__lmtp='["unix:lmtp.sock"]')
    server.start()
    server.populate("example.jp", "alice", "bob")
    for _ in range(AGAIN):      # every worker has read the first shard and knows of no other
        imap(server, PEOPLE[0]).logout()
    for address in PEOPLE[2:]:
        server.say("account", "add", address, "--password-stdin", said=f"{PASSWORD}\n")
    try:
        yield server
        server.stop()
    finally:
        if server.process is not None:
            server.kill()


def answer(server: LiveServer, *arguments: str) -> Any:
    return json.loads(server.say(*arguments, "--json"))


def count(server: LiveServer, address: str, subject: str) -> int:
    with imap(server, address) as client:
        return sum(f"Subject: {subject}\r\n".encode() in one for one in messages(client))


def test_each_account_names_its_shard(server: LiveServer) -> None:
    assert {one: answer(server, "account", "show", one)["shard"] for one in PEOPLE} == SHARDS
    assert answer(server, "status")["accounts"] == len(PEOPLE)
    assert sorted(one.name for one in server.directory.glob("shard-*")) == ["shard-001", "shard-002", "shard-003"]


def test_mail_for_one_account_of_each_shard_is_there_at_once(server: LiveServer) -> None:
    for address in PEOPLE:
        hand_in(server.place.endpoint("smtp"), letter(f"alone {address}", to=address), STRANGER, address)
        for _ in range(AGAIN):
            assert count(server, address, f"alone {address}") == 1


def test_one_mail_for_three_shards_reaches_each_once(server: LiveServer) -> None:
    hand_in(server.place.endpoint("smtp"), letter("for three"), STRANGER, *ONE_EACH)
    for address in ONE_EACH:
        arrived(server, "for three", address)
    eventually(lambda: answer(server, "status")["queued"] == 0, "the queue is empty")
    assert [count(server, one, "for three") for one in PEOPLE] == [0, 1, 1, 0, 1]


def test_lmtp_has_a_reply_for_each(server: LiveServer) -> None:
    client = smtplib.LMTP(str(server.directory / "lmtp.sock"), timeout=WIRE_S)
    client.ehlo("client.example.jp")
    client.mail(STRANGER)
    for address in ONE_EACH:
        assert client.rcpt(address)[0] == 250
    client.putcmd("data")
    assert client.getreply()[0] == 354
    client.send(bytes(letter("by lmtp")) + b"\r\n.\r\n")
    assert [client.getreply()[0] for _ in ONE_EACH] == [250] * 3
    client.quit()
    for address in ONE_EACH:
        arrived(server, "by lmtp", address)


def test_people_of_different_shards_write_to_each_other(server: LiveServer) -> None:
    message = letter("from eve", sender="eve@example.jp", to="carol@example.jp")
    submit(server, message, "carol@example.jp", sender="eve@example.jp")
    assert count(server, "carol@example.jp", "from eve") == 1


def test_a_dsn_comes_back_to_another_shard(server: LiveServer) -> None:
    host, port = server.place.endpoint("submission")
    with smtplib.SMTP(host, port, local_hostname="client.example.jp", timeout=WIRE_S) as client:
        client._host = server.hostname      # type: ignore[attr-defined] # what the certificate has to say
        client.starttls(context=trusting(server))
        client.login("dave@example.jp", PASSWORD)
        message = letter("tell me", sender="dave@example.jp", to="eve@example.jp")
        client.send_message(message, "dave@example.jp", ["eve@example.jp", "bob@example.jp"], rcpt_options=["NOTIFY=SUCCESS"])
    for address in ("eve@example.jp", "bob@example.jp"):
        arrived(server, "tell me", address)
        assert count(server, address, "tell me") == 1
    notice = arrived(server, "has been delivered", "dave@example.jp").as_string()
    assert "eve@example.jp" in notice and "bob@example.jp" in notice


@pytest.mark.parametrize("address", ["dave@example.jp", "eve@example.jp"])
def test_imap_and_pop3_work_in_a_later_shard(server: LiveServer, address: str) -> None:
    hand_in(server.place.endpoint("smtp"), letter(f"to work with {address}", to=address), STRANGER, address)
    with imap(server, address) as client:
        assert client.select("INBOX")[0] == "OK"
        number = client.search(None, "SUBJECT", f'"to work with {address}"')[1][0].split()[-1].decode()
        assert client.copy(number, "Archive")[0] == "OK"
        assert client.store(number, "+FLAGS", r"(\Flagged)")[0] == "OK"
        usage = client.getquotaroot("INBOX")
        assert usage[0] == "OK"
        assert len(messages(client, "Archive")) == 1
        inbox = len(messages(client))
    host, port = server.place.endpoint("pop3s")
    pop3 = poplib.POP3_SSL(host, port, context=_any_name(server), timeout=WIRE_S)
    pop3.user(address)
    pop3.pass_(PASSWORD)
    assert pop3.stat()[0] == inbox
    pop3.quit()


def test_check_looks_into_all_of_them(server: LiveServer) -> None:
    assert answer(server, "check") == []
    mark = b"alone eve@example.jp"
    path = next(one for one in (server.directory / "shard-003" / "seg").glob("*.seg") if mark in one.read_bytes())
    octets = bytearray(path.read_bytes())
    place = octets.index(mark)
    path.write_bytes(octets[:place] + b"A" + octets[place + 1:])
    try:
        [found] = json.loads(server.here("check", "--json")[1])
        assert (found["damage"], found["where"]) == ("damaged bodies", "shard-003/seg")
    finally:
        path.write_bytes(octets)


def test_another_start_finds_them_all(server: LiveServer) -> None:
    server.stop()
    assert answer(server, "check") == []
    assert {one: answer(server, "account", "show", one)["shard"] for one in PEOPLE} == SHARDS
    before = {one: answer(server, "account", "show", one)["messages"] for one in PEOPLE}
    server.start()
    for address in PEOPLE:
        with imap(server, address) as client:
            assert len(messages(client)) + len(messages(client, "Archive")) == before[address]


def _any_name(server: LiveServer):  # type: ignore[no-untyped-def]
    context = trusting(server)
    context.check_hostname = False
    return context
