"""SMTP and LMTP for their clients: port 25, submission and LMTP, one session class.

Specification: RFC 5321 §3 (procedures), §4.5.3.2.7 (5 minutes a command); RFC 6409 §4 (submission); RFC 2033 §4 (LMTP);
    RFC 3207 §4; RFC 4954 §4 and §6 (reply codes); RFC 2034 §4; RFC 5321 §4.2.5 (after 250 the mail is ours).
Contract: 250 to a message is written only after the service returned, so after the commit. AUTH is offered on submission
    only, and under TLS only unless the listener allows plaintext. The session says at most ERRORS_MAX negative replies.
Failure: see faces.serve; a message whose commit has no known answer gets 451, so that the client sends it again, and the
    session goes on.
"""

from __future__ import annotations

import dataclasses
import enum
import logging
import math
import ssl
from collections.abc import Awaitable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fumibako.faces.serve import LOGIN_S, Core, Patience
from fumibako.model.account import Account
from fumibako.model.envelope import Envelope, Peer, Recipient
from fumibako.model.status import Status
from fumibako.model.verdict import Action, Verdict
from fumibako.net.clock import Clock
from fumibako.net.stream import RateFloor, Stream
from fumibako.proto.reader import Need
from fumibako.proto.sasl.server import MECHANISMS
from fumibako.proto.smtp.events import (
    Auth,
    AuthCancelled,
    AuthResponse,
    Bdat,
    Chunk,
    Connected,
    Data,
    EndOfChunk,
    EndOfData,
    Expand,
    Hello,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Reset,
    StartTLS,
    Verify,
)
from fumibako.proto.smtp.extensions import ServerConfig
from fumibako.proto.smtp.reply import Reply, format_reply
from fumibako.proto.smtp.server import TOO_MANY_ERRORS, ServerConnection, State
from fumibako.services import StoreUnavailable
from fumibako.services.intake import Framing, Transaction
from fumibako.services.login import Denied, Exchange, Login, Unavailable
from fumibako.services.policy import Policy
from fumibako.services.receive import Receiver
from fumibako.services.received import protocol_name
from fumibako.services.submit import Submitter

COMMAND_S = 300.0       # RFC 5321 §4.5.3.2.7
BLOCK_S = 180.0         # RFC 5321 §4.5.3.2.5
ERRORS_MAX = 20
POLITE_MAX = 100        # commands in a row that bring no mail
LOGIN_FAILURES_MAX = 3

# What a verdict's status says in the reply code's language: RFC 5321 §4.2.3. The rest is 450/550 at RCPT, 451/554 at the end.
_CODES: dict[str, int] = {
    "4.2.2": 452, "4.3.1": 452, "4.5.3": 452, "4.3.0": 451, "4.7.1": 451, "4.2.1": 450,
    "5.1.3": 501, "5.3.4": 552, "5.4.6": 554, "5.5.2": 550, "5.6.0": 554,
}

SENDER_OK = Reply.of("250 2.1.0 Sender ok")
RECIPIENT_OK = Reply.of("250 2.1.5 Recipient ok")
START_INPUT = Reply(354, None, "Start mail input; end with <CRLF>.<CRLF>")
TALKED_FIRST = Reply.of("554 5.5.0 The client talked before the greeting")
TOO_SLOW = Reply.of("421 4.4.2 Timeout, closing connection")
STOPPING = Reply.of("421 4.3.2 Server is shutting down")
FAILURE = Reply.of("421 4.3.0 Temporary failure, try again later")
NO_ANSWER = Reply.of("451 4.3.0 Temporary failure, try again later")
NO_BARE_LOGIN = Reply.of("535 5.7.8 Authentication credentials invalid")
MALFORMED = Reply.of("501 5.5.2 Malformed authentication message")

log = logging.getLogger("fumibako.faces")


class Role(enum.Enum):
    """What the listener is for."""

    MX = "mx"
    SUBMISSION = "submission"
    LMTP = "lmtp"


@dataclass(frozen=True, slots=True)
class SmtpConfig:
    """One listener. tls: for STARTTLS, None where there is none or where TLS came first; allow_plaintext: tests on loopback."""

    hostname: str
    role: Role
    tls: ssl.SSLContext | None = None
    allow_plaintext: bool = False


class _LastWords:
    """Stands in for the core once the conversation is over: only what is left to say."""

    unread = 0

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def receive_data(self, _: bytes) -> None: ...

    def next_event(self) -> Need:
        return Need.BYTES

    def data_to_send(self) -> bytes:
        octets, self._octets = self._octets, b""
        return octets


