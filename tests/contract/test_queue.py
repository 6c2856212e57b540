"""The queue: accept, lease, settle, and the administrator's hand."""

import pytest

from fumibako.model.change import Rang
from fumibako.model.envelope import Envelope, Recipient
from fumibako.model.ids import QueueId
from fumibako.model.ops import (
    ChangeQueue,
    Counted,
    Deliver,
    DrainOutbox,
    Enqueue,
    Lease,
    Leased,
    LocalRecipient,
    QueueAction,
    Queued,
    RecipientOutcome,
    ReclaimLeases,
    Settle,
    ShiftQueue,
    WatchQueue,
)
from fumibako.model.queue import DAY_MS, HOUR_MS, LIFETIME_MS, MAX_CRASHES, Outcome, OutcomeKind, QueueItem, RecipientState
from fumibako.store.base import INLINE_OCTETS, Store, expect
from tests.contract.building import MESSAGE, NOW_MS, add_account, body, trace

LEASE_MS = 60_000


def mail(number: int, *paths: str, at_ms: int = NOW_MS, held: bool = False) -> Enqueue:
    recipients = tuple(Recipient(path, 4, f"rfc822;{path}") for path in paths or ("x@a.example",))
    return Enqueue(trace(number), Envelope("from@example.jp", recipients, "8BITMIME", True, "HDRS", "id"), b"R: 1\r\n", body(),
                   at_ms, held)


async def put(store: Store, number: int, *paths: str, at_ms: int = NOW_MS) -> QueueId:
    return expect(await store.commit(mail(number, *paths, at_ms=at_ms)), Queued).queue_id


async def lease(store: Store, at_ms: int = NOW_MS, limit: int = 10, busy: tuple[str, ...] = ()) -> Leased:
    return expect(await store.commit(Lease(at_ms, LEASE_MS, limit, busy)), Leased)


def outcome(
    recipient_id: int, kind: OutcomeKind, due_ms: int = 0, *, warned: bool = False, attempts: int = 0
) -> RecipientOutcome:
    found = Outcome(kind, "4.0.0", "because", "451 later", "mx [192.0.2.1]")
    return RecipientOutcome(recipient_id, attempts, found, due_ms, warned)


async def test_an_item_comes_back_as_it_went_in(store: Store) -> None:
    queue_id = await put(store, 1, "a@A.example", "postmaster")
    item = await store.queue_item(queue_id)
    assert isinstance(item, QueueItem) and [item] == await store.queue_items()
    assert item.envelope == Envelope("from@example.jp", (), "8BITMIME", True, "HDRS", "id")
    assert (item.trace_id, item.prefix, item.size_octets) == (trace(1), b"R: 1\r\n", 6 + len(MESSAGE))
    assert (item.created_ms, item.expires_ms) == (NOW_MS, NOW_MS + LIFETIME_MS)
    assert [(one.forward_path, one.domain, one.state, one.notify) for one in item.recipients] == [
        ("a@A.example", "a.example", RecipientState.QUEUED, 4), ("postmaster", "", RecipientState.QUEUED, 4)]
    assert item.recipients[0].original_recipient == "rfc822;a@A.example" and item.recipients[0].last is None
    assert await store.read_queued(queue_id, 4, 12) == (b"R: 1\r\n" + MESSAGE)[4:12]
    assert await store.queued_body(queue_id) == body()
    assert len(await store.queue_items("a.example")) == 1 and await store.queue_items("b.example") == []
    assert await store.queue_item(QueueId(99)) is None


async def test_a_repeated_enqueue_is_recognised_even_after_the_end(store: Store) -> None:
    queue_id = await put(store, 1)
    again = expect(await store.commit(mail(1)), Queued)
    assert again.duplicate and again.queue_id == queue_id
    item, = (await lease(store)).items
    await store.commit(Settle(queue_id, (outcome(item.recipients[0].id, OutcomeKind.DELIVERED),)))
    assert await store.queue_items() == []
    assert expect(await store.commit(mail(1)), Queued).duplicate
    assert await store.queue_items() == []


