"""Before and around login: CAPABILITY, NOOP, LOGOUT, ID, STARTTLS, LOGIN, AUTHENTICATE, ENABLE.

Specification: RFC 9051 §6.1, §6.2, §6.3.1; RFC 2971 (ID); RFC 5530 §3 (AUTHENTICATIONFAILED, UNAVAILABLE).
Contract: a wrong password, an unknown user and a disabled account are one answer; three of them end the connection.
Failure: the store's being away passes through.
"""

from __future__ import annotations

from fumibako import __version__
from fumibako.faces.imap.conversation import Answer, Conversation
from fumibako.model.account import Account
from fumibako.proto.imap import commands as c
from fumibako.proto.imap.format import format_id
from fumibako.proto.imap.parse import enables_condstore
from fumibako.services.login import Denied, Exchange, Unavailable

FAILURES_MAX = 3


async def capability(talk: Conversation, _: c.Capability) -> Answer:
    talk.core.untagged(talk.core.capability())
    return Answer("CAPABILITY completed")


async def noop(_: Conversation, command: c.Noop | c.Check) -> Answer:
    """NOOP and CHECK: the news come with every command's end (RFC 9051 §6.1.2)."""
    return Answer("CHECK completed" if isinstance(command, c.Check) else "NOOP completed")


async def logout(talk: Conversation, _: c.Logout) -> Answer:
    talk.core.bye("Good bye")
    return Answer("LOGOUT completed")


async def identify(talk: Conversation, _: c.Id) -> Answer:
    talk.core.untagged(format_id({"name": "Fumibako", "version": __version__}))
    return Answer("ID completed")


async def enable(talk: Conversation, command: c.Enable) -> Answer:
    if "CONDSTORE" in talk.core.enable(command.capabilities):
        tell_highest_modseq(talk)
    return Answer("ENABLE completed")


def notice_condstore(talk: Conversation, command: c.Command) -> None:
    """RFC 7162 §3.1: the first command that uses CONDSTORE turns it on; the mailbox at hand tells its modseq."""
    if not talk.core.condstore and enables_condstore(command):
        talk.core.condstore = True
        if not isinstance(command, c.Select):
            tell_highest_modseq(talk)


def tell_highest_modseq(talk: Conversation) -> None:
    if talk.selection is not None:
        talk.core.untagged(b"OK [HIGHESTMODSEQ %d] Highest" % talk.selection.view.highest_modseq)


class Authentication:
    """The attempts of one connection to log in."""

    def __init__(self, talk: Conversation) -> None:
        self._talk = talk
        self._exchange: Exchange | None = None
        self.failures = 0

    @property
    def exhausted(self) -> bool:
        return self.failures >= FAILURES_MAX

    async def login(self, command: c.Login) -> Answer:
        try:
            user, password = command.user.decode("utf-8"), command.password.decode("utf-8")
        except UnicodeDecodeError:
            user, password = "", ""     # nobody's; refused in the usual time
        peer = self._talk.stream.peer.host
        return await self._admit(await self._talk.services.login.check(user, password, peer), "LOGIN")

    async def authenticate(self, command: c.Authenticate) -> Answer | None:
        """None: a challenge went out, the client's response follows."""
        stream = self._talk.stream
        binding = stream.tls.server_end_point if stream.tls else b""
        self._exchange = self._talk.services.login.exchange(command.mechanism, stream.peer.host, binding or None)
        return await self._step(self._exchange, command.initial_response)

    async def respond(self, response: c.SaslResponse) -> Answer | None:
        exchange, self._exchange = self._exchange, None
        if exchange is None or response.octets is None:
            return Answer("AUTHENTICATE cancelled, or not base64", status="BAD")
        return await self._step(exchange, response.octets)

    async def _step(self, exchange: Exchange, octets: bytes | None) -> Answer | None:
        outcome = await exchange.step(octets)
        if not isinstance(outcome, bytes):
            return await self._admit(outcome, "AUTHENTICATE")
        self._exchange = exchange
        self._talk.core.challenge(outcome)
        return None

    async def _admit(self, outcome: Account | Denied | Unavailable, verb: str) -> Answer:
        talk = self._talk
        match outcome:
            case Account():
                talk.enter(await talk.services.mailboxes.visit(outcome, talk.woken.set))
                talk.core.authenticated()
                return Answer(f"{verb} completed", talk.core.capability())
            case Unavailable():
                return Answer(outcome.why, b"UNAVAILABLE", "NO")
            case Denied():
                self.failures += 1
                return Answer("Wrong user name or password", b"AUTHENTICATIONFAILED", "NO")
