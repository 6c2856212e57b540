"""How late the event loop is: what was seen, in whole milliseconds, and each time anew."""

import asyncio
from collections.abc import Callable

import pytest

from fumibako.net.lag import EVERY_S, Lag, LagMeter
from tests.support.clock import FakeClock


@pytest.fixture
async def looks(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """Those that are due: a test gives them their turn, late or not."""
    due: list[Callable[[], None]] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda delay_s, callback: due.append(callback))
    return due


async def test_a_loop_that_is_held_up_tells_how_long(looks: list[Callable[[], None]]) -> None:
    meter = LagMeter(clock := FakeClock())
    meter.start()
    for late_ms in [0] * 60 + [7] * 39 + [3_500]:
        clock.advance(EVERY_S + late_ms / 1000)
        looks.pop()()

    assert meter.take() == Lag(looks=100, window_s=13.8, p50_ms=1, p99_ms=8, max_ms=3500.0)
    assert meter.take() == Lag(0, 0.0, 0, 0, 0.0)       # told once
    clock.advance(EVERY_S + 2.5)
    looks.pop()()
    assert meter.take() == Lag(1, 2.6, 2000, 2000, 2500.0)


async def test_the_loop_itself_gives_the_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fumibako.net.lag.EVERY_S", 0.001)
    meter = LagMeter(FakeClock())
    meter.start()
    async with asyncio.timeout(10):
        while meter.take().looks == 0:
            await asyncio.sleep(0.001)
