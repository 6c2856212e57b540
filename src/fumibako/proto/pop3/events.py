"""What a POP3 client said, as values.

Specification: RFC 1939 §5, §6, §7 (commands); RFC 2595 §4 (STLS); RFC 5034 §4 (AUTH); RFC 6856 §2 (UTF8).
Contract: every event wants one response.  Message numbers are positive; whether there is such a message the face knows.
    USER and CAPA need no decision: the core answers them.
Failure: none; `command` makes only events that hold.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Connected:
    """The connection stands: respond +OK, or -ERR and hang up."""


@dataclass(frozen=True, slots=True)
class Login:
    """USER and PASS together: +OK opens the maildrop.  password is prepared (OpaqueString)."""

    name: str
    password: str


@dataclass(frozen=True, slots=True)
class Auth:
    """AUTH: answer with challenge(octets) or a response, of which +OK logs in.

    mechanism: upper case, one of the configured; initial_response: decoded, None where there is none.
    """

    mechanism: str
    initial_response: bytes | None


@dataclass(frozen=True, slots=True)
class AuthResponse:
    """The decoded answer to a challenge."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class AuthCancelled:
    """The client gave up ("*"): respond -ERR."""


@dataclass(frozen=True, slots=True)
class StartTLS:
    """STLS: respond +OK, send it, begin TLS, go on with `ServerConnection.after_tls()`."""


@dataclass(frozen=True, slots=True)
class Utf8:
    """UTF8: the client takes messages with UTF-8 in the header."""


@dataclass(frozen=True, slots=True)
class Stat:
    """STAT: `stat_response`."""


@dataclass(frozen=True, slots=True)
class List:
    """LIST: sizes; with a number `listing_response`, without one +OK and send_listing()."""

    number: int | None


@dataclass(frozen=True, slots=True)
class Uidl:
    """UIDL: unique ids; with a number `listing_response`, without one +OK and send_listing()."""

    number: int | None


@dataclass(frozen=True, slots=True)
class Retr:
    """RETR: +OK, then send_message() and end_message()."""

    number: int


@dataclass(frozen=True, slots=True)
class Top:
    """TOP: as RETR; the core sends the header and `lines` lines of the body, and drops the rest."""

    number: int
    lines: int


@dataclass(frozen=True, slots=True)
class Dele:
    """DELE: mark; nothing is deleted before QUIT."""

    number: int


@dataclass(frozen=True, slots=True)
class Noop:
    """NOOP."""


@dataclass(frozen=True, slots=True)
class Reset:
    """RSET: unmark everything."""


@dataclass(frozen=True, slots=True)
class Quit:
    """QUIT.  update: out of TRANSACTION, so delete what is marked, then respond; -ERR where that failed."""

    update: bool


Command = Login | Auth | StartTLS | Utf8 | Stat | List | Uidl | Retr | Top | Dele | Noop | Reset | Quit
Event = Connected | Command | AuthResponse | AuthCancelled
