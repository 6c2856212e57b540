"""Whether somebody is who they say: passwords, SCRAM proofs, and patience with those who guess.

Specification: RFC 4422 §3 (authcid, authzid); RFC 5802 §3 (what a server keeps);
    RFC 8265 (UsernameCaseMapped).
Contract: an unknown user, a disabled account and a foreign authzid cost the same time and get the same answer as a wrong
    password. The directory is read at every login; only an Argon2 success is remembered, for 5 minutes and while the
    account's modseq stands (DESIGN §4).
    Failures are counted for all workers, per address and per account; who logged in from an address before is not held up
    by the failures of others.
Failure: a value each: `Denied`, `Unavailable`. StoreUnavailable passes through.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from precis_i18n import get_profile

from fumibako.model.account import Account, AccountStatus, PasswordRecord
from fumibako.model.ops import Charge, Charged
from fumibako.net.clock import Clock
from fumibako.net.offload import Offload, Overloaded
from fumibako.proto.sasl.prepare import prepare_password
from fumibako.proto.sasl.scram import ScramKeys, ScramServer, dummy_keys, scram_keys
from fumibako.proto.sasl.server import ServerMechanism, server_mechanism
from fumibako.proto.sasl.steps import Challenge, Credentials, Failure, ScramLookup, Step, Success
from fumibako.services.checks.rate import address_block
from fumibako.services.directory import Directory
from fumibako.services.policy import Policy
from fumibako.store.base import Store, expect

MEMORY_KIB, PASSES, LANES = 19 * 1024, 2, 1     # OWASP's smallest recommended cost: two at a time stay under 40 MiB
SALT_OCTETS, HASH_OCTETS = 16, 32
SCRAM_ITERATIONS = 10_000
REMEMBER_S = 300.0
REMEMBERED, KNOWN, FAILING = 10_000, 10_000, 10_000     # entries kept, the oldest go first
ACCOUNT_PER_MINUTE, ACCOUNT_BURST = 10, 30
FREE_FAILURES, DELAY_MAX_S = 3, 15                      # from the 4th failure on, a second more each time

_USERNAME = get_profile("UsernameCaseMapped")


@dataclass(frozen=True, slots=True)
class Denied:
    """No. malformed: what came was no message of the mechanism. The peer is not told more than that."""

    malformed: bool = False


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Not now: too many failures or logins at once, or the account is being moved. why: English, for the log and the peer."""

    why: str


K = TypeVar("K")
V = TypeVar("V")


class _Recent(Generic[K, V]):
    """A dict that forgets its oldest entries."""

    def __init__(self, limit: int) -> None:
        self._limit, self._entries = limit, OrderedDict[K, V]()

    def put(self, key: K, value: V) -> None:
        self._entries.pop(key, None)
        self._entries[key] = value
        if len(self._entries) > self._limit:
            self._entries.popitem(last=False)

    def find(self, key: K) -> V | None:
        return self._entries.get(key)

    def drop(self, key: K) -> None:
        self._entries.pop(key, None)


