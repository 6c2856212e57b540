"""What an SMTP or LMTP client said, as values.

Specification: RFC 5321 §4.1.1 (commands), RFC 3207 §4, RFC 4954 §4, RFC 3030 §2, RFC 3461 §4 (DSN), RFC 6531 §3.4.
Contract: every event wants one reply, except those of NO_REPLY.  Paths are in wire form without angle brackets.
Failure: none; `command` makes only events that hold.
"""

from dataclasses import dataclass

from fumibako.model.envelope import Notify


@dataclass(frozen=True, slots=True)
class Connected:
    """The connection stands: reply 220, or 554 to serve nobody.  `unread` > 0 means that the client talked first."""


@dataclass(frozen=True, slots=True)
class Hello:
    """EHLO (or LHLO) when esmtp, else HELO.  The core adds the extensions to a 250."""

    domain: str
    esmtp: bool


@dataclass(frozen=True, slots=True)
class StartTLS:
    """Reply 220, send it, begin TLS, go on with `ServerConnection.after_tls()`."""


@dataclass(frozen=True, slots=True)
class Auth:
    """AUTH: answer with challenge(octets) or a reply, of which 235 logs in.

    mechanism: upper case, one of the configured; initial_response: decoded, None where there is none.
    """

    mechanism: str
    initial_response: bytes | None


@dataclass(frozen=True, slots=True)
class AuthResponse:
    """The decoded answer to a challenge: again challenge(octets) or a reply."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class AuthCancelled:
    """The client gave up ("*"): reply 501 (RFC 4954 §4)."""


@dataclass(frozen=True, slots=True)
class Mail:
    """MAIL: a transaction begins.  reverse_path "" is the null reverse-path.

    size_octets: declared, or None; body: 7BIT, 8BITMIME or BINARYMIME; ret: "", FULL or HDRS; envelope_id: decoded ENVID;
    auth: decoded AUTH= mailbox, "<>" for unknown, None where not said.
    """

    reverse_path: str
    size_octets: int | None = None
    body: str = "7BIT"
    smtputf8: bool = False
    ret: str = ""
    envelope_id: str = ""
    auth: str | None = None


@dataclass(frozen=True, slots=True)
class Rcpt:
    """RCPT.  forward_path may be "Postmaster" without a domain (RFC 5321 §4.5.1).

    original_recipient: decoded ORCPT ("rfc822;a@b"), or "".
    """

    forward_path: str
    notify: Notify = Notify.UNSPECIFIED
    original_recipient: str = ""


@dataclass(frozen=True, slots=True)
class Data:
    """DATA: reply 354 to get the message; a refusal ends the transaction."""


@dataclass(frozen=True, slots=True)
class Bdat:
    """BDAT: size_octets of message follow as chunks.  No reply yet."""

    size_octets: int
    last: bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """1 to 65,536 octets of the message, as sent, minus dot-stuffing.  No reply."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class EndOfChunk:
    """A BDAT without LAST is read whole: reply 250; a refusal ends the transaction."""

    size_octets: int


@dataclass(frozen=True, slots=True)
class EndOfData:
    """The message is whole: one reply (LMTP: one for each accepted recipient).

    size_octets: of the whole message; bare_newline: CR or LF outside CRLF; nul: an octet zero;
    too_big: over the limit, and cut there.
    """

    size_octets: int
    bare_newline: bool = False
    nul: bool = False
    too_big: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """RSET: the transaction, if any, is over."""


@dataclass(frozen=True, slots=True)
class Verify:
    """VRFY."""

    text: str


@dataclass(frozen=True, slots=True)
class Expand:
    """EXPN."""

    text: str


@dataclass(frozen=True, slots=True)
class Help:
    """HELP."""

    topic: str


@dataclass(frozen=True, slots=True)
class Noop:
    """NOOP."""


@dataclass(frozen=True, slots=True)
class Quit:
    """QUIT: reply 221, then close."""


Command = Hello | StartTLS | Auth | Mail | Rcpt | Data | Bdat | Reset | Verify | Expand | Help | Noop | Quit
Event = Connected | Command | AuthResponse | AuthCancelled | Chunk | EndOfChunk | EndOfData

NO_REPLY = (Bdat, Chunk)
