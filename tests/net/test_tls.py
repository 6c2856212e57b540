"""Certificates and contexts, with handshakes in memory."""

import asyncio
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from fumibako.net.tls import (
    ServerTls,
    TlsFileError,
    end_point_binding,
    make_self_signed,
    opportunistic_client,
    read_pair,
    verified_client,
)
from tests.support.certificates import write_pair
from tests.support.clock import START_MS
from tests.support.streams import stream_pair


@pytest.fixture
def pairs(tmp_path):
    return [read_pair(*write_pair(tmp_path, name, *more)) for name, more in
            (("mail.example.jp", ("example.jp", "192.0.2.1")), ("mail.other.jp", ("*.web.other.jp",)))]


async def handshake(server_context, client_context, name="mail.example.jp"):
    """Returns both ends of a TLS stream."""
    client, server = stream_pair()
    async with asyncio.TaskGroup() as group:
        group.create_task(server.start_tls(server_context, server_side=True))
        group.create_task(client.start_tls(client_context, server_side=False, server_hostname=name))
    return client, server


def common_name(stream):
    certificate = x509.load_der_x509_certificate(stream.tls.peer_certificate)
    return certificate.subject.rfc4514_string().removeprefix("CN=")


@pytest.mark.parametrize(("asked", "given"), [
    ("mail.example.jp", "mail.example.jp"), ("EXAMPLE.JP", "mail.example.jp"), ("mail.other.jp", "mail.other.jp"),
    ("a.web.other.jp", "mail.other.jp"), ("a.b.web.other.jp", "mail.example.jp"), ("unknown.example", "mail.example.jp"),
    (None, "mail.example.jp"),
])
async def test_certificate_by_server_name(pairs, asked, given):
    client, server = await handshake(ServerTls(pairs).context("smtp"), opportunistic_client(), asked)
    assert common_name(client) == given
    assert client.tls.server_end_point == server.tls.server_end_point == end_point_binding(client.tls.peer_certificate)


async def test_many_unknown_names_cost_nothing(pairs):
    """A11: the table never grows by what peers ask for."""
    tls = ServerTls(pairs)
    context = tls.context("smtp")
    before = len(tls._by_name)
    for number in range(20):
        await handshake(context, opportunistic_client(), f"n{number}.example")
    assert len(tls._by_name) == before == 4


async def test_reload_swaps_certificates_for_new_handshakes(pairs, tmp_path):
    tls = ServerTls(pairs[:1])
    context = tls.context("smtp")
    tls.reload(pairs[1:])
    assert tls.context("smtp") is context
    client, _ = await handshake(tls.context("imap"), opportunistic_client())     # a service that comes later
    assert common_name(client) == "mail.other.jp"
    client, server = await handshake(context, opportunistic_client())
    assert common_name(client) == "mail.other.jp"
    assert client.tls.server_end_point == server.tls.server_end_point
    broken = tmp_path / "mail.example.jp.key"
    broken.write_bytes(b"")
    with pytest.raises(TlsFileError):
        tls.reload(pairs)
    client, _ = await handshake(context, opportunistic_client())
    assert common_name(client) == "mail.other.jp"


async def test_tickets_of_one_service_are_worth_nothing_at_another(pairs):
    """A11: a session of the submission service does not resume at IMAP."""
    tls = ServerTls(pairs)
    client_context = opportunistic_client()

    async def resumed(service, session):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        ours = client_context.wrap_bio(incoming, outgoing, server_hostname="mail.example.jp", session=session)
        to_server, from_server = outgoing, incoming
        theirs = tls.context(service).wrap_bio(to_server, from_server, server_side=True)
        for _ in range(4):
            for side in (ours, theirs):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    pass
        theirs.write(b"x")
        ours.read(1)        # the tickets of TLS 1.3 come before the first octet
        return ours.session_reused, ours.session

    _, session = await resumed("submissions", None)
    assert (await resumed("submissions", session))[0]
    assert not (await resumed("imaps", session))[0]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_old_protocol_versions_are_refused(pairs):
    old = opportunistic_client()
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ExceptionGroup) as caught:
        await handshake(ServerTls(pairs).context("smtp"), old)
    assert caught.group_contains((ssl.SSLError, ConnectionError))


async def test_verified_client_wants_the_right_name_and_authority(pairs):
    trusted = verified_client(pairs[0].certificate_path)
    client, _ = await handshake(ServerTls(pairs).context("smtp"), trusted)
    assert client.tls.version == "TLSv1.3"
    for context, name in ((trusted, "mail.other.jp"), (verified_client(), "mail.example.jp")):
        with pytest.raises(ExceptionGroup) as caught:
            await handshake(ServerTls(pairs).context("smtp"), context, name)
        assert caught.group_contains(ssl.SSLCertVerificationError)
    with pytest.raises(TlsFileError, match=r"/nowhere/ca\.pem: No such file"):
        verified_client("/nowhere/ca.pem")


def test_self_signed_pair():
    certificate, key = make_self_signed("mail.example.jp", ["example.jp", "192.0.2.1", "2001:db8::1", "example.jp"], START_MS)
    parsed = x509.load_pem_x509_certificate(certificate)
    names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mail.example.jp", "example.jp"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.1", "2001:db8::1"]
    assert (parsed.not_valid_after_utc - parsed.not_valid_before_utc).days == 825
    assert parsed.not_valid_before_utc.timestamp() * 1000 < START_MS
    private = serialization.load_pem_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name == "secp256r1"


def test_pair_as_read(pairs):
    assert pairs[0].names == ("mail.example.jp", "example.jp")
    assert len(pairs[0].end_point) == 32
    assert pairs[0].expires_ms > START_MS


def encrypted(key):
    private = serialization.load_pem_private_key(key, None)
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x"))


@pytest.mark.parametrize(("certificate", "key", "text"), [
    (None, lambda key: key, r"cert\.pem: No such file"),
    (lambda pem: pem, None, r"key\.pem: No such file"),
    (lambda pem: b"junk", lambda key: key, r"cert\.pem: holds no PEM certificate"),
    (lambda pem: pem, lambda key: b"junk", r"key\.pem: holds no usable PEM private key"),
    (lambda pem: pem, encrypted, r"key\.pem: the private key is encrypted"),
    (lambda pem: pem, lambda key: make_self_signed("a", [], START_MS)[1], r"key\.pem: this key does not belong to .*cert\.pem"),
])
def test_files_that_cannot_be_used_are_named(tmp_path, certificate, key, text):
    pem, private = make_self_signed("mail.example.jp", [], START_MS)
    for name, change, octets in (("cert.pem", certificate, pem), ("key.pem", key, private)):
        if change:
            (tmp_path / name).write_bytes(change(octets))
    with pytest.raises(TlsFileError, match=text):
        read_pair(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))


def test_no_binding_is_defined_for_ed25519():
    key = ed25519.Ed25519PrivateKey.generate()
    pem, _ = make_self_signed("a", [], START_MS)
    sample = x509.load_pem_x509_certificate(pem)
    certificate = (
        x509.CertificateBuilder().subject_name(sample.subject).issuer_name(sample.subject).public_key(key.public_key())
        .serial_number(1).not_valid_before(sample.not_valid_before_utc).not_valid_after(sample.not_valid_after_utc)
        .sign(key, None)
    )
    assert end_point_binding(certificate.public_bytes(serialization.Encoding.DER)) == b""
    assert end_point_binding(b"junk") == b""