class Login:
    """One for the process."""

    def __init__(self, store: Store, directory: Directory, offload: Offload, clock: Clock) -> None:
        self._store, self._directory, self._offload, self._clock = store, directory, offload, clock
        self._memo_key = clock.token(32)
        self._remembered = _Recent[bytes, float](REMEMBERED)                # proof -> until when
        self._known = _Recent[tuple[int, str], bool](KNOWN)                 # (account, address block) that logged in before
        self._failing = _Recent[str, tuple[int, float]](FAILING)            # address block -> failures, until when
        self._dummy = _phc(clock.token(SALT_OCTETS), clock.token(HASH_OCTETS))

    def exchange(self, mechanism: str, peer_address: str, channel_binding: bytes | None = None) -> Exchange:
        """A SASL exchange with a peer. channel_binding: tls-server-end-point data where the connection has it."""
        nonce = b64encode(self._clock.token(24))
        return Exchange(self, server_mechanism(mechanism, nonce, channel_binding), peer_address)

    async def check(self, authcid: str, password: str, peer_address: str) -> Account | Denied | Unavailable:
        """authcid: an address, or a local part where one domain is hosted; password: as the peer sent it."""
        try:
            secret = prepare_password(password).encode("utf-8")
        except ValueError:
            secret = b""                        # fits no record, in the usual time
        account = await self._account(authcid)
        if account is not None and self._recall(account, secret):
            return _admit(account)
        attempt = await self._attempt(authcid, account, peer_address)
        if not attempt.allowed:
            return attempt.refusal
        record = await self._store.password(account.id) if account is not None else None
        try:
            proven = await self._offload.run_password(_verify, secret, record.argon2id if record else self._dummy)
        except Overloaded:
            return Unavailable("too many logins at once")
        if not proven or account is None or account.status is AccountStatus.DISABLED:
            return await self._failed(attempt)
        self._remembered.put(self._proof(account, secret), self._clock.monotonic_s() + REMEMBER_S)
        await self._succeeded(attempt)
        return _admit(account)

    async def scram_keys(self, authcid: str, peer_address: str) -> ScramKeys | Unavailable:
        """The keys of a user, or made-up ones of a user that does not exist."""
        account = await self._account(authcid)
        attempt = await self._attempt(authcid, account, peer_address)
        if not attempt.allowed:
            return attempt.refusal
        record = await self._store.password(account.id) if account is not None else None
        secret = await self._store.secret("scram-dummy")
        if record is None:
            return dummy_keys(secret, _prepared(authcid), SCRAM_ITERATIONS)
        return ScramKeys(record.scram_salt, record.scram_iterations, record.scram_stored_key, record.scram_server_key)

    async def scram_result(self, authcid: str, peer_address: str, *, proven: bool) -> Account | Denied | Unavailable:
        """What follows from the proof that scram_keys() made checkable."""
        account = await self._account(authcid)
        attempt = _Attempt(authcid, account, address_block(peer_address), await self._is_exempt(peer_address))
        if not proven or account is None or account.status is AccountStatus.DISABLED:
            return await self._failed(attempt)
        await self._succeeded(attempt)
        return _admit(account)

    async def same_identity(self, authcid: str, authzid: str) -> bool:
        """Whether authzid names the account of authcid; acting for others is not offered (RFC 4422 §3.4.1)."""
        if not authzid or authzid == authcid:
            return True
        one, other = await self._account(authcid), await self._account(authzid)
        return one is None or (other is not None and one.id == other.id)

    # -- records --

    async def _account(self, authcid: str) -> Account | None:
        return await self._directory.account(_prepared(authcid))

    def _proof(self, account: Account, secret: bytes) -> bytes:
        return hmac.digest(self._memo_key, b"%d %d %b" % (account.id, account.modseq, secret), "sha256")

    def _recall(self, account: Account, secret: bytes) -> bool:
        until = self._remembered.find(self._proof(account, secret))
        return until is not None and self._clock.monotonic_s() < until

    # -- patience --

    async def _is_exempt(self, peer_address: str) -> bool:
        return Policy(await self._store.settings("")).exempt(peer_address)

    async def _attempt(self, authcid: str, account: Account | None, peer_address: str) -> _Attempt:
        """Charges the attempt before its outcome is known, so that guesses made side by side all count."""
        policy = Policy(await self._store.settings(""))
        attempt = _Attempt(authcid, account, address_block(peer_address), policy.exempt(peer_address))
        if attempt.exempt:
            return attempt
        per_minute = policy.number("limits.logins_per_minute")
        attempt.allowed = await self._charge(attempt.address_bucket, 1, per_minute, per_minute)
        if attempt.allowed and not (account is not None and self._known.find((account.id, attempt.block))):
            attempt.allowed = await self._charge(attempt.account_bucket, 1, ACCOUNT_PER_MINUTE, ACCOUNT_BURST)
        return attempt

    async def _charge(self, key: str, cost: int, per_minute: int, burst: int) -> bool:
        return expect(await self._store.commit(Charge(key, cost, per_minute, burst, self._clock.now_ms())), Charged).allowed

    async def _succeeded(self, attempt: _Attempt) -> None:
        assert attempt.account is not None
        self._failing.drop(attempt.block)
        self._known.put((attempt.account.id, attempt.block), True)
        if not attempt.exempt:      # only failures are to be counted
            per_minute = Policy(await self._store.settings("")).number("limits.logins_per_minute")
            await self._charge(attempt.address_bucket, -1, per_minute, per_minute)

    async def _failed(self, attempt: _Attempt) -> Denied:
        if attempt.exempt:
            return Denied()
        now_s = self._clock.monotonic_s()
        count, until_s = self._failing.find(attempt.block) or (0, now_s)
        count = count + 1 if now_s < until_s else 1
        self._failing.put(attempt.block, (count, now_s + 600))
        await self._clock.sleep(min(max(0, count - FREE_FAILURES), DELAY_MAX_S))
        return Denied()


