"""What the store does with messages."""

import asyncio

import pytest

from fumibako.model.change import Arrived, Change, FlagsChanged, Revoked, Vanished
from fumibako.model.ids import EmailId
from fumibako.model.mailbox import Flag, Quota
from fumibako.model.ops import (
    Append,
    Appended,
    Copied,
    Copy,
    CreateMailbox,
    Deliver,
    Delivered,
    Expunge,
    Expunged,
    FlagMode,
    FlagsSet,
    LocalRecipient,
    MailboxMade,
    Move,
    OpenAccount,
    Refusal,
    SetFlags,
    Threading,
    Watch,
)
from fumibako.store.base import INLINE_OCTETS, Store, StoreRefused, expect
from tests.contract.building import MESSAGE, NOW_MS, add_account, append, body, deliver, mailbox_ids, trace

PREFIX = b"X: 1\r\n"


async def test_delivered_mail_can_be_read(store: Store) -> None:
    alice = await add_account(store)
    placed, = await deliver(store, 1, alice.id)
    inbox = (await store.mailboxes(alice.id))[0]
    assert (inbox.name, inbox.total, inbox.unseen, inbox.uid_next) == ("INBOX", 1, 1, 2)
    assert placed.uid == 1 and placed.uid_validity == inbox.uid_validity and not placed.duplicate
    entry, = await store.entries(alice.id, inbox.id, [1])
    assert (entry.size_octets, entry.prefix_octets, entry.internal_date, entry.saved_at) == (
        len(PREFIX + MESSAGE), len(PREFIX), NOW_MS, NOW_MS)
    whole = PREFIX + MESSAGE
    for start, end in ((0, 10_000), (0, 3), (3, 9), (len(PREFIX), len(whole)), (len(whole), len(whole) + 5)):
        assert await store.read(alice.id, entry.email_id, start, end) == whole[start:end]
    assert await store.caches(alice.id, [entry.email_id]) == {entry.email_id: b"cache"}
    assert await store.quota(alice.id) == Quota(len(whole), 0, 1)


async def test_one_body_for_all_recipients_and_each_its_own_prefix(store: Store) -> None:
    alice, bob = await add_account(store), await add_account(store, "bob@example.jp")
    recipients = (LocalRecipient(alice.id, "a@x", b"A: 1\r\n"), LocalRecipient(bob.id, "b@x", b"", "Junk", ("$Junk", "\\Seen")))
    result = await store.commit(Deliver(trace(1), body(), b"", recipients, NOW_MS))
    to_alice, to_bob = expect(result, Delivered).placed
    assert await store.read(alice.id, to_alice.email_id, 0, 99) == b"A: 1\r\n" + MESSAGE
    assert await store.read(bob.id, to_bob.email_id, 0, 99) == MESSAGE
    boxes = await mailbox_ids(store, bob.id)
    view = await store.view(bob.id, boxes["Junk"])
    assert view is not None
    assert view.flags[0] == Flag.SEEN | 1 << 5
    assert await store.keywords(bob.id) == {5: "$Junk"}


async def test_a_repeated_delivery_places_nothing(store: Store) -> None:
    alice = await add_account(store)
    first, = await deliver(store, 1, alice.id)
    again, = await deliver(store, 1, alice.id)
    assert again.duplicate
    assert (again.uid, again.email_id, again.mailbox_id) == (first.uid, first.email_id, first.mailbox_id)
    assert (await store.mailboxes(alice.id))[0].total == 1


async def test_two_recipients_with_one_account_make_one_change(store: Store) -> None:
    alice = await add_account(store)
    recipients = (LocalRecipient(alice.id, "a@x", b""), LocalRecipient(alice.id, "b@x", b""))
    await store.commit(Deliver(trace(1), body(), b"", recipients, NOW_MS))
    change, = await store.changes(alice.id, 0) or []
    assert [one.uid for one in change.arrived] == [1, 2]


async def test_delivery_to_a_mailbox_that_is_gone_goes_to_inbox(store: Store) -> None:
    alice = await add_account(store)
    placed, = await deliver(store, 1, alice.id, mailbox="No such mailbox")
    assert placed.mailbox_id == (await mailbox_ids(store, alice.id))["INBOX"]


