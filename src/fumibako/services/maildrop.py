"""A POP3 maildrop: INBOX as it was at login, held by one session, changed only at its end.

Specification: RFC 1939 §3 (exclusive access), §5 (message numbers), §6 (UPDATE), §7 (unique-id); RFC 6856 §2.1 and
    RFC 6858 §2, §4 (a client without UTF-8 gets a surrogate).
Contract: messages keep their numbers while the maildrop is open. `update` expunges what it is given; `close` gives the
    lock back and changes nothing. `revoked` turns true, and `wake` is called, when the login no longer holds.
Failure: StoreRefused(IN_USE) when another session holds the maildrop; StoreUnavailable.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from fumibako.model.account import Account
from fumibako.model.ids import Uid
from fumibako.model.mailbox import INBOX, Entry, Mailbox
from fumibako.model.ops import Expunge, Expunged, LockMaildrop, Refusal, UnlockMaildrop
from fumibako.proto.message.address import is_internationalized
from fumibako.proto.message.surrogate import HEADER_OCTETS, format_surrogate, header_end
from fumibako.services.message_access import MessageAccess
from fumibako.services.views import Stay
from fumibako.store.base import PIECE_UIDS, Store, StoreRefused, expect


@dataclass(frozen=True, slots=True)
class DropMessage:
    """One message of the maildrop. size_octets counts what RETR sends, before byte-stuffing; of a surrogate it tells the
    size of the original, as RFC 6858 §4 allows: to know better, every message would have to be read for a LIST."""

    entry: Entry
    unique_id: str

    @property
    def size_octets(self) -> int:
        return self.entry.size_octets


class Maildrop:
    """An open maildrop."""

    def __init__(self, store: Store, account: Account, stay: Stay, mailbox: Mailbox, messages: tuple[DropMessage, ...]) -> None:
        self.messages = messages
        self._store = store
        self._account = account
        self._stay = stay
        self._mailbox = mailbox
        self._access = MessageAccess(store, account.id)

    @property
    def revoked(self) -> bool:
        return self._stay.revoked

    def octets(self, message: DropMessage, *, utf8: bool) -> AsyncIterator[bytes]:
        """The whole message in pieces; its header in ASCII unless the client has said UTF8. OSError: damaged or gone."""
        pieces = self._access.octets(message.entry, 0, message.size_octets)
        return pieces if utf8 else _surrogate(pieces)

    async def update(self, messages: Sequence[DropMessage]) -> None:
        """RFC 1939 §6: removes them for good."""
        uids = [Uid(message.entry.uid) for message in messages]
        for start in range(0, len(uids), PIECE_UIDS):
            batch = tuple(uids[start : start + PIECE_UIDS])
            operation = Expunge(self._account.id, self._mailbox.id, batch, only_deleted=False)
            expect(await self._store.commit(operation), Expunged)

    async def close(self) -> None:
        try:
            await self._store.commit(UnlockMaildrop(self._account.id))
        finally:
            await self._stay.end()


async def _surrogate(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces of a message, its header made ASCII. Octets of the body stay: a client without UTF-8 knows 8bit."""
    head, end = b"", -1
    async for piece in pieces:
        head += piece
        if (end := header_end(head)) >= 0 or len(head) > HEADER_OCTETS:
            break
    if end < 0:
        end = len(head)
    yield format_surrogate(head[:end]) + head[end:] if is_internationalized(head[:end]) else head
    async for piece in pieces:
        yield piece


async def open_maildrop(store: Store, account: Account, stay: Stay) -> Maildrop:
    """Takes the lock, then the snapshot. stay: ended with the maildrop, or at once where it can't be opened."""
    try:
        await store.commit(LockMaildrop(account.id))
    except BaseException:
        await stay.end()
        raise
    try:
        inbox, messages = await _snapshot(store, account)
    except BaseException:
        await store.commit(UnlockMaildrop(account.id))
        await stay.end()
        raise
    return Maildrop(store, account, stay, inbox, messages)


async def _snapshot(store: Store, account: Account) -> tuple[Mailbox, tuple[DropMessage, ...]]:
    inbox = next((row for row in await store.mailboxes(account.id) if row.name == INBOX), None)
    if inbox is None or (view := await store.view(account.id, inbox.id)) is None:
        raise StoreRefused(Refusal.NO_SUCH_MAILBOX)
    entries = await MessageAccess(store, account.id).entries(inbox.id, view.uids)
    carried = await store.unique_ids(account.id, inbox.id)
    return inbox, tuple(DropMessage(entry, carried.get(entry.uid, f"{inbox.uid_validity}.{entry.uid}")) for entry in entries)
