"""What a delivery causes for others: as durable as the mail, in the queue exactly once."""

import pytest

from fumibako.model.change import Rang
from fumibako.model.envelope import Envelope, Recipient
from fumibako.model.ids import AccountId
from fumibako.model.ops import (
    Counted,
    Deliver,
    Delivered,
    DrainOutbox,
    Expunge,
    Lease,
    Leased,
    LocalRecipient,
    Outgoing,
    RecipientOutcome,
    Refusal,
    Settle,
    WatchQueue,
)
from fumibako.model.queue import LIFETIME_MS, Outcome, OutcomeKind
from fumibako.store.base import INLINE_OCTETS, Store, StoreRefused, expect
from tests.contract.building import MESSAGE, NOW_MS, add_account, body, trace


def outgoing(number: int, *paths: str) -> Outgoing:
    recipients = tuple(Recipient(path, 4, f"rfc822;{path}") for path in paths or ("x@a.example",))
    return Outgoing(trace(number), Envelope("from@b.example", recipients, "8BITMIME", True, "HDRS", "id"), b"R: 1\r\n")


def delivery(number: int, *accounts: AccountId, quota: int = 0, causes: tuple[Outgoing, ...] = ()) -> Deliver:
    recipients = tuple(LocalRecipient(one, f"{one}@x", b"P: 1\r\n", quota_limit_octets=quota) for one in accounts)
    return Deliver(trace(number), body(), b"cache", recipients, NOW_MS, outgoing=causes)


async def drained(store: Store, limit: int = 100) -> int:
    return expect(await store.commit(DrainOutbox(limit)), Counted).count


async def test_it_comes_into_the_queue_as_it_was_told(store: Store) -> None:
    alice = await add_account(store)
    await store.commit(delivery(1, alice.id, causes=(outgoing(1, "x@a.example", "y@a.example"),)))
    assert await store.queue_items() == []
    assert (await drained(store), await drained(store)) == (1, 0)
    item, = await store.queue_items()
    assert (item.trace_id, item.prefix, item.size_octets) == (trace(1), b"R: 1\r\n", 6 + len(MESSAGE))
    assert item.envelope == Envelope("from@b.example", (), "8BITMIME", True, "HDRS", "id")
    assert (item.created_ms, item.expires_ms) == (NOW_MS, NOW_MS + LIFETIME_MS)
    assert [(one.forward_path, one.notify, one.original_recipient) for one in item.recipients] == [
        ("x@a.example", 4, "rfc822;x@a.example"), ("y@a.example", 4, "rfc822;y@a.example")]
    assert await store.read_queued(item.id, 0, 99) == b"R: 1\r\n" + MESSAGE
    assert await store.read(alice.id, 1, 0, 99) == b"P: 1\r\n" + MESSAGE


async def test_a_delivery_that_is_told_again_causes_nothing_again(store: Store) -> None:
    alice = await add_account(store)
    for _ in range(2):
        await store.commit(delivery(1, alice.id, causes=(outgoing(1),)))
    assert await drained(store) == 1
    item, = expect(await store.commit(Lease(NOW_MS, 1_000, 10)), Leased).items
    one = item.recipients[0]
    await store.commit(Settle(item.id, (RecipientOutcome(one.id, one.attempts, Outcome(OutcomeKind.RELAYED, "2.0.0", "")),)))
    again = expect(await store.commit(delivery(1, alice.id, causes=(outgoing(1),))), Delivered)
    assert again.placed[0].duplicate
    assert await drained(store) == 0 and await store.queue_items() == []


async def test_a_refused_delivery_causes_nothing(store: Store) -> None:
    alice, bob = await add_account(store), await add_account(store, "bob@example.jp")
    with pytest.raises(StoreRefused) as refused:
        await store.commit(delivery(1, alice.id, bob.id, quota=5, causes=(outgoing(1),)))
    assert refused.value.refusal is Refusal.OVER_QUOTA
    assert await drained(store) == 0
    await store.commit(delivery(1, alice.id, causes=(outgoing(1),)))        # the same key, without Bob
    assert await drained(store) == 1


async def test_several_causes_of_one_delivery_and_a_limit(store: Store) -> None:
    alice = await add_account(store)
    await store.commit(delivery(1, alice.id, causes=tuple(outgoing(number) for number in range(10, 15))))
    assert [await drained(store, 2) for _ in range(4)] == [2, 2, 1, 0]
    assert [item.trace_id for item in await store.queue_items()] == [trace(number) for number in range(10, 15)]


async def test_the_mail_may_be_gone_before_its_cause_is_moved(store: Store) -> None:
    alice = await add_account(store)
    await store.commit(delivery(1, alice.id, causes=(outgoing(1),)))
    await store.commit(Expunge(alice.id, 1, (1,), only_deleted=False))
    assert await drained(store) == 1
    item, = await store.queue_items()
    assert await store.read_queued(item.id, 0, 99) == b"R: 1\r\n" + MESSAGE


async def test_a_large_body_is_moved(store: Store) -> None:
    alice = await add_account(store)
    octets = b"0123456789" * (INLINE_OCTETS // 10 + 1)
    writer = store.body_writer()
    writer.write(octets)
    recipient = LocalRecipient(alice.id, "a@x", b"P")
    await store.commit(Deliver(trace(1), await writer.finish(trace(1)), b"", (recipient,), NOW_MS, outgoing=(outgoing(1),)))
    assert await drained(store) == 1
    item, = await store.queue_items()
    assert await store.read_queued(item.id, 6, len(octets) + 6) == octets
    one = item.recipients[0]
    await store.commit(Settle(item.id, (RecipientOutcome(one.id, one.attempts, Outcome(OutcomeKind.RELAYED, "2.0.0", "")),)))
    assert await store.read(alice.id, 1, 0, len(octets) + 1) == b"P" + octets


async def test_the_doorbell_rings_with_the_delivery(store: Store) -> None:
    told: list[object] = []
    alice = await add_account(store)
    store.listen(told.append)
    await store.commit(WatchQueue())
    await store.commit(delivery(1, alice.id))
    assert told == []
    await store.commit(delivery(2, alice.id, causes=(outgoing(2),)))
    assert told == [Rang()]