async def test_a_lease_takes_a_recipient_away_until_it_runs_out(store: Store) -> None:
    queue_id = await put(store, 1, "a@a.example", "b@b.example")
    first = await lease(store)
    assert [one.forward_path for one in first.items[0].recipients] == ["a@a.example", "b@b.example"]
    assert first.next_due_ms == NOW_MS + LEASE_MS
    assert (await lease(store)).items == ()
    a, b = first.items[0].recipients
    await store.commit(Settle(queue_id, (outcome(a.id, OutcomeKind.DELIVERED),)))
    later = await lease(store, NOW_MS + LEASE_MS)
    assert [(one.id, one.crashes) for one in later.items[0].recipients] == [(b.id, 1)]


async def test_deferred_then_failed(store: Store) -> None:
    queue_id = await put(store, 1, "a@a.example", "b@b.example")
    a, b = (await lease(store)).items[0].recipients
    due = NOW_MS + 300_000
    await store.commit(Settle(queue_id, (outcome(a.id, OutcomeKind.DEFERRED, due, warned=True),
                                         outcome(b.id, OutcomeKind.FAILED))))
    item = await store.queue_item(queue_id)
    assert item is not None
    assert [(one.state, one.attempts, one.delay_warned) for one in item.recipients] == [
        (RecipientState.QUEUED, 1, True), (RecipientState.FAILED, 1, False)]
    assert item.recipients[0].last == Outcome(OutcomeKind.DEFERRED, "4.0.0", "because", "451 later", "mx [192.0.2.1]")
    assert (await lease(store, due - 1)).items == ()
    again = await lease(store, due)
    assert [one.id for one in again.items[0].recipients] == [a.id]
    assert again.items[0].recipients[0].crashes == 0


async def test_outcomes_and_notifications_are_one(store: Store) -> None:
    queue_id = await put(store, 1)
    recipient, = (await lease(store)).items[0].recipients
    notice = mail(2, "from@example.jp")
    await store.commit(Settle(queue_id, (outcome(recipient.id, OutcomeKind.FAILED),), (notice, notice)))
    item, = await store.queue_items()
    assert item.trace_id == trace(2) and await store.queue_item(queue_id) is None


async def test_a_settle_that_is_sent_again_changes_nothing(store: Store) -> None:
    """docs/decisions/0005: its answer was lost, so that the runner does not know whether it was taken."""
    queue_id = await put(store, 1, "a@a.example", "b@b.example", "c@b.example")
    a, b, c = (await lease(store)).items[0].recipients
    settles = [Settle(queue_id, (outcome(a.id, OutcomeKind.DEFERRED, NOW_MS + 10, warned=True),), (mail(2, "from@example.jp"),)),
               Settle(queue_id, (outcome(b.id, OutcomeKind.FAILED), outcome(c.id, OutcomeKind.DELIVERED)),
                      (mail(3, "from@example.jp"),))]
    for one in settles:
        await store.commit(one)
    before = await store.queue_items()
    assert [item.trace_id for item in before] == [trace(1), trace(2), trace(3)]
    for one in settles:
        await store.commit(one)
    assert await store.queue_items() == before
    last = Settle(queue_id, (outcome(a.id, OutcomeKind.FAILED, attempts=1),), (mail(4, "from@example.jp"),))
    for _ in range(2):      # the second finds the message gone
        await store.commit(last)
    assert [item.trace_id for item in await store.queue_items()] == [trace(2), trace(3), trace(4)]


