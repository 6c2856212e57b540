"""Mail of other programs, or of an export of ours, comes into an account through the same Append as everybody's.

Specification: RFC 9051 §6.3.12 (APPEND), RFC 6154 §2 (special use).
Contract: messages come in batches, each all or nothing, in their order. One that lies in the target mailbox already, octet by
    octet, is not put there again: what was interrupted can be done again. A mailbox that holds the same message twice in the
    source holds it twice afterwards. An export of a whole account into an account without mail gives the same account.
Failure: AdminError before anything is done; a message that can't come in is counted and named, and the others go on; what ends
    the whole (quota, full disk) is told in `stopped`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fumibako.model.account import Account
from fumibako.model.ids import EmailId, MailboxId, Uid
from fumibako.model.mailbox import DEFAULT_MAILBOXES, DELIMITER, KEYWORD_BITS, SYSTEM_FLAGS, Mailbox
from fumibako.model.ops import CreateMailbox, DeleteMailbox, OpenAccount, Refusal, Subscribe
from fumibako.net.clock import Clock
from fumibako.proto.message.maildir import is_keyword, safe_mailbox_name
from fumibako.services.admin import REFUSALS, AdminError
from fumibako.services.appending import Appending
from fumibako.services.migrate.exporting import Progress, account_named
from fumibako.services.migrate.found import FoundMailbox, FoundMessage, Source
from fumibako.services.migrate.reading import open_source
from fumibako.services.policy import Policy
from fumibako.services.texts import N_
from fumibako.store.base import BATCH_UIDS, INLINE_OCTETS, Store, StoreRefused

BATCH_MESSAGES = 200
BATCH_OCTETS = 4 * 1024 * 1024
NAMED = 100             # of each kind of trouble, in the report


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """kind: "maildir", "mbox" or "" (recognised); into: a mailbox for everything, "" for the names as they are."""

    path: Path
    kind: str = ""
    into: str = ""
    merge: bool = False


@dataclass(slots=True)
class ImportReport:
    """present: were there already; the lists name at most NAMED each; stopped: catalogue text of what ended it, or ""."""

    kind: str = ""
    found: int = 0
    imported: int = 0
    size_octets: int = 0
    present: int = 0
    mailboxes: int = 0
    too_big: int = 0
    damaged: int = 0
    keywords_left_out: int = 0
    skipped: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    stopped: str = ""
    values: dict[str, object] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return not (self.stopped or self.too_big or self.damaged)

    def name(self, where: str) -> None:
        if len(self.named) < NAMED:
            self.named.append(where)


class Importing:
    """Imports into one data directory."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock

    async def import_(self, address: str, plan: ImportPlan, progress: Progress) -> ImportReport:
        account = await account_named(self._store, address)
        source = open_source(plan.path, plan.kind)
        await self._store.commit(OpenAccount(account.id))
        rows = await self._store.mailboxes(account.id)
        if any(row.total for row in rows) and not plan.into and not plan.merge:
            raise AdminError(N_("{address} has mail already: --merge adds what is missing (also after an import that was "
                                "interrupted), --into NAME puts everything under a mailbox of its own"), address=account.address)
        limit = Policy(await self._store.settings()).number("limits.message_size", account.address)
        report = ImportReport(source.kind, source.total)
        work = _Import(self._store, self._clock, account, plan, limit, report)
        try:
            await work.run(source, progress)
        except StoreRefused as error:
            report.stopped = REFUSALS.get(error.refusal, N_("{name}: refused: {detail}"))
            report.values = {"name": account.address, "detail": str(error), "domain": ""}
        except OSError as error:
            report.stopped, report.values = N_("{path}: {error}"), {"path": plan.path, "error": error.strerror or error}
        report.skipped = source.skipped[:NAMED]
        return report


