"""Random operations on a real store and on plain dicts: results, views, counters, changes must be equal after each."""

import asyncio
import copy
import shutil
import tempfile
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fumibako.model.change import Change
from fumibako.model.mailbox import Quota
from fumibako.model.ops import (
    Append,
    Appended,
    Copy,
    CreateMailbox,
    DeleteMailbox,
    Deliver,
    Expunge,
    FlagMode,
    LocalRecipient,
    Move,
    OpenAccount,
    Operation,
    Recover,
    RenameMailbox,
    SetFlags,
    Watch,
)
from fumibako.store.base import Store, StoreRefused
from fumibako.store.check import check
from tests.contract.building import add_account, body, local_store, remote_store, storage_process, trace
from tests.contract.reference import Account, Refuse, apply

ACCOUNTS = st.sampled_from([1, 2])
BOXES = st.sampled_from([1, 1, 1, 1, 3, 6, 7, 8])     # mostly where mail is
NAMES = st.sampled_from(["a", "b", "a/b", "a/b/c", "Sent", "b/c", "INBOX/x", "a0", "Archive/2025"])
UIDS = st.lists(st.integers(1, 6), min_size=1, max_size=6).map(tuple)
FLAGS = st.lists(st.sampled_from(["\\Seen", "\\Deleted", "\\Flagged", "$one", "$two"]), max_size=3).map(tuple)
LIMITS = st.sampled_from([0, 0, 0, 300])


