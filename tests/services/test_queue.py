"""The queue runner: what is tried when, what is recorded, who is told."""

import asyncio
from types import SimpleNamespace

import pytest

from fumibako.model.envelope import Envelope, Notify, Recipient
from fumibako.model.ops import TERMINAL, ChangeQueue, Enqueue, Lease, QueueAction, Refusal, Settle
from fumibako.model.queue import DAY_MS, HOUR_MS, MINUTE_MS, Outcome, OutcomeKind
from fumibako.services.queue import LEASE_MS, PER_DESTINATION, final_outcome
from fumibako.store.base import StoreRefused, StoreUnavailable
from tests.support.mailhouse import MESSAGE, MailHouse
from tests.support.target import RELAYED, RecordingTarget

LATER = Outcome(OutcomeKind.DEFERRED, "4.7.1", "refused at RCPT TO", "451 4.7.1 Greylisted", "mx.example.com [192.0.2.9]")
DOWN = Outcome(OutcomeKind.DEFERRED, "4.4.1", "192.0.2.9:25 did not answer")
NEVER = Outcome(OutcomeKind.FAILED, "5.1.1", "refused at RCPT TO", "550 5.1.1 No such user", "mx.example.com [192.0.2.9]")


async def enqueue(
    house: MailHouse, *recipients: str, reverse_path: str = "alice@example.jp", notify: int = 0, ret: str = ""
) -> None:
    trace_id = house.clock.trace_id()
    writer = house.store.body_writer()
    writer.write(MESSAGE)
    body = await writer.finish(trace_id)
    envelope = Envelope(reverse_path, tuple(Recipient(one, notify) for one in recipients), ret=ret, envelope_id="env1")
    await house.store.commit(Enqueue(trace_id, envelope, b"Received: here\r\n", body, house.clock.now_ms()))


async def notices(house: MailHouse) -> list[bytes]:
    """What Alice found in her mailbox, after the queue delivered the notices."""
    await house.runner().step()
    return await house.mailbox("alice@example.jp")


async def test_each_destination_gets_its_recipients_together(house: MailHouse) -> None:
    await enqueue(house, "a@one.example", "b@two.example", "c@one.example", "bob@example.jp")
    assert await house.runner().step() == 1
    assert sorted(house.relay.delivered) == [
        ("alice@example.jp", ("a@one.example", "c@one.example")), ("alice@example.jp", ("b@two.example",))]
    assert await house.queued() == []
    [stored] = await house.mailbox("bob@example.jp")
    assert stored == b"Return-Path: <alice@example.jp>\r\nReceived: here\r\n" + MESSAGE
    assert sorted(house.trace.kinds()) == ["delivered", "relayed", "relayed", "relayed"]
    assert house.relay.closed_idle == 1


async def test_a_deferral_comes_back_and_a_failure_does_not(house: MailHouse) -> None:
    house.relay.outcomes = {"a@one.example": [LATER, RELAYED], "b@one.example": [NEVER]}
    await enqueue(house, "a@one.example", "b@one.example")
    runner = house.runner()
    await runner.step()
    [item] = [one for one in await house.queued() if one.envelope.reverse_path]     # the other is the notice
    [left] = [one for one in item.recipients if one.state not in TERMINAL]
    assert (left.forward_path, left.attempts, left.last) == ("a@one.example", 1, LATER)
    assert 5 * MINUTE_MS <= left.due_ms - house.clock.now_ms() <= 6 * MINUTE_MS
    await runner.step()                                     # the notice goes to Alice, the deferral is not due
    assert len(house.relay.delivered) == 1
    house.clock.advance(360)
    await runner.step()
    assert house.relay.delivered[-1] == ("alice@example.jp", ("a@one.example",))
    assert await house.queued() == []


async def test_the_sender_is_told_about_a_failure(house: MailHouse) -> None:
    house.relay.outcomes = {"x@example.com": [NEVER]}
    await enqueue(house, "x@example.com", "y@example.com")
    await house.runner().step()
    [notice] = await notices(house)
    assert notice.startswith(b"Return-Path: <>\r\n")
    assert b"x@example.com" in notice and b"y@example.com" not in notice


@pytest.mark.parametrize(("reverse_path", "notify", "told"), [
    ("alice@example.jp", Notify.UNSPECIFIED, 1), ("alice@example.jp", Notify.FAILURE, 1), ("alice@example.jp", Notify.NEVER, 0),
    ("alice@example.jp", Notify.SUCCESS, 0), ("", Notify.FAILURE, 0), ("nobody@example.jp", Notify.FAILURE, 0),
])
async def test_who_is_told_about_failures(house: MailHouse, reverse_path: str, notify: int, told: int) -> None:
    house.relay.outcomes = {"x@example.com": [NEVER]}
    await enqueue(house, "x@example.com", reverse_path=reverse_path, notify=notify)
    await house.runner().step()
    assert len(await notices(house)) == told
    assert await house.queued() == []


