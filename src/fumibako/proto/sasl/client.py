"""The client mechanisms: for our own logins at a smarthost, in migration, and in tests.

Specification: RFC 4422 §3; RFC 4616 §2 (PLAIN).
Contract: step(None) gives the initial response, or None where the mechanism has none; step(challenge) the next message.
Failure: ProtocolError for a challenge that does not fit.
"""

from typing import Protocol

from fumibako.proto.reader import ProtocolError
from fumibako.proto.sasl.scram import PLUS, ScramClient


class ClientMechanism(Protocol):
    """One exchange.  is_complete: all is said, and the server proved what it has to."""

    name: str
    is_complete: bool

    def step(self, challenge: bytes | None) -> bytes | None:
        """The next message for a challenge."""
        ...


class PlainClient:
    """PLAIN."""

    def __init__(self, authcid: str, password: str, authzid: str = "") -> None:
        if any("\0" in text for text in (authcid, password, authzid)):
            raise ValueError("NUL in credentials")
        self.name = "PLAIN"
        self.is_complete = False
        self._message = "\0".join((authzid, authcid, password)).encode("utf-8")

    def step(self, challenge: bytes | None) -> bytes | None:
        """Everything at once; a server that got no initial response asks with an empty challenge."""
        if self.is_complete or challenge:
            raise ProtocolError("PLAIN: unexpected challenge")
        self.is_complete = True
        return self._message


class LoginClient:
    """LOGIN: the prompts' wording differs from server to server, their order does not."""

    def __init__(self, authcid: str, password: str) -> None:
        self.name = "LOGIN"
        self.is_complete = False
        self._answers = [authcid.encode("utf-8"), password.encode("utf-8")]

    def step(self, challenge: bytes | None) -> bytes | None:
        """User name, then password."""
        if challenge is None:
            return None
        if not self._answers:
            raise ProtocolError("LOGIN: unexpected challenge")
        answer = self._answers.pop(0)
        self.is_complete = not self._answers
        return answer


def client_mechanism(
    name: str, authcid: str, password: str, nonce: bytes, channel_binding: bytes | None = None
) -> ClientMechanism:
    """A mechanism by name; ValueError for an unknown one.  nonce: as for `server_mechanism`."""
    match name:
        case "PLAIN":
            return PlainClient(authcid, password)
        case "LOGIN":
            return LoginClient(authcid, password)
        case "SCRAM-SHA-256" | "SCRAM-SHA-256-PLUS":
            return ScramClient(name, authcid, password, nonce, channel_binding if name == PLUS else None)
    raise ValueError(f"no such mechanism: {name}")
