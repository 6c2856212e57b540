"""The real clock, and the one of the tests."""

import asyncio
import time

from fumibako.net.clock import Clock, WallWatch
from tests.support.clock import START_MS, FakeClock


def test_the_real_clock_tells_the_time_and_draws():
    clock = Clock()
    assert abs(clock.now_ms() / 1000 - time.time()) < 5
    assert clock.monotonic_s() <= clock.monotonic_s()
    assert len(clock.trace_id()) == 16 and clock.trace_id() != clock.trace_id()
    assert len(clock.token(5)) == 5
    assert 0 <= clock.random_float() < 1
    items = list(range(50))
    assert sorted(clock.shuffle(items)) == items == list(range(50))


def test_local_time(monkeypatch):
    for zone, offset in (("Asia/Tokyo", 540), ("UTC", 0)):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert Clock().utc_offset_minutes(START_MS) == offset
    monkeypatch.undo()
    time.tzset()


def test_the_fake_clock_repeats_itself():
    first, second = FakeClock(seed=3), FakeClock(seed=3)
    for clock in (first, second):
        clock.advance(1.5)
    assert first.now_ms() == second.now_ms() == START_MS + 1500
    assert first.trace_id() == second.trace_id() and first.shuffle(range(9)) == second.shuffle(range(9))
    first.jump(-3600)
    assert first.now_ms() < START_MS and first.monotonic_s() == second.monotonic_s()


async def test_sleepers_wake_in_order():
    clock, woken = FakeClock(), []

    async def sleeper(name, delay_s):
        await clock.sleep(delay_s)
        woken.append(name)

    async with asyncio.TaskGroup() as group:
        for name, delay_s in (("c", 30), ("a", 10), ("b", 20)):
            group.create_task(sleeper(name, delay_s))
        await asyncio.sleep(0)
        assert clock.next_wake_s == 10
        clock.advance(25)
        await asyncio.sleep(0)
        assert woken == ["a", "b"]
        clock.advance(5)
    assert woken == ["a", "b", "c"] and clock.next_wake_s is None


def test_a_clock_that_is_set_is_noticed():
    watch = WallWatch(clock := FakeClock())
    for _ in range(10):             # slewed by half a minute in all
        clock.advance(60)
        clock.jump(-3)
        assert watch.now_ms() == clock.now_ms()
    assert (watch.set_by_ms, watch.unsure_ms) == (0, 0)
    clock.advance(2)
    clock.jump(3600)
    watch.now_ms()
    assert (watch.set_by_ms, watch.unsure_ms) == (3_600_000, 2000)
    clock.advance(5)
    clock.jump(-86_400)
    watch.now_ms()
    assert (watch.set_by_ms, watch.unsure_ms) == (3_600_000 - 86_400_000, 7000)
    watch.seen_to()
    clock.advance(5)
    watch.now_ms()
    assert (watch.set_by_ms, watch.unsure_ms) == (3_600_000 - 86_400_000, 0)