class SmtpSession:
    """A conversation with one client, run by faces.serve."""

    def __init__(self, config: SmtpConfig, services: Services, policy: Policy, stream: Stream) -> None:
        self.closed = False
        self.wants_tls = False
        self.starttls_context = config.tls
        self._config, self._services, self._policy, self._stream = config, services, policy, stream
        self._smtp = ServerConnection(_server_config(
            config, policy.number("limits.message_size"), policy.number("limits.recipients"), stream.tls is not None,
            _mechanisms(config.role, stream)))
        self.core: Core = self._smtp
        self._errors = self._polite = 0
        self.patience = Patience(services.clock, LOGIN_S if config.role is Role.SUBMISSION else math.inf)
        self._forget()

    def _forget(self) -> None:
        """RFC 3207 §4.2: what was known of the client before TLS is gone."""
        self._hello = Hello("", esmtp=False)
        self._account: Account | None = None
        self._exchange: Exchange | None = None
        self._login_failures = 0
        self._transaction: Transaction | None = None
        self._rate: RateFloor | None = None
        self._received_octets = 0

    # -- what faces.serve asks --

    @property
    def timeout_s(self) -> float:
        """5 minutes, or less for a message that comes too slowly."""
        left_s = self.patience.left_s(COMMAND_S)
        if self._rate is None:
            return left_s
        return min(left_s, self._rate.remaining_s(self._services.clock.monotonic_s(), self._received_octets))

    async def on_event(self, event: Any) -> None:
        kind = type(event)
        await _ANSWERS[kind](self, event)
        self.patience.begin()
        self._polite += kind in _POLITE
        if self._smtp.closed:
            self.closed = True
        else:
            self._count_errors()

    def idle(self) -> Awaitable[None] | None:
        self._count_errors()        # those that the core answers by itself make no event
        return None

    def _count_errors(self) -> None:
        if not self.closed and (self._errors + self._smtp.errors > ERRORS_MAX or self._polite > POLITE_MAX):
            self._say_goodbye(TOO_MANY_ERRORS)

    def on_tls(self) -> None:
        smtp = self._smtp.after_tls()
        smtp.config = dataclasses.replace(smtp.config, auth_mechanisms=_mechanisms(self._config.role, self._stream))
        self.core = self._smtp = smtp
        self._forget()

    def on_timeout(self) -> None:
        self._say_goodbye(TOO_SLOW)

    def on_stop(self) -> None:
        self._say_goodbye(STOPPING)

    def on_failure(self) -> None:
        self._say_goodbye(FAILURE)

    async def on_end(self) -> None:
        self._end_transaction()

    def _say_goodbye(self, reply: Reply) -> None:
        """RFC 5321 §3.8: 421 may come at any time, in place of the reply that is due or of none."""
        self.core = _LastWords(self._smtp.data_to_send() + format_reply(reply))
        self.closed = True

    def _reply(self, reply: Reply) -> None:
        if not reply.is_positive:
            self._errors += 1
        self._smtp.reply(reply)

    def _end_transaction(self) -> None:
        if self._transaction is not None:
            self._transaction.abandon()
        self._transaction, self._rate = None, None

    # -- the session --

    async def on_connected(self, _: Connected) -> None:
        if self._stream.has_arrived():
            # Who talks first is no mail client: it means to have its octets taken for what it never waited to be asked.
            self._smtp.reply(TALKED_FIRST)
            self.closed = True
            return
        self._smtp.reply(_greeting(self._config.hostname, "LMTP" if self._is_lmtp else "ESMTP"))

    async def on_hello(self, event: Hello) -> None:
        self._end_transaction()
        self._hello = event
        self._reply(_welcome(self._stream.peer.host))

    async def on_starttls(self, _: StartTLS) -> None:
        self._end_transaction()
        self._reply(Reply.of("220 2.0.0 Ready to start TLS"))
        self.wants_tls = self._smtp.state is State.TLS

    async def on_quit(self, _: Quit) -> None:
        self._end_transaction()
        self._reply(_goodbye(self._config.hostname))

    async def on_reset(self, _: Reset) -> None:
        self._end_transaction()
        self._reply(Reply.of("250 2.0.0 Reset"))

    async def on_noop(self, _: Noop) -> None:
        self._reply(Reply.of("250 2.0.0 Ok"))

    async def on_verify(self, _: Verify) -> None:
        # RFC 5321 §7.3: who has a mailbox here is nobody's business before they have mail for them.
        self._reply(Reply.of("252 2.1.5 Cannot VRFY user, but will take mail for known recipients"))

    async def on_expand(self, _: Expand) -> None:
        self._reply(Reply.of("502 5.7.0 EXPN is not allowed"))

    async def on_help(self, _: Help) -> None:
        self._reply(Reply.of("214 2.0.0 See RFC 5321"))

    # -- login --

    async def on_auth(self, event: Auth) -> None:
        tls = self._stream.tls
        binding = tls.server_end_point if tls is not None and tls.server_end_point else None
        self._exchange = self._services.login.exchange(event.mechanism, self._stream.peer.host, binding)
        await self._auth_step(event.initial_response)

    async def on_auth_response(self, event: AuthResponse) -> None:
        await self._auth_step(event.octets)

    async def on_auth_cancelled(self, _: AuthCancelled) -> None:
        self._exchange = None
        self._reply(Reply.of("501 5.7.0 Authentication cancelled"))

    async def _auth_step(self, octets: bytes | None) -> None:
        assert self._exchange is not None
        match await self._exchange.step(octets):
            case bytes(challenge):
                return self._smtp.challenge(challenge)
            case Account() as account:
                self._account = account
                self.patience.logged_in()
                self._reply(Reply.of("235 2.7.0 Authentication successful"))
            case Denied(malformed):
                self._login_failures += 1
                self._reply(MALFORMED if malformed else NO_BARE_LOGIN)
            case Unavailable(why):
                self._reply(Reply(454, Status(4, 7, 0), why))
        self._exchange = None
        if self._login_failures >= LOGIN_FAILURES_MAX:
            self._say_goodbye(TOO_MANY_ERRORS)
        return None

    # -- one transaction --

    async def on_mail(self, event: Mail) -> None:
        self._end_transaction()
        envelope = Envelope(event.reverse_path, (), event.body, event.smtputf8, event.ret, event.envelope_id)
        transaction = self._open(envelope, event.size_octets or 0)
        verdict = await transaction.begin()
        if not verdict.refused:
            self._transaction = transaction
        self._reply(_refusal_of(verdict) if verdict.refused else SENDER_OK)

    def _open(self, envelope: Envelope, declared_octets: int) -> Transaction:
        peer = self._peer(smtputf8=envelope.smtputf8)
        if self._account is not None:
            return self._services.submitter.open(self._policy, peer, envelope, self._account, declared_octets=declared_octets)
        return self._services.receiver.open(
            self._policy, peer, envelope, declared_octets=declared_octets, one_reply_each=self._is_lmtp
        )

    def _peer(self, *, smtputf8: bool) -> Peer:
        tls, account = self._stream.tls, self._account
        name = protocol_name(esmtp=self._hello.esmtp, lmtp=self._is_lmtp, tls=tls is not None,
                             login=account is not None, smtputf8=smtputf8)
        host = self._stream.peer.host
        return Peer(
            address="" if host.startswith("/") else host, helo=self._hello.domain, protocol=name,
            tls=f"{tls.version} {tls.cipher}" if tls is not None else "",
            account_id=account.id if account is not None else 0, login=account.address if account is not None else "",
        )

    async def on_rcpt(self, event: Rcpt) -> None:
        assert self._transaction is not None        # the core allows RCPT behind an accepted MAIL only
        recipient = Recipient(event.forward_path, int(event.notify), event.original_recipient)
        verdict = await self._transaction.add_recipient(recipient)
        self._reply(_refusal_of(verdict) if verdict.refused else RECIPIENT_OK)

    async def on_data(self, _: Data) -> None:
        self._reply(START_INPUT)
        self._expect_message()

    async def on_bdat(self, _: Bdat) -> None:
        self._expect_message()

    def _expect_message(self) -> None:
        if self._rate is None:
            self._rate = RateFloor(self._services.clock.monotonic_s(), grace_s=BLOCK_S)
            self._received_octets = 0

    async def on_chunk(self, event: Chunk) -> None:
        assert self._transaction is not None
        self._received_octets += len(event.octets)
        self._transaction.write(event.octets)

    async def on_end_of_chunk(self, event: EndOfChunk) -> None:
        self._rate = None
        self._reply(Reply.of(f"250 2.0.0 {event.size_octets} octets received"))

    async def on_end_of_data(self, event: EndOfData) -> None:
        transaction, self._rate = self._transaction, None
        assert transaction is not None
        replies = await self._finish(transaction, Framing(event.size_octets, event.bare_newline, event.nul, event.too_big))
        self._end_transaction()
        self._polite = 0
        self._errors += sum(not reply.is_positive for reply in replies)
        if self._is_lmtp:
            self._smtp.reply_each(replies)
        else:
            self._smtp.reply(replies[0])
        if event.bare_newline and self._account is None:
            self.closed = True      # what follows may be smuggled: none of it is read

    async def _finish(self, transaction: Transaction, framing: Framing) -> list[Reply]:
        """One reply; for LMTP one a recipient.

        RFC 5321 §4.2.5: only 2yz would make the mail ours, so a commit without an answer is a 4yz, and the client keeps it. It
        may be durable all the same: then the mail comes twice (RFC 5321 §6.1).
        """
        try:
            verdicts = await transaction.finish(framing)
        except StoreUnavailable as error:
            log.warning("%s: no answer to the commit of %s: %s", self._stream.peer, transaction.trace_id.hex(), error)
            return [NO_ANSWER] * (self._smtp.recipients if self._is_lmtp else 1)
        accepted = Reply(250, Status(2, 0, 0), f"Message accepted, id {transaction.trace_id.hex()}")
        return [_refusal_of(verdict, general=554) if verdict.refused else accepted for verdict in verdicts]

    @property
    def _is_lmtp(self) -> bool:
        return self._config.role is Role.LMTP