@dataclass(slots=True)
class _Attempt:
    """A login under way."""

    authcid: str
    account: Account | None
    block: str
    exempt: bool
    allowed: bool = True

    @property
    def refusal(self) -> Unavailable:
        return Unavailable("too many failed logins, try again later")

    @property
    def address_bucket(self) -> str:
        return f"login:{self.block}"

    @property
    def account_bucket(self) -> str:
        # An unknown name has a bucket as well, or its answer would come sooner.
        return f"login-account:{self.account.id}" if self.account is not None else f"login-name:{self.authcid[:64]}"


class Exchange:
    """One SASL exchange: `step` until it gives something else than a challenge."""

    def __init__(self, login: Login, mechanism: ServerMechanism, peer_address: str) -> None:
        self._login, self._mechanism, self._peer_address = login, mechanism, peer_address
        self._authcid = ""          # whose keys were looked up

    async def step(self, octets: bytes | None) -> bytes | Account | Denied | Unavailable:
        """octets: what the client sent, None where it sent no initial response. bytes: the challenge to send next."""
        return await self._next(self._mechanism.step(octets))

    async def _next(self, step: Step) -> bytes | Account | Denied | Unavailable:
        match step:
            case Challenge(octets):
                return octets
            case Credentials(authcid, authzid, password):
                # The password first: a foreign authzid must not spare the work, or the time would tell who exists.
                answer = await self._login.check(authcid, password, self._peer_address)
                if isinstance(answer, Account) and not await self._login.same_identity(authcid, authzid):
                    return Denied()
                return answer
            case ScramLookup(authcid):
                return await self._look_up(authcid)
            case Success(authcid, authzid):
                allowed = await self._login.same_identity(authcid, authzid)
                return await self._login.scram_result(authcid, self._peer_address, proven=allowed)
            case Failure(malformed, _):
                if malformed or not self._authcid:
                    return Denied(malformed)
                return await self._login.scram_result(self._authcid, self._peer_address, proven=False)

    async def _look_up(self, authcid: str) -> bytes | Unavailable:
        keys = await self._login.scram_keys(authcid, self._peer_address)
        if isinstance(keys, Unavailable):
            return keys
        self._authcid = authcid
        assert isinstance(self._mechanism, ScramServer)     # the only one that looks keys up
        return self._mechanism.supply(keys).octets


async def make_password(password: str, offload: Offload, clock: Clock) -> PasswordRecord:
    """Everything that is kept of a password, made together, off the event loop. ValueError: it can't be prepared."""
    return await offload.run_password(make_password_record, password, clock.token(SALT_OCTETS), clock.token(SALT_OCTETS))


def make_password_record(password: str, argon2_salt: bytes, scram_salt: bytes) -> PasswordRecord:
    """Argon2id for mechanisms that show the password, SCRAM keys for those that don't. Takes tens of milliseconds."""
    prepared = prepare_password(password)
    argon2 = Argon2id(salt=argon2_salt, length=HASH_OCTETS, iterations=PASSES, lanes=LANES, memory_cost=MEMORY_KIB)
    keys = scram_keys(prepared, scram_salt, SCRAM_ITERATIONS)
    phc = argon2.derive_phc_encoded(prepared.encode("utf-8"))
    return PasswordRecord(phc, keys.salt, keys.iterations, keys.stored_key, keys.server_key)


def _verify(secret: bytes, phc: str) -> bool:
    try:
        Argon2id.verify_phc_encoded(secret, phc)
    except InvalidKey:
        return False
    return True


def _phc(salt: bytes, digest: bytes) -> str:
    """The PHC string form of an Argon2id hash: what a record looks like that no password fits."""
    encoded = (b64encode(octets).decode("ascii").rstrip("=") for octets in (salt, digest))
    return f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}$" + "$".join(encoded)


def _prepared(authcid: str) -> str:
    """Full-width letters and signs become the usual ones: ａｌｉｃｅ finds alice; what can't be prepared is nobody."""
    authcid = authcid.strip()
    if authcid.isascii():
        return authcid
    try:
        local_part, at, domain = _USERNAME.enforce(authcid).rpartition("@")
    except ValueError:
        return ""
    return f"{local_part}{at}{domain}"


def _admit(account: Account) -> Account | Denied | Unavailable:
    match account.status:
        case AccountStatus.ACTIVE:
            return account
        case AccountStatus.FROZEN:
            return Unavailable("the account is being moved, try again later")
        case AccountStatus.DISABLED:
            return Denied()
