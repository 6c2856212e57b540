r"""One IMAP connection: events to command modules, their answers back, news in between.

Specification: RFC 9051 §5.2, §5.5, §7.5.1 (when EXPUNGE may be told); RFC 2177 (IDLE).
Contract: a Session for `faces.serve.run_session`; one method an event. News are told at the end of every command, never
    while one runs; EXPUNGE not at the end of FETCH, STORE and SEARCH, whose numbers the client may still be using.
Failure: `Unavailable` passes through: the session ends with BYE and without a tagged answer.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from fumibako.faces.imap import auth, fetch, quota, search, select, store
from fumibako.faces.imap import list as list_
from fumibako.faces.imap.append import Append
from fumibako.faces.imap.auth import Authentication
from fumibako.faces.imap.conversation import Answer, Conversation, Declined, ImapServices, refused
from fumibako.faces.serve import LOGIN_S, Patience
from fumibako.net.stream import Stream
from fumibako.proto.imap import commands as c
from fumibako.proto.imap.server import CommandReceived, Event, ServerConfig, ServerConnection
from fumibako.services.mailboxes import StoreRefused, StoreUnavailable

BEFORE_LOGIN_S = 60.0
REVOKED = "Log in again: the account's password or status has changed, or its storage was out of reach"
IDLE_S = 30 * 60.0          # RFC 9051 §5.4: at least 30 minutes once logged in

COMMANDS: dict[type, Callable[[Conversation, Any], Awaitable[Answer]]] = {
    c.Capability: auth.capability, c.Noop: auth.noop, c.Check: auth.noop, c.Logout: auth.logout, c.Id: auth.identify,
    c.Enable: auth.enable,
    c.Select: select.select, c.Close: select.close, c.Unselect: select.unselect, c.Create: select.create,
    c.Delete: select.delete, c.Rename: select.rename, c.Subscribe: select.subscribe, c.Status: select.status,
    c.List: list_.list_, c.Lsub: list_.lsub, c.Namespace: list_.namespace,
    c.Fetch: fetch.fetch, c.Search: search.search,
    c.Store: store.store, c.Copy: store.copy, c.Move: store.move, c.Expunge: store.expunge,
    c.GetQuota: quota.quota, c.GetQuotaRoot: quota.quota_root, c.SetQuota: quota.set_quota,
}
_BY_NUMBER = (c.Fetch, c.Store, c.Search)
_TAKES_UIDS = (*_BY_NUMBER, c.Copy, c.Move)


def may_tell_expunge(command: c.Command) -> bool:
    """RFC 9051 §7.5.1; the UID forms are other commands, in which it may be told."""
    return not isinstance(command, _BY_NUMBER) or command.uid


class Session:
    """One connection."""

    def __init__(
        self, config: ServerConfig, stream: Stream, services: ImapServices, tls_context: ssl.SSLContext | None = None,
        idle_s: float = IDLE_S,
    ) -> None:
        self.core = ServerConnection(config)
        self.closed = False
        self.wants_tls = False
        self.starttls_context = tls_context
        self._talk = Conversation(self.core, stream, services)
        self._authentication = Authentication(self._talk)
        self._append = Append(self._talk)
        self._idling = False
        self._idle_s = idle_s
        self.patience = Patience(services.clock, LOGIN_S)
        self.core.greeting()

    # -- what faces.serve asks of a session --

    @property
    def timeout_s(self) -> float:
        limit_s = self._idle_s if self._talk.is_authenticated else BEFORE_LOGIN_S
        return min(self.patience.left_s(limit_s), self._append.remaining_s)

    def idle(self) -> Awaitable[None] | None:
        """Logged in, a session hears of changes: IDLE tells them, and a revoked account ends it at once."""
        return self._push() if self._talk.is_authenticated else None

    async def _push(self) -> None:
        while not self.closed:
            self._talk.woken.clear()
            if self._talk.visit.revoked:
                self._farewell(REVOKED, b"UNAVAILABLE")
                return
            if self._idling and self._talk.has_news:
                await self._talk.synchronize(expunge=True)
                self.closed = self.core.closed
                return
            await self._talk.woken.wait()

    def on_tls(self) -> None:
        self.core.tls_started()

    def on_timeout(self) -> None:
        self._farewell("No login for too long" if self.patience.login_is_overdue else "Idle for too long")

    def on_stop(self) -> None:
        self._farewell("The server stops, connect again", b"UNAVAILABLE")

    def on_failure(self) -> None:
        self._farewell("The server is in trouble, connect again later", b"UNAVAILABLE")

    def _farewell(self, text: str, code: bytes = b"") -> None:
        self.closed = True
        if not self.core.closed:
            self.core.bye(text, code)

    async def on_end(self) -> None:
        self._append.abandon()
        try:
            await self._talk.leave()
        except StoreUnavailable:
            pass        # what a lost connection held ended with it

    async def on_event(self, event: Event) -> None:
        match event:
            case CommandReceived(tag, command):
                self._talk.tag = tag
                await self._command(command)
            case c.AppendData():
                self._append.write(event)
            case c.AppendEnd():
                await self._finish(self._append.end(event), expunge=True)
            case c.AppendAborted():
                self._append.abandon()
            case c.SaslResponse():
                await self._finish(self._authentication.respond(event), expunge=False)
            case c.IdleDone():
                self._idling = False
                await self._complete(Answer("IDLE completed"), expunge=True)
        self.patience.begin()
        self.closed = self.closed or self.core.closed

    # -- commands --

    async def _command(self, command: c.Command) -> None:
        if self._talk.is_authenticated and self._talk.visit.revoked:
            self._farewell(REVOKED, b"UNAVAILABLE")
            return
        match command:
            case c.Idle():
                await self._begin_idle()
            case c.Append():
                await self._finish(self._append.begin(command), expunge=True)
            case c.StartTLS():
                self.core.complete("OK", "Begin TLS negotiation now")
                self.wants_tls = True
            case c.Login():
                await self._finish(self._authentication.login(command), expunge=False)
            case c.Authenticate():
                await self._finish(self._authentication.authenticate(command), expunge=False)
            case _:
                await self._ordinary(command)

    async def _ordinary(self, command: c.Command) -> None:
        auth.notice_condstore(self._talk, command)
        await self._talk.catch_up()
        if isinstance(command, _TAKES_UIDS) and command.uid:
            await self._talk.synchronize(expunge=False)     # it reaches what has arrived: the client hears of that first
        if not self.core.closed:
            await self._finish(COMMANDS[type(command)](self._talk, command), expunge=may_tell_expunge(command))

    async def _begin_idle(self) -> None:
        await self._talk.catch_up()
        await self._talk.synchronize(expunge=True)
        if not self.core.closed:
            self.core.continue_("idling")
            self._idling = True

    async def _finish(self, working: Awaitable[Answer | None], *, expunge: bool) -> None:
        """The answer goes out once the command is done and the news are told; None: it isn't done yet."""
        try:
            answer = await working
        except Declined as declined:
            self._append.abandon()
            answer = declined.answer
        except StoreRefused as error:
            self._append.abandon()
            answer = refused(error.refusal)
        if answer is not None:
            await self._complete(answer, expunge=expunge)

    async def _complete(self, answer: Answer, *, expunge: bool) -> None:
        await self._talk.synchronize(expunge=expunge)
        if self._talk.is_authenticated:
            self.patience.logged_in()
        self.core.complete(answer.status, answer.text, answer.code)
        if self._authentication.exhausted:
            self.core.bye("Too many failed logins")
