"""SCRAM-SHA-256: both sides prove that they know the password, neither shows it.

Specification: RFC 5802 §3 (algorithm), §5 (exchange), §6 (channel binding), §7 (grammar); RFC 7677 §3, §4;
    RFC 5929 §4 (tls-server-end-point).
Contract: pure: salt and nonces are handed in, keys are looked up by the caller between two steps.  An unknown user
    gets keys made up from a secret: the same salt each time, the same work, and a proof that never fits.
Failure: the server side answers with a Failure step; the client side raises ProtocolError.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass

from fumibako.proto.reader import ProtocolError, parse_uint
from fumibako.proto.sasl.base64 import decode_base64, encode_base64
from fumibako.proto.sasl.prepare import prepare_password
from fumibako.proto.sasl.steps import Challenge, Failure, ScramLookup, Step, Success

ITERATIONS_MIN = 4096           # RFC 7677 §4
ITERATIONS_MAX = 1_000_000      # a hostile server must not keep our client busy
CHANNEL_BINDING = b"tls-server-end-point"
PLUS = "SCRAM-SHA-256-PLUS"
_HASH = "sha256"
_NAME_MAX = 255
_NONCE = rb"[\x21-\x2b\x2d-\x7e]{1,256}"
# client-first-message = gs2-header client-first-message-bare; extensions at the end are ignored, "m=" is refused.
_CLIENT_FIRST = re.compile(rb"((p=[A-Za-z0-9.-]+|n|y),(?:a=([^,]*))?,)(n=([^,]*),r=(" + _NONCE + rb")(?:,.*)?)", re.DOTALL)
# client-final-message-without-proof = channel-binding "," nonce ["," extensions]
_CLIENT_FINAL = re.compile(rb"c=([A-Za-z0-9+/=]+),r=(" + _NONCE + rb")(?:,.*)?", re.DOTALL)
# server-first-message = [reserved-mext ","] nonce "," salt "," iteration-count ["," extensions]
_SERVER_FIRST = re.compile(rb"r=(" + _NONCE + rb"),s=([A-Za-z0-9+/=]+),i=([0-9]+)(?:,.*)?", re.DOTALL)
_SASLNAME = re.compile(r"(?:[^=,\x00]|=2C|=3D)+")


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What the server keeps instead of the password: RFC 5802 §3."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


def scram_keys(password: str, salt: bytes, iterations: int) -> ScramKeys:
    """The keys of a password.  salt: 16 random octets or more; ValueError for a password that can't be prepared."""
    if iterations < ITERATIONS_MIN or not salt:
        raise ValueError("too few iterations, or no salt")
    salted = _salted(password, salt, iterations)
    return ScramKeys(salt, iterations, _hash(_mac(salted, b"Client Key")), _mac(salted, b"Server Key"))


def dummy_keys(secret: bytes, authcid: str, iterations: int) -> ScramKeys:
    """Keys for a user that does not exist: always the same for one name, and no password fits them."""
    seed = _mac(secret, authcid.encode("utf-8", "surrogatepass"))
    return ScramKeys(_mac(seed, b"salt")[:16], iterations, _mac(seed, b"stored"), _mac(seed, b"server"))


class ScramServer:
    """One exchange: client-first, ScramLookup, supply() -> server-first, client-final -> server-final, "" -> Success.

    nonce: fresh random printable text without comma.  channel_binding: the tls-server-end-point data, None where
    SCRAM-SHA-256-PLUS is not offered on this connection.
    """

    def __init__(self, name: str, nonce: bytes, channel_binding: bytes | None = None) -> None:
        if not re.fullmatch(_NONCE, nonce) or (name == PLUS and channel_binding is None):
            raise ValueError("bad nonce, or no channel binding data")
        self.name = name
        self._nonce = nonce
        self._binding = channel_binding
        self._gs2_header = b""
        self._client_first_bare = b""
        self._authcid = self._authzid = ""
        self._keys: ScramKeys | None = None
        self._server_first = b""
        self._proven = False

    def step(self, octets: bytes | None) -> Step:
        """The next message of the client; None where it sent no initial response."""
        if octets is None:
            return Challenge(b"")
        if self._proven:
            return Success(self._authcid, self._authzid) if not octets else Failure(True, "expected an empty response")
        return self._client_final(octets, self._keys) if self._keys is not None else self._client_first(octets)

    def supply(self, keys: ScramKeys) -> Challenge:
        """Answers ScramLookup."""
        self._keys = keys
        salt, count = encode_base64(keys.salt), str(keys.iterations).encode("ascii")
        self._server_first = b"r=" + self._nonce + b",s=" + salt + b",i=" + count
        return Challenge(self._server_first)

    def _client_first(self, octets: bytes) -> Step:
        found = _CLIENT_FIRST.fullmatch(octets)
        if found is None or self._gs2_header:
            return Failure(True, "not a client-first-message")
        self._gs2_header, flag, authzid, self._client_first_bare, username, client_nonce = found.groups()
        self._nonce = client_nonce + self._nonce
        try:
            self._authcid = _decode_name(username)
            self._authzid = _decode_name(authzid) if authzid else ""
        except ValueError:
            return Failure(True, "not a user name")
        return ScramLookup(self._authcid) if (wrong := self._wrong_flag(flag)) is None else wrong

    def _wrong_flag(self, flag: bytes) -> Failure | None:
        """gs2-cbind-flag: RFC 5802 §6."""
        if self.name == PLUS:
            fits = flag == b"p=" + CHANNEL_BINDING
        else:
            # "y": the client believes that we offer no -PLUS.  If we do, someone removed it on the way.
            fits = flag == b"n" or (flag == b"y" and self._binding is None)
        return None if fits else Failure(False, "channel binding does not fit")

    def _client_final(self, octets: bytes, keys: ScramKeys) -> Step:
        without_proof, _, proof_text = octets.rpartition(b",p=")
        found = _CLIENT_FINAL.fullmatch(without_proof)
        try:
            proof = decode_base64(proof_text)
            bound = decode_base64(found[1]) if found else b""
        except ProtocolError:
            return Failure(True, "not base64")
        if found is None or len(proof) != len(keys.stored_key):
            return Failure(True, "not a client-final-message")
        expected = self._gs2_header + ((self._binding or b"") if self.name == PLUS else b"")
        message = b",".join((self._client_first_bare, self._server_first, without_proof))
        client_key = _xor(proof, _mac(keys.stored_key, message))
        fits = hmac.compare_digest(_hash(client_key), keys.stored_key)
        fits &= hmac.compare_digest(found[2], self._nonce)
        fits &= hmac.compare_digest(bound, expected)
        if not fits:
            return Failure(False, "wrong proof")
        self._proven = True
        return Challenge(b"v=" + encode_base64(_mac(keys.server_key, message)))


