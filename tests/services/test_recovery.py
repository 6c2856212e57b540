"""Expunged mail as an administrator sees it, and what brings it back."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fumibako.model.account import Account, Hold, PasswordRecord
from fumibako.model.ids import Uid
from fumibako.model.ops import Append, Appended, Expunge, RemoveAccount
from fumibako.services import recovery
from fumibako.services.admin import Admin, AdminError
from fumibako.store.base import Store
from tests.contract.building import NOW_MS, PASSWORD, add_account, body, local_store, trace

SUBJECT = "Subject: =?utf-8?B?6KaL56mN?= %d\r\nFrom: Bob <bob@example.jp>\r\n\r\nHello.\r\n"
SIZE = len(SUBJECT % 1)


async def _no_password(text: str) -> PasswordRecord:
    return PASSWORD


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with local_store(tmp_path / "data") as found:
        yield found


async def expunged(store: Store, quota: int = 0, cache: bytes = b"") -> tuple[Admin, Account]:
    """alice with four messages, of which 1, 2 and 4 are expunged."""
    alice = await add_account(store, quota=quota)
    messages = tuple(Appended(body((SUBJECT % number).encode()), cache, (), NOW_MS - number) for number in range(1, 5))
    await store.commit(Append(alice.id, 1, trace(1), messages))
    await store.commit(Expunge(alice.id, 1, (Uid(1), Uid(2), Uid(4)), only_deleted=False))
    return Admin(store, _no_password), alice


async def test_a_person_knows_the_messages_again(store: Store) -> None:
    admin, _ = await expunged(store)
    found = await admin.recoverable("Alice@example.jp")
    assert [(one.subject, one.sender, one.size_octets, one.internal_date) for one in found] == [
        (f"見積 {number}", "Bob <bob@example.jp>", SIZE, NOW_MS - number) for number in (1, 2, 4)]
    assert {one.expunged_ms for one in found} == {NOW_MS}
    assert await admin.recoverable("alice@example.jp", NOW_MS + 1) == []
    detail = await admin.account("alice@example.jp")
    assert (detail.recoverable_messages, detail.recoverable_octets, detail.quota.messages) == (3, 3 * SIZE, 1)


async def test_they_come_back_in_pieces(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "BATCH_UIDS", 2)
    admin, alice = await expunged(store)
    assert await admin.recover("alice@example.jp", "Recovered", NOW_MS + 1) == 0
    assert await admin.recover("alice@example.jp", "Recovered") == 3
    box = next(box for box in await store.mailboxes(alice.id) if box.name == "Recovered")
    assert box.total == 3 and await admin.recoverable("alice@example.jp") == []
    assert await admin.recover("alice@example.jp", "Recovered") == 0


@pytest.mark.parametrize("room", [0, 1])
async def test_all_of_it_fits_or_none_comes_back(store: Store, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    monkeypatch.setattr(recovery, "BATCH_UIDS", 2)
    admin, alice = await expunged(store, quota=4 * SIZE - 1 + room)
    if room:
        assert await admin.recover("alice@example.jp", "Recovered") == 3
        return
    with pytest.raises(AdminError, match="that does not fit the quota"):
        await admin.recover("alice@example.jp", "Recovered")
    assert len(await admin.recoverable("alice@example.jp")) == 3
    assert "Recovered" not in [box.name for box in await store.mailboxes(alice.id)]


async def test_a_wrong_name_is_named(store: Store) -> None:
    admin, _ = await expunged(store)
    with pytest.raises(AdminError, match="a//b is not a valid name"):
        await admin.recover("alice@example.jp", "a//b")
    with pytest.raises(AdminError, match="there is no such account"):
        await admin.recover("bob@example.jp", "Recovered")


async def test_holds(store: Store) -> None:
    admin, alice = await expunged(store)
    await admin.hold("Alice@Example.jp", "case 7")
    await admin.hold("alice@example.jp")
    assert [hold.reason for hold in (await admin.account("alice@example.jp")).holds] == ["", "case 7"]
    await store.commit(RemoveAccount("alice@example.jp"))
    assert await admin.holds() == [Hold(alice.id, "alice@example.jp", reason, NOW_MS) for reason in ("", "case 7")]
    assert await admin.release("alice@example.jp", "case 7") == 1
    assert await admin.release("alice@example.jp") == 1
    with pytest.raises(AdminError, match="has no such hold"):
        await admin.release("alice@example.jp")
