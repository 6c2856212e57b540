"""One mail transaction from its first recipient to the commit: what receiving and submitting have in common.

Specification: RFC 5321 §4.1.1.4 (250 means responsibility), §4.4 (trace fields), §6.1; RFC 2033 §4.2 (LMTP: one reply each);
    RFC 3461 §5.2.7 (DSN parameters and aliases).
Contract: begin, add_recipient..., write..., finish. Only finish() may make anything visible, and it returns once that is
    durable: the commit is one operation, straight into the mailboxes where our own recipients lie in one shard (what goes
    elsewhere is part of it, by the shard's outbox), else into the queue.
    abandon() may be called at any time and forgets what was not committed.
Failure: policy and a full disk are Verdicts. StoreUnavailable from finish(): nobody knows whether it is durable; where
    recipients are done one by one, it is the Verdict of those it met.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from fumibako.model.address import address_key
from fumibako.model.envelope import Envelope, Notify, Peer, Recipient
from fumibako.model.ids import TraceId
from fumibako.model.ops import PASSING, Body, Deliver, Enqueue, LocalRecipient, Outgoing, Refusal, Threading
from fumibako.model.verdict import ACCEPTED, Verdict
from fumibako.net.clock import Clock
from fumibako.proto.message.cache import pack_index
from fumibako.proto.message.header import count_fields
from fumibako.proto.message.index import Indexer
from fumibako.services.checks import Facts, MessageFacts
from fumibako.services.directory import Directory, Hosted, Local, Remote, Resolution
from fumibako.services.pipeline import Stage, look, refuse
from fumibako.services.policy import Policy
from fumibako.services.received import format_received, format_return_path
from fumibako.services.threads import threading_of
from fumibako.services.trace import Trace
from fumibako.store.base import Store, StoreRefused, StoreUnavailable

HEADER_MAX = 256 * 1024     # octets of a header section that we hold back to look at

REFUSALS = {
    Refusal.OVER_QUOTA: "mailbox-full",
    Refusal.NO_SUCH_ACCOUNT: "no-such-mailbox",
    Refusal.FROZEN: "mailbox-frozen",
    Refusal.DISK_FULL: "system-full",
    Refusal.NO_FILES: "system-full",
}


@dataclass(frozen=True, slots=True)
class House:
    """What every acceptance needs. doorbell: set after each Enqueue, so that the queue runner of this process looks.

    secrets: those of the store that were asked for; they never change.
    """

    hostname: str
    store: Store
    directory: Directory
    clock: Clock
    trace: Trace
    doorbell: asyncio.Event
    secrets: dict[str, bytes] = field(default_factory=dict)

    async def thread_key(self) -> bytes:
        """The key of the thread hashes."""
        if "thread" not in self.secrets:
            self.secrets["thread"] = await self.store.secret("thread")
        return self.secrets["thread"]


@dataclass(frozen=True, slots=True)
class Content:
    """A whole message, ready to be committed."""

    body: Body
    cache: bytes
    threading: Threading


class MessageWriter:
    """Takes the octets of a message as they arrive: header section held back and edited, body stored, all of it indexed."""

    def __init__(self, house: House, edit: Callable[[bytes], bytes]) -> None:
        self._house, self._edit = house, edit
        self._writer = house.store.body_writer()
        self._indexer = Indexer()
        self._held = bytearray()
        self._in_header = True
        self.header = b""           # as it came, once it is whole
        self.header_cut = False     # longer than HEADER_MAX
        self.failure: StoreRefused | None = None        # the octets could not be kept

    def write(self, octets: bytes) -> None:
        """The next octets; a full disk is raised by finish()."""
        if not self._in_header:
            self._store_octets(octets)
            return
        scan_from = max(0, len(self._held) - 3)
        self._held += octets
        # An empty header section is legal: the message then begins with the blank line.
        end = 0 if self._held.startswith(b"\r\n") else self._held.find(b"\r\n\r\n", scan_from) + 2
        if end >= 2 or self._held.startswith(b"\r\n"):
            self._header_is_whole(end)
        elif len(self._held) > HEADER_MAX:
            self._header_is_whole(len(self._held))

    def _header_is_whole(self, end: int) -> None:
        self.header, rest = bytes(self._held[:end]), bytes(self._held[end:])
        self._in_header, self.header_cut = False, end > HEADER_MAX
        self._held.clear()
        self._store_octets(self._edit(self.header) + rest)

    def _store_octets(self, octets: bytes) -> None:
        if self.failure or not octets:
            return
        self._indexer.feed(octets)
        try:
            self._writer.write(octets)
        except StoreRefused as error:
            self.failure = error

    def close(self) -> None:
        """No more octets come: a message may end within its header section."""
        if self._in_header:
            self._header_is_whole(len(self._held))

    @property
    def hops(self) -> int:
        """Received fields of the header as it came."""
        return count_fields(self.header, b"received")

    async def finish(self, trace_id: TraceId) -> Content:
        """The message, durable as far as a body alone can be; StoreRefused: the disk is full, or fails."""
        if self.failure:
            raise self.failure
        body = await self._writer.finish(trace_id)
        index = self._indexer.close()
        return Content(body, pack_index(index), threading_of(index.summary, await self._house.thread_key()))

    def abandon(self) -> None:
        self._writer.abandon()


@dataclass(frozen=True, slots=True)
class Framing:
    """What the protocol noticed about the octets of the message."""

    size_octets: int
    bare_newline: bool = False
    nul: bool = False
    too_big: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """A recipient that got its 250, and who gets the mail for it."""

    recipient: Recipient
    targets: tuple[Local | Remote, ...]


class Transaction:
    """envelope: without recipients; declared_octets: SIZE of MAIL or 0; one_reply_each: LMTP."""

    def __init__(self, house: House, policy: Policy, peer: Peer, envelope: Envelope, *,
                 declared_octets: int = 0, one_reply_each: bool = False) -> None:
        self.house, self.peer, self.envelope = house, peer, envelope
        self.trace_id = house.clock.trace_id()
        self.accepted: list[Accepted] = []
        self._one_reply_each = one_reply_each
        self._facts = Facts(peer, policy, house.store, house.clock, envelope.reverse_path, declared_octets)
        self._writer: MessageWriter | None = None
        self._resolved: dict[str, Hosted] = {}

    # -- the three stages --

    async def begin(self) -> Verdict:
        """MAIL."""
        return self._told(await look(Stage.SENDER, self._facts), "sender")

    async def add_recipient(self, recipient: Recipient) -> Verdict:
        """RCPT."""
        resolution = await self._resolve(recipient.forward_path)
        verdict = await look(Stage.RECIPIENT, self._facts.knowing(recipient=resolution))
        if not verdict.refused:
            assert isinstance(resolution, Hosted | Remote)      # Nobody is refused
            targets = resolution.targets if isinstance(resolution, Hosted) else (resolution,)
            self.accepted.append(Accepted(recipient, targets))
        return self._told(verdict, recipient.forward_path)

    async def _resolve(self, forward_path: str) -> Resolution:
        """An alias of a thousand people is expanded once a transaction, however often a peer names it."""
        try:
            key = address_key(forward_path)
        except ValueError:
            return await self.house.directory.resolve(forward_path)
        if (known := self._resolved.get(key)) is not None:
            return known
        resolution = await self.house.directory.resolve(forward_path)
        if isinstance(resolution, Hosted):
            self._resolved[key] = resolution
        return resolution

    def write(self, octets: bytes) -> None:
        """The next octets of the message."""
        if self._writer is None:
            self._writer = MessageWriter(self.house, self.edit_header)
        self._writer.write(octets)

    async def finish(self, framing: Framing) -> list[Verdict]:
        """The message is whole. One verdict; for LMTP one a recipient, in the order they were accepted."""
        writer = self._writer or MessageWriter(self.house, self.edit_header)
        self._writer = writer
        writer.close()
        message = MessageFacts(
            framing.size_octets, writer.hops, framing.bare_newline, framing.nul, framing.too_big, writer.header_cut
        )
        verdict = await look(Stage.MESSAGE, self._facts.knowing(message=message))
        if not verdict.refused:
            verdict = await self.check_header(writer.header)
        if verdict.refused:
            return self._all(self._told(verdict, "message"))
        try:
            content = await writer.finish(self.trace_id)
        except StoreRefused as error:
            return self._all(self._told(_refused(error), "message"))
        return await self._commit(content)

    def abandon(self) -> None:
        """The transaction is over without a commit."""
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None

    # -- what receiving and submitting do in their own way --

    def edit_header(self, header: bytes) -> bytes:
        """The header section to store."""
        return header

    async def check_header(self, header: bytes) -> Verdict:
        """A last word on the header section as it came."""
        return ACCEPTED

    # -- the commit --

    async def _commit(self, content: Content) -> list[Verdict]:
        writer, self._writer = self._writer, None       # whatever happens now, the store has the body
        assert writer is not None
        try:
            return await self._place(content)
        except StoreRefused as error:
            writer.abandon()
            return self._all(self._told(_refused(error), "message"))

    async def _place(self, content: Content) -> list[Verdict]:
        locals_ = self._locals()
        if len({local.account.shard for local in locals_.values()}) != 1 or self._success_is_told():
            return self._all(await self._enqueue(content, self.accepted))
        remotes = tuple(self._recipients(self.accepted, Remote).values())
        try:
            return self._all(await self._deliver(content, locals_, remotes))
        except StoreRefused as error:
            if error.refusal in PASSING or len(locals_) + len(remotes) == 1:
                raise
        # One recipient stood in the way of all: the others get theirs through the queue, or, by LMTP, one by one.
        return await (self._deliver_each(content) if self._one_reply_each else self._enqueue_all(content))

    async def _enqueue_all(self, content: Content) -> list[Verdict]:
        return [await self._enqueue(content, self.accepted)]

    async def _deliver_each(self, content: Content) -> list[Verdict]:
        """LMTP: a reply of its own each; what is no single mailbox, or too big to be handed over twice, is queued."""
        verdicts: list[Verdict | None] = []
        for accepted in self.accepted:
            match accepted.targets:
                case (Local() as local,) if not content.body.spool:
                    verdicts.append(await self._deliver_one(content, local))
                case _:
                    verdicts.append(None)
        waiting = [accepted for accepted, verdict in zip(self.accepted, verdicts, strict=True) if verdict is None]
        if not waiting:
            return [verdict for verdict in verdicts if verdict is not None]
        try:
            queued = await self._enqueue(content, waiting)
        except (StoreRefused, StoreUnavailable) as error:   # those delivered stay delivered: only the others are sent again
            queued = self._told(_refused(error), "message")
        return [verdict or queued for verdict in verdicts]

    async def _deliver_one(self, content: Content, local: Local) -> Verdict:
        try:
            return await self._deliver(content, {local.address: local})
        except (StoreRefused, StoreUnavailable) as error:
            return self._told(_refused(error), local.address)

    async def _deliver(self, content: Content, locals_: dict[str, Local], remotes: tuple[Recipient, ...] = ()) -> Verdict:
        now_ms = self.house.clock.now_ms()
        received = self._received(now_ms)
        prefix = format_return_path(self.envelope.reverse_path) + received
        recipients = tuple(
            LocalRecipient(local.account.id, address, prefix, quota_limit_octets=local.account.quota_limit_octets)
            for address, local in locals_.items()
        )
        outgoing = (Outgoing(self.trace_id, replace_recipients(self.envelope, remotes), received),) if remotes else ()
        await self.house.store.commit(
            Deliver(self.trace_id, content.body, content.cache, recipients, now_ms, content.threading, outgoing)
        )
        self._trace_accepted(content, "delivered", tuple(locals_))
        if remotes:
            self.house.doorbell.set()
            self._trace_accepted(content, "queued", tuple(one.forward_path for one in remotes))
        return ACCEPTED

    async def _enqueue(self, content: Content, accepted: list[Accepted]) -> Verdict:
        now_ms = self.house.clock.now_ms()
        recipients = self._recipients(accepted)
        envelope = replace_recipients(self.envelope, tuple(recipients.values()))
        await self.house.store.commit(Enqueue(self.trace_id, envelope, self._received(now_ms), content.body, now_ms))
        self.house.doorbell.set()
        self._trace_accepted(content, "queued", tuple(recipients))
        return ACCEPTED

    def _locals(self) -> dict[str, Local]:
        """Our own accounts among the targets, by address."""
        return {target.address: target for accepted in self.accepted for target in accepted.targets if isinstance(target, Local)}

    def _recipients(self, accepted: list[Accepted], kind: type[Local] | type[Remote] | None = None) -> dict[str, Recipient]:
        """What an envelope says about the targets, each once; kind: of those only."""
        found: dict[str, Recipient] = {}
        for one in accepted:
            for target in one.targets:
                if kind is None or isinstance(target, kind):
                    found.setdefault(target.address, _recipient_for(one.recipient, target.address))
        return found

    def _success_is_told(self) -> bool:
        """A DSN is due on success: the queue's work."""
        return any(accepted.recipient.notify & Notify.SUCCESS for accepted in self.accepted)

    def _received(self, now_ms: int) -> bytes:
        # RFC 5321 §7.2: FOR names a recipient only where there is no other.
        only = self.accepted[0].recipient.forward_path if len(self.accepted) == 1 else ""
        house = self.house
        offset = house.clock.utc_offset_minutes(now_ms)
        return format_received(self.peer, house.hostname, self.trace_id, only, now_ms, offset)

    # -- what is told --

    def _all(self, verdict: Verdict) -> list[Verdict]:
        return [verdict] * (len(self.accepted) if self._one_reply_each else 1)

    def _told(self, verdict: Verdict, about: str) -> Verdict:
        if verdict.refused:
            self.house.trace.event(
                self.trace_id, "refused", about=about, reverse_path=self.envelope.reverse_path, peer=self.peer.address,
                status=str(verdict.status), text=verdict.text,
                findings=tuple(finding.explanation for finding in verdict.findings),
            )
        return verdict

    def _trace_accepted(self, content: Content, how: str, recipients: tuple[str, ...]) -> None:
        self.house.trace.event(
            self.trace_id, "accepted", how=how, reverse_path=self.envelope.reverse_path, recipients=recipients,
            size_octets=content.body.size_octets, peer=self.peer.address, helo=self.peer.helo, protocol=self.peer.protocol,
            tls=self.peer.tls, login=self.peer.login,
        )


def replace_recipients(envelope: Envelope, recipients: tuple[Recipient, ...]) -> Envelope:
    """The same envelope for other recipients."""
    return Envelope(envelope.reverse_path, recipients, envelope.body, envelope.smtputf8, envelope.ret, envelope.envelope_id)


def _recipient_for(asked: Recipient, address: str) -> Recipient:
    """RFC 3461 §5.2.7: an alias passes the DSN parameters on; a DSN names the address that the sender knows."""
    original = asked.original_recipient or f"rfc822;{asked.forward_path}"
    return Recipient(address, asked.notify, original)


def _refused(error: StoreRefused | StoreUnavailable) -> Verdict:
    return refuse(REFUSALS.get(error.refusal, "system-error") if isinstance(error, StoreRefused) else "system-error", address="")
