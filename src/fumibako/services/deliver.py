"""The target `local`: puts queued mail into the mailboxes of our own accounts, exactly once.

Specification: RFC 5321 §4.4 (Return-Path at final delivery); DESIGN §3 Identity (the key is trace_id and address).
Contract: a recipient that was delivered before, by whatever attempt, is delivered: the store knows the key.
Failure: an Outcome each; only StoreUnavailable passes through.
"""

from __future__ import annotations

from collections import defaultdict

from fumibako.model.account import Account, AccountStatus
from fumibako.model.address import address_key
from fumibako.model.ops import Deliver, LocalRecipient, Refusal
from fumibako.model.queue import Outcome, OutcomeKind, QueuedRecipient, QueueItem
from fumibako.net.clock import Clock
from fumibako.proto.message.cache import pack_index
from fumibako.proto.message.index import Indexer
from fumibako.services.directory import Absence, Directory, Hosted, Local, Nobody
from fumibako.services.intake import Content
from fumibako.services.received import format_return_path
from fumibako.services.threads import threading_of
from fumibako.store.base import Store, StoreRefused

READ_OCTETS = 256 * 1024

DELIVERED = Outcome(OutcomeKind.DELIVERED, "2.1.5", "delivered to the mailbox")
REFUSALS = {
    Refusal.OVER_QUOTA: Outcome(OutcomeKind.DEFERRED, "4.2.2", "mailbox full"),
    Refusal.FROZEN: Outcome(OutcomeKind.DEFERRED, "4.2.1", "mailbox is being moved"),
    Refusal.NO_SUCH_ACCOUNT: Outcome(OutcomeKind.FAILED, "5.1.1", "no such mailbox here"),
    Refusal.DISK_FULL: Outcome(OutcomeKind.DEFERRED, "4.3.1", "insufficient system storage"),
    Refusal.NO_FILES: Outcome(OutcomeKind.DEFERRED, "4.3.1", "insufficient system resources"),
}
ABSENCES = {
    Absence.NO_SUCH_MAILBOX: REFUSALS[Refusal.NO_SUCH_ACCOUNT],
    Absence.BAD_ADDRESS: REFUSALS[Refusal.NO_SUCH_ACCOUNT],
    Absence.ALIAS_LOOP: Outcome(OutcomeKind.FAILED, "5.4.6", "the alias leads nowhere"),
    Absence.DISABLED: Outcome(OutcomeKind.FAILED, "5.2.1", "mailbox disabled"),
    Absence.FROZEN: REFUSALS[Refusal.FROZEN],
}
_SYSTEM_ERROR = Outcome(OutcomeKind.DEFERRED, "4.3.0", "temporary failure")


class Deliverer:
    """One for the process."""

    def __init__(self, store: Store, directory: Directory, clock: Clock) -> None:
        self._store, self._directory, self._clock = store, directory, clock

    async def deliver(self, item: QueueItem, recipients: tuple[QueuedRecipient, ...]) -> dict[int, Outcome]:
        """One attempt; recipients of one shard get it in one operation."""
        outcomes: dict[int, Outcome] = {}
        shards: defaultdict[int, list[tuple[QueuedRecipient, Local]]] = defaultdict(list)
        for recipient in recipients:
            found = await self._find(recipient.forward_path)
            if isinstance(found, Outcome):
                outcomes[recipient.id] = found
            else:
                shards[found.account.shard].append((recipient, found))
        if shards:
            content = await self._content(item)
            for number, group in enumerate(shards.values()):
                fresh = await self._again(item, content) if number else content
                outcomes |= await self._deliver_group(item, fresh, group)
        return outcomes

    async def _find(self, forward_path: str) -> Local | Outcome:
        """The account of an address that was expanded at acceptance; only `postmaster` and the like are asked for again."""
        account = await self._account(forward_path)
        if account is not None and account.status is AccountStatus.ACTIVE:
            return Local(account, address_key(account.address))
        match await self._directory.resolve(forward_path):
            case Hosted((Local() as local, *_)):
                return local
            case Nobody(why):
                return ABSENCES[why]
        return ABSENCES[Absence.NO_SUCH_MAILBOX]

    async def _account(self, forward_path: str) -> Account | None:
        try:
            return await self._store.account(address_key(forward_path))
        except ValueError:
            return None

    async def _content(self, item: QueueItem) -> Content:
        indexer = Indexer()
        for start in range(len(item.prefix), item.size_octets, READ_OCTETS):
            indexer.feed(await self._store.read_queued(item.id, start, min(start + READ_OCTETS, item.size_octets)))
        index = indexer.close()
        body = await self._store.queued_body(item.id)
        return Content(body, pack_index(index), threading_of(index.summary, await self._store.secret("thread")))

    async def _deliver_group(
        self, item: QueueItem, content: Content, group: list[tuple[QueuedRecipient, Local]]
    ) -> dict[int, Outcome]:
        refusal = await self._commit(item, content, [local for _, local in group])
        if refusal is None:
            return {recipient.id: DELIVERED for recipient, _ in group}
        if len(group) == 1:
            return {group[0][0].id: REFUSALS.get(refusal, _SYSTEM_ERROR)}
        outcomes: dict[int, Outcome] = {}
        for one in group:       # all or nothing was nothing: each gets its own outcome
            outcomes |= await self._deliver_group(item, await self._again(item, content), [one])
        return outcomes

    async def _again(self, item: QueueItem, content: Content) -> Content:
        """A body that lies in a file is handed over anew for each operation."""
        if not content.body.spool:
            return content
        return Content(await self._store.queued_body(item.id), content.cache, content.threading)

    async def _commit(self, item: QueueItem, content: Content, locals_: list[Local]) -> Refusal | None:
        prefix = format_return_path(item.envelope.reverse_path) + item.prefix
        by_address = {local.address: local for local in locals_}
        recipients = tuple(
            LocalRecipient(local.account.id, address, prefix, quota_limit_octets=local.account.quota_limit_octets)
            for address, local in by_address.items()
        )
        now_ms = self._clock.now_ms()
        try:
            await self._store.commit(
                Deliver(item.trace_id, content.body, content.cache, recipients, now_ms, content.threading)
            )
        except StoreRefused as error:
            return error.refusal
        return None
