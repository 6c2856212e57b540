"""The server side of the mechanisms that show the password: PLAIN and LOGIN.

Specification: RFC 4616 §2 (PLAIN); LOGIN has no RFC, only clients: user name and password, one prompt each.
Contract: they end in Credentials; whether the connection may carry a password is the caller's business.
Failure: a Failure step; no exception.
"""

import re

from fumibako.proto.sasl.prepare import prepare_password
from fumibako.proto.sasl.steps import Challenge, Credentials, Failure, Step

NAME_MAX = 255          # octets of authcid, authzid and password: RFC 4616 §2
_CONTROL = re.compile("[\x00-\x1f\x7f]")


class PlainServer:
    """PLAIN: one message with all of it."""

    name = "PLAIN"

    def step(self, octets: bytes | None) -> Step:
        """message = [authzid] UTF8NUL authcid UTF8NUL passwd; None where the client sent no initial response."""
        if octets is None:
            return Challenge(b"")
        parts = octets.split(b"\0")
        if len(parts) != 3:
            return Failure(True, "expected authzid, authcid and password")
        return _credentials(*parts)


class LoginServer:
    """LOGIN: two prompts; an initial response is the user name."""

    name = "LOGIN"

    def __init__(self) -> None:
        self._authcid: bytes | None = None

    def step(self, octets: bytes | None) -> Step:
        """User name first, then password."""
        if octets is None:
            return Challenge(b"Username:")
        if self._authcid is None:
            self._authcid = octets
            return Challenge(b"Password:")
        return _credentials(b"", self._authcid, octets)


def _credentials(authzid: bytes, authcid: bytes, password: bytes) -> Step:
    if max(len(authzid), len(authcid), len(password)) > NAME_MAX or not authcid:
        return Failure(True, "empty or too long")
    try:
        names = authcid.decode("utf-8"), authzid.decode("utf-8")
        prepared = prepare_password(password.decode("utf-8"))
    except ValueError:
        return Failure(True, "not a user name or password")
    if any(_CONTROL.search(name) for name in names):
        return Failure(True, "control character in user name")
    return Credentials(*names, prepared)
