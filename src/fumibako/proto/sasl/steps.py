"""What a server mechanism asks of its face after each message of the client.

Specification: RFC 4422 §3 (the exchange).
Contract: Challenge and ScramLookup go on, the rest ends the exchange.
Failure: is one of the steps.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send these octets, then step() with the answer."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class Credentials:
    """Check this password: the mechanism can't.  authzid "" means: the same identity.

    password is prepared (OpaqueString), as the records are made from it.
    """

    authcid: str
    authzid: str
    password: str


@dataclass(frozen=True, slots=True)
class ScramLookup:
    """Find the keys of authcid (`dummy_keys` where there is no such user), then call supply(keys)."""

    authcid: str


@dataclass(frozen=True, slots=True)
class Success:
    """The client proved to be authcid.  authzid "" means: the same identity."""

    authcid: str
    authzid: str


@dataclass(frozen=True, slots=True)
class Failure:
    """No login.  malformed: the message was none of the mechanism's; otherwise the proof was wrong."""

    malformed: bool
    why: str


Step = Challenge | Credentials | ScramLookup | Success | Failure