@dataclass(frozen=True, slots=True)
class Services:
    """What the sessions of a listener call."""

    receiver: Receiver
    submitter: Submitter
    login: Login
    clock: Clock


_ANSWERS: dict[type, Any] = {
    Connected: SmtpSession.on_connected, Hello: SmtpSession.on_hello, StartTLS: SmtpSession.on_starttls,
    Auth: SmtpSession.on_auth, AuthResponse: SmtpSession.on_auth_response, AuthCancelled: SmtpSession.on_auth_cancelled,
    Mail: SmtpSession.on_mail, Rcpt: SmtpSession.on_rcpt, Data: SmtpSession.on_data, Bdat: SmtpSession.on_bdat,
    Chunk: SmtpSession.on_chunk, EndOfChunk: SmtpSession.on_end_of_chunk, EndOfData: SmtpSession.on_end_of_data,
    Reset: SmtpSession.on_reset, Verify: SmtpSession.on_verify, Expand: SmtpSession.on_expand, Help: SmtpSession.on_help,
    Noop: SmtpSession.on_noop, Quit: SmtpSession.on_quit,
}


_POLITE = frozenset({Hello, Mail, Reset, Verify, Expand, Help, Noop})


async def open_session(config: SmtpConfig, services: Services, stream: Stream) -> SmtpSession:
    """A session for a new connection, under the policy of this moment."""
    policy = services.receiver.policy()
    return SmtpSession(config, services, policy if isinstance(policy, Policy) else await policy, stream)


