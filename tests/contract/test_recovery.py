"""What the store does with expunged messages, and with accounts under a hold."""

import pytest

from fumibako.model.account import Hold
from fumibako.model.change import Arrived
from fumibako.model.mailbox import Quota
from fumibako.model.ops import (
    AddHold,
    Counted,
    Expunge,
    FlagMode,
    Recover,
    Recovered,
    Refusal,
    RemoveAccount,
    RemoveHold,
    SetFlags,
    Watch,
)
from fumibako.store.base import Store, StoreRefused, expect
from tests.contract.building import MESSAGE, NOW_MS, add_account, deliver, mailbox_ids

FORTNIGHT_MS = 14 * 24 * 3_600_000
SIZE = len(b"X: 1\r\n" + MESSAGE)


async def expunge(store: Store, account_id: int, *uids: int) -> None:
    await store.commit(Expunge(account_id, 1, uids, only_deleted=False))


async def test_an_expunged_message_is_listed_and_comes_back_as_itself(store: Store) -> None:
    alice = await add_account(store)
    placed = [(await deliver(store, number, alice.id))[0] for number in (1, 2, 3)]
    await store.commit(SetFlags(alice.id, 1, (1,), FlagMode.ADD, ("\\Deleted", "\\Seen", "$Work")))
    before = {entry.email_id: entry for entry in await store.entries(alice.id, 1, [1, 2, 3])}
    assert await store.recoverable(alice.id) == []
    await expunge(store, alice.id, 1, 3)
    kept = await store.recoverable(alice.id)
    assert [(one.entry.email_id, one.entry.size_octets, one.expunged_ms, one.purge_after_ms) for one in kept] == [
        (placed[0].email_id, SIZE, NOW_MS, NOW_MS + FORTNIGHT_MS), (placed[2].email_id, SIZE, NOW_MS, NOW_MS + FORTNIGHT_MS)]
    assert await store.read(alice.id, placed[0].email_id, 0, 99) == b"X: 1\r\n" + MESSAGE
    assert await store.caches(alice.id, [placed[0].email_id]) == {placed[0].email_id: b"cache"}

    told: list[object] = []
    store.listen(told.append)
    await store.commit(Watch(alice.id))
    result = expect(await store.commit(Recover(alice.id, (placed[0].email_id, placed[1].email_id, 99), "復元/先週")), Recovered)
    box = next(one for one in await store.mailboxes(alice.id) if one.name == "復元/先週")
    assert (result.mailbox_id, result.uid_validity, result.email_ids, result.uids) == (
        box.id, box.uid_validity, (placed[0].email_id,), (1,))
    entry, = await store.entries(alice.id, box.id, [1])
    was = before[placed[0].email_id]
    assert (entry.email_id, entry.guid, entry.internal_date, entry.thread_id) == (was.email_id, was.guid, NOW_MS, was.thread_id)
    assert (box.total, box.unseen, box.deleted) == (1, 0, 0)        # its flags are back, but not that it is to be deleted
    view = await store.view(alice.id, box.id)
    assert view is not None and list(view.flags) == [1 | 1 << 5]
    assert await store.quota(alice.id) == Quota(2 * SIZE, 0, 2)
    change, = told
    assert change.arrived == (Arrived(box.id, 1, placed[0].email_id, 1 | 1 << 5),) and box.id in change.mailboxes     # type: ignore[attr-defined]
    assert "復元/先週" in await store.subscriptions(alice.id)
    assert [one.entry.email_id for one in await store.recoverable(alice.id)] == [placed[2].email_id]


async def test_recovering_all_uses_the_mailbox_that_is_there_and_twice_does_nothing(store: Store) -> None:
    alice = await add_account(store)
    await deliver(store, 1, alice.id)
    await deliver(store, 2, alice.id)
    await expunge(store, alice.id, 1, 2)
    boxes = await mailbox_ids(store, alice.id)
    first = expect(await store.commit(Recover(alice.id, (), "inbox")), Recovered)
    assert (first.mailbox_id, first.uids) == (1, (3, 4))        # UIDs are new
    again = expect(await store.commit(Recover(alice.id, (), "inbox")), Recovered)
    assert (again.uids, again.modseq) == ((), first.modseq)
    none = expect(await store.commit(Recover(alice.id, (), "nowhere")), Recovered)
    assert (none.mailbox_id, none.uids) == (0, ()) and await mailbox_ids(store, alice.id) == boxes


async def test_what_is_recovered_must_fit_the_quota(store: Store) -> None:
    alice = await add_account(store)
    await deliver(store, 1, alice.id)
    await deliver(store, 2, alice.id)
    await expunge(store, alice.id, 1)
    modseq = await store.modseq(alice.id)
    with pytest.raises(StoreRefused) as refused:
        await store.commit(Recover(alice.id, (), "Recovered", 2 * SIZE - 1))
    assert refused.value.refusal is Refusal.OVER_QUOTA
    assert await store.modseq(alice.id) == modseq and "Recovered" not in await mailbox_ids(store, alice.id)
    assert len(await store.recoverable(alice.id)) == 1
    assert expect(await store.commit(Recover(alice.id, (), "Recovered", 2 * SIZE)), Recovered).uids == (1,)


async def test_holds(store: Store) -> None:
    alice = await add_account(store, "Alice@example.jp")
    await store.commit(AddHold("alice@EXAMPLE.jp", "case 7"))
    await store.commit(AddHold("alice@example.jp", "case 7"))
    await store.commit(AddHold("alice@example.jp"))
    assert await store.holds() == [Hold(alice.id, "Alice@example.jp", reason, NOW_MS) for reason in ("", "case 7")]
    assert await store.commit(RemoveHold("alice@example.jp", "case 7")) == Counted(1)
    for missing in (RemoveHold("alice@example.jp", "case 7"), RemoveHold("bob@example.jp")):
        with pytest.raises(StoreRefused) as refused:
            await store.commit(missing)
        assert refused.value.refusal is Refusal.NO_SUCH_HOLD
    with pytest.raises(StoreRefused):
        await store.commit(AddHold("bob@example.jp"))
    assert await store.commit(RemoveHold("alice@example.jp")) == Counted(1) and await store.holds() == []


async def test_a_hold_outlives_its_account_and_the_next_one_of_that_address_has_none(store: Store) -> None:
    old = await add_account(store)
    await store.commit(AddHold("alice@example.jp", "case 7"))
    await store.commit(RemoveAccount("alice@example.jp"))
    new = await add_account(store)
    await store.commit(AddHold("alice@example.jp", "case 8"))
    assert [(hold.account_id, hold.reason) for hold in await store.holds()] == [(old.id, "case 7"), (new.id, "case 8")]
    assert await store.commit(RemoveHold("alice@example.jp")) == Counted(1)
    assert [hold.account_id for hold in await store.holds()] == [old.id]
    assert await store.commit(RemoveHold("alice@example.jp")) == Counted(1) and await store.holds() == []
