"""Mailboxes: made, renamed, deleted, subscribed."""

import pytest

from fumibako.model.mailbox import DEFAULT_MAILBOXES
from fumibako.model.ops import (
    Copy,
    CreateMailbox,
    DeleteMailbox,
    MailboxMade,
    OpenAccount,
    Refusal,
    RenameMailbox,
    Subscribe,
    Watch,
)
from fumibako.store.base import Store, StoreRefused, expect
from tests.contract.building import add_account, deliver, mailbox_ids


async def opened(store: Store) -> int:
    account = await add_account(store)
    await store.commit(OpenAccount(account.id))
    return account.id


async def make(store: Store, account_id: int, name: str, special_use: str = "") -> MailboxMade:
    return expect(await store.commit(CreateMailbox(account_id, name, special_use)), MailboxMade)


async def refusal(store: Store, operation: object) -> Refusal:
    with pytest.raises(StoreRefused) as refused:
        await store.commit(operation)
    return refused.value.refusal


async def test_opening_makes_the_default_mailboxes_once(store: Store) -> None:
    account = await opened(store)
    await store.commit(OpenAccount(account))
    boxes = await store.mailboxes(account)
    assert {(box.name, box.special_use) for box in boxes} == set(DEFAULT_MAILBOXES)
    assert boxes[0].name == "INBOX"
    assert len({box.uid_validity for box in boxes}) == len(boxes)
    assert await store.subscriptions(account) == sorted(name for name, _ in DEFAULT_MAILBOXES)
    assert await store.modseq(account) == 1


@pytest.mark.parametrize("name", [
    "", "/", "a//b", "/a", "a/", "a\x00b", "a\nb", "a\x7fb", "a\u2028b", "x" * 1001, "あ" * 334, "/".join("x" * 33)])
async def test_names_that_cannot_be(store: Store, name: str) -> None:
    assert await refusal(store, CreateMailbox(await opened(store), name)) is Refusal.BAD_NAME


async def test_names_are_normalised(store: Store) -> None:
    account = await opened(store)
    await make(store, account, "か\u3099き")
    assert await refusal(store, CreateMailbox(account, "がき")) is Refusal.EXISTS
    assert await refusal(store, CreateMailbox(account, "inBox")) is Refusal.EXISTS
    await make(store, account, "inbox/x")
    assert {"がき", "INBOX/x"} <= set(await mailbox_ids(store, account))
    await make(store, account, "ſent")
    await make(store, account, "sent")      # only INBOX folds its case


async def test_superiors_are_made(store: Store) -> None:
    account = await opened(store)
    await make(store, account, "a/b/c")
    names = await mailbox_ids(store, account)
    assert {"a", "a/b", "a/b/c"} <= set(names)
    assert not any(box.no_select for box in await store.mailboxes(account))


async def test_special_use_is_unique(store: Store) -> None:
    account = await opened(store)
    assert await refusal(store, CreateMailbox(account, "Sent 2", "\\Sent")) is Refusal.NOT_ALLOWED
    assert await refusal(store, CreateMailbox(account, "All", "\\All")) is Refusal.NOT_ALLOWED
    await store.commit(DeleteMailbox(account, (await mailbox_ids(store, account))["Sent"]))
    await make(store, account, "Sent 2", "\\Sent")


async def test_a_deleted_mailbox_comes_back_as_another(store: Store) -> None:
    account = await opened(store)
    first = await make(store, account, "x")
    await deliver(store, 1, account, mailbox="x")
    await store.commit(DeleteMailbox(account, first.mailbox_id))
    assert (await store.quota(account)).used_octets == 0
    assert await store.view(account, first.mailbox_id) is None
    second = await make(store, account, "x")
    assert second.mailbox_id > first.mailbox_id and second.uid_validity > first.uid_validity
    assert await refusal(store, DeleteMailbox(account, first.mailbox_id)) is Refusal.NO_SUCH_MAILBOX


