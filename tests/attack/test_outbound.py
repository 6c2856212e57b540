"""Reliability A2 and A16: nothing leaves that a next hop could read twice, and no DNS answer sends us to ourselves."""

import re

import pytest

from fumibako.model.envelope import Envelope, Recipient
from fumibako.model.ops import Enqueue
from fumibako.model.queue import Outcome, OutcomeKind
from fumibako.net.dial import OwnPlace
from fumibako.proto.dns.records import Mx
from fumibako.services.queue import QueueRunner
from fumibako.services.relay import Relay, RelayConfig
from tests.attack.relaying import ZONE, queued, relay_to
from tests.support.mailhouse import HOSTNAME, MailHouse
from tests.support.mx import OtherServer
from tests.support.resolver import TIMEOUT, FakeResolver

SMUGGLED = b"MAIL FROM:<ceo@example.jp>\r\nRCPT TO:<victim@example.com>\r\nDATA\r\n"
ENDINGS = [b"\n.\n", b"\r.\r", b"\r.\n", b"\n.\r", b"\n.\r\n", b"\r\n.\n", b"\r.\r\n", b"\r\n.\r", b"\r\n\0.\r\n", b"\r\n.\0\r\n",
           b"\r\n.\r\r\n", b"\r\n.\r\n", b"\r\r\n.\r\r\n", b"\n\r.\n\r", b"\0\r\n.\r\n\0", b"\r\n\r\n.\r\n"]
BODIES = [
    *[b"Subject: x\r\n\r\nHello." + ending + SMUGGLED for ending in ENDINGS],
    b"", b".", b"\r\n", b".\r\n", b"..\r\n", b"\r\n.", b"\r", b"\n", b"\0", b"\r\n.\r",
    b"\n" * 2000, b"\r" * 2000, b"\r\n." * 2000,
    # Where pieces are cut: the message is read and sent 64 KiB at a time.
    *[b"x" * (65536 - len(b"Received: here\r\n") - back) + b"\r\n.\r\n" + SMUGGLED for back in range(8)],
    *[b"x" * (65536 - len(b"Received: here\r\n") - back) + b"\r.\n.\r" + SMUGGLED for back in range(8)],
]


class Sink(OtherServer):
    """Keeps every octet that reaches it, and takes messages at CRLF.CRLF only; smuggled: what came behind one."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.octets = self.smuggled = b""

    async def _take_message(self, reader: object, writer: object) -> bool:
        octets = b"\r\n"
        while (end := octets.find(b"\r\n.\r\n")) < 0:
            piece = await reader.read(65536)
            if not piece:
                return False
            octets += piece
        self.octets += octets
        self.smuggled += octets[end + 5:]
        self.messages.append(octets[2:end + 2])
        return await self._say(writer, "250 2.0.0 queued")


def is_clean(octets: bytes) -> bool:
    """No CR or LF outside CRLF, and no NUL: RFC 5321 §2.3.8."""
    return octets.count(b"\r") == octets.count(b"\n") == octets.count(b"\r\n") and b"\0" not in octets


@pytest.mark.parametrize("extensions", [("PIPELINING", "8BITMIME"), ("CHUNKING", "SIZE"), ()])
async def test_whatever_lies_in_the_queue_leaves_as_one_message(house: MailHouse, extensions: tuple[str, ...]) -> None:
    """However it came there: an old queue, a restore, a bug upstream. The last gate is the client core."""
    sink = Sink(extensions=extensions)
    async with sink.listening():
        relay = relay_to(house, sink.port)
        for number, body in enumerate(BODIES, 1):
            item = await queued(house, "x@example.com", message=body)
            [outcome] = (await relay.deliver(item, item.recipients)).values()
            assert outcome.kind is OutcomeKind.RELAYED, body
            assert len(sink.messages) == number, body
        await relay.close_idle()
    assert is_clean(sink.octets) and sink.smuggled == b""
    assert not any(line.startswith(("MAIL FROM:<ceo", "RCPT TO:<victim")) for line in sink.heard)
    assert sum(line.startswith("MAIL") for line in sink.heard) == len(BODIES)


@pytest.mark.parametrize("header", [
    b"Subject: a\nBcc: victim@example.com", b"Subject: a\rBcc: victim@example.com", b"Subject: a\0b", b"From: a\r\r\n b",
    b"X-" + b"y" * 3000 + b": z", b"Subject: " + b"\xff\xfe" * 300, b"To: " + b"(" * 2000, b"\r\n.\r\nMAIL FROM:<ceo@example.jp>",
    b"Content-Type: multipart/report; boundary=\"fumibako\"\r\n\r\n--fumibako\r\n", b"no colon here\r\n.\r\nQUIT",
])
async def test_the_notice_about_a_hostile_original(house: MailHouse, header: bytes) -> None:
    """A DSN gives the original's header back: through the relay it is one message, well formed, to one sender."""
    sink = Sink()
    trace_id = house.clock.trace_id()
    writer = house.store.body_writer()
    writer.write(header + b"\r\n\r\nbody\r\n.\r\n" + SMUGGLED)
    body = await writer.finish(trace_id)
    for ret in ("FULL", "HDRS"):
        envelope = Envelope("bob@example.com", (Recipient("gone@other.example", 0, "rfc822;gone@other.example"),), ret=ret)
        await house.store.commit(Enqueue(house.clock.trace_id(), envelope, b"", body, house.clock.now_ms()))
        hostile_reply = "550 5.1.1 no\u2028such \x1b[31muser".replace("\x1b", "\ufffd")
        house.relay.outcomes = {"gone@other.example": [Outcome(OutcomeKind.FAILED, "5.1.1", "no such user", hostile_reply, "mx")]}
        await house.runner().step()             # fails, and leaves a notice
        async with sink.listening():
            house_relay = relay_to(house, sink.port)
            runner = QueueRunner(house.house, house.notifier, local=house.relay, relay=house_relay)
            assert await runner.step() == 1     # the notice, through the true relay
        break_at = sink.messages[-1].index(b"\r\n\r\n")
        assert re.match(rb"(?i)from: .*MAILER-DAEMON@mail\.example\.jp", sink.messages[-1][:break_at])
        assert b"\r\nBcc:" not in sink.messages[-1][:break_at]
    assert is_clean(sink.octets) and sink.smuggled == b""
    commands = [line.split(" ")[:2] for line in sink.heard if line.startswith(("MAIL", "RCPT"))]
    assert commands == [["MAIL", "FROM:<>"], ["RCPT", "TO:<bob@example.com>"]] * 2
    assert await house.queued() == []


