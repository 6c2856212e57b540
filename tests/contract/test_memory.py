"""What lives in the storage process's memory."""

import pytest

from fumibako.model.ops import (
    Charge,
    Charged,
    ClaimRecent,
    Done,
    Enter,
    Leave,
    LockMaildrop,
    Pin,
    Ping,
    Recent,
    Refusal,
    Thaw,
    Thawed,
    UnlockMaildrop,
    Unpin,
)
from fumibako.store.base import Store, StoreRefused, expect
from tests.contract.building import NOW_MS, add_account, deliver


async def refusal(store: Store, operation: object) -> Refusal:
    with pytest.raises(StoreRefused) as refused:
        await store.commit(operation)
    return refused.value.refusal


async def test_charge(store: Store) -> None:
    async def charge(cost: int, at_ms: int) -> Charged:
        return expect(await store.commit(Charge("ip:192.0.2.1", cost, 60, 3, NOW_MS + at_ms)), Charged)

    assert [(await charge(1, 0)).allowed for _ in range(4)] == [True, True, True, False]
    denied = await charge(2, 500)
    assert not denied.allowed and 1_499 <= denied.retry_after_ms <= 1_502
    assert (await charge(2, 500 + denied.retry_after_ms)).allowed


async def test_enter_and_leave(store: Store) -> None:
    await store.commit(Enter("k", 2))
    await store.commit(Enter("k", 2))
    assert await refusal(store, Enter("k", 2)) is Refusal.LIMIT
    await store.commit(Leave("k"))
    await store.commit(Enter("k", 2))
    await store.commit(Leave("other"))


async def test_maildrop_lock(store: Store) -> None:
    alice = await add_account(store)
    await store.commit(LockMaildrop(alice.id))
    assert await refusal(store, LockMaildrop(alice.id)) is Refusal.IN_USE
    await store.commit(UnlockMaildrop(alice.id))
    await store.commit(LockMaildrop(alice.id))


async def test_recent(store: Store) -> None:
    alice = await add_account(store)
    await deliver(store, 1, alice.id)

    async def claim(*, peek: bool = False) -> int:
        return expect(await store.commit(ClaimRecent(alice.id, 1, peek)), Recent).first_uid

    assert (await claim(peek=True), await claim(), await claim()) == (1, 1, 2)
    await deliver(store, 2, alice.id)
    assert (await claim(peek=True), await claim(), await claim(peek=True)) == (2, 2, 3)
    assert await refusal(store, ClaimRecent(alice.id, 77)) is Refusal.NO_SUCH_MAILBOX


async def test_ping(store: Store) -> None:
    assert await store.commit(Ping()) == Done()


async def test_pins_are_counted_and_taken_off(store: Store) -> None:
    for operation in (Pin(), Pin(), Unpin(), Unpin(), Unpin()):
        assert await store.commit(operation) == Done()


async def test_a_thaw_without_freeze_says_so(store: Store) -> None:
    assert await store.commit(Thaw()) == Thawed(False)
