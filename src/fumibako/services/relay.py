"""The target `relay`: hands queued mail to the mail servers of other domains, or to a smarthost.

Specification: RFC 5321 §5.1 (which host), §4.5.3.2 (timeouts), §4.2.1 (what 4yz and 5yz mean), §3.2 (HELO fallback);
    RFC 3207 §4.1 (STARTTLS, taken where it is offered); RFC 7505 §4.1; RFC 3461 §5.2; RFC 6152; RFC 6531 §3.5.
Contract: every recipient gets exactly one Outcome. A host that can't be reached, or does not want to talk, is passed over
    for the next; once message octets have left, no other host is tried, lest the mail arrives twice. What a host has said
    about a recipient stands, also when the connection breaks behind it or the attempt takes too long.
Failure: everything of the network is an Outcome; only StoreUnavailable passes through.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fumibako.model.envelope import Envelope, Recipient
from fumibako.model.queue import Outcome, OutcomeKind, QueuedRecipient, QueueItem
from fumibako.net.clock import Clock
from fumibako.net.dial import (
    DialFailure,
    Found,
    Host,
    LoopsBack,
    NoSuchDomain,
    NoUsableAddress,
    NullMx,
    OwnPlace,
    Route,
    TemporaryFailure,
    dial,
    mx_hosts,
)
from fumibako.net.endpoint import plain_address
from fumibako.net.resolver import Resolver, ResolverFailure
from fumibako.net.stream import PlaintextAfterStartTLS, Stream
from fumibako.proto.reader import Need, ProtocolError
from fumibako.proto.smtp.client import ClientConnection, Event, RecipientResult, Replied, SendMessage, TransactionResult
from fumibako.proto.smtp.path import quoted_form
from fumibako.proto.smtp.reply import Reply
from fumibako.services.trace import NoTrace, Trace
from fumibako.store.base import Store

# RFC 5321 §4.5.3.2: how long a host may take, seconds.
CONNECT_S, GREETING_S, COMMAND_S, BLOCK_S, END_OF_DATA_S = 30.0, 300.0, 300.0, 180.0, 600.0
ATTEMPT_S = 14 * 60.0 - 10      # in all: the queue's patience ends behind it, and knows nothing of what was heard
QUIT_S = 5.0
IDLE_S = 15.0           # an open connection waits this long for the next mail to the same host
IDLE_MAX = 20
BLOCK_OCTETS = 64 * 1024

Recipients = tuple[QueuedRecipient, ...]
Outcomes = dict[int, Outcome]


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """smarthost: "" or "host:port" that takes everything; port: of MX hosts; source: local IP address, "" for any."""

    hostname: str
    own: OwnPlace = field(default_factory=OwnPlace)
    smarthost: str = ""
    port: int = 25
    source: str = ""


class _HostFailed(Exception):
    """This host is no use now; the next may be. reply: its own words."""

    def __init__(self, text: str, reply: Reply) -> None:
        super().__init__(text)
        self.text, self.reply = text, str(reply)


class _TlsRefused(Exception):
    """The host offers STARTTLS and then can't."""