BREAKING = [
    "a\r\nRCPT TO:<victim@example.com>@example.com", "a@example.com>\r\nDATA", "a\0@example.com", "a@exam\nple.com",
    "@example.com", "a@", "<a@example.com>", "a@example.com> NOTIFY=NEVER", "a\u2028@example.com", 'a"b@example.com',
    "a\\@example.com", "a@example.com\r",
]
# These are addresses, once they are quoted.
QUOTED = [("a b@example.com", '"a b"@example.com'), ("a@b@example.com", '"a@b"@example.com'),
          ("a>b@example.com", '"a>b"@example.com')]


@pytest.mark.parametrize("role", ["sender", "recipient"])
async def test_a_path_that_would_break_the_command(house: MailHouse, role: str) -> None:
    """Whatever wrote it into the queue, it fails for good instead of reaching the wire."""
    for path, wire in [*((path, "") for path in BREAKING), *QUOTED]:
        server = OtherServer()
        try:
            item = await (queued(house, "x@example.com", reverse_path=path) if role == "sender" else queued(house, path))
        except ValueError:
            continue        # the model does not even let it in
        async with server.listening():
            relay = relay_to(house, server.port)
            [outcome] = (await relay.deliver(item, item.recipients)).values()
            await relay.close_idle()
        commands = [line for line in server.heard if line.startswith(("MAIL", "RCPT", "DATA"))]
        if wire:
            assert len(commands) == 3 and f":<{wire}>" in commands[0 if role == "sender" else 1], commands
        else:
            assert (outcome.kind, commands) == (OutcomeKind.FAILED, []), path


# A16: where DNS would send us


def mx(address: str, rrtype: str = "A") -> dict[tuple[str, str], object]:
    return {("example.com", "MX"): [Mx(10, "mx.example.com")], ("mx.example.com", rrtype): [address]}


NOWHERE = [
    *[(mx(address), "5.4.4") for address in (
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "255.255.255.255", "240.0.0.1", "224.0.0.1", "239.1.2.3", "169.254.169.254")],
    *[(mx(address, "AAAA"), "5.4.4") for address in (
        "::1", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "ff02::1", "fe80::1", "::ffff:169.254.169.254",
        "::ffff:255.255.255.255")],
    # Ourselves, however spelled: a loop, not a host.
    *[(mx(address), "5.4.6") for address in ("192.0.2.25",)],
    *[(mx(address, "AAAA"), "5.4.6") for address in ("2001:db8::25", "::ffff:192.0.2.25")],
    ({("example.com", "MX"): [Mx(10, HOSTNAME)]}, "5.4.6"),
    ({("example.com", "MX"): [Mx(10, HOSTNAME), Mx(20, "mx.example.com")], ("mx.example.com", "A"): ["192.0.2.1"]}, "5.4.6"),
    ({("example.com", "A"): ["192.0.2.25"]}, "5.4.6"),
    # Null MX, and "." among others.
    ({("example.com", "MX"): [Mx(0, ".")]}, "5.1.10"),
    ({("example.com", "MX"): [Mx(10, "."), Mx(20, ".")]}, "5.4.4"),
    # Names that are none.
    *[({("example.com", "MX"): [Mx(10, name)]}, "5.4.4") for name in (
        "", "127.0.0.1", "localhost", "a..b", "x" * 64 + ".example", "mx.example.com\r\nQUIT", "mx\0.example.com", "-",
        "*.example.com",
".".join(["long"] * 60), "[192.0.2.1]", "mx example com", "\ud800.example")],
    ({("example.com", "TXT"): [b"only"]}, "5.4.4"),
]