async def test_deleting_a_mailbox_with_children_leaves_a_name(store: Store) -> None:
    """RFC 9051 §6.3.5."""
    account = await opened(store)
    child = await make(store, account, "a/b")
    parent = (await mailbox_ids(store, account))["a"]
    await deliver(store, 1, account, mailbox="a")
    await store.commit(DeleteMailbox(account, parent))
    box = next(box for box in await store.mailboxes(account) if box.name == "a")
    assert box.no_select and box.total == 0
    assert await refusal(store, DeleteMailbox(account, parent)) is Refusal.NOT_ALLOWED
    assert await refusal(store, Copy(account, 1, (1,), parent)) is Refusal.NO_SUCH_MAILBOX
    assert (await deliver(store, 2, account, mailbox="a"))[0].mailbox_id == 1
    again = await make(store, account, "a")
    assert again.mailbox_id != parent
    await store.commit(DeleteMailbox(account, child.mailbox_id))
    assert "a" in await mailbox_ids(store, account)


async def test_inbox_stays(store: Store) -> None:
    account = await opened(store)
    assert await refusal(store, DeleteMailbox(account, 1)) is Refusal.NOT_ALLOWED


async def test_rename_takes_children_along(store: Store) -> None:
    account = await opened(store)
    for name in ("a/b/c", "ab", "a0", "a/b2"):
        await make(store, account, name)
    ids = await mailbox_ids(store, account)
    made = expect(await store.commit(RenameMailbox(account, ids["a"], "x/y")), MailboxMade)
    assert made.mailbox_id == ids["a"]
    after = await mailbox_ids(store, account)
    assert after["x/y/b/c"] == ids["a/b/c"] and after["x/y/b2"] == ids["a/b2"] and after["x/y"] == ids["a"]
    assert {"x", "ab", "a0"} <= set(after) and not any(name == "a" or name.startswith("a/") for name in after)
    assert await refusal(store, RenameMailbox(account, ids["a"], "x/y/z")) is Refusal.NOT_ALLOWED
    assert await refusal(store, RenameMailbox(account, ids["a"], "ab")) is Refusal.EXISTS
    assert await refusal(store, RenameMailbox(account, ids["a"], "x" * 999)) is Refusal.BAD_NAME
    assert await mailbox_ids(store, account) == after


async def test_renaming_inbox_moves_its_messages(store: Store) -> None:
    """RFC 9051 §6.3.6."""
    account = await opened(store)
    await make(store, account, "INBOX/child")
    for number in range(3):
        await deliver(store, number, account, flags=("\\Seen",) if number else ())
    before = await store.modseq(account)
    made = expect(await store.commit(RenameMailbox(account, 1, "old/mail")), MailboxMade)
    boxes = {box.name: box for box in await store.mailboxes(account)}
    assert (boxes["INBOX"].total, boxes["INBOX"].uid_next) == (0, 4)
    assert (boxes["old/mail"].total, boxes["old/mail"].unseen, boxes["old/mail"].id) == (3, 1, made.mailbox_id)
    assert {"old", "INBOX/child"} <= set(boxes)
    assert list(await store.vanished(account, 1, before) or []) == [1, 2, 3]
    assert (await store.quota(account)).messages == 3
    change = (await store.changes(account, before) or [])[0]
    assert [one.uid for one in change.arrived] == [1, 2, 3]


async def test_a_subscription_outlives_its_mailbox(store: Store) -> None:
    account = await opened(store)
    made = await make(store, account, "x")
    await store.commit(Subscribe(account, "x"))
    await store.commit(DeleteMailbox(account, made.mailbox_id))
    await store.commit(Subscribe(account, "never/there"))
    assert {"x", "never/there"} <= set(await store.subscriptions(account))
    await store.commit(Subscribe(account, "x", on=False))
    assert "x" not in await store.subscriptions(account)


async def test_mailbox_changes_are_told(store: Store) -> None:
    account = await opened(store)
    told = []
    store.listen(told.append)
    await store.commit(Watch(account))
    made = await make(store, account, "p/q")
    await store.commit(RenameMailbox(account, made.mailbox_id, "r"))
    await store.commit(Subscribe(account, "r"))
    await store.commit(Subscribe(account, "r"))
    await store.commit(DeleteMailbox(account, made.mailbox_id))
    assert [change.mailboxes for change in told] == [(made.mailbox_id - 1, made.mailbox_id), *[(made.mailbox_id,)] * 3]
