"""A directory of two users for tests of logins, and the loop that runs a mechanism to its end."""

from fumibako.proto.sasl.scram import ScramKeys, dummy_keys, scram_keys
from fumibako.proto.sasl.server import ServerMechanism
from fumibako.proto.sasl.steps import Challenge, Credentials, Failure, ScramLookup, Success

ITERATIONS = 4096
SALT = b"0123456789abcdef"
PASSWORDS = {"alice": "wonderland", "tim": "tanstaaftanstaaf", "文子": "はなび"}
KEYS: dict[str, ScramKeys] = {name: scram_keys(password, SALT, ITERATIONS) for name, password in PASSWORDS.items()}


def advance(mechanism: ServerMechanism, octets: bytes | None) -> Challenge | Success | Failure:
    """One message of the client, with lookups and password checks answered from the directory."""
    step = mechanism.step(octets)
    match step:
        case ScramLookup(authcid):
            return mechanism.supply(KEYS.get(authcid) or dummy_keys(b"secret", authcid, ITERATIONS))
        case Credentials(authcid, authzid, password):
            right = PASSWORDS.get(authcid) == password
            return Success(authcid, authzid) if right else Failure(False, "wrong password")
    return step
