"""SCRAM-SHA-256: the example of RFC 7677 §3, scramp as the other side, and what must fail."""

import base64

import pytest
import scramp
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.reader import ProtocolError
from fumibako.proto.sasl.scram import PLUS, ScramClient, ScramServer, dummy_keys, scram_keys
from fumibako.proto.sasl.steps import Challenge, Failure, ScramLookup, Success
from tests.proto.sasl.directory import ITERATIONS, KEYS, PASSWORDS, SALT, advance

CLIENT_NONCE = b"rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
RFC_SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
FINAL = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_example_of_the_rfc() -> None:
    server = ScramServer("SCRAM-SHA-256", SERVER_NONCE)
    client = ScramClient("SCRAM-SHA-256", "user", "pencil", CLIENT_NONCE)
    assert client.step(None) == FIRST
    assert server.step(FIRST) == ScramLookup("user")
    assert server.supply(scram_keys("pencil", RFC_SALT, 4096)) == Challenge(SERVER_FIRST)
    assert client.step(SERVER_FIRST) == FINAL
    assert server.step(FINAL) == Challenge(SERVER_FINAL)
    assert client.step(SERVER_FINAL) == b"" and client.is_complete
    assert server.step(b"") == Success("user", "")


def login(client: ScramClient, server: ScramServer) -> Success | Failure:
    """Both sides to the end."""
    message = client.step(None)
    while isinstance(step := advance(server, message), Challenge):
        message = client.step(step.octets)
    return step


@pytest.mark.parametrize("name", PASSWORDS)
def test_both_sides(name: str) -> None:
    client = ScramClient("SCRAM-SHA-256", name, PASSWORDS[name], b"abc")
    assert login(client, ScramServer("SCRAM-SHA-256", b"xyz")) == Success(name, "")
    assert client.is_complete


@pytest.mark.parametrize(("name", "password"), [("alice", "wrong"), ("nobody", "wonderland")])
def test_wrong_password_and_unknown_user_look_the_same(name: str, password: str) -> None:
    client = ScramClient("SCRAM-SHA-256", name, password, b"abc")
    assert login(client, ScramServer("SCRAM-SHA-256", b"xyz")) == Failure(False, "wrong proof")
    assert not client.is_complete


def test_dummy_keys_stay_the_same() -> None:
    assert dummy_keys(b"secret", "nobody", 4096) == dummy_keys(b"secret", "nobody", 4096)
    assert dummy_keys(b"secret", "nobody", 4096).salt != dummy_keys(b"secret", "someone", 4096).salt
    assert len(dummy_keys(b"secret", "nobody", 4096).salt) == len(SALT)


def test_against_scramp_as_client() -> None:
    other = scramp.ScramClient(["SCRAM-SHA-256"], "alice", "wonderland", c_nonce="abc")
    server = ScramServer("SCRAM-SHA-256", b"xyz")
    step = advance(server, other.get_client_first().encode())
    assert isinstance(step, Challenge)
    other.set_server_first(step.octets.decode())
    step = advance(server, other.get_client_final().encode())
    assert isinstance(step, Challenge)
    other.set_server_final(step.octets.decode())
    assert advance(server, b"") == Success("alice", "")


def test_against_scramp_as_server() -> None:
    mechanism = scramp.ScramMechanism("SCRAM-SHA-256")
    info = mechanism.make_auth_info("wonderland", iteration_count=ITERATIONS, salt=SALT)
    assert info[1:3] == (KEYS["alice"].stored_key, KEYS["alice"].server_key)
    other = mechanism.make_server(lambda name: info)
    client = ScramClient("SCRAM-SHA-256", "alice", "wonderland", b"abc")
    other.set_client_first((client.step(None) or b"").decode())
    other.set_client_final((client.step(other.get_server_first().encode()) or b"").decode())
    assert client.step(other.get_server_final().encode()) == b"" and client.is_complete


def test_channel_binding() -> None:
    client = ScramClient(PLUS, "alice", "wonderland", b"abc", b"certificate hash")
    assert login(client, ScramServer(PLUS, b"xyz", b"certificate hash")) == Success("alice", "")
    other = ScramClient(PLUS, "alice", "wonderland", b"abc", b"another hash")
    assert login(other, ScramServer(PLUS, b"xyz", b"certificate hash")) == Failure(False, "wrong proof")
    with pytest.raises(ValueError, match="channel binding"):
        ScramServer(PLUS, b"xyz")


