"""Trace fields, and that no name of a peer forges one."""

import pytest

from fumibako.model.envelope import Peer
from fumibako.model.ids import TraceId
from fumibako.services.received import address_literal, format_received, format_return_path, protocol_name

TRACE = TraceId(bytes(16))


def received(peer: Peer, only: str = "") -> bytes:
    return format_received(peer, "mail.example.jp", TRACE, only, 0, 540)


def test_whole() -> None:
    peer = Peer("2001:db8::1", helo="mx.example.net", name="host.example.net", protocol="ESMTPS", tls="TLSv1.3 AES")
    assert received(peer, "a@example.jp") == (
        b"Received: from mx.example.net (host.example.net [IPv6:2001:db8::1])\r\n"
        b" by mail.example.jp with ESMTPS (TLSv1.3 AES)\r\n"
        b" id 00000000000000000000000000000000\r\n for <a@example.jp>;\r\n Thu, 1 Jan 1970 09:00:00 +0900\r\n"
    )


@pytest.mark.parametrize("helo", ["a\r\nX: 1", "(", "a b", "", "日本", "[1.2.3.4", "x" * 256, "a;b", "<a>"])
def test_a_hello_that_is_no_name_is_not_repeated(helo: str) -> None:
    octets = received(Peer("192.0.2.1", helo=helo, name=helo))
    assert octets.startswith(b"Received: from unknown ([192.0.2.1])\r\n by ")
    assert octets.count(b"\r\n") == 4


@pytest.mark.parametrize("helo", ["mx.example.net", "[192.0.2.1]", "[IPv6:2001:db8::1]", "host_1"])
def test_names_and_literals_are(helo: str) -> None:
    assert received(Peer("192.0.2.1", helo=helo)).startswith(b"Received: from " + helo.encode() + b" (")


def test_a_unix_socket_has_no_address() -> None:
    octets = received(Peer("", helo="x", protocol="LMTP"))
    assert octets.startswith(b"Received: from x (local)\r\n by mail.example.jp with LMTP\r\n")


def test_paths_can_not_break_out() -> None:
    assert format_return_path("") == b"Return-Path: <>\r\n"
    assert format_return_path("a@b>\r\nX: <y") == b"Return-Path: <a@b???X: ?y>\r\n"
    assert format_return_path("送信@例え.jp") == "Return-Path: <送信@例え.jp>\r\n".encode()
    assert b"for <a??@b>" in received(Peer("192.0.2.1", helo="x"), "a\r\n@b")


@pytest.mark.parametrize(("flags", "name"), [
    ("", "SMTP"), ("esmtp", "ESMTP"), ("esmtp tls", "ESMTPS"), ("esmtp login", "ESMTPA"), ("esmtp tls login", "ESMTPSA"),
    ("tls", "SMTP"), ("lmtp", "LMTP"), ("lmtp tls", "LMTPS"), ("esmtp smtputf8", "UTF8SMTP"),
    ("esmtp smtputf8 tls login", "UTF8SMTPSA"), ("lmtp smtputf8 tls", "UTF8LMTPS"),
])
def test_with(flags: str, name: str) -> None:
    """RFC 3848 §1, RFC 6531 §4.3."""
    on = flags.split()
    assert protocol_name(**{one: one in on for one in ("esmtp", "lmtp", "tls", "login", "smtputf8")}) == name


def test_address_literal() -> None:
    assert (address_literal("192.0.2.1"), address_literal("::1")) == ("[192.0.2.1]", "[IPv6:::1]")