def refuse_connection(reason: str) -> bytes:
    """What a connection beyond the caps is told (RFC 5321 §3.8)."""
    return f"421 4.7.0 {reason[:1].upper()}{reason[1:]}, try again later\r\n".encode("ascii")


# What is the same for every connection is made once.


@lru_cache(maxsize=64)
def _greeting(hostname: str, protocol: str) -> Reply:
    return Reply(220, None, f"{hostname} {protocol} Fumibako")


@lru_cache(maxsize=4096)
def _welcome(host: str) -> Reply:
    return Reply(250, None, f"greets {host or 'you'}")


@lru_cache(maxsize=64)
def _goodbye(hostname: str) -> Reply:
    return Reply.of(f"221 2.0.0 {hostname} closing connection")


@lru_cache(maxsize=64)
def _server_config(
    config: SmtpConfig, max_size_octets: int, max_recipients: int, tls_active: bool, mechanisms: tuple[str, ...]
) -> ServerConfig:
    return ServerConfig(
        hostname=config.hostname,
        lmtp=config.role is Role.LMTP,
        submission=config.role is Role.SUBMISSION,
        max_size_octets=max_size_octets,
        max_recipients=max_recipients,
        tls_available=config.tls is not None or tls_active,
        tls_active=tls_active,
        auth_mechanisms=mechanisms,
        auth_without_tls=config.allow_plaintext,
        max_errors=ERRORS_MAX,
    )


def _mechanisms(role: Role, stream: Stream) -> tuple[str, ...]:
    """What to offer: -PLUS only where there is a TLS connection to bind to (RFC 5802 §6)."""
    if role is not Role.SUBMISSION:
        return ()
    binding = stream.tls is not None and bool(stream.tls.server_end_point)
    return tuple(name for name in MECHANISMS if binding or not name.endswith("-PLUS"))


def _refusal_of(verdict: Verdict, *, general: int = 550) -> Reply:
    """A verdict that says no in the protocol's words; general: the 5yz of what has no code of its own here."""
    if verdict.action is not Action.REJECT:
        general = 451
    elif verdict.status.subject in (1, 2, 7):
        general = 550
    return Reply(_CODES.get(str(verdict.status), general), verdict.status, verdict.text)