async def test_a_remote_sender_is_told_through_the_relay(house: MailHouse) -> None:
    house.relay.outcomes = {"x@example.com": [NEVER]}
    await enqueue(house, "x@example.com", reverse_path="bob@example.net")
    await house.runner().step()
    await house.runner().step()
    assert house.relay.delivered[-1] == ("", ("bob@example.net",))


@pytest.mark.parametrize(("recipient", "outcome", "notify", "action"), [
    ("x@example.com", RELAYED, Notify.SUCCESS, b"relayed"),
    ("x@example.com", Outcome(OutcomeKind.DELIVERED, "2.0.0", "", "250 ok", "mx"), Notify.SUCCESS, None),
    ("x@example.com", RELAYED, Notify.FAILURE, None),
    ("bob@example.jp", RELAYED, Notify.SUCCESS | Notify.FAILURE, b"delivered"),
    ("bob@example.jp", RELAYED, Notify.UNSPECIFIED, None),
])
async def test_success_is_told_when_asked_for(
    house: MailHouse, recipient: str, outcome: Outcome, notify: int, action: bytes | None
) -> None:
    house.relay.outcomes = {recipient: [outcome]}
    await enqueue(house, recipient, notify=notify)
    await house.runner().step()
    found = await notices(house)
    assert len(found) == (action is not None)
    assert all(b"Action: %b\r\n" % action in notice and b"Original-Envelope-Id: env1\r\n" in notice for notice in found)


async def test_a_long_delay_is_told_once(house: MailHouse) -> None:
    house.relay.outcomes = {"x@example.com": [LATER]}
    await enqueue(house, "x@example.com")
    runner = house.runner()
    for _ in range(20):
        await runner.step()
        house.clock.advance(3600)
    found = await house.mailbox("alice@example.jp")
    assert len(found) == 1
    assert b"Action: delayed\r\n" in found[0] and b"Will-Retry-Until: " in found[0]


async def test_after_five_days_it_is_given_up(house: MailHouse) -> None:
    house.relay.outcomes = {"x@example.com": [LATER]}
    await enqueue(house, "x@example.com", notify=Notify.FAILURE)
    runner = house.runner()
    attempts = 0
    while await house.queued() and attempts < 200:
        attempts += 1
        house.clock.advance(3600)
        await runner.step()
    await runner.step()
    assert 24 * 5 <= attempts <= 24 * 5 + 6
    assert 24 <= len(house.relay.delivered) <= 60
    [notice] = await house.mailbox("alice@example.jp")
    assert b"Status: 5.4.7\r\n" in notice and b"451 4.7.1 Greylisted" in notice


def test_expiry_is_by_the_clock() -> None:
    item = SimpleNamespace(expires_ms=5 * DAY_MS)
    assert final_outcome(item, LATER, 5 * DAY_MS - 1) is LATER
    assert final_outcome(item, LATER, 5 * DAY_MS).kind is OutcomeKind.FAILED
    assert final_outcome(item, RELAYED, 6 * DAY_MS) is RELAYED
    assert final_outcome(item, NEVER, HOUR_MS) is NEVER


async def test_a_destination_that_is_down_rests(house: MailHouse) -> None:
    """One dead host costs one attempt a minute, whatever waits for it, and nothing else waits."""
    house.relay.outcomes = {f"x{number}@dead.example": [DOWN] for number in range(30)}
    runner = house.runner()
    for number in range(30):
        await enqueue(house, f"x{number}@dead.example")
    await enqueue(house, "y@live.example")
    await runner.step()
    dead = [one for one in house.relay.delivered if "dead" in one[1][0]]
    assert len(dead) <= PER_DESTINATION
    assert ("alice@example.jp", ("y@live.example",)) in house.relay.delivered
    await enqueue(house, "new@dead.example")
    assert await runner.step() == 0                         # it rests
    house.clock.advance(61)
    house.relay.outcomes = {}
    assert await runner.step() == 1


async def test_bug_retry_by_the_administrator_waited_for_the_rest_of_the_destination(house: MailHouse) -> None:
    """Who has repaired the way wants the mail to go now, not when the minute is over."""
    house.relay.outcomes = {"a@one.example": [DOWN, RELAYED], "b@one.example": [RELAYED]}
    await enqueue(house, "a@one.example")
    runner = house.runner()
    await runner.step()
    await enqueue(house, "b@one.example")
    assert await runner.step() == 0                         # it rests
    [first, _] = await house.queued()
    await house.store.commit(ChangeQueue(QueueAction.RETRY, (first.id,), house.clock.now_ms()))
    assert await runner.step() == 1
    assert await runner.step() == 1                         # what waited for the same destination follows
    assert await house.queued() == []