async def test_a_deferral_of_an_attempt_that_was_overtaken_counts_for_nothing(store: Store) -> None:
    """Its lease had ended: whatever came later is newer. A message that was taken is taken, though."""
    queue_id = await put(store, 1, "a@a.example", "b@b.example")
    a, b = (await lease(store)).items[0].recipients
    await lease(store, NOW_MS + LEASE_MS)
    await store.commit(Settle(queue_id, (outcome(a.id, OutcomeKind.DEFERRED, NOW_MS + 500_000),
                                         outcome(b.id, OutcomeKind.DEFERRED, NOW_MS + 500_000))))
    late = (outcome(a.id, OutcomeKind.DEFERRED, NOW_MS + 10), outcome(b.id, OutcomeKind.DELIVERED))
    await store.commit(Settle(queue_id, late))
    item = await store.queue_item(queue_id)
    assert item is not None
    assert [(one.state, one.attempts, one.due_ms) for one in item.recipients] == [
        (RecipientState.QUEUED, 1, NOW_MS + 500_000), (RecipientState.DELIVERED, 2, NOW_MS + 500_000)]
    await store.commit(Settle(queue_id, (outcome(b.id, OutcomeKind.FAILED),), (mail(2, "from@example.jp"),)))
    assert [one.trace_id for one in await store.queue_items()] == [trace(1)]       # nobody is told of what did not happen


async def test_a_recipient_in_hand_during_three_crashes_is_set_aside(store: Store) -> None:
    queue_id = await put(store, 1, "bad@a.example")
    now = NOW_MS
    for _ in range(MAX_CRASHES):
        assert len((await lease(store, now)).items) == 1
        now += LEASE_MS
    assert (await lease(store, now)).items == ()
    item = await store.queue_item(queue_id)
    assert item is not None and item.recipients[0].state is RecipientState.POISON
    assert expect(await store.commit(ChangeQueue(QueueAction.RETRY, (queue_id,), now)), Counted).count == 1
    assert (await lease(store, now)).items[0].recipients[0].crashes == 0


async def test_fresh_mail_does_not_wait_behind_a_backlog(store: Store) -> None:
    for number in range(40):
        await put(store, number, at_ms=NOW_MS - 100_000 + number)
    retried = (await lease(store, limit=8)).items
    for item in retried:
        await store.commit(Settle(item.id, (outcome(item.recipients[0].id, OutcomeKind.DEFERRED, NOW_MS),)))
    fresh = await put(store, 99)
    taken = [item.id for item in (await lease(store, limit=8)).items]
    assert taken[0] == fresh
    assert min(set(range(1, 41)) - {item.id for item in retried}) in taken      # the oldest that was never tried
    assert set(taken) & {item.id for item in retried}                           # and one that was


async def test_busy_domains_are_left_alone(store: Store) -> None:
    await put(store, 1, "a@busy.example", "b@free.example")
    taken = await lease(store, busy=("busy.example",))
    assert [one.forward_path for one in taken.items[0].recipients] == ["b@free.example"]
    assert [one.forward_path for one in (await lease(store)).items[0].recipients] == ["a@busy.example"]


async def test_hold_release_retry_delete(store: Store) -> None:
    first, second = await put(store, 1), await put(store, 2)

    async def act(action: QueueAction, *ids: QueueId) -> int:
        return expect(await store.commit(ChangeQueue(action, ids, NOW_MS)), Counted).count

    assert await act(QueueAction.HOLD) == 2 and await act(QueueAction.HOLD) == 0
    assert (await lease(store)).items == ()
    assert await act(QueueAction.RELEASE, first) == 1
    recipient, = (await lease(store)).items[0].recipients
    assert await act(QueueAction.RETRY, first) == 0       # in hand: a retry would send it twice
    await store.commit(Settle(first, (outcome(recipient.id, OutcomeKind.DEFERRED, NOW_MS + 10**6),)))
    assert await act(QueueAction.RETRY, first) == 1
    assert len((await lease(store)).items) == 1
    assert await act(QueueAction.DELETE, first, second) == 2
    assert await store.queue_items() == []
    await store.commit(Settle(first, (outcome(recipient.id, OutcomeKind.DELIVERED),)))


async def test_held_from_the_beginning(store: Store) -> None:
    await store.commit(mail(1, held=True))
    assert (await lease(store)) == Leased((), 0)


