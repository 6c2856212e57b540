"""Bring messages of a backup back into a living account: into mailboxes named for it, with new UIDs.

Contract: what the account still has (by EMAILID, or by the octets) is left out unless everything is wanted; flags and
    internal dates come along; mail that the account has got since stays as it is. Done in pieces, each an ordinary APPEND
    under the account's quota; a second run after a break-off brings only what is missing.
Failure: AdminError (no such account, mailbox or message; over quota; disk full) as a text for the person;
    StoreUnavailable.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from fumibako.model.account import Account
from fumibako.model.address import address_key
from fumibako.model.ids import EmailId, Uid
from fumibako.model.mailbox import DELIMITER, SYSTEM_FLAGS, Entry, Mailbox
from fumibako.model.ops import CreateMailbox, Subscribe
from fumibako.net.clock import Clock
from fumibako.proto.message.index import Indexer
from fumibako.services.admin import AdminError
from fumibako.services.appending import Appending
from fumibako.services.texts import N_
from fumibako.store.base import Store, StoreRefused

PIECE_MESSAGES = 200
PIECE_OCTETS = 4 * 1024 * 1024
_READ_OCTETS = 1 << 20
_HEADER_OCTETS = 256 * 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of the backup. mailbox: "" for all of them; message: a Message-ID, or a UID of `mailbox` (INBOX), "" for all;
    into: the name of the mailbox that takes them; everything: also what the account still has."""

    address: str
    into: str
    mailbox: str = ""
    message: str = ""
    everything: bool = False


@dataclass(slots=True)
class Recalled:
    """mailboxes: where messages went to; present: left out, because the account has them."""

    restored: int = 0
    present: int = 0
    octets: int = 0
    mailboxes: list[str] = field(default_factory=list)


async def recall(past: Store, now: Store, clock: Clock, wanted: Wanted, progress: Callable[[int, int], None]) -> Recalled:
    """past: the backup; now: the living store. progress: messages looked at, and in all."""
    return await _Recall(past, now, clock, wanted, progress).run()


@dataclass(slots=True)
class _Present:
    """What the account has. by_size: (email, guid) of each size; digests: read when a size is met the first time."""

    guids: set[bytes] = field(default_factory=set)
    by_size: defaultdict[int, set[EmailId]] = field(default_factory=lambda: defaultdict(set))
    digests: dict[int, set[bytes]] = field(default_factory=dict)


