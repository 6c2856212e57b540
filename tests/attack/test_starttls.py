"""Reliability A8, A9, A12: nothing said before TLS counts after it, in any of our protocols, in either direction."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fumibako.model.queue import OutcomeKind
from fumibako.net.tls import ServerTls, opportunistic_client, read_pair
from tests.attack.relaying import ZONE, queued, relay_to
from tests.attack.wire import Wire, conversing
from tests.support.certificates import write_pair
from tests.support.mailhouse import HOSTNAME, MailHouse
from tests.support.mx import OtherServer


@dataclass(frozen=True, slots=True)
class Way:
    """A protocol: how a client gets to STARTTLS, what it injects, and how the server would answer the injection."""

    hello: bytes            # before STARTTLS, "" where nothing has to be said
    hello_ends: bytes
    starttls: bytes
    invited: bytes          # how the positive answer begins
    injected: bytes
    probe: bytes            # under TLS: a command and how its answer begins, showing that nothing was carried over
    probe_ends: bytes


WAYS = {
    "mx": Way(b"EHLO c\r\n", b"250 CHUNKING\r\n", b"STARTTLS\r\n", b"220 ",
              b"EHLO evil\r\nMAIL FROM:<>\r\nRCPT TO:<alice@example.jp>\r\n", b"RCPT TO:<alice@example.jp>\r\n", b"503 5.5.1"),
    "submission": Way(b"EHLO c\r\n", b"250 CHUNKING\r\n", b"STARTTLS\r\n", b"220 ",
                      b"EHLO evil\r\nAUTH PLAIN AGRvcmFAZXhhbXBsZS5qcAB4\r\n", b"MAIL FROM:<>\r\n", b"530 5.7.0"),
    "lmtp": Way(b"LHLO c\r\n", b"250 CHUNKING\r\n", b"STARTTLS\r\n", b"220 ",
                b"LHLO evil\r\nMAIL FROM:<>\r\n", b"MAIL FROM:<>\r\n", b"503 5.5.1"),
    "imap": Way(b"a CAPABILITY\r\n", b"a OK", b"b STARTTLS\r\n", b"b OK ",
                b"c LOGIN dora@example.jp x\r\nd SELECT INBOX\r\n", b"e SELECT INBOX\r\n", b"e BAD "),
    "pop3": Way(b"CAPA\r\n", b".\r\n", b"STLS\r\n", b"+OK Begin TLS",
                b"USER dora@example.jp\r\nPASS x\r\n", b"PASS x\r\n", b"-ERR Send USER first"),
}


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    return ServerTls([read_pair(*write_pair(tmp_path, HOSTNAME))]).context("any")


@asynccontextmanager
async def greeted(house: MailHouse, name: str, context: ssl.SSLContext) -> AsyncIterator[Wire]:
    """A client that has heard the greeting and said hello."""
    async with conversing(house, name, context) as wire:
        await wire.stream.write(WAYS[name].hello)
        await wire.until(WAYS[name].hello_ends)
        wire.heard = b""
        yield wire


async def nothing_happened(house: MailHouse) -> bool:
    return await house.queued() == [] and not house.trace.events and await house.mailbox("alice@example.jp") == []


def spellings(starttls: bytes) -> list[bytes]:
    """The command as it may be written: any case, blanks behind it."""
    tag, _, verb = starttls[:-2].rpartition(b" ")
    begin = tag + b" " if tag else b""
    return [begin + written + b"\r\n" for written in (verb, verb.lower(), verb.title(), verb + b" ", verb + b"   ")]


@pytest.mark.parametrize("name", WAYS)
async def test_injection_in_the_same_segment(house: MailHouse, name: str, certificate: ssl.SSLContext) -> None:
    """CVE-2011-0411: octets behind the command are neither answered nor kept, however it is spelled; no TLS begins."""
    way = WAYS[name]
    for starttls in spellings(way.starttls):
        async with greeted(house, name, certificate) as wire:
            await wire.stream.write(starttls + way.injected)
            said = await wire.rest()
            assert not said.startswith(way.invited), starttls
            assert said.count(b"\r\n") <= 1, said
    assert await nothing_happened(house)


@pytest.mark.parametrize("name", WAYS)
async def test_injection_cut_anywhere(house: MailHouse, name: str, certificate: ssl.SSLContext) -> None:
    """The first octet of the injection comes with the command, the rest whenever it likes."""
    way = WAYS[name]
    for cut in range(1, 4):
        async with greeted(house, name, certificate) as wire:
            await wire.stream.write(way.starttls + way.injected[:cut])
            await wire.stream.write(way.injected[cut:])
            said = await wire.rest()
            assert not said.startswith(way.invited)
            assert said.count(b"\r\n") <= 1, said
    assert await nothing_happened(house)


@pytest.mark.parametrize("name", WAYS)
async def test_injection_after_the_answer(house: MailHouse, name: str, certificate: ssl.SSLContext) -> None:
    """Plaintext in place of a ClientHello: the handshake fails, and that is all that is ever said."""
    way = WAYS[name]
    async with greeted(house, name, certificate) as wire:
        await wire.stream.write(way.starttls)
        assert (await wire.until(b"\r\n")).startswith(way.invited)
        await wire.stream.write(way.injected * 20)
        said = await wire.rest()
        assert b"250" not in said and b"OK" not in said and b"BAD" not in said
    assert await nothing_happened(house)


@pytest.mark.parametrize("name", WAYS)
async def test_plaintext_and_handshake_in_one(house: MailHouse, name: str, certificate: ssl.SSLContext) -> None:
    """A true ClientHello behind the injection in the same segment: still cut off."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        opportunistic_client().wrap_bio(incoming, outgoing).do_handshake()
    client_hello = outgoing.read()
    way = WAYS[name]
    async with greeted(house, name, certificate) as wire:
        await wire.stream.write(way.starttls + way.injected + client_hello)
        said = await wire.rest()
        assert not said.startswith(way.invited) and b"\x16\x03" not in said
    assert await nothing_happened(house)