@pytest.mark.parametrize(("zone", "status"), NOWHERE)
async def test_domains_that_lead_to_ourselves_or_nowhere(
    house: MailHouse, zone: dict, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> None:
        raise AssertionError("somebody was dialled")

    monkeypatch.setattr("fumibako.services.relay.dial", never)
    own = OwnPlace(frozenset({HOSTNAME}), frozenset({"192.0.2.25", "2001:db8::25"}))
    item = await queued(house, "x@example.com")
    relay = Relay(RelayConfig(HOSTNAME, own), house.store, FakeResolver(zone), house.clock)
    [outcome] = (await relay.deliver(item, item.recipients)).values()
    assert (outcome.kind, outcome.status) == (OutcomeKind.FAILED, status)


@pytest.mark.parametrize("zone", [
    {("example.com", "MX"): TIMEOUT},
    {("example.com", "MX"): [Mx(10, "mx.example.com")], ("mx.example.com", "A"): TIMEOUT},
    {("example.com", "MX"): [Mx(10, "mx.example.com"), Mx(20, "self.example.com")], ("mx.example.com", "A"): TIMEOUT,
     ("self.example.com", "A"): ["192.0.2.25"]},
])
async def test_what_dns_can_not_tell_waits(house: MailHouse, zone: dict) -> None:
    own = OwnPlace(frozenset({HOSTNAME}), frozenset({"192.0.2.25"}))
    item = await queued(house, "x@example.com")
    relay = Relay(RelayConfig(HOSTNAME, own), house.store, FakeResolver(zone), house.clock)
    [outcome] = (await relay.deliver(item, item.recipients)).values()
    assert (outcome.kind, outcome.status) == (OutcomeKind.DEFERRED, "4.4.3")


@pytest.mark.parametrize("recipient", [
    "x@[127.0.0.1]", "x@[0.0.0.0]", "x@[IPv6:::1]", "x@[IPv6:::ffff:127.0.0.1]", "x@[192.0.2.25]", "x@[IPv6:::ffff:192.0.2.25]",
    "x@[224.0.0.1]", "x@[2130706433]", "x@[127.1]", "x@[0x7f.0.0.1]", "x@[]", "x@[", "x@[IPv6:]",
])
async def test_address_literals_that_lead_home(house: MailHouse, recipient: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        raise AssertionError("somebody was dialled")

    monkeypatch.setattr("fumibako.services.relay.dial", never)
    own = OwnPlace(frozenset({HOSTNAME}), frozenset({"192.0.2.25"}))
    try:
        item = await queued(house, recipient)
    except ValueError:
        return              # the model does not even let it in
    relay = Relay(RelayConfig(HOSTNAME, own), house.store, FakeResolver({}), house.clock)
    [outcome] = (await relay.deliver(item, item.recipients)).values()
    assert outcome.kind is OutcomeKind.FAILED and outcome.status in ("5.4.4", "5.4.6")


HOSTILE_WORDS = [
    "220-" + "x" * 5000, "220 ok\r\n" * 50, "220-a\r\n221-b\r\n220 c", "220\0ok", "999 what",
    "HTTP/1.1 400 Bad Request", "\x16\x03\x01", "22", "",
]


async def test_servers_that_speak_something_else(house: MailHouse) -> None:
    """A temporary failure, told by one outcome; never an exception, never a delivery."""
    for banner in HOSTILE_WORDS:
        server = OtherServer({"banner": banner, "EHLO": "CLOSE"})
        item = await queued(house, "x@example.com")
        async with server.listening():
            relay = relay_to(house, server.port, ZONE)
            [outcome] = (await relay.deliver(item, item.recipients)).values()
            await relay.close_idle()
        assert outcome.kind is OutcomeKind.DEFERRED, banner
        assert server.messages == []


async def test_a_message_that_trips_our_own_code_stops_nobody_else(house: MailHouse, caplog: pytest.LogCaptureFixture) -> None:
    """One poison record must never stop the queue: whatever bug it meets, the others leave, and it is set aside in the end."""
    failed = Outcome(OutcomeKind.FAILED, "5.1.1", "no such user", "550 5.1.1 no", "mx")
    house.relay.outcomes = {"gone@elsewhere.example": [failed]}
    notices = house.notifier.notices

    async def broken(item: object, reports: list[object]) -> object:
        if reports:
            raise ValueError("a bug of ours")
        return await notices(item, reports)

    house.notifier.notices = broken
    await house.alias("away@example.jp", "gone@elsewhere.example")
    await house.alias("fine@example.jp", "fine@elsewhere.example")
    await house.receive("away@example.jp")
    runner = house.runner()
    for number in range(1, 6):
        await house.receive("fine@example.jp")
        await runner.step()
        delivered = [paths for _, paths in house.relay.delivered if paths == ("fine@elsewhere.example",)]
        assert len(delivered) == number
        house.clock.advance(16 * 60)
    assert "a bug of ours" in caplog.text
    assert len([paths for _, paths in house.relay.delivered if paths == ("gone@elsewhere.example",)]) == 3
    [left] = await house.queued()
    assert left.recipients[0].forward_path == "gone@elsewhere.example"