class _Broken(Exception):
    """The connection broke in a transaction. decided: what the host had said by then; uncertain: message octets had left,
    and nobody knows whether they were taken."""

    def __init__(self, text: str, decided: Outcomes, *, uncertain: bool) -> None:
        super().__init__(text)
        self.decided, self.uncertain = decided, uncertain


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What came of one host: an outcome for each recipient. unasked: those that may go to another host; it said nothing
    about them, and no message octet has left."""

    outcomes: Outcomes
    unasked: Recipients = ()


class _Connection:
    """One connection to one host."""

    def __init__(self, stream: Stream, hostname: str, remote: str) -> None:
        self.stream, self.core, self.remote = stream, ClientConnection(hostname), remote
        self.idle_until_s = 0.0
        self.begun = False              # message octets of the transaction have left

    @property
    def usable(self) -> bool:
        return not (self.core.closed or self.stream.eof.is_set() or self.stream.closed.is_set())

    async def event(self, timeout_s: float) -> Event:
        """Sends what is due and waits for the event that answers it."""
        while (event := self.core.next_event()) is Need.BYTES:
            await self.flush()
            octets = await self.stream.read(timeout_s)
            if not octets:
                raise ConnectionResetError("connection closed")
            self.core.receive_data(octets)
        assert not isinstance(event, Need)      # REPLY: nothing was asked
        return event

    async def reply(self, timeout_s: float) -> Reply:
        event = await self.event(timeout_s)
        assert isinstance(event, Replied)
        return event.reply

    async def flush(self) -> None:
        if octets := self.core.data_to_send():
            await self.stream.write(octets, BLOCK_S)


class Relay:
    """store: where the message octets are read from; tls_context: for clients, without verification."""

    def __init__(self, config: RelayConfig, store: Store, resolver: Resolver, clock: Clock,
                 tls_context: ssl.SSLContext | None = None, trace: Trace | None = None) -> None:
        self._config, self._store, self._resolver, self._clock, self._tls = config, store, resolver, clock, tls_context
        self._trace = trace or NoTrace()
        self._idle: dict[str, _Connection] = {}
        self._heard: Outcomes = {}      # in attempts that are being given up

    async def deliver(self, item: QueueItem, recipients: Recipients) -> Outcomes:
        """One attempt for recipients of one domain."""
        outcomes = {one.id: Outcome(OutcomeKind.DEFERRED, "4.4.2", "the attempt took too long") for one in recipients}
        try:
            async with asyncio.timeout(ATTEMPT_S):
                await self._deliver(item, recipients, outcomes)
        except TimeoutError:
            outcomes |= {one.id: self._heard[one.id] for one in recipients if one.id in self._heard}
        finally:
            for one in recipients:
                self._heard.pop(one.id, None)
        return outcomes

    async def _deliver(self, item: QueueItem, recipients: Recipients, outcomes: Outcomes) -> None:
        """outcomes: filled in as they are known."""
        route = await self._route(recipients[0].domain)
        if not isinstance(route, Found):
            outcome = _no_route(route)
            outcomes |= {recipient.id: outcome for recipient in recipients}
            return
        hosts = tuple(f"{host.preference} {host.name} [{', '.join(host.addresses)}]" for host in route.hosts)
        self._trace.event(item.trace_id, "route", domain=recipients[0].domain, hosts=hosts, implicit=route.implicit)
        for host in route.hosts:
            for address in host.addresses:
                attempt = await self._try_host(host, address, item, recipients)
                outcomes |= attempt.outcomes
                if not (recipients := attempt.unasked):
                    return

    async def close_idle(self) -> None:
        """Says QUIT on the connections that wait."""
        for key in list(self._idle):
            await _quit(self._idle.pop(key))

    # -- where to --

    async def _route(self, domain: str) -> Route:
        if not self._config.smarthost:
            return await mx_hosts(self._resolver, domain, self._clock, self._config.own)
        name = self._config.smarthost.rpartition(":")[0].strip("[]")
        try:
            addresses = _as_address(name) or await self._resolver.resolve_addresses(name)
        except ResolverFailure as failure:
            return TemporaryFailure(name, failure.reason)
        usable = tuple(address for address in addresses if self._config.own.takes(address))
        return Found((Host(name, 0, usable),)) if usable else NoUsableAddress(name, f"the smarthost {name} has no usable address")

    @property
    def _port(self) -> int:
        return int(self._config.smarthost.rpartition(":")[2]) if self._config.smarthost else self._config.port

    # -- one host --

    async def _try_host(self, host: Host, address: str, item: QueueItem, recipients: Recipients) -> _Attempt:
        """Over the connection that waits, if one does; it may have been given up at the other end, then over a fresh one."""
        outcomes: Outcomes = {}
        if (waiting := self._take_idle(address)) is not None:
            attempt = await self._try_connection(host, address, item, recipients, waiting)
            outcomes = attempt.outcomes
            recipients = attempt.unasked or tuple(one for one in recipients if outcomes[one.id].reply.startswith("421"))
            if not recipients:
                return attempt
        attempt = await self._try_connection(host, address, item, recipients, None)
        return _Attempt(outcomes | attempt.outcomes, attempt.unasked)

    async def _try_connection(
        self, host: Host, address: str, item: QueueItem, recipients: Recipients, connection: _Connection | None
    ) -> _Attempt:
        """connection None: a new one."""
        def deferred(status: str, text: str, reply: str = "") -> _Attempt:
            outcome = Outcome(OutcomeKind.DEFERRED, status, text, reply, f"{host.name} [{address}]")
            return _Attempt({one.id: outcome for one in recipients}, recipients)

        try:
            if connection is None:
                connection = await self._open(host, address, item)
            return _Attempt(await self._transact(connection, item, recipients))
        except _Broken as broken:
            rest = tuple(one for one in recipients if one.id not in broken.decided)
            outcomes = deferred("4.4.2", str(broken)).outcomes | broken.decided
            return _Attempt(outcomes, () if broken.uncertain else rest)
        except _HostFailed as failure:
            return deferred("4.3.2", failure.text, failure.reply)
        except DialFailure as failure:
            return deferred("4.4.1", str(failure))
        except (OSError, ProtocolError) as failure:
            return deferred("4.4.2", _why(failure))

    def _take_idle(self, address: str) -> _Connection | None:
        connection = self._idle.pop(address, None)
        if connection is None:
            return None
        if connection.usable and self._clock.monotonic_s() < connection.idle_until_s:
            return connection
        connection.stream.abort()
        return None

    async def _open(self, host: Host, address: str, item: QueueItem) -> _Connection:
        """A greeted connection for that message, under TLS where the host offers it and can do it."""
        connection = await self._secured(host, address)
        tls = connection.stream.tls
        self._trace.event(item.trace_id, "connected", remote=connection.remote, tls=f"{tls.version} {tls.cipher}" if tls else "")
        return connection

    async def _secured(self, host: Host, address: str) -> _Connection:
        if self._tls is not None:
            try:
                return await self._greet(host, address, self._tls)
            except (ssl.SSLError, _TlsRefused):
                pass            # opportunistic: better in the clear than not at all; nothing of the mail was said yet
        return await self._greet(host, address, None)

    async def _greet(self, host: Host, address: str, tls: ssl.SSLContext | None) -> _Connection:
        stream = await dial(address, self._port, CONNECT_S, self._config.source)
        connection = _Connection(stream, self._config.hostname, f"{host.name} [{address}]")
        try:
            greeting = await connection.reply(GREETING_S)
            if greeting.code != 220:
                raise _HostFailed("the host does not take connections", greeting)
            await self._hello(connection)
            if tls is not None and "STARTTLS" in connection.core.capabilities:
                await self._start_tls(connection, host, tls)
                await self._hello(connection)
        except BaseException:
            stream.abort()
            raise
        return connection

    async def _hello(self, connection: _Connection) -> None:
        connection.core.hello()
        reply = await connection.reply(COMMAND_S)
        if reply.code in (500, 501, 502, 504) and not connection.core.closed:
            connection.core.hello(extended=False)
            reply = await connection.reply(COMMAND_S)
        if reply.code != 250:
            raise _HostFailed("the host does not take our greeting", reply)

    async def _start_tls(self, connection: _Connection, host: Host, tls: ssl.SSLContext) -> None:
        connection.core.starttls()
        reply = await connection.reply(COMMAND_S)
        if reply.code != 220:
            raise _TlsRefused
        try:
            await connection.stream.start_tls(tls, server_side=False, server_hostname=host.name)
        except PlaintextAfterStartTLS as error:
            raise ProtocolError(str(error)) from error      # an attack is no reason to go on in the clear
        except (ConnectionError, TimeoutError) as error:
            raise _TlsRefused from error
        connection.core = connection.core.after_tls()

    # -- one transaction --

    async def _transact(self, connection: _Connection, item: QueueItem, recipients: Recipients) -> Outcomes:
        envelope = await self._envelope(connection, item, recipients)
        if isinstance(envelope, Outcome):
            self._keep_idle(connection)
            return {recipient.id: envelope for recipient in recipients}
        try:
            connection.core.transaction(envelope, item.size_octets)
        except ValueError as error:
            self._keep_idle(connection)
            outcome = Outcome(OutcomeKind.FAILED, "5.1.3", f"the address can't be sent: {error}")
            return {recipient.id: outcome for recipient in recipients}
        connection.begun = False
        try:
            event = await connection.event(COMMAND_S)
            if isinstance(event, SendMessage):
                event = await self._send(connection, item)
        except (OSError, ProtocolError) as error:
            connection.stream.abort()
            text = f"the connection broke while the message was sent: {_why(error)}" if connection.begun else _why(error)
            raise _Broken(text, _outcomes(connection, recipients, connection.core.decided), uncertain=connection.begun) from error
        except BaseException:
            connection.stream.abort()
            self._heard |= _outcomes(connection, recipients, connection.core.decided)
            raise
        assert isinstance(event, TransactionResult)
        self._keep_idle(connection)
        return _outcomes(connection, recipients, dict(enumerate(event.recipients)))

    async def _send(self, connection: _Connection, item: QueueItem) -> Event:
        async for octets in self._octets(item):
            connection.core.send_message(octets)
            connection.begun = True
            await connection.flush()
        connection.core.end_message()
        return await connection.event(END_OF_DATA_S)

    async def _octets(self, item: QueueItem) -> AsyncIterator[bytes]:
        for start in range(0, item.size_octets, BLOCK_OCTETS):
            yield await self._store.read_queued(item.id, start, min(start + BLOCK_OCTETS, item.size_octets))

    async def _envelope(self, connection: _Connection, item: QueueItem, recipients: Recipients) -> Envelope | Outcome:
        """The envelope as this host can take it, or why it can't."""
        capabilities = connection.core.capabilities
        envelope = item.envelope
        paths = tuple(Recipient(quoted_form(r.forward_path), r.notify, r.original_recipient) for r in recipients)
        envelope = replace_envelope(envelope, quoted_form(envelope.reverse_path), paths)
        if envelope.smtputf8 and "SMTPUTF8" not in capabilities:
            if await self._needs_smtputf8(item, envelope):
                text = "the host does not take internationalized addresses"
                return Outcome(OutcomeKind.FAILED, "5.6.7", text, remote=connection.remote)
            envelope = replace_envelope(envelope, envelope.reverse_path, paths, smtputf8=False)
        if envelope.body == "8BITMIME" and "8BITMIME" not in capabilities and not await self._is_seven_bit(item):
            return Outcome(OutcomeKind.FAILED, "5.6.3", "the host takes 7-bit messages only", remote=connection.remote)
        return envelope

    async def _needs_smtputf8(self, item: QueueItem, envelope: Envelope) -> bool:
        if not all(path.isascii() for path in (envelope.reverse_path, *(one.forward_path for one in envelope.recipients))):
            return True
        seen = b""
        async for octets in self._octets(item):
            seen += octets
            header, blank, _ = seen.partition(b"\r\n\r\n")
            if not header.isascii():
                return True
            if blank or len(seen) > 4 * BLOCK_OCTETS:
                break
        return False

    async def _is_seven_bit(self, item: QueueItem) -> bool:
        async for octets in self._octets(item):
            if not octets.isascii():
                return False
        return True

    def _keep_idle(self, connection: _Connection) -> None:
        address = connection.stream.peer.host
        if not connection.usable or address in self._idle or len(self._idle) >= IDLE_MAX:
            connection.stream.close()
            return
        connection.idle_until_s = self._clock.monotonic_s() + IDLE_S
        self._idle[address] = connection