class _Recall:
    def __init__(self, past: Store, now: Store, clock: Clock, wanted: Wanted, progress: Callable[[int, int], None]) -> None:
        self._past, self._now, self._clock, self._wanted, self._progress = past, now, clock, wanted, progress
        self._present, self._result, self._looked_at, self._total = _Present(), Recalled(), 0, 0

    async def run(self) -> Recalled:
        then, account = await self._accounts()
        sources = await self._sources(then)
        if not self._wanted.everything:
            await self._look_around(account)
        self._total = sum(source.total for source in sources)
        keywords = await self._past.keywords(then.id)
        for source in sources:
            await self._mailbox(then, account, source, keywords)
        if self._wanted.message and not self._result.restored + self._result.present:
            raise AdminError(N_("the backup has no message {message} there"), message=self._wanted.message)
        return self._result

    async def _accounts(self) -> tuple[Account, Account]:
        try:
            key = address_key(self._wanted.address)
        except ValueError:
            raise AdminError(N_("not an address: {address}"), address=self._wanted.address) from None
        then, account = await self._past.account(key), await self._now.account(key)
        if then is None:
            raise AdminError(N_("the backup has no account {address}"), address=self._wanted.address)
        if account is None:
            raise AdminError(N_("there is no account {address} now; make it first with: fumibako account add {address}"),
                              address=self._wanted.address)
        return then, account

    async def _sources(self, then: Account) -> list[Mailbox]:
        rows = [row for row in await self._past.mailboxes(then.id) if not row.no_select]
        name = self._wanted.mailbox or ("INBOX" if self._wanted.message.isdigit() else "")
        found = [row for row in rows if not name or row.name == name]
        if name and not found:
            raise AdminError(N_("the backup has no mailbox {name}"), name=name)
        return found

    # -- what is there already --

    async def _look_around(self, account: Account) -> None:
        for mailbox in await self._now.mailboxes(account.id):
            view = await self._now.view(account.id, mailbox.id)
            for uids in _pieces(list(view.uids) if view else [], PIECE_MESSAGES):
                for entry in await self._now.entries(account.id, mailbox.id, uids):
                    self._present.guids.add(entry.guid)
                    self._present.by_size[entry.size_octets].add(entry.email_id)

    async def _is_present(self, account: Account, entry: Entry, then: Account) -> bool:
        """The octets decide where the EMAILID doesn't: what was brought back before has a new one."""
        present = self._present
        if entry.guid in present.guids:
            return True
        size = entry.size_octets
        if size not in present.by_size:
            return False
        if size not in present.digests:
            present.digests[size] = {await _digest(self._now, account, email_id, size) for email_id in present.by_size[size]}
        return await _digest(self._past, then, entry.email_id, size) in present.digests[size]

    # -- one mailbox --

    async def _mailbox(self, then: Account, account: Account, source: Mailbox, keywords: dict[int, str]) -> None:
        view = await self._past.view(then.id, source.id)
        flags = dict(zip(view.uids, view.flags, strict=True)) if view else {}
        uids = [Uid(uid) for uid in flags if not self._wanted.message.isdigit() or uid == int(self._wanted.message)]
        target: Mailbox | None = None
        for piece in _pieces(uids, PIECE_MESSAGES):
            chosen = [entry for entry in await self._past.entries(then.id, source.id, piece)
                      if await self._is_chosen(then, account, entry)]
            if chosen and target is None:
                target = await self._target(account, source)
            if target is not None:
                for entries in _by_octets(chosen):
                    await self._append((then, account), target, entries,
                                       {entry.uid: _names(flags[entry.uid], keywords) for entry in entries})
            self._looked_at += len(piece)
            self._progress(self._looked_at, self._total)

    async def _is_chosen(self, then: Account, account: Account, entry: Entry) -> bool:
        message = self._wanted.message
        if message and not message.isdigit() and not await self._is_named(then, entry, message):
            return False
        if not self._wanted.everything and await self._is_present(account, entry, then):
            self._result.present += 1
            return False
        return True

    async def _is_named(self, then: Account, entry: Entry, message_id: str) -> bool:
        indexer = Indexer()
        indexer.feed(await self._past.read(then.id, entry.email_id, 0, min(entry.size_octets, _HEADER_OCTETS)))
        found = (indexer.close().summary.message_id or b"").strip().decode("utf-8", "replace")
        return found.strip("<>") == message_id.strip().strip("<>")

    async def _target(self, account: Account, source: Mailbox) -> Mailbox:
        """The mailbox named for it, made and subscribed where it is missing."""
        alone = bool(self._wanted.mailbox or self._wanted.message.isdigit())
        name = self._wanted.into if alone else f"{self._wanted.into}{DELIMITER}{source.name}"
        rows = {row.name: row for row in await self._now.mailboxes(account.id)}
        try:
            if name not in rows:
                await self._now.commit(CreateMailbox(account.id, name))
                await self._now.commit(Subscribe(account.id, name))
                rows = {row.name: row for row in await self._now.mailboxes(account.id)}
            target = rows[name]
        except (StoreRefused, KeyError) as error:
            raise AdminError(N_("mailbox {name} can't be made: {error}"), name=name, error=error) from None
        self._result.mailboxes.append(name)
        return target

    async def _append(self, accounts: tuple[Account, Account], target: Mailbox, entries: list[Entry],
                      flags: dict[Uid, tuple[str, ...]]) -> None:
        then, account = accounts
        appending = Appending(self._now, self._clock, account, target)
        try:
            for entry in entries:
                appending.begin(flags[entry.uid], entry.internal_date)
                for start in range(0, entry.size_octets, _READ_OCTETS):
                    end = min(entry.size_octets, start + _READ_OCTETS)
                    appending.write(await self._past.read(then.id, entry.email_id, start, end))
                await appending.end()
            await appending.commit()
        except StoreRefused as error:
            appending.abandon()
            raise AdminError(N_("stopped after {count} messages: {error}"), count=self._result.restored, error=error) from None
        except BaseException:
            appending.abandon()
            raise
        self._result.restored += len(entries)
        self._result.octets += sum(entry.size_octets for entry in entries)


async def _digest(store: Store, account: Account, email_id: EmailId, size_octets: int) -> bytes:
    digest = hashlib.sha256()
    try:
        for start in range(0, size_octets, _READ_OCTETS):
            digest.update(await store.read(account.id, email_id, start, min(size_octets, start + _READ_OCTETS)))
    except OSError:
        return b""      # damaged or gone: no reason to leave the backup's out
    return digest.digest()


def _names(word: int, keywords: dict[int, str]) -> tuple[str, ...]:
    return (*(name for name, bit in SYSTEM_FLAGS.items() if word & bit),
            *(name for bit, name in keywords.items() if word >> bit & 1))


def _pieces(uids: list[Uid] | list[int], size: int) -> Iterator[list[Uid]]:
    for start in range(0, len(uids), size):
        yield [Uid(uid) for uid in uids[start:start + size]]


def _by_octets(entries: list[Entry]) -> Iterator[list[Entry]]:
    """So that an operation stays small; a large message goes alone, through the spool."""
    piece: list[Entry] = []
    size = 0
    for entry in entries:
        if piece and size + entry.size_octets > PIECE_OCTETS:
            yield piece
            piece, size = [], 0
        piece.append(entry)
        size += entry.size_octets
    if piece:
        yield piece
