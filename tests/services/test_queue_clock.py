"""The queue when somebody sets the clock (reliability.md, check 21): retries go by time that passes, and nobody is given up."""

import asyncio

import pytest

from fumibako.model.queue import MINUTE_MS, Outcome, QueuedRecipient, QueueItem
from tests.services.test_queue import DOWN, LATER, enqueue
from tests.support.mailhouse import MailHouse
from tests.support.target import RecordingTarget

MINUTE_S, HOUR_S, DAY_S, YEAR_S = 60, 3600, 86_400, 365 * 86_400
JUMPS_S = [HOUR_S, -HOUR_S, DAY_S, -DAY_S, 6 * DAY_S, 10 * YEAR_S, -10 * YEAR_S]
PEOPLE = [f"user{number}@one.example" for number in range(5)]


@pytest.fixture
async def deferred(house: MailHouse) -> MailHouse:
    """Five messages whose first attempt was in vain a minute ago; the next is due in four."""
    house.relay.outcomes = {one: [LATER] for one in PEOPLE}
    for one in PEOPLE:
        await enqueue(house, one)
    return house


@pytest.mark.parametrize("jump_s", JUMPS_S)
async def test_retries_go_by_the_time_that_passes(deferred: MailHouse, jump_s: int) -> None:
    house, runner = deferred, deferred.runner()
    await runner.step()
    house.clock.advance(MINUTE_S)
    house.clock.jump(jump_s)
    for _ in range(3):
        assert await runner.step() == 0, "the jump made it due"
        house.clock.advance(MINUTE_S)
    assert len(house.relay.delivered) == 5
    house.clock.advance(3 * MINUTE_S)
    await runner.step()
    assert len(house.relay.delivered) == 10, "the jump made it wait"
    assert len(await house.queued()) == 5
    assert await house.mailbox("alice@example.jp") == [], "somebody was told of a delay or a failure"


@pytest.mark.parametrize("jump_s", JUMPS_S)
async def test_fresh_mail_around_a_jump_goes_out_at_once(house: MailHouse, jump_s: int) -> None:
    """Also what was taken after the clock was set, and before the queue noticed."""
    runner = house.runner()
    await runner.step()
    await enqueue(house, "before@two.example")
    house.clock.jump(jump_s)
    await enqueue(house, "after@two.example")
    for _ in range(3):
        await runner.step()
    assert sorted(paths for _, paths in house.relay.delivered) == [("after@two.example",), ("before@two.example",)]
    assert await house.queued() == []


@pytest.mark.parametrize("jump_s", JUMPS_S)
async def test_after_jumps_there_and_back_five_days_are_five_days(deferred: MailHouse, jump_s: int) -> None:
    house, runner = deferred, deferred.runner()
    hours = 0
    while await house.queued() and hours < 200:
        hours += 1
        house.clock.advance(HOUR_S)
        if hours % 24 == 12:
            house.clock.jump(jump_s if hours % 48 == 12 else -jump_s)
        await runner.step()
    assert 24 * 5 <= hours <= 24 * 5 + 6


class Held(RecordingTarget):
    """Its answer waits."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.gate = asyncio.Event(), asyncio.Event()

    async def deliver(self, item: QueueItem, recipients: tuple[QueuedRecipient, ...]) -> dict[int, Outcome]:
        self.begun.set()
        await self.gate.wait()
        return await super().deliver(item, recipients)


@pytest.mark.parametrize("outcome", ["taken", "deferred"])
@pytest.mark.parametrize("jump_s", JUMPS_S)
async def test_what_is_in_hand_is_not_handed_out_again(house: MailHouse, jump_s: int, outcome: str) -> None:
    house.relay = held = Held()
    if outcome == "deferred":
        held.outcomes = {"a@one.example": [LATER]}
    await enqueue(house, "a@one.example")
    runner = house.runner()
    async with asyncio.TaskGroup() as group:
        group.create_task(runner.step())
        await held.begun.wait()
        house.clock.jump(jump_s)
        assert await runner.step() == 0
        held.gate.set()
    await runner.step()
    assert len(held.delivered) == 1
    assert await house.mailbox("alice@example.jp") == []
    waiting = [item for item in await house.queued() if item.envelope.reverse_path]
    assert len(waiting) == (outcome == "deferred")
    for item in waiting:
        assert 4 * MINUTE_MS <= item.recipients[0].due_ms - house.clock.now_ms() <= 6 * MINUTE_MS


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
async def test_a_destination_rests_a_minute_whatever_the_clock_says(house: MailHouse, jump_s: int) -> None:
    house.relay.outcomes = {"a@one.example": [DOWN], "b@one.example": [DOWN]}
    await enqueue(house, "a@one.example")
    runner = house.runner()
    await runner.step()
    house.clock.jump(jump_s)
    await enqueue(house, "b@one.example")
    assert await runner.step() == 0
    house.clock.advance(61)
    assert await runner.step() == 1


async def test_a_clock_that_was_set_back_while_nobody_ran(deferred: MailHouse) -> None:
    """The next runner knows nothing of it, only that nothing waits longer than the longest step."""
    house = deferred
    await house.runner().step()
    house.clock.jump(-10 * YEAR_S)
    runner = house.runner()
    leased = await runner._look()
    assert len(leased.items) == 5