@pytest.mark.parametrize(
    ("name", "first", "fits"),
    [
        ("SCRAM-SHA-256", b"n,,n=alice,r=abc", True),
        ("SCRAM-SHA-256", b"y,,n=alice,r=abc", False),  # a -PLUS that we offer was hidden from the client
        ("SCRAM-SHA-256", b"p=tls-server-end-point,,n=alice,r=abc", False),
        (PLUS, b"n,,n=alice,r=abc", False),
        (PLUS, b"p=tls-unique,,n=alice,r=abc", False),
        (PLUS, b"p=tls-server-end-point,,n=alice,r=abc", True),
    ],
)
def test_downgrade_is_noticed(name: str, first: bytes, fits: bool) -> None:
    step = ScramServer(name, b"xyz", b"hash").step(first)
    assert isinstance(step, ScramLookup) == fits


def test_names_with_comma_and_equals_and_another_identity() -> None:
    assert ScramServer("SCRAM-SHA-256", b"xyz").step(b"n,a=boss,n=a=2Cb=3Dc,r=abc") == ScramLookup("a,b=c")
    assert ScramClient("SCRAM-SHA-256", "a,b=c", "x", b"abc").step(None) == b"n,,n=a=2Cb=3Dc,r=abc"


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n,,n=,r=abc",
        b"n,,n=a=2cb,r=abc",
        b"n,,n=alice",
        b"n,,m=x,n=alice,r=abc",
        b"n,n=alice,r=abc",
        b"n,,n=alice,r=",
        b"n,,n=\xff,r=abc",
        b"n,,n=a\0b,r=abc",
        b"n,,n=" + b"a" * 256 + b",r=abc",
    ],
)
def test_malformed_first_messages(first: bytes) -> None:
    step = ScramServer("SCRAM-SHA-256", b"xyz").step(first)
    assert isinstance(step, Failure) and step.malformed


@pytest.mark.parametrize(
    ("change", "malformed"),
    [
        ((b"biws", b"biwt"), False),
        ((b"k0,p", b"k1,p"), False),
        ((b",p=d", b",p=e"), False),
        ((b"dHz", b"dH!"), True),
        ((b"c=biws,", b""), True),
        ((b",p=", b",q="), True),
        ((b"VQ=", b""), True),
    ],
)
def test_changed_final_messages(change: tuple[bytes, bytes], malformed: bool) -> None:
    server = ScramServer("SCRAM-SHA-256", SERVER_NONCE)
    server.step(FIRST)
    server.supply(scram_keys("pencil", RFC_SALT, 4096))
    step = server.step(FINAL.replace(*change))
    assert isinstance(step, Failure) and step.malformed == malformed


@pytest.mark.parametrize(
    "server_first",
    [
        b"r=abc,s=AAAA,i=4096",
        b"r=other123,s=AAAA,i=4096",
        b"r=abcx,s=AAAA,i=1",
        b"r=abcx,s=AAAA,i=99999999",
        b"m=1,r=abcx,s=AAAA,i=4096",
        b"e=no",
        b"r=abcx,s=A,i=4096",
    ],
)
def test_the_client_refuses_a_bad_server(server_first: bytes) -> None:
    client = ScramClient("SCRAM-SHA-256", "alice", "wonderland", b"abc")
    client.step(None)
    with pytest.raises(ProtocolError):
        client.step(server_first)


def test_the_client_wants_proof_of_the_server() -> None:
    client = ScramClient("SCRAM-SHA-256", "user", "pencil", CLIENT_NONCE)
    client.step(None)
    client.step(SERVER_FIRST)
    with pytest.raises(ProtocolError, match="signature"):
        client.step(SERVER_FINAL.replace(b"6rr", b"7rr"))
    assert not client.is_complete


@given(st.lists(st.binary(max_size=40) | st.sampled_from([FIRST, FINAL, b"n,,n=a,r=b", b""]), max_size=4))
def test_any_messages(messages: list[bytes]) -> None:
    server = ScramServer("SCRAM-SHA-256", SERVER_NONCE)
    for message in messages:
        if isinstance(advance(server, message), Success | Failure):
            return


def test_weak_records_are_refused() -> None:
    with pytest.raises(ValueError, match="iterations"):
        scram_keys("x", SALT, 1000)