async def test_a_large_body_is_handed_over_without_a_copy(store: Store) -> None:
    alice = await add_account(store)
    octets = b"0123456789" * (INLINE_OCTETS // 10 + 1)
    writer = store.body_writer()
    writer.write(octets)
    envelope = Envelope("", (Recipient("alice@example.jp"),))
    queued = await store.commit(Enqueue(trace(1), envelope, b"R", await writer.finish(trace(1)), NOW_MS))
    queue_id = expect(queued, Queued).queue_id
    handed = await store.queued_body(queue_id)
    assert handed.spool and handed.size_octets == len(octets)
    await store.commit(Deliver(trace(1), handed, b"", (LocalRecipient(alice.id, "a@x", b"P"),), NOW_MS))
    item, = (await lease(store)).items
    await store.commit(Settle(queue_id, (outcome(item.recipients[0].id, OutcomeKind.DELIVERED),)))
    assert await store.read(alice.id, 1, 0, len(octets) + 1) == b"P" + octets
    with pytest.raises(OSError, match="gone"):
        await store.queued_body(queue_id)


async def test_an_empty_outbox(store: Store) -> None:
    assert expect(await store.commit(DrainOutbox()), Counted).count == 0


async def test_leases_of_a_dead_runner_are_due_at_once_and_count_as_crashes(store: Store) -> None:
    queue_id = await put(store, 1, "bad@a.example")
    for crashes in range(MAX_CRASHES):
        item, = (await lease(store, NOW_MS + 1)).items
        assert item.recipients[0].crashes == crashes and (await lease(store, NOW_MS + 1)).items == ()
        assert expect(await store.commit(ReclaimLeases(NOW_MS + 1)), Counted).count == 1
        assert expect(await store.commit(ReclaimLeases(NOW_MS + 1)), Counted).count == 0
    assert (await lease(store, NOW_MS + 1)).items == ()
    found = await store.queue_item(queue_id)
    assert found is not None and found.recipients[0].state is RecipientState.POISON


@pytest.mark.parametrize("by_ms", [DAY_MS, -DAY_MS, HOUR_MS])
async def test_the_clock_is_set_and_the_queue_moves_along(store: Store, by_ms: int) -> None:
    """What came before waits as long as before; what came in the last second stays, also where it can't be told by its age."""
    old = await put(store, 1)
    [item] = (await lease(store)).items
    await store.commit(Settle(old, (outcome(item.recipients[0].id, OutcomeKind.DEFERRED, NOW_MS + 300_000),)))
    now_ms = NOW_MS + by_ms + 5_000
    new = await put(store, 2, at_ms=now_ms - 500)
    before = await store.queue_item(new)
    await store.commit(ShiftQueue(by_ms, now_ms, 1_000))
    found = await store.queue_item(old)
    assert found is not None and (found.created_ms, found.expires_ms) == (item.created_ms + by_ms, item.expires_ms + by_ms)
    assert found.recipients[0].due_ms == NOW_MS + by_ms + 300_000
    assert await store.queue_item(new) == before


async def test_the_doorbell_rings_for_what_becomes_due(store: Store) -> None:
    told: list[object] = []
    store.listen(told.append)
    await put(store, 1)
    assert told == []                                   # nobody watches
    await store.commit(WatchQueue())
    await store.commit(WatchQueue())
    queue_id = await put(store, 2)
    assert told == [Rang()]                             # before the answer, once
    await store.commit(mail(3, held=True))
    await store.commit(ChangeQueue(QueueAction.HOLD, (), NOW_MS))
    item = await store.queue_item(queue_id)
    assert item is not None and told == [Rang()]
    await store.commit(ChangeQueue(QueueAction.RELEASE, (), NOW_MS))
    assert told == [Rang()] * 2
    recipient = item.recipients[0]
    await store.commit(Settle(queue_id, (outcome(recipient.id, OutcomeKind.FAILED),), (mail(4),)))
    assert told == [Rang()] * 3                         # the DSN
    await store.commit(WatchQueue(on=False))
    await put(store, 5)
    assert told == [Rang()] * 3
