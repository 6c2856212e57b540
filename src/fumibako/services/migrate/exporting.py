"""An account's mail as files that any program reads, and a manifest with which our own import makes the same account again.

Contract: the octets of a message are those IMAP serves. The place is a directory that is missing or empty; a mailbox is there
    under its name when it is whole, the manifest when everything is, durably. Memory does not grow with the mail.
Failure: AdminError in words; a message that can't be read is left out and named in the report.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fumibako.model.account import Account
from fumibako.model.address import address_key
from fumibako.model.ids import Uid
from fumibako.model.mailbox import FIRST_KEYWORD_BIT, SYSTEM_FLAGS, Entry, Mailbox
from fumibako.proto.message.manifest import FILE_NAME, UNFINISHED_NAME, ManifestHead, ManifestMailbox, ManifestWriter
from fumibako.services.admin import AdminError, mail_address
from fumibako.services.message_access import MessageAccess
from fumibako.services.migrate.writing import MaildirWriting, MboxWriting, Outgoing, Unreadable, Writing, create, sync_directory
from fumibako.services.texts import N_
from fumibako.store.base import BATCH_UIDS, Store

Progress = Callable[[int, int], None]       # (messages done, of how many)


@dataclass(slots=True)
class ExportReport:
    """unreadable: "mailbox/uid" of messages whose octets are damaged."""

    mailboxes: int = 0
    messages: int = 0
    size_octets: int = 0
    unreadable: list[str] = field(default_factory=list)


class Exporting:
    """Exports of one data directory."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def export(self, address: str, path: Path, store: str, mailbox: str, progress: Progress) -> ExportReport:
        """store: "maildir" or "mbox"; mailbox: "" for all."""
        account = await account_named(self._store, address)
        rows = [one for one in await self._store.mailboxes(account.id) if not one.no_select]
        if mailbox:
            rows = [one for one in rows if one.name == mailbox]
            if not rows:
                raise AdminError(N_("{address} has no mailbox {name}"), address=account.address, name=mailbox)
        _make_place(path)
        writing: Writing = MaildirWriting(path) if store == "maildir" else MboxWriting(path)
        dump = _Dump(self._store, account, path, writing, progress)
        try:
            await dump.run(rows, store, whole=not mailbox)
        except OSError as error:
            dump.abandon()
            problem = N_("{path}: {error}; the export is not complete: empty that directory, make room, and try again")
            raise AdminError(problem, path=path, error=error.strerror or error) from None
        except BaseException:
            dump.abandon()
            raise
        return dump.report


class _Dump:
    """One export on its way."""

    def __init__(self, store: Store, account: Account, path: Path, writing: Writing, progress: Progress) -> None:
        self.report = ExportReport()
        self._store, self._account, self._path, self._writing, self._progress = store, account, path, writing, progress
        self._access = MessageAccess(store, account.id)
        self._manifest, self._new = ManifestWriter(), path / UNFINISHED_NAME
        self._total = self._done = 0

    async def run(self, rows: list[Mailbox], store: str, *, whole: bool) -> None:
        names = {one.name for one in rows}
        subscriptions = [one for one in await self._store.subscriptions(self._account.id) if whole or one in names]
        self._total = sum(one.total for one in rows)
        with create(self._new) as file:
            file.write(self._manifest.head(ManifestHead(self._account.address, store, tuple(subscriptions), whole)))
            for row in rows:
                await self._mailbox(row, file.write)
            self._writing.finish(subscriptions)
            file.write(self._manifest.close())
        os.sync()       # one for all files: the manifest is named when the mail is on the disk
        self._new.rename(self._path / FILE_NAME)
        sync_directory(self._path)      # and who was told that it is whole finds it whole after a power cut

    def abandon(self) -> None:
        self._writing.abandon()
        self._new.unlink(missing_ok=True)

    async def _mailbox(self, row: Mailbox, tell: Callable[[bytes], object]) -> None:
        view = await self._store.view(self._account.id, row.id)
        if view is None:        # deleted meanwhile
            return
        names = flag_names(await self._store.keywords(self._account.id))
        path = self._writing.begin(row, [name for name in _used(view.flags, names) if not name.startswith("\\")])
        tell(self._manifest.mailbox(ManifestMailbox(row.name, row.special_use, view.uid_validity, view.uid_next, path)))
        for start in range(0, len(view.uids), BATCH_UIDS):
            batch = [Uid(uid) for uid in view.uids[start : start + BATCH_UIDS]]
            for entry in await self._store.entries(self._account.id, row.id, batch):
                flags = _names_in(view.flags[view.index(entry.uid)], names)
                await self._message(row, Outgoing(entry, flags, partial(self._octets, entry)), tell)
        self._writing.end()
        self.report.mailboxes += 1

    async def _message(self, row: Mailbox, message: Outgoing, tell: Callable[[bytes], object]) -> None:
        try:
            tell(self._manifest.message(await self._writing.put(message)))
        except Unreadable:
            self.report.unreadable.append(f"{row.name}/{message.entry.uid}")
        else:
            self.report.messages += 1
            self.report.size_octets += message.entry.size_octets
        self._done += 1
        self._progress(self._done, max(self._total, self._done))

    async def _octets(self, entry: Entry) -> AsyncIterator[bytes]:
        """An error of the store must not be taken for one of the disk that is written to."""
        pieces = self._access.octets(entry, 0, entry.size_octets)
        while True:
            try:
                piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except OSError as error:
                raise Unreadable from error
            yield piece


async def account_named(store: Store, text: str) -> Account:
    """The account of that address; AdminError without one."""
    address = mail_address(text)
    if (found := await store.account(address_key(address))) is None:
        raise AdminError(N_("{name}: there is no such account"), name=address)
    return found


def flag_names(keywords: dict[int, str]) -> dict[int, str]:
    """Value of a flag word's bit -> name, system flags first."""
    names = {int(value): name for name, value in SYSTEM_FLAGS.items()}
    return names | {1 << bit: keywords[bit] for bit in sorted(keywords) if bit >= FIRST_KEYWORD_BIT}


def _used(words: Iterable[int], names: dict[int, str]) -> tuple[str, ...]:
    every = 0
    for word in words:
        every |= word
    return _names_in(every, names)


def _names_in(word: int, names: dict[int, str]) -> tuple[str, ...]:
    return tuple(name for value, name in names.items() if word & value)


def _make_place(path: Path) -> None:
    """An empty directory, or a sentence."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        if (path / UNFINISHED_NAME).exists():
            raise AdminError(N_("an export into {path} was broken off; empty that directory and try again"), path=path)
        if os.listdir(path):
            raise AdminError(N_("{path} is not empty: an export needs a directory of its own"), path=path)
    except FileExistsError:
        raise AdminError(N_("{path} exists and is no directory"), path=path) from None
    except FileNotFoundError:
        raise AdminError(N_("{path}: there is no directory {parent}"), path=path, parent=path.parent) from None
    except OSError as error:
        raise AdminError(N_("{path}: {error}"), path=path, error=error.strerror or error) from None
