"""What hostile clients send, to the running server: nothing is smuggled, injected, or kept in memory."""

from __future__ import annotations

import smtplib
import socket
import ssl

import pytest

from tests.support.clients import Wire, imap, imap_wire, letter, messages, smtp_wire, submit, trusting
from tests.support.server import PASSWORD, LiveServer

pytestmark = pytest.mark.system
ALICE = "alice@example.jp"
KILOBYTE, MEGABYTE = 1 << 10, 1 << 20

# What other servers have taken for the end of a message (smtpsmug); the last is the Exim variant.
ENDINGS = [b"\n.\n", b"\r.\r", b"\r.\n", b"\n.\r", b"\n.\r\n", b"\r\n.\n", b"\r.\r\n", b"\r\n.\r", b"\r\n\0.\r\n", b"\r\n.\0\r\n",
           b"\r\n.\r\r\n"]


# -- A1: smuggling --


@pytest.mark.parametrize("ending", ENDINGS, ids=[repr(one) for one in ENDINGS])
def test_no_second_message_is_smuggled(house: LiveServer, ending: bytes) -> None:
    mark = ending.hex()
    smuggled = f"Subject: smuggled {mark}\r\n\r\nevil\r\n.\r\n".encode()
    inside = b"MAIL FROM:<admin@example.jp>\r\nRCPT TO:<alice@example.jp>\r\nDATA\r\n" + smuggled
    with smtp_wire(house) as wire:
        wire.ask("EHLO evil.example")
        wire.ask("MAIL FROM:<x@evil.example>")
        wire.ask(f"RCPT TO:<{ALICE}>")
        assert wire.ask("DATA").startswith("354")
        wire.send(f"Subject: outer {mark}\r\n\r\nhello".encode() + ending + inside + b"QUIT\r\n")
        replies = [line for line in wire.rest().split(b"\r\n") if line]
    accepted = [line for line in replies if b"Message accepted" in line]
    assert len(accepted) <= 1, replies
    with imap(house) as client:
        assert messages(client, search=f'SUBJECT "smuggled {mark}"') == []
    assert any(line.startswith((b"250 2.0.0 Message", b"550 5.5.2", b"554 5.6.0")) for line in replies), replies


# -- A4: early talkers, and clients of other protocols --


def test_who_talks_before_the_greeting_is_turned_away(house: LiveServer) -> None:
    with socket.socket() as early:
        early.connect(house.place.endpoint("smtp"))
        early.sendall(b"EHLO early.example\r\nMAIL FROM:<x@evil.example>\r\n")
        early.settimeout(5)
        said = b""
        while octets := _receive(early):
            said += octets
    # Whether the octets were there before the greeting is a matter of microseconds; if they were, nothing else is said.
    assert said.startswith(b"220 ") or said == b"554 5.5.0 The client talked before the greeting\r\n"


def _receive(peer: socket.socket) -> bytes:
    try:
        return peer.recv(4096)
    except (ConnectionResetError, TimeoutError):
        return b""