@pytest.mark.parametrize("name", WAYS)
async def test_what_was_said_before_is_forgotten(house: MailHouse, name: str, certificate: ssl.SSLContext) -> None:
    way = WAYS[name]
    for starttls in spellings(way.starttls):
        async with greeted(house, name, certificate) as wire:
            if name == "mx":
                await wire.stream.write(b"MAIL FROM:<a@elsewhere.example>\r\nRSET\r\n")
                await wire.until(b"Reset\r\n")
            elif name == "pop3":
                await wire.stream.write(b"USER dora@example.jp\r\n")
                assert (await wire.until(b"\r\n")).startswith(b"-ERR")
            await wire.stream.write(starttls)
            assert (await wire.until(b"\r\n")).startswith(way.invited), starttls
            await wire.stream.start_tls(opportunistic_client(), server_side=False)
            await wire.stream.write(way.probe)
            assert (await wire.until(b"\r\n")).startswith(way.probe_ends)
            # Capabilities are those of now: STARTTLS is not offered again, and refused.
            await wire.stream.write(way.hello)
            said = await wire.until(way.hello_ends)
            assert b"STARTTLS" not in said and b"STLS" not in said and b"LOGINDISABLED" not in said
            wire.heard = b""
            await wire.stream.write(way.starttls)
            assert not (await wire.until(b"\r\n")).lstrip(b" ").startswith(way.invited)
    assert await nothing_happened(house)


async def test_a_transaction_does_not_survive_tls(house: MailHouse, certificate: ssl.SSLContext) -> None:
    """RFC 3207 §4 asks for no transaction around STARTTLS: it is refused, and the transaction stays what it was."""
    async with greeted(house, "mx", certificate) as wire:
        await wire.stream.write(b"MAIL FROM:<a@elsewhere.example>\r\nRCPT TO:<alice@example.jp>\r\n")
        await wire.until(b"Recipient ok\r\n")
        await wire.stream.write(b"STARTTLS\r\n")
        assert (await wire.until(b"\r\n")).startswith(b"503 5.5.1")