async def test_few_at_once_to_one_destination(house: MailHouse) -> None:
    running, most = 0, 0

    async def slow(item, recipients):
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(10):
            await asyncio.sleep(0)
        running -= 1
        return {one.id: RELAYED for one in recipients}

    house.relay.deliver = slow
    for number in range(20):
        await enqueue(house, f"x{number}@one.example")
    await house.runner().step()
    assert most == PER_DESTINATION
    assert await house.queued() == []


async def test_a_bug_in_a_target_defers_and_the_queue_goes_on(house: MailHouse, caplog: pytest.LogCaptureFixture) -> None:
    house.relay.failure = ZeroDivisionError("bug")
    await enqueue(house, "x@example.com", "bob@example.jp")
    await house.runner().step()
    [item] = await house.queued()
    assert [one.last.status for one in item.recipients if one.last and one.state not in TERMINAL] == ["4.3.0"]
    assert len(await house.mailbox("bob@example.jp")) == 1
    assert "ZeroDivisionError" in caplog.text


async def test_nothing_is_recorded_while_the_store_is_away(house: MailHouse) -> None:
    house.relay.failure = StoreUnavailable("away")
    await enqueue(house, "x@example.com")
    assert await house.runner().step() == 1
    [item] = await house.queued()
    assert item.recipients[0].attempts == 0
    house.relay.failure = None
    assert await house.runner().step() == 0                 # leased
    house.clock.advance(16 * 60)
    assert await house.runner().step() == 1
    assert await house.queued() == []


class Away:
    """The store's answers to the next Settles: an exception, raised "before" the commit or "after" it."""

    def __init__(self, house: MailHouse, *failures: tuple[str, Exception]) -> None:
        self._commit, self._failures, self.settles = house.store.commit, list(failures), []
        house.store.commit = self.commit

    async def commit(self, operation):
        if not isinstance(operation, Settle):
            return await self._commit(operation)
        self.settles.append(operation)
        when, failure = self._failures.pop(0) if self._failures else ("", None)
        if when == "before":
            raise failure
        result = await self._commit(operation)
        if failure is not None:
            raise failure
        return result


async def stepped(house: MailHouse, within_s: float) -> float:
    """One step of a runner, while time goes on. The seconds it took."""
    running, took_s = asyncio.create_task(house.runner().step()), 0.0
    async with asyncio.timeout(20):
        while not running.done():
            if (wait_s := house.clock.next_wake_s) is not None and took_s < within_s:
                took_s += wait_s
                house.clock.advance(wait_s)
            await asyncio.sleep(0)
    assert await running == 1
    return took_s


GONE, FULL = StoreUnavailable("gone"), StoreRefused(Refusal.DISK_FULL)


async def test_local_delivery_is_exactly_once(house: MailHouse) -> None:
    """A crash between the delivery and its record: the second attempt finds the key."""
    await enqueue(house, "bob@example.jp")
    Away(house, *[("before", GONE)] * 10_000)
    assert 800 < await stepped(house, LEASE_MS) < 900            # until the lease ends
    del house.store.commit
    house.clock.advance(60)
    await house.runner().step()
    assert len(await house.mailbox("bob@example.jp")) == 1
    assert await house.queued() == []


@pytest.mark.parametrize("failures", [
    [("before", GONE)], [("after", GONE)], [("before", GONE), ("after", GONE), ("before", GONE)], [("before", FULL)] * 20,
])
async def test_bug_an_outcome_was_lost_while_storage_restarted(house: MailHouse, failures: list) -> None:
    """The mail was delivered again when its lease had ended, though the other server had taken it."""
    house.relay.outcomes = {"a@one.example": [RELAYED], "b@two.example": [LATER, RELAYED], "c@three.example": [NEVER]}
    await enqueue(house, "a@one.example", "b@two.example", "c@three.example")
    away = Away(house, *failures)
    assert await stepped(house, LEASE_MS) < 100
    assert len(away.settles) == 3 + len(failures)
    [item, notice] = await house.queued()
    assert [(str(one.state), one.attempts) for one in item.recipients] == [("delivered", 1), ("queued", 1), ("failed", 1)]
    assert item.recipients[1].due_ms >= house.clock.now_ms() + 3 * MINUTE_MS and notice.envelope.reverse_path == ""
    assert house.trace.kinds().count("relayed") == 1
    house.clock.advance(2 * LEASE_MS / 1000)
    await house.runner().step()
    assert await house.queued() == []
    assert sorted(paths for _, paths in house.relay.delivered) == [
        ("a@one.example",), ("b@two.example",), ("b@two.example",), ("c@three.example",)]
    assert len(await house.mailbox("alice@example.jp")) == 1