class _Import:
    """One import on its way."""

    def __init__(self, store: Store, clock: Clock, account: Account, plan: ImportPlan, limit_octets: int,
                 report: ImportReport) -> None:
        self._store, self._clock, self._account, self._plan = store, clock, account, plan
        self._limit, self._report = limit_octets, report
        self._present: dict[MailboxId, _Present] = {}
        self._keywords: set[str] = set()
        self._done = 0

    async def run(self, source: Source, progress: Progress) -> None:
        self._keywords = {name.lower() for name in (await self._store.keywords(self._account.id)).values()}
        into = self._plan.into
        exact = source.whole and not into and not any(row.total for row in await self._rows())
        if exact:
            await self._clear_defaults()
        for found in source.mailboxes():
            name = safe_mailbox_name([*into.split(DELIMITER), *found.name.split(DELIMITER)]) if into else found.name
            target = await self._target(name, "" if into else found.special_use)
            await self._messages(target, found, lambda: self._tell(progress, source.total))
            self._report.mailboxes += 1
        if not into:
            await self._subscribe(source.subscriptions, only=exact)

    def _tell(self, progress: Progress, total: int) -> None:
        self._done += 1
        progress(self._done, max(total, self._done))

    async def _rows(self) -> list[Mailbox]:
        return await self._store.mailboxes(self._account.id)

    # -- mailboxes --

    async def _target(self, name: str, special_use: str) -> Mailbox:
        """The mailbox of that name, made where it is missing."""
        rows = {row.name: row for row in await self._rows()}
        if name not in rows or rows[name].no_select:
            await self._create(name, special_use)
            rows = {row.name: row for row in await self._rows()}
        return rows[name]

    async def _create(self, name: str, special_use: str) -> None:
        try:
            await self._store.commit(CreateMailbox(self._account.id, name, special_use))
        except StoreRefused as error:
            if error.refusal is not Refusal.NOT_ALLOWED or not special_use:
                raise
            await self._store.commit(CreateMailbox(self._account.id, name))     # a use this server has no mailbox for

    async def _subscribe(self, names: list[str], *, only: bool) -> None:
        there = set(await self._store.subscriptions(self._account.id))
        for name in dict.fromkeys(names):
            if name not in there:
                try:
                    await self._store.commit(Subscribe(self._account.id, name))
                except StoreRefused as error:
                    if error.refusal is not Refusal.BAD_NAME:
                        raise
        for name in there - set(names) if only else ():
            await self._store.commit(Subscribe(self._account.id, name, on=False))

    async def _clear_defaults(self) -> None:
        """The exported account may have deleted them, or have their uses elsewhere: 送信済み instead of Sent."""
        ours = {name for name, use in DEFAULT_MAILBOXES if use}
        for row in await self._rows():
            if row.name in ours and not row.no_select:
                await self._store.commit(DeleteMailbox(self._account.id, row.id))

    # -- messages --

    async def _messages(self, target: Mailbox, found: FoundMailbox, tell: Callable[[], None]) -> None:
        if target.id not in self._present:
            self._present[target.id] = _Present(self._store, self._account, target)
            await self._present[target.id].load()
        batch = _Batch(Appending(self._store, self._clock, self._account, target))
        try:
            for message in found.messages:
                await self._message(self._present[target.id], message, batch)
                if batch.is_full:
                    await self._commit(batch)
                    batch = _Batch(Appending(self._store, self._clock, self._account, target))
                tell()
            await self._commit(batch)
        except BaseException:
            batch.appending.abandon()
            raise

    async def _commit(self, batch: _Batch) -> None:
        if batch.messages:
            await batch.appending.commit()
            self._report.imported += batch.messages
            self._report.size_octets += batch.size_octets

    async def _message(self, present: _Present, message: FoundMessage, batch: _Batch) -> None:
        report = self._report
        try:
            read = _read(message, self._limit)
        except OSError as error:
            report.damaged += 1
            report.name(f"{message.where}: {error.strerror or error}")
            return
        if read.size_octets > self._limit:
            report.too_big += 1
            report.name(f"{message.where}: limits.message_size")
        elif message.sha256 and read.sha256.hex() != message.sha256:
            report.damaged += 1
            report.name(f"{message.where}: SHA-256")
        elif await present.take(read.size_octets, read.sha256):
            report.present += 1
        else:
            await batch.add(message, read, self._flags(message.flags))

    def _flags(self, flags: tuple[str, ...]) -> tuple[str, ...]:
        """Without what can be no flag here; an account has room for 58 keywords."""
        kept = []
        for name in dict.fromkeys(flags):
            folded = name.lower()
            known = name in SYSTEM_FLAGS or folded in self._keywords
            if not known and (not is_keyword(name) or len(self._keywords) >= KEYWORD_BITS):
                self._report.keywords_left_out += 1
                continue
            if name not in SYSTEM_FLAGS:
                self._keywords.add(folded)
            kept.append(name)
        return tuple(kept)


