"""Service extensions: what our server offers, and what a peer's EHLO reply offers us.

Specification: RFC 5321 §4.1.1.1 (ehlo-ok-rsp), §2.2; RFC 1870 §4 (SIZE); RFC 2920 §3; RFC 3030 §2, §3; RFC 4954 §3.
Contract: `ServerConfig` is all a server core knows of its listener; `Capabilities` all a client core knows of its peer.
Failure: ValueError for a configuration that can't be; a peer's reply never fails, what is odd in it is not offered.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fumibako.proto.reader import ProtocolError, parse_uint
from fumibako.proto.smtp.reply import Reply

# Octets of a command line, CRLF included: RFC 5321 §4.5.3.1.4, plus what extensions add.
COMMAND_LINE_MAX = 512
LINE_MAX = {
    # SIZE 26 (RFC 1870 §3), BODY 17 (RFC 6152), AUTH 500 (RFC 4954 §3), SMTPUTF8 10 (RFC 6531 §3.1), RET and ENVID 114.
    b"MAIL": COMMAND_LINE_MAX + 26 + 17 + 500 + 10 + 114,
    # NOTIFY and ORCPT: RFC 3461 §4.1, §4.2.
    b"RCPT": COMMAND_LINE_MAX + 29 + 507,
    b"AUTH": 12288,             # RFC 4954 §4
}
AUTH_LINE_MAX = 12288
_MAIL_PARAMETERS = frozenset({"SIZE", "BODY"})
_DSN_MAIL_PARAMETERS = frozenset({"RET", "ENVID"})
_DSN_RCPT_PARAMETERS = frozenset({"NOTIFY", "ORCPT"})


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """One listener's protocol settings.

    submission: mail only after AUTH (RFC 6409 §4.3).  auth_mechanisms are offered under TLS, or anywhere with
    auth_without_tls.  early_talk: tolerate a client that does not wait for the replies RFC 2920 §3.1 makes it wait for.
    max_errors: syntax and sequence errors that are answered; the next one ends the conversation.
    """

    hostname: str
    lmtp: bool = False
    submission: bool = False
    max_size_octets: int = 50 * 1024 * 1024
    max_recipients: int = 1000
    tls_available: bool = False
    tls_active: bool = False
    auth_mechanisms: tuple[str, ...] = ()
    auth_without_tls: bool = False
    smtputf8: bool = True
    dsn: bool = True
    chunking: bool = True
    binarymime: bool = False
    early_talk: bool = False
    max_errors: int = 1000

    def __post_init__(self) -> None:
        if self.max_size_octets <= 0 or self.max_recipients <= 0:
            raise ValueError("limits must be positive")
        if self.binarymime and not self.chunking:
            raise ValueError("BINARYMIME needs CHUNKING")       # RFC 3030 §3

    @property
    def auth_offered(self) -> bool:
        """Whether AUTH may be used now."""
        return bool(self.auth_mechanisms) and (self.tls_active or self.auth_without_tls)

    def keywords(self) -> list[str]:
        """The lines of the EHLO reply behind the first."""
        offers = [
            (True, "PIPELINING"),
            (True, f"SIZE {self.max_size_octets}"),
            (self.tls_available and not self.tls_active, "STARTTLS"),
            (self.auth_offered, " ".join(("AUTH", *self.auth_mechanisms))),
            (True, "ENHANCEDSTATUSCODES"),
            (True, "8BITMIME"),
            (self.smtputf8, "SMTPUTF8"),
            (self.dsn, "DSN"),
            (self.chunking, "CHUNKING"),
            (self.binarymime, "BINARYMIME"),
        ]
        return [line for offered, line in offers if offered]

    def mail_parameters(self) -> frozenset[str]:
        """The parameters MAIL may have in a session that began with EHLO."""
        known = _MAIL_PARAMETERS | (_DSN_MAIL_PARAMETERS if self.dsn else frozenset())
        return known | {name for name, on in (("SMTPUTF8", self.smtputf8), ("AUTH", self.auth_offered)) if on}

    def rcpt_parameters(self) -> frozenset[str]:
        """The parameters RCPT may have in a session that began with EHLO."""
        return _DSN_RCPT_PARAMETERS if self.dsn else frozenset()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the peer's reply to EHLO offers: upper-case keyword -> its parameters as written."""

    keywords: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.keywords

    @property
    def size_limit_octets(self) -> int | None:
        """The SIZE limit; None where there is none: "SIZE" and "SIZE 0" set no limit (RFC 1870 §4)."""
        try:
            return parse_uint(" ".join(self.keywords.get("SIZE", ())).encode(), 20) or None
        except ProtocolError:
            return None

    @property
    def auth_mechanisms(self) -> tuple[str, ...]:
        """The SASL mechanisms, upper case, in the peer's order."""
        return tuple(name.upper() for name in self.keywords.get("AUTH", ()))


def parse_capabilities(reply: Reply) -> Capabilities:
    """ehlo-line = ehlo-keyword *( SP ehlo-param ), in every line but the first (RFC 5321 §4.1.1.1)."""
    found: dict[str, tuple[str, ...]] = {}
    # Deviation: RFC 2034 §4 keeps status codes out of this reply; `parse_reply` took any for what they are.
    for line in reply.lines[1:]:
        keyword, *parameters = line.split() or [""]
        found.setdefault(keyword.upper(), tuple(parameters))
    found.pop("", None)
    return Capabilities(found)
