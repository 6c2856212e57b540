"""Messages on their way into a mailbox by APPEND, import or the webmail: taken as they arrive, there all at once.

Specification: RFC 9051 §6.3.12 (APPEND), RFC 3502 (MULTIAPPEND: all or nothing).
Contract: begin, write..., end for each message, then commit once. Nothing is visible before commit() and nothing is
    left behind after abandon(), which may be called at any time.
Failure: StoreRefused (over quota, disk full, mailbox gone) and StoreUnavailable from commit(); a disk that is full while
    a message arrives is StoreRefused as well.
"""

from __future__ import annotations

from fumibako.model.account import Account
from fumibako.model.ids import TraceId
from fumibako.model.mailbox import Mailbox
from fumibako.model.ops import Append, Appended, Delivered
from fumibako.net.clock import Clock
from fumibako.proto.message.cache import pack_index
from fumibako.proto.message.index import Indexer
from fumibako.services.threads import threading_of
from fumibako.store.base import BodyWriter, Store, StoreRefused, expect


class Appending:
    """The messages of one APPEND."""

    def __init__(self, store: Store, clock: Clock, account: Account, mailbox: Mailbox) -> None:
        self._store = store
        self._clock = clock
        self._account = account
        self._mailbox = mailbox
        self._trace_id: TraceId = clock.trace_id()
        self._writers: list[BodyWriter] = []
        self._messages: list[Appended] = []
        self._flags: tuple[str, ...] = ()
        self._internal_date = 0
        self._indexer = Indexer()
        self._failure: StoreRefused | None = None

    def begin(self, flags: tuple[str, ...], internal_date: int | None) -> None:
        """A message follows. internal_date: ms UTC, None for now."""
        self._flags = flags
        self._internal_date = self._clock.now_ms() if internal_date is None else internal_date
        self._indexer = Indexer()
        self._writers.append(self._store.body_writer())

    def write(self, octets: bytes) -> None:
        """The next octets of the message; a full disk is told by end()."""
        if self._failure:
            return
        self._indexer.feed(octets)
        try:
            self._writers[-1].write(octets)
        except StoreRefused as error:
            self._failure = error

    async def end(self) -> None:
        """The message is complete."""
        if self._failure:
            raise self._failure
        body = await self._writers[-1].finish(self._trace_id)
        index = self._indexer.close()
        threading = threading_of(index.summary, await self._store.secret("thread"))
        self._messages.append(Appended(body, pack_index(index), self._flags, self._internal_date, threading))

    async def commit(self) -> Delivered:
        """Puts every message into the mailbox, or none."""
        operation = Append(self._account.id, self._mailbox.id, self._trace_id, tuple(self._messages),
                           self._account.quota_limit_octets)
        try:
            return expect(await self._store.commit(operation), Delivered)
        except StoreRefused:
            self.abandon()
            raise
        finally:
            self._writers.clear()   # committed, or nobody knows: the files are no longer ours to remove

    def abandon(self) -> None:
        """Forgets everything that was written; not to be called after a commit that may have happened."""
        for writer in self._writers:
            writer.abandon()
        self._writers.clear()
        self._messages.clear()
