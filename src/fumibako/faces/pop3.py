"""POP3: the maildrop as it was at login, deleted from only at QUIT.

Specification: RFC 1939 §3-§7; RFC 2449 §8 (response codes); RFC 2595 §4 (STLS); RFC 3206 (SYS, AUTH); RFC 5034 §4 (AUTH);
    RFC 6856 §2.1 (UTF8).
Contract: a Session for `faces.serve.run_session`; one method an event. A connection that ends without QUIT deletes nothing.
Failure: what the store refuses becomes -ERR with a response code; `Unavailable` passes through and ends the session.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable
from dataclasses import dataclass

from fumibako.faces.serve import LOGIN_S, Patience
from fumibako.model.account import Account
from fumibako.model.ops import Refusal
from fumibako.net.stream import Stream
from fumibako.proto.pop3 import events as e
from fumibako.proto.pop3.response import Response, listing_response, stat_response
from fumibako.proto.pop3.server import ServerConfig, ServerConnection
from fumibako.services.login import Denied, Exchange, Login, Unavailable
from fumibako.services.mailboxes import Mailboxes, StoreRefused, StoreUnavailable
from fumibako.services.maildrop import DropMessage, Maildrop

BEFORE_LOGIN_S = 60.0
AFTER_LOGIN_S = 600.0       # RFC 1939 §3: at least ten minutes
FAILURES_MAX = 3

OK = Response(True)
NO_SUCH_MESSAGE = Response(False, "No such message")
DENIED = Response(False, "Wrong user name or password", "AUTH")
DAMAGED = Response(False, "This message can't be read; the administrator has to look at it", "SYS/PERM")
NO_LOGIN = Response(False, "No login for too long, connect again", "SYS/TEMP")
NOT_DELETED = Response(False, "Some messages could not be deleted, they are still there", "SYS/TEMP")


@dataclass(frozen=True, slots=True)
class Pop3Services:
    """What every session of a process shares."""

    mailboxes: Mailboxes
    login: Login


class Session:
    """One POP3 connection."""

    def __init__(
        self, config: ServerConfig, stream: Stream, services: Pop3Services, tls_context: ssl.SSLContext | None = None
    ) -> None:
        self.core = ServerConnection(config)
        self.closed = False
        self.wants_tls = False
        self.starttls_context = tls_context
        self._stream = stream
        self._services = services
        self.patience = Patience(services.mailboxes.clock, LOGIN_S)
        self._exchange: Exchange | None = None
        self._failures = 0
        self._drop: Maildrop | None = None
        self._marked: set[int] = set()
        self._utf8 = False
        self._woken = asyncio.Event()       # something happened in the account

    # -- what faces.serve asks of a session --

    @property
    def timeout_s(self) -> float:
        return self.patience.left_s(BEFORE_LOGIN_S if self._drop is None else AFTER_LOGIN_S)

    def idle(self) -> Awaitable[None] | None:
        """A login that no longer holds ends at once."""
        return self._revocation() if self._drop is not None else None

    async def _revocation(self) -> None:
        while not self._maildrop.revoked:
            self._woken.clear()
            await self._woken.wait()
        self.closed = True

    def on_tls(self) -> None:
        self.core = self.core.after_tls()
        self._utf8 = False      # RFC 2595 §4: what was said before counts for nothing

    def on_timeout(self) -> None:
        """RFC 1939 §3: who falls silent is let go without a word, and nothing is deleted."""
        if self.patience.login_is_overdue:
            self.core.farewell(NO_LOGIN)

    def on_stop(self) -> None:
        """POP3 has no way to speak unasked."""

    def on_failure(self) -> None:
        """No answer is the only one that claims nothing."""

    async def on_end(self) -> None:
        if self._drop is not None:
            drop, self._drop = self._drop, None
            try:
                await drop.close()
            except StoreUnavailable:
                pass        # the locks of a lost connection ended with it

    async def on_event(self, event: e.Event) -> None:
        if self._drop is not None and self._drop.revoked:
            self.closed = True
            return
        match event:
            case e.Connected():
                self.core.reply(Response(True, "Fumibako POP3 ready"))
            case e.StartTLS():
                self.core.reply(Response(True, "Begin TLS"))
                self.wants_tls = True
            case e.Login() | e.Auth() | e.AuthResponse() | e.AuthCancelled():
                await self._authenticate(event)
            case e.Quit():
                await self._quit(event)
            case _:
                await self._transact(event)
        self.patience.begin()
        self.closed = self.closed or self.core.closed

    # -- AUTHORIZATION --

    async def _authenticate(self, event: e.Login | e.Auth | e.AuthResponse | e.AuthCancelled) -> None:
        login, peer = self._services.login, self._stream.peer.host
        match event:
            case e.Login():
                await self._admit(await login.check(event.name, event.password, peer))
            case e.Auth():
                binding = self._stream.tls.server_end_point if self._stream.tls else None
                self._exchange = login.exchange(event.mechanism, peer, binding or None)
                await self._step(event.initial_response)
            case e.AuthResponse():
                await self._step(event.octets)
            case e.AuthCancelled():
                self._exchange = None
                self.core.reply(Response(False, "Cancelled"))

    async def _step(self, octets: bytes | None) -> None:
        if self._exchange is None:
            raise RuntimeError("a SASL response without an exchange")
        outcome = await self._exchange.step(octets)
        if isinstance(outcome, bytes):
            self.core.challenge(outcome)
        else:
            self._exchange = None
            await self._admit(outcome)

    async def _admit(self, outcome: Account | Denied | Unavailable) -> None:
        match outcome:
            case Account():
                await self._open(outcome)
            case Unavailable():
                self.core.reply(Response(False, outcome.why, "SYS/TEMP"))
            case Denied():
                self._failures += 1
                self.core.reply(DENIED)
                self.closed = self._failures >= FAILURES_MAX

    async def _open(self, account: Account) -> None:
        try:
            self._drop = await self._services.mailboxes.open_maildrop(account, self._woken.set)
        except StoreRefused as error:
            busy = error.refusal is Refusal.IN_USE
            self.core.reply(
                Response(False, "Another session has this maildrop open", "IN-USE")
                if busy else Response(False, "The maildrop can't be opened now", "SYS/TEMP")
            )
        else:
            self.patience.logged_in()
            self.core.reply(Response(True, f"{len(self._drop.messages)} messages"))

    # -- TRANSACTION --

    @property
    def _maildrop(self) -> Maildrop:
        if self._drop is None:
            raise RuntimeError("no maildrop is open")
        return self._drop

    async def _transact(self, event: e.Event) -> None:
        match event:
            case e.Stat():
                left = [message for _, message in self._unmarked()]
                self.core.reply(stat_response(len(left), sum(message.size_octets for message in left)))
            case e.List() | e.Uidl():
                self._list(event)
            case e.Retr() | e.Top():
                await self._retrieve(event)
            case e.Dele():
                self._mark(event.number)
            case e.Reset():
                self._marked.clear()
                self.core.reply(OK)
            case _:     # NOOP, and UTF8 before login
                self._utf8 = self._utf8 or isinstance(event, e.Utf8)
                self.core.reply(OK)

    def _unmarked(self) -> list[tuple[int, DropMessage]]:
        return [
            (number, message) for number, message in enumerate(self._maildrop.messages, 1) if number not in self._marked
        ]

    def _message(self, number: int) -> DropMessage | None:
        """RFC 1939 §5: a message that is marked as deleted is no message any more."""
        known = self._maildrop.messages
        return known[number - 1] if number <= len(known) and number not in self._marked else None

    def _list(self, event: e.List | e.Uidl) -> None:
        sizes = isinstance(event, e.List)
        if event.number is None:
            self.core.reply(OK)
            self.core.send_listing(
                (number, message.size_octets if sizes else message.unique_id) for number, message in self._unmarked()
            )
        elif (message := self._message(event.number)) is None:
            self.core.reply(NO_SUCH_MESSAGE)
        else:
            self.core.reply(listing_response(event.number, message.size_octets if sizes else message.unique_id))

    def _mark(self, number: int) -> None:
        if self._message(number) is None:
            self.core.reply(NO_SUCH_MESSAGE)
        else:
            self._marked.add(number)
            self.core.reply(OK)

    async def _retrieve(self, event: e.Retr | e.Top) -> None:
        """The first piece is read before +OK, so that a message that can't be read is told as such."""
        if (message := self._message(event.number)) is None:
            self.core.reply(NO_SUCH_MESSAGE)
            return
        pieces = self._maildrop.octets(message, utf8=self._utf8)
        try:
            first = await anext(pieces, b"")
        except OSError:
            self.core.reply(DAMAGED)
            return
        self.core.reply(Response(True, f"{message.size_octets} octets"))
        self.core.send_message(first)
        while self.core.message_wanted and (piece := await anext(pieces, b"")):
            await self._stream.write(self.core.data_to_send())
            self.core.send_message(piece)
        self.core.end_message()

    async def _quit(self, event: e.Quit) -> None:
        """UPDATE: RFC 1939 §6."""
        answer = Response(True, "Bye")
        if event.update and self._marked:
            marked = [message for number, message in enumerate(self._maildrop.messages, 1) if number in self._marked]
            try:
                await self._maildrop.update(marked)
            except StoreRefused:
                answer = NOT_DELETED
        await self.on_end()
        self.core.reply(answer)