async def test_a_refusal_of_an_outcome_is_not_argued_with(house: MailHouse, caplog: pytest.LogCaptureFixture) -> None:
    await enqueue(house, "a@one.example")
    away = Away(house, ("before", StoreRefused(Refusal.NOT_ALLOWED)))
    await house.runner().step()
    assert len(away.settles) == 1 and "could not be recorded" in caplog.text


async def test_an_orderly_stop_records_what_is_known(house: MailHouse) -> None:
    """The store was away when the outcome came and is back when the runner stops."""
    await enqueue(house, "a@one.example")
    away = Away(house, ("before", GONE))
    running = asyncio.create_task(house.runner().step())
    async with asyncio.timeout(20):
        while house.clock.next_wake_s is None:
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    assert await house.queued() == [] and len(away.settles) == 2
    assert house.trace.kinds() == ["relayed"]


async def test_while_an_outcome_waits_its_destination_does_not(house: MailHouse) -> None:
    for number in range(PER_DESTINATION + 1):
        await enqueue(house, f"x{number}@one.example")
    Away(house, *[("before", GONE)] * PER_DESTINATION)
    running = asyncio.create_task(house.runner().step())
    async with asyncio.timeout(20):
        while len(house.relay.delivered) <= PER_DESTINATION:
            await asyncio.sleep(0)
        while not running.done():
            house.clock.advance(1)
            await asyncio.sleep(0)
    assert await house.queued() == []


async def test_an_orderly_stop_gives_back_what_was_in_hand(house: MailHouse) -> None:
    """Neither late by a lease nor counted as a crash, however often the server is restarted."""
    started = asyncio.Event()

    async def never_answers(item, recipients):
        started.set()
        await asyncio.Event().wait()

    house.relay.deliver = never_answers
    await enqueue(house, "x@example.com")
    for _ in range(4):
        started.clear()
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            task = group.create_task(house.runner().run())
            await started.wait()
            task.cancel()
    [item] = await house.queued()
    assert (item.recipients[0].due_ms, item.recipients[0].crashes) == (house.clock.now_ms(), 0)
    del house.relay.deliver
    await house.runner().step()
    assert await house.queued() == []


async def test_what_waited_too_long_for_its_turn_waits_for_the_next(house: MailHouse) -> None:
    """Its lease may run out during the attempt, and then it would be delivered twice."""
    tried = []

    async def slow(item, recipients):
        tried.append(item.id)
        house.clock.advance(50)
        return {one.id: RELAYED for one in recipients}

    house.relay.deliver = slow
    for number in range(3):
        await enqueue(house, f"x{number}@one.example")
    await house.runner().step()
    [item] = await house.queued()
    assert (len(tried), item.recipients[0].last.status) == (2, "4.4.5")


async def test_run_wakes_by_the_doorbell(house: MailHouse) -> None:
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        task = group.create_task(house.runner().run())
        await house.receive("x@example.jp", "alice@example.jp", notify=Notify.SUCCESS)
        while not await house.mailbox("alice@example.jp"):
            await asyncio.sleep(0)
        task.cancel()


async def test_a_runner_takes_over_what_a_dead_one_had_in_hand(house: MailHouse) -> None:
    await enqueue(house, "a@one.example")
    await house.store.commit(Lease(house.clock.now_ms(), LEASE_MS, 10))
    running = asyncio.create_task(house.runner().run())
    async with asyncio.timeout(10):
        while await house.queued():
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    assert house.relay.delivered == [("alice@example.jp", ("a@one.example",))]


async def test_an_enqueue_elsewhere_rings(house: MailHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fumibako.services.queue.POLL_S", 3600.0)
    runner = house.runner()
    running = asyncio.create_task(runner.run())
    async with asyncio.timeout(10):
        while not house.relay.closed_idle:      # it found nothing and waits
            await asyncio.sleep(0)
        await enqueue(house, "a@one.example")   # commits, and sets no doorbell
        while await house.queued():
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    assert len(house.relay.delivered) == 1


async def test_a_changed_relay_takes_what_comes_and_the_old_one_says_goodbye(house: MailHouse) -> None:
    runner, before, after = house.runner(), house.relay, RecordingTarget()
    runner.change(house.notifier, after)
    await enqueue(house, "x@example.com")
    await runner.step()
    assert (len(before.delivered), len(after.delivered)) == (0, 1)
    assert (before.closed_idle, after.closed_idle) == (1, 1)
    await runner.step()
    assert (before.closed_idle, after.closed_idle) == (1, 2)       # gone, once nothing is in hand