@pytest.mark.parametrize("listener", ["smtp", "submission", "imap", "pop3"])
@pytest.mark.parametrize("request_line", ["GET / HTTP/1.1", "POST /x HTTP/1.1", "CONNECT a.example:25 HTTP/1.1"])
def test_a_web_client_gets_nowhere(house: LiveServer, listener: str, request_line: str) -> None:
    body = f"HELO x\r\nMAIL FROM:<a@evil.example>\r\nRCPT TO:<{ALICE}>\r\nDATA\r\nSubject: by http\r\n\r\n.\r\n"
    with Wire(house.place.endpoint(listener)) as wire:
        wire.line()
        wire.send(f"{request_line}\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        wire.socket.shutdown(socket.SHUT_WR)
        said = wire.rest()
    assert b"354" not in said
    assert b"250" not in said


# -- A8: injection behind STARTTLS --


@pytest.mark.parametrize(("listener", "before", "command", "injected"), [
    ("smtp", b"EHLO x\r\n", b"STARTTLS\r\n", b"MAIL FROM:<evil@evil.example>\r\n"),
    ("submission", b"EHLO x\r\n", b"StartTLS\r\n", b"EHLO y\r\n"),
    ("imap", b"", b"a STARTTLS\r\n", b"b CAPABILITY\r\n"),
    ("imap", b"", b"a starttls\r\n", b"b LOGIN x y\r\n"),
    ("pop3", b"", b"STLS\r\n", b"USER x\r\n"),
])
@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
def test_octets_behind_starttls_are_never_carried_out(
    house: LiveServer, listener: str, before: bytes, command: bytes, injected: bytes, apart: bool
) -> None:
    with Wire(house.place.endpoint(listener)) as wire:
        wire.reply() if listener in ("smtp", "submission") else wire.line()
        if before:
            wire.send(before)
            wire.reply()
        if apart:
            wire.send(command[:-3])
            wire.send(command[-3:] + injected)
        else:
            wire.send(command + injected)
        said = wire.rest()
    assert said in (b"",) or said.count(b"\r\n") == 1, said        # at most the answer to STARTTLS itself
    assert b"250" not in said and b"b OK" not in said and b"CAPABILITY" not in said


def test_nothing_said_before_tls_counts_after_it(house: LiveServer) -> None:
    with smtp_wire(house, "smtp") as wire:
        wire.ask("EHLO before.example")
        wire.ask("MAIL FROM:<x@evil.example>")
        assert wire.ask("STARTTLS").startswith(("220", "503"))
    with smtp_wire(house, "smtp") as wire:
        wire.ask("EHLO before.example")
        assert wire.ask("STARTTLS").startswith("220")
        wire.start_tls(trusting(house))
        assert wire.ask("MAIL FROM:<x@evil.example>").startswith("503")
        assert "STARTTLS" not in wire.ask("EHLO after.example")
        assert wire.ask("STARTTLS").startswith("503")


def test_a_session_ticket_of_one_service_opens_no_other(house: LiveServer) -> None:
    context = trusting(house)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with Wire(house.place.endpoint("submissions"), tls=context) as first:
        first.reply()
        session = first.socket.session      # type: ignore[attr-defined]
    assert session is not None
    for listener, reused in (("imaps", False), ("pop3s", False)):
        plain = socket.create_connection(house.place.endpoint(listener), 10)
        with context.wrap_socket(plain, server_hostname="mail.example.jp", session=session) as again:
            assert again.session_reused is reused, listener


# -- A13 and B1: size without end --


def _grown(house: LiveServer, before: int) -> int:
    return house.resident_octets() - before


@pytest.mark.parametrize("listener", ["smtp", "submission", "imap", "pop3"])
def test_a_hundred_megabytes_without_a_line_end_are_not_kept(house: LiveServer, listener: str) -> None:
    for megabytes in (2, 100):      # the first warms what stays allocated
        before = house.resident_octets()
        most = 0
        with Wire(house.place.endpoint(listener)) as wire:
            wire.line()
            try:
                for number in range(megabytes):
                    wire.send(b"x" * MEGABYTE)
                    if number % 20 == 0:
                        most = max(most, _grown(house, before))
            except (BrokenPipeError, ConnectionResetError):
                pass        # closed at the limit: the best answer
    assert most < 4 * MEGABYTE, most        # what is under way at the moment
    assert _grown(house, before) < MEGABYTE


@pytest.mark.parametrize("command", [
    b"a LOGIN {4294967295}\r\n", b"a LOGIN {4294967295+}\r\n", b"a LOGIN {99999999999999999999}\r\n", b"a LOGIN {5000+}\r\n",
    b"a AUTHENTICATE PLAIN {100000}\r\n", b"a LOGIN " + b"{1+}\r\nx " * 5000 + b"\r\n", b"a LOGIN " + b"(" * 50_000 + b"\r\n",
    b"a APPEND INBOX {10}\r\n", b"a" * 9000 + b" NOOP\r\n",
], ids=range(9))
def test_literals_before_login_are_refused_at_once(house: LiveServer, command: bytes) -> None:
    for _ in range(2):      # the first warms what stays allocated
        before = house.resident_octets()
        with Wire(house.place.endpoint("imap")) as wire:
            wire.line()
            wire.socket.settimeout(5)
            try:
                wire.send(command)
            except (BrokenPipeError, ConnectionResetError):
                pass
            said = wire.line()
    assert not said.startswith("+"), said
    assert said == "" or said.startswith(("* BYE", "* BAD")) or said.split(" ")[1] in ("BAD", "NO"), said
    assert _grown(house, before) < 2 * MEGABYTE


@pytest.mark.parametrize("command", [
    "SEARCH " + "NOT " * 20_000 + "ALL", "SEARCH " + "(" * 5_000 + "ALL" + ")" * 5_000, 'LIST "" "' + "%*" * 4_000 + '"',
    "FETCH " + ",".join(["1"] * 20_000) + " FLAGS", "UID FETCH 1:4294967295 (" + "BODY[HEADER] " * 3_000 + "FLAGS)",
    "SEARCH SUBJECT {100000000}",
], ids=["not", "parentheses", "wildcards", "set", "attributes", "literal"])
def test_monstrous_commands_after_login_are_answered_quickly(house: LiveServer, command: str) -> None:
    with imap_wire(house) as wire:
        wire.command("SELECT INBOX")
        wire.socket.settimeout(5)
        wire.send(f"a {command}\r\n".encode())
        while (line := wire.line()) and not line.startswith(("a ", "* BYE", "* BAD")):
            assert not line.startswith("+ "), "a literal of 100 MB is invited"
    with imap_wire(house) as other:
        assert other.command("NOOP")[-1].startswith("a OK")


def test_a_message_beyond_the_limit_is_refused_without_being_kept(house: LiveServer) -> None:
    house.say("policy", "set", "limits.message_size", "1M")
    with smtp_wire(house) as wire:
        wire.ask("EHLO x.example")
        wire.ask("MAIL FROM:<x@evil.example>")
        wire.ask(f"RCPT TO:<{ALICE}>")
        wire.ask("DATA")
        before = house.resident_octets()
        for _ in range(30):
            wire.send(b"Subject: too big\r\n\r\n" + (b"x" * 998 + b"\r\n") * 1000)
        grown = _grown(house, before)
        wire.send(b".\r\n")
        assert wire.reply().startswith("552 5.3.4 ")
        assert wire.ask("NOOP").startswith("250")
    house.say("policy", "unset", "limits.message_size")
    assert grown < 6 * MEGABYTE, grown


# -- login --


def test_no_login_in_the_clear(house: LiveServer) -> None:
    with smtp_wire(house, "submission") as wire:
        assert "AUTH" not in wire.ask("EHLO x.example")
        assert wire.ask("AUTH PLAIN AGEAYg==").startswith(("538 5.7.11 ", "530 5.7.0 "))
    with Wire(house.place.endpoint("imap")) as wire:
        assert "LOGINDISABLED" in wire.line()
        assert wire.command(f'LOGIN {ALICE} "{PASSWORD}"')[-1].startswith(("a NO [PRIVACYREQUIRED]", "a BAD"))
    with Wire(house.place.endpoint("pop3")) as wire:
        wire.line()
        wire.send(f"USER {ALICE}\r\n".encode())
        assert wire.line().startswith("-ERR")


@pytest.mark.parametrize("recipient", [
    "victim@elsewhere.example", "victim%elsewhere.example@example.jp", "elsewhere.example!victim@example.jp",
    '"victim@elsewhere.example"@example.jp', "@example.jp:victim@elsewhere.example", "victim@[127.0.0.1]", '""@example.jp',
    "victim@elsewhere.example@example.jp", "victim", "victim@example.jp.elsewhere.example", "victim@sub.example.jp",
    "|cat@example.jp", "../../etc/passwd@example.jp", "victim@localhost",
])
def test_nothing_is_relayed_for_strangers(house: LiveServer, recipient: str) -> None:
    with smtp_wire(house) as wire:
        wire.ask("EHLO mail.example.jp")
        wire.ask("MAIL FROM:<alice@example.jp>")
        reply = wire.ask(f"RCPT TO:<{recipient}>")
        assert reply[:3] in ("550", "501", "551", "553"), reply


def test_a_stranger_may_not_write_in_somebody_elses_name(house: LiveServer) -> None:
    """A login owns its own addresses only."""
    with pytest.raises(smtplib.SMTPResponseException, match=r"5\.7\.1"):
        submit(house, letter("forged", sender="bob@example.jp"), "bob@example.jp", sender=ALICE)
