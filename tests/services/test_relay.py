"""The relay target against servers of every temper, on loopback."""

import ssl
from pathlib import Path

import pytest

from fumibako.model.envelope import Envelope, Recipient
from fumibako.model.ops import Enqueue, Lease, Leased
from fumibako.model.queue import Outcome, OutcomeKind, QueueItem
from fumibako.net.dial import OwnPlace
from fumibako.net.tls import opportunistic_client
from fumibako.proto.dns.records import Mx
from fumibako.services.relay import Relay, RelayConfig
from fumibako.store.base import expect
from tests.support.certificates import write_pair
from tests.support.mailhouse import HOSTNAME, MESSAGE, MailHouse
from tests.support.mx import OtherServer
from tests.support.resolver import TIMEOUT, FakeResolver

ZONE = {("example.com", "MX"): [Mx(10, "mx.example.com")], ("mx.example.com", "A"): ["127.0.0.1"]}


async def queued(house: MailHouse, *recipients: str, message: bytes = MESSAGE, reverse_path: str = "alice@example.jp",
                 **options: object) -> QueueItem:
    """A message in the queue, leased."""
    trace_id = house.clock.trace_id()
    writer = house.store.body_writer()
    writer.write(message)
    body = await writer.finish(trace_id)
    envelope = Envelope(reverse_path, tuple(Recipient(one) for one in recipients), **options)
    await house.store.commit(Enqueue(trace_id, envelope, b"Received: here\r\n", body, house.clock.now_ms()))
    [item] = expect(await house.store.commit(Lease(house.clock.now_ms(), 1, 1)), Leased).items
    house.clock.advance(1)
    return item


def relay_to(house: MailHouse, port: int, zone=ZONE, tls: ssl.SSLContext | None = None, **config: object) -> Relay:
    own = OwnPlace(frozenset({HOSTNAME}), frozenset({"127.0.0.25"}), on_loopback=True)
    settings = RelayConfig(**{"hostname": HOSTNAME, "own": own, "port": port, **config})
    return Relay(settings, house.store, FakeResolver(zone), house.clock, tls)


async def attempt(house: MailHouse, server: OtherServer, *recipients: str, **options) -> list[Outcome]:
    """One attempt; the outcomes in the order of the recipients."""
    item = await queued(house, *(recipients or ("x@example.com",)), **options)
    async with server.listening():
        relay = relay_to(house, server.port)
        outcomes = await relay.deliver(item, item.recipients)
        await relay.close_idle()
    return [outcomes[one.id] for one in item.recipients]