class MailMachine(RuleBasedStateMachine):
    """On a LocalStore."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.processes, self.stores = ExitStack(), AsyncExitStack()
        self.store: Store = self.runner.run(self.open())
        self.accounts = {1: Account(1), 2: Account(2)}
        self.told: list[Change] = []
        self.number = 0
        self.runner.run(self.begin())

    async def open(self) -> Store:
        return await self.stores.enter_async_context(local_store(self.directory / "data"))

    async def begin(self) -> None:
        self.store.listen(self.told.append)     # type: ignore[arg-type]
        for number, name in ((1, "alice"), (2, "bob")):
            assert (await add_account(self.store, f"{name}@example.jp")).id == number
            await self.store.commit(Watch(number))

    def teardown(self) -> None:
        self.runner.run(self.stores.aclose())
        self.runner.close()
        self.processes.close()
        assert check(self.directory / "data").findings == ()
        shutil.rmtree(self.directory)

    def run(self, operation: Operation) -> None:
        before, told = copy.deepcopy(self.accounts), len(self.told)
        counts = {account_id: len(account.changes) for account_id, account in before.items()}
        expected: object
        try:
            expected = apply(self.accounts, operation)
        except Refuse as refused:
            self.accounts, expected = before, refused.refusal
        try:
            result: object = self.runner.run(self.commit(operation))
        except StoreRefused as refused:
            result = refused.refusal
        assert result == expected
        made = [change for account_id, account in self.accounts.items() for change in account.changes[counts[account_id]:]]
        assert sorted(self.told[told:], key=lambda change: change.account_id) == made

    async def commit(self, operation: Operation) -> object:
        return await self.store.commit(operation)

    def next_trace(self, *, repeat: bool = False) -> bytes:
        self.number += not repeat
        return trace(self.number)

    # -- operations --

    @initialize()
    def fill(self) -> None:
        """Most operations should find something to work on."""
        for _ in range(5):
            recipients = tuple(LocalRecipient(account, f"{account}@x", b"P: 1\r\n") for account in (1, 2))
            self.run(Deliver(self.next_trace(), body(b"x" * 20), b"c", recipients, 1))

    @rule(accounts=st.lists(ACCOUNTS, min_size=1, max_size=2), name=NAMES, flags=FLAGS, limit=LIMITS, repeat=st.booleans())
    def deliver(self, accounts: list[int], name: str, flags: tuple[str, ...], limit: int, repeat: bool) -> None:
        recipients = tuple(LocalRecipient(account, f"{place}@x", b"P: 1\r\n", name, flags, limit)
                           for place, account in enumerate(accounts))
        self.run(Deliver(self.next_trace(repeat=repeat), body(b"x" * 20), b"c", recipients, 1))

    @rule(account=ACCOUNTS, box=BOXES, flags=FLAGS, count=st.integers(1, 3), limit=LIMITS)
    def append(self, account: int, box: int, flags: tuple[str, ...], count: int, limit: int) -> None:
        messages = tuple(Appended(body(b"y" * (10 + place)), b"", flags, 2) for place in range(count))
        self.run(Append(account, box, self.next_trace(), messages, limit))

    @rule(account=ACCOUNTS, box=BOXES, uids=UIDS, mode=st.sampled_from(FlagMode), flags=FLAGS, since=st.integers(-1, 20))
    def set_flags(self, account: int, box: int, uids: tuple[int, ...], mode: FlagMode, flags: tuple[str, ...],
                  since: int) -> None:
        self.run(SetFlags(account, box, uids, mode, flags, since if since % 3 == 0 else -1))

    @rule(account=ACCOUNTS, box=BOXES, uids=UIDS, goal=BOXES, limit=LIMITS)
    def copy(self, account: int, box: int, uids: tuple[int, ...], goal: int, limit: int) -> None:
        self.run(Copy(account, box, uids, goal, limit))

    @rule(account=ACCOUNTS, box=BOXES, uids=UIDS, goal=BOXES)
    def move(self, account: int, box: int, uids: tuple[int, ...], goal: int) -> None:
        self.run(Move(account, box, uids, goal))

    @rule(account=ACCOUNTS, box=BOXES, uids=UIDS, only_deleted=st.booleans())
    def expunge(self, account: int, box: int, uids: tuple[int, ...], only_deleted: bool) -> None:
        self.run(Expunge(account, box, uids, only_deleted))

    @rule(account=ACCOUNTS, emails=st.lists(st.integers(1, 9), max_size=4).map(tuple), name=NAMES, limit=LIMITS)
    def recover(self, account: int, emails: tuple[int, ...], name: str, limit: int) -> None:
        self.run(Recover(account, emails, name, limit))

    @rule(account=ACCOUNTS)
    def open_account(self, account: int) -> None:
        self.run(OpenAccount(account))

    @rule(account=ACCOUNTS, name=NAMES)
    def create(self, account: int, name: str) -> None:
        self.run(CreateMailbox(account, name))

    @rule(account=ACCOUNTS, box=BOXES)
    def delete(self, account: int, box: int) -> None:
        self.run(DeleteMailbox(account, box))

    @rule(account=ACCOUNTS, box=BOXES, name=NAMES)
    def rename(self, account: int, box: int, name: str) -> None:
        self.run(RenameMailbox(account, box, name))

    # -- what must be equal --

    @precondition(lambda self: self.number)
    @invariant()
    def equal(self) -> None:
        self.runner.run(self.compare())

    async def compare(self) -> None:
        for account in self.accounts.values():
            boxes = await self.store.mailboxes(account.id)
            assert [(box.id, box.name) for box in boxes] == [(box.id, box.name) for box in sorted(
                account.boxes.values(), key=lambda box: (box.name != "INBOX", box.name.encode()))]
            for box in boxes:
                await self.compare_box(account, box.id)
            messages = sum(len(box.entries) for box in account.boxes.values())
            held = {entry.email_id for box in account.boxes.values() for entry in box.entries.values()}
            kept = await self.store.recoverable(account.id)
            assert sorted(one.entry.email_id for one in kept) == sorted(set(account.sizes) - held)
            assert await self.store.quota(account.id) == Quota(account.used(), 0, messages)
            assert await self.store.modseq(account.id) == account.modseq
            assert await self.store.changes(account.id, account.modseq // 2) == [
                change for change in account.changes if change.modseq > account.modseq // 2]
            assert await self.store.keywords(account.id) == dict(enumerate(account.keywords, 5))

    async def compare_box(self, account: Account, box_id: int) -> None:
        expected = account.boxes[box_id]
        box = next(one for one in await self.store.mailboxes(account.id) if one.id == box_id)
        view = await self.store.view(account.id, box_id)
        vanished = await self.store.vanished(account.id, box_id, account.modseq // 2)
        assert view is not None and vanished is not None
        rows = [(uid, entry.flags, entry.modseq) for uid, entry in sorted(expected.entries.items())]
        assert list(zip(view.uids, view.flags, view.modseqs, strict=True)) == rows
        assert (view.uid_validity, view.uid_next, view.highest_modseq) == (
            expected.uid_validity, expected.uid_next, expected.highest_modseq)
        sizes = [account.sizes[expected.entries[uid].email_id] for uid, *_ in rows]
        assert [entry.size_octets for entry in await self.store.entries(account.id, box_id, view.uids)] == sizes
        assert (box.total, box.unseen, box.deleted, box.size_octets, box.no_select, box.special_use) == (
            len(rows), sum(not flags & 1 for _, flags, _ in rows), sum(bool(flags & 8) for _, flags, _ in rows), sum(sizes),
            expected.no_select, expected.special_use)
        assert sorted(vanished) == sorted(uid for modseq, uid in account.vanished.get(box_id, []) if modseq > account.modseq // 2)


class RemoteMailMachine(MailMachine):
    """Through a storage process."""

    async def open(self) -> Store:
        self.processes.enter_context(storage_process(self.directory / "data", self.directory / "s"))
        return await self.stores.enter_async_context(remote_store(self.directory / "data", self.directory / "s"))


TestLocal = MailMachine.TestCase
TestLocal.settings = settings(max_examples=25, stateful_step_count=40)
TestRemote = RemoteMailMachine.TestCase
TestRemote.settings = settings(max_examples=5, stateful_step_count=20)
