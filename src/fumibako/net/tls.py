"""TLS contexts: ours as a server with certificates by server name, ours as a client, and a first self-signed pair.

Specification: RFC 8314 §4 and RFC 8996 (TLS 1.2 or later); RFC 5929 §4.1 (channel binding).
Contract: one context per listener service, so that a session ticket of one service never opens another
    (each context has ticket keys of its own). `reload` checks every new pair before the first is put in place.
    The certificate table is fixed at load: an unknown server name gets the default certificate and costs no memory.
Failure: `TlsFileError`, whose text names the file and what is wrong with it.
"""

import datetime
import hashlib
import ipaddress
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Forward secrecy and AEAD only; TLS 1.3 suites are the library's own. AES-CBC stays out (Lucky 13).
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM"
SELF_SIGNED_DAYS = 825      # the longest life Apple's systems accept


class TlsFileError(Exception):
    """A certificate or key file that cannot be used; the text names the file and the reason."""


@dataclass(frozen=True, slots=True)
class CertificatePair:
    """A certificate chain and its key, read and found to fit. names: lower-case DNS names of the first certificate."""

    certificate_path: str
    key_path: str
    names: tuple[str, ...]
    expires_ms: int
    end_point: bytes


class ServerContext(ssl.SSLContext):
    """A server context that knows the channel binding of its certificate."""

    end_point: bytes = b""


def end_point_binding(certificate: bytes) -> bytes:
    """The tls-server-end-point channel binding of a DER certificate (RFC 5929 §4.1); b"" where none is defined."""
    try:
        algorithm = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return b""
    if algorithm is None:       # Ed25519 and the like: no single hash function, so the binding is undefined
        return b""
    name = "sha256" if algorithm.name in {"md5", "sha1"} else algorithm.name
    return hashlib.new(name, certificate).digest()


def read_pair(certificate_path: str, key_path: str) -> CertificatePair:
    """Reads a PEM certificate (chain) and key. Raises TlsFileError."""
    try:
        leaf = x509.load_pem_x509_certificates(_octets(certificate_path))[0]
    except ValueError as error:
        raise TlsFileError(f"{certificate_path}: holds no PEM certificate") from error
    try:
        key = serialization.load_pem_private_key(_octets(key_path), password=None)
    except TypeError as error:
        raise TlsFileError(f"{key_path}: the private key is encrypted; store it without a passphrase") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TlsFileError(f"{key_path}: holds no usable PEM private key") from error
    if _public_octets(key.public_key()) != _public_octets(leaf.public_key()):
        raise TlsFileError(f"{key_path}: this key does not belong to the certificate in {certificate_path}")
    end_point = end_point_binding(leaf.public_bytes(serialization.Encoding.DER))
    expires_ms = int(leaf.not_valid_after_utc.timestamp() * 1000)
    return CertificatePair(certificate_path, key_path, _dns_names(leaf), expires_ms, end_point)


def _octets(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise TlsFileError(f"{path}: {error.strerror or error}") from error


def _public_octets(key: object) -> bytes:
    encode = key.public_bytes   # type: ignore[attr-defined]  # every public key type has it; they share no base
    octets: bytes = encode(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return octets


def _dns_names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(name.lower() for name in names.get_values_for_type(x509.DNSName))


def _strict(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE


def _server_context(pair: CertificatePair) -> ServerContext:
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    _strict(context)
    context.set_ciphers(CIPHERS)
    try:
        context.load_cert_chain(pair.certificate_path, pair.key_path)
    except (OSError, ssl.SSLError) as error:
        raise TlsFileError(f"{pair.certificate_path}: {error}") from error
    context.end_point = pair.end_point
    return context


class ServerTls:
    """The certificates of this server. The first pair is the default; the others answer to their own names."""

    def __init__(self, pairs: Sequence[CertificatePair]) -> None:
        self._services: dict[str, ServerContext] = {}
        self._default_pair = pairs[0]
        self._default, self._by_name = _table(pairs)

    def reload(self, pairs: Sequence[CertificatePair]) -> None:
        """New handshakes use these from now on; running connections keep what they have. Raises TlsFileError, unchanged."""
        default, by_name = _table(pairs)
        self._default_pair, self._default, self._by_name = pairs[0], default, by_name

    def context(self, service: str) -> ssl.SSLContext:
        """The context of one listener service ("imaps"); the same one every time, also after a reload."""
        if service not in self._services:
            front = _server_context(self._default_pair)
            front.sni_callback = self._choose
            self._services[service] = front
        return self._services[service]

    def _choose(self, tls: ssl.SSLObject, server_name: str | None, _: ssl.SSLContext) -> None:
        name = (server_name or "").lower()
        parent = "*." + name.partition(".")[2]
        tls.context = self._by_name.get(name) or self._by_name.get(parent) or self._default


def _table(pairs: Sequence[CertificatePair]) -> tuple[ServerContext, dict[str, ServerContext]]:
    contexts = [_server_context(pair) for pair in pairs]
    by_name: dict[str, ServerContext] = {}
    for pair, context in zip(pairs, contexts, strict=True):
        for name in pair.names:
            by_name.setdefault(name, context)
    return contexts[0], by_name


def opportunistic_client() -> ssl.SSLContext:
    """For mail between servers without a policy: encrypts, proves nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE     # better than the plaintext that would follow a refusal
    _strict(context)
    return context


def verified_client(authorities_path: str = "") -> ssl.SSLContext:
    """For a peer that must prove its name, by the system's authorities or those in a PEM file. Raises TlsFileError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _strict(context)
    if not authorities_path:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return context
    try:
        context.load_verify_locations(authorities_path)
    except OSError as error:    # ssl.SSLError is one too
        raise TlsFileError(f"{authorities_path}: {error.strerror or error}") from error
    return context


def make_self_signed(hostname: str, names: Iterable[str], now_ms: int) -> tuple[bytes, bytes]:
    """A certificate and key in PEM for hostname and further DNS names or IP addresses: ECDSA P-256, 825 days."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    start = datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC) - datetime.timedelta(hours=1)
    public = key.public_key()
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName(_general_names([hostname, *names])), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(usage, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem), private


def _general_names(names: Iterable[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found
