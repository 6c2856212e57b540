"""The reads of a store, as both stores have them: the Reader's methods, short ones at once, long ones beside the loop.

Contract: what is a row or two takes microseconds and is read on the loop; whatever may be long (DESIGN §1: SQL over
    1 ms, file reads) goes through `offload`.
Failure: StoreUnavailable where the contract says so; else that of store.sqlite.reader.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import apsw

from fumibako.model.account import Account, Alias, Domain, Hold, PasswordRecord, Setting
from fumibako.model.change import Change, Notice
from fumibako.model.frames import Command, MakeSecret, PutCache
from fumibako.model.ids import AccountId, EmailId, MailboxId, QueueId, Uid
from fumibako.model.mailbox import Entry, Mailbox, Quota, Recoverable
from fumibako.model.ops import Body, Operation, Result
from fumibako.model.queue import QueueItem
from fumibako.model.view import View
from fumibako.store.base import BodyWriter, Listener, StoreUnavailable
from fumibako.store.disk import DiskIO
from fumibako.store.failpoint import reach
from fumibako.store.room import has_room, reserve_octets
from fumibako.store.spool import Offload, SpoolWriter
from fumibako.store.sqlite.layout import SPOOL
from fumibako.store.sqlite.reader import Reader

P = ParamSpec("P")
T = TypeVar("T")


def _readable(read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What must be answered, or else unavailable, also while a database can't be read: storage starts afresh, say."""
    try:
        return read(*args, **kwargs)
    except apsw.Error as error:
        raise StoreUnavailable(str(error)) from error


class ReadingStore(ABC):
    """A store without its way to commit: `_commit` is what the two kinds differ in."""

    def __init__(self, reader: Reader, disk: DiskIO, offload: Offload) -> None:
        self._reader, self._disk, self._offload = reader, disk, offload
        self._spool = reader.directory / SPOOL
        self._reserve_octets = reserve_octets(disk, reader.directory)
        self._listeners: list[Listener] = []

    @abstractmethod
    async def _commit(self, operation: Command) -> Result:
        """Have the operation done; StoreRefused and StoreUnavailable as `commit` promises."""

    async def commit(self, operation: Operation) -> Result:
        reach("before-request", (type(operation),))
        result = await self._commit(operation)
        reach("after-response", (type(operation),))
        return result

    def listen(self, listener: Listener) -> Callable[[], None]:
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)
        return stop

    def _tell(self, notice: Notice) -> None:
        for listener in list(self._listeners):
            listener(notice)

    def body_writer(self) -> BodyWriter:
        return SpoolWriter(self._disk, self._spool, os.urandom(16).hex(), self._offload)

    async def has_room(self, size_octets: int) -> bool:
        return has_room(self._disk.free_octets(self._reader.directory), self._reserve_octets, size_octets)

    # -- directory --

    def directory_version(self) -> int:
        return _readable(self._reader.directory_version)

    async def domains(self) -> list[Domain]:
        return _readable(self._reader.domains)

    async def domain(self, name: str) -> Domain | None:
        return self._reader.domain(name)

    async def accounts(self, domain: str = "") -> list[Account]:
        found: list[Account] = await self._offload(self._reader.accounts, domain)
        return found

    async def account(self, address: str) -> Account | None:
        return self._reader.account(address)

    async def account_by_id(self, account_id: AccountId) -> Account | None:
        return self._reader.account_by_id(account_id)

    async def password(self, account_id: AccountId) -> PasswordRecord | None:
        return self._reader.password(account_id)

    async def aliases(self, domain: str = "") -> list[Alias]:
        found: list[Alias] = await self._offload(self._reader.aliases, domain)
        return found

    async def alias(self, address: str) -> Alias | None:
        return self._reader.alias(address)

    async def holds(self) -> list[Hold]:
        return self._reader.holds()

    async def settings(self, scope: str | None = None) -> list[Setting]:
        return _readable(self._reader.settings, scope)

    async def secret(self, name: str) -> bytes:
        found = self._reader.secret(name)
        if found is None:
            await self._commit(MakeSecret(name))
            found = self._reader.secret(name)
            assert found is not None
        return found

    # -- mail --

    async def mailboxes(self, account_id: AccountId) -> list[Mailbox]:
        return self._reader.mailboxes(account_id)

    async def subscriptions(self, account_id: AccountId) -> list[str]:
        return self._reader.subscriptions(account_id)

    async def keywords(self, account_id: AccountId) -> dict[int, str]:
        return self._reader.keywords(account_id)

    async def quota(self, account_id: AccountId) -> Quota:
        return self._reader.quota(account_id)

    async def modseq(self, account_id: AccountId) -> int:
        return self._reader.modseq(account_id)

    async def view(self, account_id: AccountId, mailbox_id: MailboxId) -> View | None:
        found: View | None = await self._offload(self._reader.view, account_id, mailbox_id)
        return found

    async def entries(self, account_id: AccountId, mailbox_id: MailboxId, uids: Sequence[Uid]) -> list[Entry]:
        found: list[Entry] = await self._offload(self._reader.entries, account_id, mailbox_id, uids)
        return found

    async def caches(self, account_id: AccountId, email_ids: Sequence[EmailId]) -> dict[EmailId, bytes]:
        found: dict[EmailId, bytes] = await self._offload(self._reader.caches, account_id, email_ids)
        return found

    async def put_cache(self, account_id: AccountId, email_id: EmailId, cache: bytes) -> None:
        await self._commit(PutCache(account_id, email_id, cache))

    async def read(self, account_id: AccountId, email_id: EmailId, start: int, end: int) -> bytes:
        octets: bytes = await self._offload(self._reader.read, account_id, email_id, start, end)
        return octets

    async def read_many(self, account_id: AccountId, wanted: Sequence[tuple[EmailId, int, int]]) -> list[bytes | None]:
        pieces: list[bytes | None] = await self._offload(self._reader.read_many, account_id, wanted)
        return pieces

    async def recoverable(self, account_id: AccountId) -> list[Recoverable]:
        found: list[Recoverable] = await self._offload(self._reader.recoverable, account_id)
        return found

    async def changes(self, account_id: AccountId, since: int) -> list[Change] | None:
        found: list[Change] | None = await self._offload(self._reader.changes, account_id, since)
        return found

    async def vanished(self, account_id: AccountId, mailbox_id: MailboxId, since: int) -> array[int] | None:
        found: array[int] | None = await self._offload(self._reader.vanished, account_id, mailbox_id, since)
        return found

    async def unique_ids(self, account_id: AccountId, mailbox_id: MailboxId) -> dict[Uid, str]:
        return self._reader.unique_ids(account_id, mailbox_id)

    # -- queue --

    async def queue_items(self, domain: str = "", limit: int = 1_000) -> list[QueueItem]:
        found: list[QueueItem] = await self._offload(self._reader.queue_items, domain, limit)
        return found

    async def queue_item(self, queue_id: QueueId) -> QueueItem | None:
        return self._reader.queue_item(queue_id)

    async def read_queued(self, queue_id: QueueId, start: int, end: int) -> bytes:
        octets: bytes = await self._offload(self._reader.read_queued, queue_id, start, end)
        return octets

    async def queued_body(self, queue_id: QueueId) -> Body:
        body: Body = await self._offload(self._reader.queued_body, queue_id, os.urandom(16).hex())
        return body