NO_PASSWORD_IN_THE_CLEAR = [
    ("submission", b"AUTH PLAIN AGRvcmFAZXhhbXBsZS5qcAB4\r\n", b"538 5.7.11"),
    ("submission", b"AUTH LOGIN\r\n", b"538 5.7.11"),
    ("submission", b"AUTH SCRAM-SHA-256\r\n", b"538 5.7.11"),
    ("mx", b"AUTH PLAIN AGRvcmFAZXhhbXBsZS5qcAB4\r\n", b"502 5.5.1"),
    ("lmtp", b"AUTH PLAIN AGRvcmFAZXhhbXBsZS5qcAB4\r\n", b"502 5.5.1"),
    ("imap", b"c LOGIN dora@example.jp x\r\n", b"c NO [PRIVACYREQUIRED]"),
    ("imap", b"c AUTHENTICATE PLAIN AGRvcmFAZXhhbXBsZS5qcAB4\r\n", b"c NO [CANNOT]"),
    ("imap", b"c AUTHENTICATE PLAIN\r\n", b"c NO [CANNOT]"),
    ("pop3", b"USER dora@example.jp\r\n", b"-ERR Begin TLS"),
    ("pop3", b"PASS x\r\n", b"-ERR Begin TLS"),
    ("pop3", b"AUTH PLAIN AGRvcmFAZXhhbXBsZS5qcAB4\r\n", b"-ERR Begin TLS"),
    ("pop3", b"AUTH PLAIN\r\n", b"-ERR Begin TLS"),
]


@pytest.mark.parametrize(("name", "line", "refusal"), NO_PASSWORD_IN_THE_CLEAR)
async def test_no_password_in_the_clear(
    house: MailHouse, name: str, line: bytes, refusal: bytes, certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A12: refused before the directory is even asked, and the connection goes on."""
    async def never(*_: object) -> None:
        raise AssertionError("a password was looked at")

    monkeypatch.setattr(house.login, "check", never)
    async with greeted(house, name, certificate) as wire:
        await wire.stream.write(line)
        assert (await wire.until(b"\r\n")).startswith(refusal)
        await wire.stream.write(WAYS[name].hello)
        await wire.until(WAYS[name].hello_ends)


# A9: our relay in front of a hostile server


HOSTILE = [
    ("one reply more", b"250-mx.example.com\r\n250 AUTH PLAIN\r\n"), ("one octet", b"2"), ("a line end", b"\r\n"),
    ("a pipelined 354", b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n"), ("a long lot", b"250 x\r\n" * 2000),
]


@pytest.mark.parametrize("octets", [octets for _, octets in HOSTILE], ids=[name for name, _ in HOSTILE])
async def test_replies_nobody_asked_for_before_the_handshake(house: MailHouse, octets: bytes) -> None:
    """Octets behind 220: an attack, so neither TLS nor plaintext is gone on with; the mail waits."""
    server = OtherServer(behind_starttls=octets)
    item = await queued(house, "x@example.com")
    async with server.listening():
        relay = relay_to(house, server.port, ZONE, tls=opportunistic_client())
        [outcome] = (await relay.deliver(item, item.recipients)).values()
        await relay.close_idle()
    assert (outcome.kind, outcome.status[:2]) == (OutcomeKind.DEFERRED, "4.")
    assert server.messages == []
    assert not any(line.startswith(("MAIL", "RCPT", "AUTH")) for line in server.heard)


async def test_what_a_server_offered_before_tls_is_forgotten(house: MailHouse, tmp_path: Path) -> None:
    """A stripped or planted EHLO reply counts for nothing once TLS is there: our relay asks again."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*write_pair(tmp_path, "mx.example.com"))
    server = OtherServer(extensions=("PIPELINING", "SIZE 10", "X-PLANTED"), tls=context)

    def honest() -> str:
        server.extensions = ("8BITMIME",) if server.tls is None else server.extensions
        return OtherServer._ehlo(server)

    server._ehlo = honest
    item = await queued(house, "x@example.com")
    async with server.listening():
        relay = relay_to(house, server.port, ZONE, tls=opportunistic_client())
        [outcome] = (await relay.deliver(item, item.recipients)).values()
        await relay.close_idle()
    assert outcome.kind is OutcomeKind.RELAYED      # SIZE 10 would have refused it
    assert [line.split(" ")[0] for line in server.heard] == ["EHLO", "STARTTLS", "EHLO", "MAIL", "RCPT", "DATA", "QUIT"]