class ScramClient:
    """The client side; is_complete only once the server has proved that it knows the keys (RFC 5802 §5)."""

    def __init__(self, name: str, authcid: str, password: str, nonce: bytes, channel_binding: bytes | None = None) -> None:
        if not re.fullmatch(_NONCE, nonce) or (name == PLUS and channel_binding is None):
            raise ValueError("bad nonce, or no channel binding data")
        self.name = name
        self.is_complete = False
        self._password = password
        self._nonce = nonce
        self._gs2_header = b"p=" + CHANNEL_BINDING + b",," if name == PLUS else b"n,,"
        self._binding = self._gs2_header + ((channel_binding or b"") if name == PLUS else b"")
        escaped = authcid.replace("=", "=3D").replace(",", "=2C")
        self._first_bare = b"n=" + escaped.encode("utf-8") + b",r=" + nonce
        self._server_signature: bytes | None = None

    def step(self, challenge: bytes | None) -> bytes | None:
        """The next message, or "" for none; ProtocolError where the server is not who it should be."""
        if self.is_complete:
            raise ProtocolError("SCRAM: challenge after the end")
        if challenge is None or (not challenge and self._server_signature is None):
            return self._gs2_header + self._first_bare
        if self._server_signature is None:
            return self._final(challenge)
        if not hmac.compare_digest(challenge, b"v=" + encode_base64(self._server_signature)):
            raise ProtocolError("SCRAM: wrong server signature")
        self.is_complete = True
        return b""

    def _final(self, server_first: bytes) -> bytes:
        found = _SERVER_FIRST.fullmatch(server_first)
        if found is None or not found[1].startswith(self._nonce) or len(found[1]) == len(self._nonce):
            raise ProtocolError("SCRAM: not a server-first-message")
        iterations = parse_uint(found[3], 7)
        if not ITERATIONS_MIN <= iterations <= ITERATIONS_MAX:
            raise ProtocolError("SCRAM: iteration count out of bounds")
        salted = _salted(self._password, decode_base64(found[2]), iterations)
        without_proof = b"c=" + encode_base64(self._binding) + b",r=" + found[1]
        message = b",".join((self._first_bare, server_first, without_proof))
        client_key = _mac(salted, b"Client Key")
        self._server_signature = _mac(_mac(salted, b"Server Key"), message)
        return without_proof + b",p=" + encode_base64(_xor(client_key, _mac(_hash(client_key), message)))


def _decode_name(octets: bytes) -> str:
    """saslname = 1*(value-safe-char / "=2C" / "=3D")"""
    text = octets.decode("utf-8")
    if not _SASLNAME.fullmatch(text) or len(octets) > _NAME_MAX:
        raise ValueError("not a saslname")
    return text.replace("=2C", ",").replace("=3D", "=")


def _salted(password: str, salt: bytes, iterations: int) -> bytes:
    """SaltedPassword := Hi(Normalize(password), salt, i).

    Deviation: RFC 5802 §2.2 normalises with SASLprep; OpaqueString (RFC 8265) replaced it and agrees on ordinary passwords.
    """
    return hashlib.pbkdf2_hmac(_HASH, prepare_password(password).encode("utf-8"), salt, iterations)


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, _HASH)


def _hash(octets: bytes) -> bytes:
    return hashlib.new(_HASH, octets).digest()


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
