"""What a message in a mailbox holds: its row, its index, its octets.

Specification: DESIGN §3 Rows (email_cache, prefix).
Contract: at most BATCH_UIDS rows at once; octets come in pieces of at most 64 KiB, so memory stays bounded. A missing
    index, or one of another version, is made from the blob and given back to the store.
Failure: OSError when a blob is damaged or gone: that message only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Protocol

from fumibako.model.ids import AccountId, EmailId, MailboxId, Uid
from fumibako.model.mailbox import Entry
from fumibako.proto.message.address import is_internationalized
from fumibako.proto.message.cache import CachedMessage, pack_index, unpack_index
from fumibako.proto.message.index import Indexer
from fumibako.proto.message.surrogate import Surrogate, header_spans, make_surrogate
from fumibako.store.base import BATCH_UIDS, Store

PIECE_OCTETS = 64 * 1024


class Octets(Protocol):
    """Where the octets of a message come from."""

    def octets(self, entry: Entry, start: int, end: int) -> AsyncIterator[bytes]: ...

    async def whole(self, entry: Entry, start: int, end: int) -> bytes: ...


class MessageAccess:
    """The messages of one account."""

    def __init__(self, store: Store, account_id: AccountId) -> None:
        self._store = store
        self._account_id = account_id

    async def entries(self, mailbox_id: MailboxId, uids: Sequence[int]) -> list[Entry]:
        """Rows of those uids that still exist, ordered by uid."""
        found: list[Entry] = []
        for start in range(0, len(uids), BATCH_UIDS):
            batch = [Uid(uid) for uid in uids[start : start + BATCH_UIDS]]
            found += await self._store.entries(self._account_id, mailbox_id, batch)
        return found

    async def indexes(self, entries: Sequence[Entry]) -> dict[EmailId, CachedMessage]:
        """Their indexes; one whose blob can't be read is left out."""
        packed = await self._store.caches(self._account_id, [entry.email_id for entry in entries])
        found: dict[EmailId, CachedMessage] = {}
        for entry in entries:
            try:
                found[entry.email_id] = unpack_index(packed.get(entry.email_id, b""))
            except ValueError:      # missing, or of another version
                try:
                    found[entry.email_id] = await self._rebuild(entry)
                except OSError:
                    continue
        return found

    async def _rebuild(self, entry: Entry) -> CachedMessage:
        indexer = Indexer()
        async for piece in self.octets(entry, entry.prefix_octets, entry.size_octets):
            indexer.feed(piece)
        packed = pack_index(indexer.close())
        await self._store.put_cache(self._account_id, entry.email_id, packed)
        return unpack_index(packed)

    async def octets(self, entry: Entry, start: int, end: int) -> AsyncIterator[bytes]:
        """Octets start..end of prefix + blob, piece by piece."""
        for at in range(start, min(end, entry.size_octets), PIECE_OCTETS):
            yield await self._store.read(self._account_id, entry.email_id, at, min(at + PIECE_OCTETS, end, entry.size_octets))

    async def pieces(self, wanted: Collection[tuple[EmailId, int, int]]) -> dict[tuple[EmailId, int, int], bytes]:
        """Small pieces of many messages, (email_id, start, end), at once; what can't be read is left out."""
        keys = list(wanted)
        found = await self._store.read_many(self._account_id, keys) if keys else []
        return {key: octets for key, octets in zip(keys, found, strict=True) if octets is not None}

    async def whole(self, entry: Entry, start: int, end: int) -> bytes:
        """The same in one piece: for headers."""
        return b"".join([piece async for piece in self.octets(entry, start, end)])

    async def surrogate(self, entry: Entry, index: CachedMessage) -> SurrogateAccess | None:
        """The message as a client without UTF-8 may see it (RFC 6858); None: as it is. OSError: damaged or gone."""
        spans = [(entry.email_id, start, end) for start, end in header_spans(index, entry.prefix_octets)]
        found = await self.pieces(spans)
        try:
            headers = [found[span] for span in spans]
        except KeyError as error:
            raise OSError("a header can't be read") from error
        if not any(map(is_internationalized, headers)):
            return None
        return SurrogateAccess(self, entry, make_surrogate(index, entry.prefix_octets, headers))


class SurrogateAccess:
    """The octets of one surrogate. entry and index: the message's own, as if it had been stored that way."""

    def __init__(self, access: MessageAccess, entry: Entry, surrogate: Surrogate) -> None:
        self._access, self._source, self._surrogate = access, entry, surrogate
        self.index = surrogate.index
        self.entry = Entry(entry.uid, entry.email_id, surrogate.index.size_octets, 0, entry.internal_date, entry.saved_at,
                           entry.guid, entry.thread_id)

    async def octets(self, entry: Entry, start: int, end: int) -> AsyncIterator[bytes]:
        for run in self._surrogate.runs(start, min(end, entry.size_octets)):
            if isinstance(run, bytes):
                yield run
                continue
            async for piece in self._access.octets(self._source, *run):
                yield piece

    async def whole(self, entry: Entry, start: int, end: int) -> bytes:
        return b"".join([piece async for piece in self.octets(entry, start, end)])