async def test_delivery_is_all_or_nothing(store: Store) -> None:
    alice, bob = await add_account(store), await add_account(store, "bob@example.jp")
    recipients = (LocalRecipient(alice.id, "a@x", b""), LocalRecipient(bob.id, "b@x", b"", quota_limit_octets=5))
    with pytest.raises(StoreRefused) as refused:
        await store.commit(Deliver(trace(1), body(), b"", recipients, NOW_MS))
    assert refused.value.refusal is Refusal.OVER_QUOTA
    assert await store.mailboxes(alice.id) == []
    assert await store.quota(alice.id) == Quota(0, 0, 0)


async def test_unknown_accounts_are_refused(store: Store) -> None:
    await add_account(store)
    for operation in (OpenAccount(99), Deliver(trace(1), body(), b"", (LocalRecipient(99, "x@y", b""),), 0)):
        with pytest.raises(StoreRefused) as refused:
            await store.commit(operation)
        assert refused.value.refusal is Refusal.NO_SUCH_ACCOUNT


async def test_a_large_body_is_spooled_and_read_back(store: Store) -> None:
    alice = await add_account(store)
    octets = bytes(range(256)) * (INLINE_OCTETS // 256 + 10)
    writer = store.body_writer()
    for start in range(0, len(octets), 60_000):
        writer.write(octets[start:start + 60_000])
    spooled = await writer.finish(trace(1))
    assert spooled.spool and not spooled.octets and spooled.size_octets == writer.size_octets == len(octets)
    result = await store.commit(Deliver(trace(1), spooled, b"", (LocalRecipient(alice.id, "a@x", b"P"),), NOW_MS))
    placed, = expect(result, Delivered).placed
    assert await store.read(alice.id, placed.email_id, 0, len(octets) + 1) == b"P" + octets
    assert await store.read(alice.id, placed.email_id, 1000, 1010) == octets[999:1009]
    writer.abandon()
    assert await store.read(alice.id, placed.email_id, 0, 5) == b"P" + octets[:4]


async def test_a_refused_spooled_body_can_be_used_again(store: Store) -> None:
    alice = await add_account(store)
    writer = store.body_writer()
    writer.write(b"x" * (INLINE_OCTETS + 1))
    spooled = await writer.finish(trace(1))
    recipient = LocalRecipient(alice.id, "a@x", b"", quota_limit_octets=10)
    with pytest.raises(StoreRefused):
        await store.commit(Deliver(trace(1), spooled, b"", (recipient,), NOW_MS))
    await store.commit(Deliver(trace(1), spooled, b"", (LocalRecipient(alice.id, "a@x", b""),), NOW_MS))
    assert (await store.quota(alice.id)).used_octets == INLINE_OCTETS + 1


async def test_append_several_is_all_or_nothing(store: Store) -> None:
    alice = await add_account(store)
    await store.commit(OpenAccount(alice.id))
    drafts = (await mailbox_ids(store, alice.id))["Drafts"]
    messages = tuple(Appended(body(b"%d" % place), b"", ("\\Draft",), place) for place in range(3))
    placed = expect(await store.commit(Append(alice.id, drafts, trace(1), messages)), Delivered).placed
    assert [one.uid for one in placed] == [1, 2, 3]
    entries = await store.entries(alice.id, drafts, [3, 1, 2, 9])
    assert [entry.internal_date for entry in entries] == [0, 1, 2]
    assert len({entry.guid for entry in entries}) == 3
    with pytest.raises(StoreRefused) as refused:
        await store.commit(Append(alice.id, drafts, trace(2), messages, 4))
    assert refused.value.refusal is Refusal.OVER_QUOTA
    assert (await store.mailboxes(alice.id))[2].total == 3


async def test_flags(store: Store) -> None:
    alice = await add_account(store)
    for number in range(3):
        await deliver(store, number, alice.id)
    inbox = (await mailbox_ids(store, alice.id))["INBOX"]
    result = expect(await store.commit(SetFlags(alice.id, inbox, (1, 3, 77), FlagMode.ADD, ("\\Seen", "$Work"))), FlagsSet)
    assert result.changed == ((1, 33), (3, 33)) and result.modified == ()
    same = expect(await store.commit(SetFlags(alice.id, inbox, (1,), FlagMode.ADD, ("\\SEEN", "$WORK"))), FlagsSet)
    assert same.changed == () and same.modseq == result.modseq
    taken = expect(await store.commit(SetFlags(alice.id, inbox, (1,), FlagMode.REMOVE, ("\\Seen", "$Unknown"))), FlagsSet)
    assert taken.changed == ((1, 32),)
    await store.commit(SetFlags(alice.id, inbox, (1, 2, 3), FlagMode.REPLACE, ("\\Deleted",)))
    box = (await store.mailboxes(alice.id))[0]
    assert (box.unseen, box.deleted, box.highest_modseq) == (3, 3, await store.modseq(alice.id))
    assert await store.keywords(alice.id) == {5: "$Work"}


async def test_unchanged_since(store: Store) -> None:
    """RFC 7162 §3.1.3."""
    alice = await add_account(store)
    await deliver(store, 1, alice.id)
    await deliver(store, 2, alice.id)
    inbox = (await mailbox_ids(store, alice.id))["INBOX"]
    first = expect(await store.commit(SetFlags(alice.id, inbox, (1,), FlagMode.ADD, ("\\Seen",))), FlagsSet)
    operation = SetFlags(alice.id, inbox, (1, 2), FlagMode.ADD, ("\\Flagged",), unchanged_since=first.modseq - 1)
    result = expect(await store.commit(operation), FlagsSet)
    assert result.changed == ((2, 4),) and result.modified == (1,)


async def test_the_fifty_ninth_keyword_is_refused_but_not_a_delivery_with_it(store: Store) -> None:
    alice = await add_account(store)
    await deliver(store, 1, alice.id)
    inbox = (await mailbox_ids(store, alice.id))["INBOX"]
    names = tuple(f"k{number}" for number in range(58))
    result = expect(await store.commit(SetFlags(alice.id, inbox, (1,), FlagMode.REPLACE, names)), FlagsSet)
    assert result.changed[0][1] == (1 << 63) - 32
    with pytest.raises(StoreRefused) as refused:
        await store.commit(SetFlags(alice.id, inbox, (1,), FlagMode.ADD, ("one-more",)))
    assert refused.value.refusal is Refusal.LIMIT
    await deliver(store, 2, alice.id, flags=("another", "k57"))
    view = await store.view(alice.id, inbox)
    assert view is not None and list(view.flags) == [(1 << 63) - 32, 1 << 62]
    assert len(await store.keywords(alice.id)) == 58


async def test_system_flags_that_cannot_be_set(store: Store) -> None:
    alice = await add_account(store)
    await deliver(store, 1, alice.id)
    with pytest.raises(StoreRefused) as refused:
        await store.commit(SetFlags(alice.id, 1, (1,), FlagMode.ADD, ("\\Recent",)))
    assert refused.value.refusal is Refusal.NOT_ALLOWED


async def test_copy_keeps_identity_and_is_charged(store: Store) -> None:
    alice = await add_account(store)
    await deliver(store, 1, alice.id)
    await deliver(store, 2, alice.id)
    boxes = await mailbox_ids(store, alice.id)
    await store.commit(SetFlags(alice.id, boxes["INBOX"], (2,), FlagMode.ADD, ("\\Seen",)))
    copied = expect(await store.commit(Copy(alice.id, boxes["INBOX"], (1, 2, 5), boxes["Archive"])), Copied)
    assert copied.source_uids == (1, 2) and copied.target_uids == (1, 2)
    originals = await store.entries(alice.id, boxes["INBOX"], [1, 2])
    copies = await store.entries(alice.id, boxes["Archive"], [1, 2])
    assert [one.guid for one in originals] == [one.guid for one in copies]
    assert [one.email_id for one in originals] == [one.email_id for one in copies]
    used = (await store.quota(alice.id)).used_octets
    assert used == 4 * len(PREFIX + MESSAGE)
    with pytest.raises(StoreRefused) as refused:
        await store.commit(Copy(alice.id, boxes["INBOX"], (1,), boxes["Archive"], used))
    assert refused.value.refusal is Refusal.OVER_QUOTA
    archive = next(box for box in await store.mailboxes(alice.id) if box.name == "Archive")
    assert (archive.total, archive.unseen) == (2, 1)


async def test_move_takes_along_and_leaves_a_trace(store: Store) -> None:
    alice = await add_account(store)
    for number in range(3):
        await deliver(store, number, alice.id)
    boxes = await mailbox_ids(store, alice.id)
    before = await store.modseq(alice.id)
    moved = expect(await store.commit(Move(alice.id, boxes["INBOX"], (1, 3), boxes["Trash"])), Copied)
    assert (moved.source_uids, moved.target_uids) == ((1, 3), (1, 2))
    inbox, trash = await store.view(alice.id, boxes["INBOX"]), await store.view(alice.id, boxes["Trash"])
    assert inbox is not None and trash is not None
    assert (list(inbox.uids), list(trash.uids)) == ([2], [1, 2])
    assert list(await store.vanished(alice.id, boxes["INBOX"], before) or []) == [1, 3]
    assert list(await store.vanished(alice.id, boxes["INBOX"], moved.modseq) or []) == []
    assert (await store.quota(alice.id)).messages == 3


async def test_copy_and_move_inside_one_mailbox(store: Store) -> None:
    alice = await add_account(store)
    await deliver(store, 1, alice.id)
    await store.commit(Copy(alice.id, 1, (1,), 1))
    await store.commit(Move(alice.id, 1, (1,), 1))
    view = await store.view(alice.id, 1)
    assert view is not None and list(view.uids) == [2, 3]
    box = (await store.mailboxes(alice.id))[0]
    assert (box.total, box.uid_next) == (2, 4)


async def test_expunge(store: Store) -> None:
    alice = await add_account(store)
    for number in range(3):
        await deliver(store, number, alice.id)
    await store.commit(SetFlags(alice.id, 1, (1, 2), FlagMode.ADD, ("\\Deleted",)))
    before = await store.modseq(alice.id)
    gone = expect(await store.commit(Expunge(alice.id, 1, (2, 3))), Expunged)
    assert gone.uids == (2,) and gone.modseq == before + 1
    nothing = expect(await store.commit(Expunge(alice.id, 1, (2, 3))), Expunged)
    assert nothing.uids == () and nothing.modseq == gone.modseq
    assert expect(await store.commit(Expunge(alice.id, 1, (3,), only_deleted=False)), Expunged).uids == (3,)
    assert await store.quota(alice.id) == Quota(len(PREFIX + MESSAGE), 0, 1)
    assert list(await store.vanished(alice.id, 1, 0) or []) == [2, 3]
    placed, = await deliver(store, 9, alice.id)
    assert placed.uid == 4


async def test_operations_on_mailboxes_that_are_not_there(store: Store) -> None:
    alice = await add_account(store)
    await deliver(store, 1, alice.id)
    for operation in (SetFlags(alice.id, 99, (1,), FlagMode.ADD, ()), Copy(alice.id, 1, (1,), 99), Move(alice.id, 99, (1,), 1),
                      Expunge(alice.id, 99, (1,)), Append(alice.id, 99, trace(5), (Appended(body(), b"", (), 0),))):
        with pytest.raises(StoreRefused) as refused:
            await store.commit(operation)
        assert refused.value.refusal is Refusal.NO_SUCH_MAILBOX
    assert await store.view(alice.id, 99) is None


async def test_changes_reach_listeners_before_the_answer(store: Store) -> None:
    alice, bob = await add_account(store), await add_account(store, "bob@example.jp")
    told: list[Change | Revoked] = []
    stop = store.listen(told.append)
    await store.commit(Watch(alice.id))
    await deliver(store, 1, alice.id, bob.id)
    assert [change.arrived for change in told if isinstance(change, Change)] == [(Arrived(1, 1, 1, 0),)]
    await store.commit(SetFlags(alice.id, 1, (1,), FlagMode.ADD, ("\\Deleted", "$x")))
    assert told[1] == Change(alice.id, 2, NOW_MS, flags=(FlagsChanged(1, (1,), (40,)),), keywords=((5, "$x"),))
    await store.commit(Expunge(alice.id, 1, (1,)))
    assert told[2] == Change(alice.id, 3, NOW_MS, vanished=(Vanished(1, (1,)),))
    assert told == await store.changes(alice.id, 0)
    assert await store.changes(alice.id, 2) == told[2:]
    stop()
    await store.commit(CreateMailbox(alice.id, "quiet"))
    await store.commit(Watch(alice.id, on=False))
    assert len(told) == 3


async def test_many_at_once_keep_uid_and_modseq_order(store: Store) -> None:
    """spec/storage.md §1: no message ever becomes visible below a UID that was seen."""
    alice = await add_account(store)
    told: list[Change | Revoked] = []
    store.listen(told.append)
    await store.commit(Watch(alice.id))
    await asyncio.gather(*(deliver(store, number, alice.id) for number in range(300)))
    uids = [one.uid for change in told if isinstance(change, Change) for one in change.arrived]
    assert uids == list(range(1, 301))
    assert [change.modseq for change in told if isinstance(change, Change)] == list(range(1, 301))


async def test_threads(store: Store) -> None:
    alice = await add_account(store)

    async def arrive(number: int, message_id: int, references: tuple[int, ...] = (), subject: int = 7) -> int:
        threading = Threading(message_id, references, subject)
        recipients = (LocalRecipient(alice.id, "a@x", b""),)
        result = await store.commit(Deliver(trace(number), body(), b"", recipients, 0, threading))
        placed, = expect(result, Delivered).placed
        return (await store.entries(alice.id, 1, [placed.uid]))[0].thread_id

    root = await arrive(1, 101)
    assert await arrive(2, 102, (101,)) == root
    assert await arrive(3, 103, (102, 101)) == root
    assert await arrive(4, 104, (101,), subject=8) != root
    assert await arrive(5, 0) != await arrive(6, 0)
    early = await arrive(7, 202, (201,))
    assert await arrive(8, 201) == early
    assert await arrive(9, 101) == root


async def test_put_cache(store: Store) -> None:
    alice = await add_account(store)
    placed = await append(store, alice.id, (await _opened(store, alice.id)), 1)
    await store.put_cache(alice.id, placed.email_id, b"new")
    await store.put_cache(alice.id, 99, b"of nothing")
    assert await store.caches(alice.id, [placed.email_id, 99]) == {placed.email_id: b"new"}


async def _opened(store: Store, account_id: int) -> int:
    await store.commit(OpenAccount(account_id))
    return expect(await store.commit(CreateMailbox(account_id, "Box")), MailboxMade).mailbox_id


async def test_reading_what_is_not_there(store: Store) -> None:
    alice = await add_account(store)
    assert await store.mailboxes(alice.id) == [] and await store.quota(alice.id) == Quota(0, 0, 0)
    assert await store.changes(alice.id, 0) == [] and await store.modseq(alice.id) == 0
    with pytest.raises(OSError, match="gone"):
        await store.read(alice.id, 1, 0, 10)


async def test_pieces_of_many_messages_at_once(store: Store) -> None:
    alice = await add_account(store)
    first, = await deliver(store, 1, alice.id)
    second, = await deliver(store, 2, alice.id, octets=b"Subject: two\r\n\r\n")
    whole = b"X: 1\r\n" + MESSAGE
    wanted = [(second.email_id, 6, 18), (first.email_id, 0, 999), (EmailId(77), 0, 5), (first.email_id, 3, 9),
              (second.email_id, 4, 4)]
    assert await store.read_many(alice.id, wanted) == [b"Subject: two", whole, None, whole[3:9], b""]
    assert await store.read_many(alice.id, []) == []


async def test_there_is_room_for_what_fits(store: Store) -> None:
    assert await store.has_room(1)
    assert not await store.has_room(1 << 60)
