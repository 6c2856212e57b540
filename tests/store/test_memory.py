"""What all workers share and nobody needs after a restart."""

import pytest

from fumibako.model.ops import (
    Charge,
    Charged,
    ClaimRecent,
    Enter,
    Freeze,
    Leave,
    LockMaildrop,
    Pin,
    Recent,
    Thaw,
    Thawed,
    UnlockMaildrop,
    Unpin,
    Watch,
)
from fumibako.store import memory as module
from fumibako.store.base import StoreRefused
from fumibako.store.memory import Memory


@pytest.fixture
def memory() -> Memory:
    return Memory(lambda account_id, mailbox_id: 10)


def test_a_holder_that_goes_takes_only_its_own_along(memory: Memory) -> None:
    for holder in (1, 1, 2):
        memory.execute(Enter("k", 3), holder)
    memory.execute(LockMaildrop(7), 1)
    memory.execute(LockMaildrop(8), 2)
    memory.execute(Watch(7), 1)
    memory.execute(Watch(7), 2)
    memory.release(1)
    assert memory.watchers(7) == {2}
    memory.execute(Enter("k", 2), 3)
    with pytest.raises(StoreRefused):
        memory.execute(Enter("k", 2), 3)
    memory.execute(LockMaildrop(7), 3)
    with pytest.raises(StoreRefused):
        memory.execute(LockMaildrop(8), 3)
    memory.release(1)
    memory.release(99)


def test_nobody_gives_back_what_another_holds(memory: Memory) -> None:
    memory.execute(Enter("k", 1), 1)
    memory.execute(Leave("k"), 2)
    with pytest.raises(StoreRefused):
        memory.execute(Enter("k", 1), 2)
    memory.execute(LockMaildrop(7), 1)
    memory.execute(UnlockMaildrop(7), 2)
    with pytest.raises(StoreRefused):
        memory.execute(LockMaildrop(7), 2)


def test_a_limit_of_nothing_lets_nobody_in(memory: Memory) -> None:
    with pytest.raises(StoreRefused):
        memory.execute(Enter("k", 0), 1)
    assert not memory._inside


def test_a_clock_set_back_refills_nothing(memory: Memory) -> None:
    assert memory.execute(Charge("k", 1, 60, 1, 10_000), 1) == Charged(True, 0)
    back = memory.execute(Charge("k", 1, 60, 1, 0), 1)
    assert isinstance(back, Charged) and not back.allowed
    assert memory.execute(Charge("k", 1, 60, 1, 1_000), 1) == Charged(True, 0)


def test_a_bucket_never_refilled(memory: Memory) -> None:
    memory.execute(Charge("k", 1, 0, 1, 0), 1)
    assert memory.execute(Charge("k", 1, 0, 1, 10**9), 1) == Charged(False, 60_000)


def test_memory_is_bounded(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BUCKETS", 10)
    monkeypatch.setattr(module, "MAX_RECENT", 10)
    for number in range(100):
        memory.execute(Charge(str(number), 1, 60, 1, 0), 1)
        memory.execute(ClaimRecent(1, number), 1)
    assert len(memory._buckets) == len(memory._recent) == 10
    assert memory.execute(Charge("99", 1, 60, 1, 0), 1) != Charged(True, 0)
    assert memory.execute(ClaimRecent(1, 99), 1) == Recent(10)


def test_what_is_over_is_forgotten(memory: Memory) -> None:
    memory.execute(Enter("k", 1), 1)
    memory.execute(Leave("k"), 1)
    memory.execute(Watch(1), 1)
    memory.execute(Watch(1, on=False), 1)
    memory.execute(Watch(2, on=False), 1)
    assert not memory._inside and not memory._watchers and not memory._held[1]


def test_a_pin_holds_until_its_holder_lets_go_or_goes(memory: Memory) -> None:
    memory.execute(Unpin(), 1)
    for holder in (1, 1, 2):
        memory.execute(Pin(), holder)
    memory.execute(Unpin(), 1)
    memory.release(2)
    assert memory.pinned
    memory.execute(Unpin(), 1)
    assert not memory.pinned


def test_one_freezes_at_a_time(memory: Memory) -> None:
    memory.execute(Freeze(), 1)
    with pytest.raises(StoreRefused):
        memory.execute(Freeze(), 2)
    assert memory.execute(Thaw(), 2) == Thawed(False) and memory.freezer == 1
    memory.release(1)
    assert memory.freezer is None and memory.execute(Thaw(), 1) == Thawed(False)
