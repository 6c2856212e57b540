"""PLAIN and LOGIN, server side: RFC 4616 §2."""

import pytest

from fumibako.proto.sasl.plain import LoginServer, PlainServer
from fumibako.proto.sasl.steps import Challenge, Credentials, Failure


def test_examples_of_the_rfc() -> None:
    assert PlainServer().step(b"\0tim\0tanstaaftanstaaf") == Credentials("tim", "", "tanstaaftanstaaf")
    assert PlainServer().step(b"Ursel\0Kurt\0xipj3plmq") == Credentials("Kurt", "Ursel", "xipj3plmq")
    assert PlainServer().step(None) == Challenge(b"")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"tim",
        b"\0tim",
        b"\0\0x",
        b"\0tim\0",
        b"\0tim\0a\0b",
        b"\0t\xffm\0x",
        b"\0tim\0\xff",
        b"\0tim\0a\tb",
        b"\0t\nm\0x",
        b"\0tim\0" + b"x" * 256,
    ],
)
def test_malformed(message: bytes) -> None:
    step = PlainServer().step(message)
    assert isinstance(step, Failure) and step.malformed


def test_login() -> None:
    server = LoginServer()
    assert server.step(None) == Challenge(b"Username:")
    assert server.step(b"alice") == Challenge(b"Password:")
    assert server.step(b"wonderland") == Credentials("alice", "", "wonderland")