def replace_envelope(
    envelope: Envelope, reverse_path: str, recipients: tuple[Recipient, ...], *, smtputf8: bool | None = None
) -> Envelope:
    """The envelope with other paths."""
    utf8 = envelope.smtputf8 if smtputf8 is None else smtputf8
    return Envelope(reverse_path, recipients, envelope.body, utf8, envelope.ret, envelope.envelope_id)


async def _quit(connection: _Connection) -> None:
    try:
        if connection.usable:
            connection.core.quit()
            await connection.reply(QUIT_S)
    except (OSError, ProtocolError, RuntimeError):
        pass            # the mail is handed over; how the goodbye went is nobody's concern
    connection.stream.close()


def _as_address(name: str) -> tuple[str, ...]:
    try:
        return (plain_address(name),)
    except ValueError:
        return ()


def _why(error: Exception) -> str:
    return "the host did not answer in time" if isinstance(error, TimeoutError) else str(error)


def _outcomes(connection: _Connection, recipients: Recipients, results: dict[int, RecipientResult]) -> Outcomes:
    """results: by the recipient's place in the envelope."""
    keeps_dsn = "DSN" in connection.core.capabilities
    return {recipients[place].id: _outcome(result, connection.remote, keeps_dsn) for place, result in results.items()}


def _outcome(result: RecipientResult, remote: str, keeps_dsn: bool) -> Outcome:
    reply = result.reply
    if result.is_delivered:
        kind = OutcomeKind.DELIVERED if keeps_dsn else OutcomeKind.RELAYED
        return Outcome(kind, str(reply.status or "2.0.0"), "", str(reply), remote)
    transient = reply.is_transient or reply.is_positive
    status = str(reply.status) if reply.status and reply.status.klass != 2 else "4.0.0" if transient else "5.0.0"
    kind = OutcomeKind.DEFERRED if transient else OutcomeKind.FAILED
    return Outcome(kind, status, f"refused at {_STAGES[result.stage]}", str(reply), remote)


_STAGES = {"MAIL": "MAIL FROM", "RCPT": "RCPT TO", "DATA": "DATA", ".": "the end of the message"}


def _no_route(route: Route) -> Outcome:
    match route:
        case NullMx(domain):
            return Outcome(OutcomeKind.FAILED, "5.1.10", f"{domain} takes no mail (null MX)")
        case NoSuchDomain(domain):
            return Outcome(OutcomeKind.FAILED, "5.1.2", f"there is no domain {domain}")
        case NoUsableAddress(domain, reason):
            return Outcome(OutcomeKind.FAILED, "5.4.4", f"no mail server of {domain} can be reached: {reason}")
        case LoopsBack(domain, host):
            return Outcome(OutcomeKind.FAILED, "5.4.6", f"{domain} points to this server ({host}), which does not host it")
        case TemporaryFailure(domain, reason):
            return Outcome(OutcomeKind.DEFERRED, "4.4.3", f"DNS look-up of {domain} failed: {reason}")
        case Found():
            raise ValueError("this is a route")