@dataclass(frozen=True, slots=True)
class _Read:
    """octets: the message where it is small, so that it need not be read again."""

    size_octets: int
    sha256: bytes
    octets: tuple[bytes, ...] | None


def _read(message: FoundMessage, limit_octets: int) -> _Read:
    """Once through the message; beyond the limit no further."""
    hashed, size, kept = hashlib.sha256(), 0, list[bytes]()
    for piece in message.pieces():
        size += len(piece)
        if size > limit_octets:
            break
        hashed.update(piece)
        if size <= INLINE_OCTETS:
            kept.append(piece)
    return _Read(size, hashed.digest(), tuple(kept) if size <= INLINE_OCTETS else None)


class _Batch:
    """Messages that come in together."""

    def __init__(self, appending: Appending) -> None:
        self.appending = appending
        self.messages = self.size_octets = self._inline_octets = 0

    @property
    def is_full(self) -> bool:
        return self.messages >= BATCH_MESSAGES or self._inline_octets >= BATCH_OCTETS

    async def add(self, message: FoundMessage, read: _Read, flags: tuple[str, ...]) -> None:
        self.appending.begin(flags, message.internal_date)
        pieces: Iterator[bytes] = iter(read.octets) if read.octets is not None else message.pieces()
        for piece in pieces:
            self.appending.write(piece)
        await self.appending.end()
        self.messages += 1
        self.size_octets += read.size_octets
        self._inline_octets += read.size_octets if read.octets is not None else 0


class _Present:
    """What a mailbox held before the import. Only messages of the same size are ever read."""

    def __init__(self, store: Store, account: Account, mailbox: Mailbox) -> None:
        self._store, self._account, self._mailbox = store, account, mailbox
        self._unread: dict[int, list[EmailId]] = {}
        self._hashes: Counter[bytes] = Counter()

    async def load(self) -> None:
        if not self._mailbox.total or (view := await self._store.view(self._account.id, self._mailbox.id)) is None:
            return
        for start in range(0, len(view.uids), BATCH_UIDS):
            batch = [Uid(uid) for uid in view.uids[start : start + BATCH_UIDS]]
            for entry in await self._store.entries(self._account.id, self._mailbox.id, batch):
                self._unread.setdefault(entry.size_octets, []).append(entry.email_id)

    async def take(self, size_octets: int, sha256: bytes) -> bool:
        """Whether it is there; each message there stands for one of the source."""
        for email_id in self._unread.pop(size_octets, ()):
            self._hashes[await self._digest(email_id, size_octets)] += 1
        if not self._hashes[sha256]:
            return False
        self._hashes[sha256] -= 1
        return True

    async def _digest(self, email_id: EmailId, size_octets: int) -> bytes:
        hashed = hashlib.sha256()
        try:
            for start in range(0, size_octets, INLINE_OCTETS):
                end = min(start + INLINE_OCTETS, size_octets)
                hashed.update(await self._store.read(self._account.id, email_id, start, end))
        except OSError:
            return b""      # damaged here: the one that comes is welcome
        return hashed.digest()