def short(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    return [(str(one.kind), one.status) for one in outcomes]


async def test_a_mail_arrives_whole(house: MailHouse) -> None:
    server = OtherServer()
    message = MESSAGE + b".dot\r\nbare\nlf\rcr\0\r\nno newline at the end"
    [outcome] = await attempt(house, server, message=message, ret="HDRS", envelope_id="e1")
    assert outcome == Outcome(OutcomeKind.DELIVERED, "2.0.0", "", "250 2.0.0 queued as 1", "mx.example.com [127.0.0.1]")
    assert server.messages == [b"Received: here\r\n" + MESSAGE + b"..dot\r\nbare\r\nlf\r\ncr\r\nno newline at the end\r\n"]
    assert server.heard == [f"EHLO {HOSTNAME}", "MAIL FROM:<alice@example.jp> RET=HDRS ENVID=e1", "RCPT TO:<x@example.com>",
                            "DATA", "QUIT"]


async def test_without_dsn_it_is_relayed(house: MailHouse) -> None:
    assert short(await attempt(house, OtherServer(extensions=()))) == [("relayed", "2.0.0")]


async def test_each_recipient_has_its_own_outcome(house: MailHouse) -> None:
    server = OtherServer({"RCPT TO:<no@example.com>": "550 5.1.1 no such user", "RCPT TO:<later@example.com>": "451 wait"})
    outcomes = await attempt(house, server, "x@example.com", "no@example.com", "later@example.com", "y@example.com")
    assert short(outcomes) == [("delivered", "2.0.0"), ("failed", "5.1.1"), ("deferred", "4.0.0"), ("delivered", "2.0.0")]
    assert outcomes[1].reply == "550 5.1.1 no such user"
    assert len(server.messages) == 1


@pytest.mark.parametrize(("replies", "expected"), [
    ({"MAIL": "550 5.7.1 not you"}, ("failed", "5.7.1")),
    ({"MAIL": "451 4.3.0 busy"}, ("deferred", "4.3.0")),
    ({"DATA": "554 5.6.0 no"}, ("failed", "5.6.0")),
    ({".": "552 5.2.2 full"}, ("failed", "5.2.2")),
    ({".": "452 4.2.2 full"}, ("deferred", "4.2.2")),
    ({"banner": "421 4.3.2 busy"}, ("deferred", "4.3.2")),
    ({"banner": "554 go away"}, ("deferred", "4.3.2")),
    ({"EHLO": "550 5.7.1 who are you"}, ("deferred", "4.3.2")),
    ({"banner": "CLOSE"}, ("deferred", "4.4.2")),
    ({"MAIL": "CLOSE"}, ("deferred", "4.4.2")),
    ({".": "CLOSE"}, ("deferred", "4.4.2")),
    ({"banner": "nonsense"}, ("deferred", "4.4.2")),
    ({"RCPT": "421 4.7.0 too much"}, ("deferred", "4.7.0")),
    ({"EHLO": "502 what"}, ("relayed", "2.0.0")),
])
async def test_tempers(house: MailHouse, replies: dict[str, str], expected: tuple[str, str]) -> None:
    server = OtherServer(replies)
    assert short(await attempt(house, server)) == [expected]
    if "EHLO" in replies and expected[0] == "relayed":
        assert f"HELO {HOSTNAME}" in server.heard


@pytest.mark.parametrize("extensions", [("PIPELINING", "DSN"), ("DSN",)])
@pytest.mark.parametrize("place", ["RCPT TO:<last@example.com>", "DATA", "."])
async def test_bug_a_refusal_was_forgotten_when_the_connection_broke_behind_it(
    house: MailHouse, place: str, extensions: tuple[str, ...]
) -> None:
    """RFC 5321 §4.2.1: a 5yz is final, whatever becomes of the others; only they are tried again."""
    server = OtherServer({"RCPT TO:<no@example.com>": "550 5.1.1 no such user", "RCPT TO:<later@example.com>": "451 4.7.1 wait",
                          place: "CLOSE"}, extensions)
    outcomes = await attempt(house, server, "x@example.com", "no@example.com", "later@example.com", "last@example.com")
    assert short(outcomes) == [("deferred", "4.4.2"), ("failed", "5.1.1"), ("deferred", "4.7.1"), ("deferred", "4.4.2")]
    assert outcomes[1].reply == "550 5.1.1 no such user" and outcomes[1].text == "refused at RCPT TO"


@pytest.mark.parametrize("extensions", [("PIPELINING", "DSN"), ("DSN",)])
async def test_bug_a_refusal_was_forgotten_when_the_attempt_took_too_long(
    house: MailHouse, extensions: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fumibako.services.relay.ATTEMPT_S", 0.3)
    server = OtherServer({"RCPT TO:<no@example.com>": "550 5.1.1 no such user", "RCPT TO:<later@example.com>": "451 4.7.1 wait",
                          "RCPT TO:<last@example.com>": "HANG"}, extensions)
    outcomes = await attempt(house, server, "x@example.com", "no@example.com", "later@example.com", "last@example.com")
    assert short(outcomes) == [("deferred", "4.4.2"), ("failed", "5.1.1"), ("deferred", "4.7.1"), ("deferred", "4.4.2")]
    assert outcomes[0].text == outcomes[3].text == "the attempt took too long"


@pytest.mark.parametrize("replies", [
    {"RCPT": "550 5.1.1 no"}, {"DATA": "554 5.1.1 no"}, {"MAIL": "550 5.1.1 no", "RCPT": "CLOSE"},
])
async def test_bug_a_refusal_of_all_was_forgotten_when_rset_got_no_answer(house: MailHouse, replies: dict[str, str]) -> None:
    server = OtherServer({"RSET": "CLOSE", **replies})
    assert short(await attempt(house, server, "x@example.com", "y@example.com")) == [("failed", "5.1.1")] * 2


async def test_only_those_without_an_answer_go_to_the_next_host(house: MailHouse) -> None:
    zone = {("example.com", "MX"): [Mx(10, "a.example.com"), Mx(20, "b.example.com")],
            ("a.example.com", "A"): ["127.0.0.2"], ("b.example.com", "A"): ["127.0.0.3"]}
    refusals = {"RCPT TO:<no@example.com>": "550 5.1.1 no such user", "RCPT TO:<later@example.com>": "451 4.7.1 wait"}
    first, second = OtherServer({**refusals, "DATA": "CLOSE"}), OtherServer()
    item = await queued(house, "no@example.com", "x@example.com", "later@example.com")
    async with first.listening("127.0.0.2"), second.listening("127.0.0.3", first.port):
        relay = relay_to(house, first.port, zone)
        outcomes = await relay.deliver(item, item.recipients)
        await relay.close_idle()
    assert short([outcomes[one.id] for one in item.recipients]) == [
        ("failed", "5.1.1"), ("delivered", "2.0.0"), ("deferred", "4.7.1")]
    assert [line for line in second.heard if line.startswith("RCPT")] == ["RCPT TO:<x@example.com>"]


async def test_a_refusal_on_an_idle_connection_that_then_breaks(house: MailHouse) -> None:
    """The fresh connection is asked for the others only, and what it can't be asked for is not lost either."""
    server = OtherServer()
    async with server.listening():
        relay = relay_to(house, server.port)
        item = await queued(house, "x@example.com")
        await relay.deliver(item, item.recipients)
        server.replies = {"RCPT TO:<no@example.com>": "550 5.1.1 no such user", "DATA": "CLOSE"}
        item = await queued(house, "no@example.com", "y@example.com")
        outcomes = await relay.deliver(item, item.recipients)
    assert short([outcomes[one.id] for one in item.recipients]) == [("failed", "5.1.1"), ("deferred", "4.4.2")]
    assert server.connections == 2 and server.heard.count("RCPT TO:<no@example.com>") == 1


async def test_what_a_host_can_not_carry(house: MailHouse) -> None:
    plain = OtherServer(extensions=())
    japanese = "Subject: こんにちは\r\n\r\n本文\r\n".encode()
    utf8 = {"smtputf8": True, "body": "8BITMIME"}
    assert short(await attempt(house, plain, "送信@example.com", **utf8)) == [("failed", "5.6.7")]
    assert short(await attempt(house, plain, message=japanese, **utf8)) == [("failed", "5.6.7")]
    assert short(await attempt(house, plain, message=MESSAGE + "本文\r\n".encode(), body="8BITMIME")) == [("failed", "5.6.3")]
    assert plain.messages == []
    assert short(await attempt(house, plain, **utf8)) == [("relayed", "2.0.0")]       # declared, not needed
    assert "MAIL FROM:<alice@example.jp>" in plain.heard
    able = OtherServer(extensions=("SMTPUTF8", "8BITMIME"))
    assert short(await attempt(house, able, "送信@example.com", message=japanese, **utf8)) == [("relayed", "2.0.0")]
    assert "MAIL FROM:<alice@example.jp> BODY=8BITMIME SMTPUTF8" in able.heard
    small = OtherServer(extensions=("SIZE 50",))
    assert short(await attempt(house, small)) == [("failed", "5.3.4")]


async def test_legacy_local_parts_are_quoted_outward(house: MailHouse) -> None:
    """a..b@docomo.ne.jp was handed out, and is no dot-string."""
    server = OtherServer()
    await attempt(house, server, "a..b@example.com", ".c@example.com", "d@example.com", reverse_path="me.@example.jp")
    assert server.heard[1:5] == ['MAIL FROM:<"me."@example.jp>', 'RCPT TO:<"a..b"@example.com>', 'RCPT TO:<".c"@example.com>',
                                 "RCPT TO:<d@example.com>"]


@pytest.mark.parametrize(("zone", "expected"), [
    ({("example.com", "MX"): [Mx(0, ".")]}, ("failed", "5.1.10")),
    ({("elsewhere.example", "A"): ["192.0.2.1"]}, ("failed", "5.1.2")),
    ({("example.com", "TXT"): [b"x"]}, ("failed", "5.4.4")),
    ({("example.com", "MX"): TIMEOUT}, ("deferred", "4.4.3")),
    ({("example.com", "MX"): [Mx(1, HOSTNAME)], (HOSTNAME, "A"): ["127.0.0.25"]}, ("failed", "5.4.6")),
    ({("example.com", "MX"): [Mx(1, "mx.example.com")], ("mx.example.com", "A"): ["127.0.0.25"]}, ("failed", "5.4.6")),
])
async def test_domains_that_lead_nowhere(house: MailHouse, zone: dict, expected: tuple[str, str]) -> None:
    item = await queued(house, "x@example.com")
    outcomes = await relay_to(house, 9, zone).deliver(item, item.recipients)
    assert short(list(outcomes.values())) == [expected]


async def test_loopback_is_refused_unless_we_live_there(house: MailHouse) -> None:
    item = await queued(house, "x@example.com")
    relay = Relay(RelayConfig(HOSTNAME), house.store, FakeResolver(ZONE), house.clock)
    assert short(list((await relay.deliver(item, item.recipients)).values())) == [("failed", "5.4.4")]


async def test_the_next_host_is_tried_until_octets_have_left(house: MailHouse) -> None:
    zone = {("example.com", "MX"): [Mx(10, "a.example.com"), Mx(20, "b.example.com")],
            ("a.example.com", "A"): ["127.0.0.2"], ("b.example.com", "A"): ["127.0.0.3"]}
    for replies, taken_by_second in (({"banner": "421 busy"}, True), ({"banner": "CLOSE"}, True), ({"MAIL": "CLOSE"}, True),
                                     ({".": "CLOSE"}, False), ({"RCPT": "451 4.7.1 greylisted"}, False)):
        first, second = OtherServer(replies), OtherServer()
        item = await queued(house, "x@example.com")
        async with first.listening("127.0.0.2"), second.listening("127.0.0.3", first.port):
            relay = relay_to(house, first.port, zone)
            await relay.deliver(item, item.recipients)
            await relay.close_idle()
        assert (first.connections, len(second.messages)) == (1, taken_by_second), replies


async def test_nobody_listens(house: MailHouse) -> None:
    item = await queued(house, "x@example.com")
    async with OtherServer().listening() as gone:
        port = gone.port
    [outcome] = (await relay_to(house, port).deliver(item, item.recipients)).values()
    assert (outcome.kind, outcome.status) == (OutcomeKind.DEFERRED, "4.4.1")
    assert "127.0.0.1" in outcome.text


async def test_one_connection_carries_several_mails(house: MailHouse) -> None:
    server = OtherServer()
    async with server.listening():
        relay = relay_to(house, server.port)
        for _ in range(3):
            item = await queued(house, "x@example.com")
            await relay.deliver(item, item.recipients)
        assert (server.connections, len(server.messages)) == (1, 3)
        house.clock.advance(60)                     # too long idle
        item = await queued(house, "x@example.com")
        await relay.deliver(item, item.recipients)
        assert (server.connections, len(server.messages)) == (2, 4)
        await relay.close_idle()
    assert server.heard[-1] == "QUIT"


async def test_an_idle_connection_that_was_given_up(house: MailHouse) -> None:
    server = OtherServer()
    async with server.listening():
        relay = relay_to(house, server.port)
        item = await queued(house, "x@example.com")
        await relay.deliver(item, item.recipients)
        server.replies = {"MAIL": "421 4.4.2 idle too long"}
        item = await queued(house, "x@example.com")
        [outcome] = (await relay.deliver(item, item.recipients)).values()
        assert outcome.status == "4.4.2"            # the fresh one said 421 as well
        assert server.connections == 2


@pytest.fixture
def server_tls(tmp_path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*write_pair(tmp_path, "mx.example.com"))
    return context


async def deliver_with_tls(house: MailHouse, server: OtherServer) -> Outcome:
    item = await queued(house, "x@example.com")
    async with server.listening():
        relay = relay_to(house, server.port, tls=opportunistic_client())
        outcomes = await relay.deliver(item, item.recipients)
        await relay.close_idle()
    return outcomes[item.recipients[0].id]


async def test_starttls_is_taken_where_it_is_offered(house: MailHouse, server_tls: ssl.SSLContext) -> None:
    server = OtherServer(tls=server_tls)
    assert (await deliver_with_tls(house, server)).kind is OutcomeKind.DELIVERED
    assert [line.split(" ")[0] for line in server.heard] == ["EHLO", "STARTTLS", "EHLO", "MAIL", "RCPT", "DATA", "QUIT"]


@pytest.mark.parametrize("reply", ["454 4.7.0 not now", "220 but no handshake"])
async def test_tls_that_fails_is_done_without(house: MailHouse, reply: str) -> None:
    server = OtherServer({"STARTTLS": reply}, extensions=("STARTTLS",))
    assert (await deliver_with_tls(house, server)).kind is OutcomeKind.RELAYED
    assert server.connections == 2


async def test_injection_behind_the_reply_to_starttls(house: MailHouse) -> None:
    """Reliability A9: an attack is no reason to send in the clear."""
    server = OtherServer(behind_starttls=b"250-evil\r\n250 ok\r\n")
    assert (await deliver_with_tls(house, server)).kind is OutcomeKind.DEFERRED
    assert server.messages == []


async def test_a_smarthost_takes_everything(house: MailHouse) -> None:
    server = OtherServer()
    item = await queued(house, "x@one.example", "y@two.example")
    async with server.listening():
        relay = relay_to(house, 9, {}, smarthost=f"127.0.0.1:{server.port}")
        outcomes = await relay.deliver(item, item.recipients)
        await relay.close_idle()
    assert short(list(outcomes.values())) == [("delivered", "2.0.0")] * 2
