"""The client mechanisms against the server mechanisms, by name."""

import pytest

from fumibako.proto.reader import ProtocolError
from fumibako.proto.sasl.client import ClientMechanism, client_mechanism
from fumibako.proto.sasl.server import MECHANISMS, server_mechanism
from fumibako.proto.sasl.steps import Challenge, Success
from tests.proto.sasl.directory import advance


def test_every_mechanism_has_both_sides() -> None:
    for name in MECHANISMS:
        assert server_mechanism(name, b"xyz", b"hash").name == client_mechanism(name, "a", "b", b"abc", b"hash").name == name


@pytest.mark.parametrize("name", ["PLAIN", "LOGIN", "SCRAM-SHA-256"])
@pytest.mark.parametrize(
    ("user", "password", "right"), [("alice", "wonderland", True), ("文子", "はなび", True), ("alice", "x", False)]
)
def test_client_and_server(name: str, user: str, password: str, right: bool) -> None:
    server, client = server_mechanism(name, b"xyz"), client_mechanism(name, user, password, b"abc")
    step = advance(server, client.step(None))
    while isinstance(step, Challenge):
        step = advance(server, client.step(step.octets))
    assert isinstance(step, Success) == right
    assert client.is_complete == (right or name != "SCRAM-SHA-256")


@pytest.mark.parametrize("client", [client_mechanism("PLAIN", "a", "b", b"n"), client_mechanism("LOGIN", "a", "b", b"n")])
def test_a_server_that_asks_too_often(client: ClientMechanism) -> None:
    client.step(None)
    with pytest.raises(ProtocolError):
        for _ in range(3):
            client.step(b"")


def test_unknown_mechanism() -> None:
    with pytest.raises(ValueError, match="CRAM-MD5"):
        server_mechanism("CRAM-MD5", b"xyz")
    with pytest.raises(ValueError, match="CRAM-MD5"):
        client_mechanism("CRAM-MD5", "a", "b", b"xyz")
