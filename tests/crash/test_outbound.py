"""Every recipient of outgoing mail ends in exactly one of delivered, DSN, queued, however often the server dies on the way.

spec/reliability.md §5.1, check 6: twice only where another server had said 250 and the queue did not know it yet (RFC 5321 §6.1).
"""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.crash.machine import Machine
from tests.crash.outbound import Outbound
from tests.crash.sink import running_sink
from tests.support.ledger import Ledger

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]

KILLS, MESSAGES = 3, 60
LONG = 50, 200
SINK_PORT = 2_627


@pytest.mark.parametrize("workers", [0, 1])
async def test_every_recipient_ends_in_one_place(machine: Machine, workers: int) -> None:
    await _die_on_the_way(machine, workers, KILLS, MESSAGES)


@pytest.mark.long
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("workers", [0, 1])
async def test_every_recipient_ends_in_one_place_fifty_times(machine: Machine, workers: int) -> None:
    await _die_on_the_way(machine, workers, *LONG)


async def _die_on_the_way(machine: Machine, workers: int, kills: int, messages: int) -> None:
    machine.make(workers=workers, smarthost=f"{machine.place.address}:{SINK_PORT}")
    ledger, chance = Ledger(machine.directory.with_name("ledger")), random.Random(6)
    async with running_sink(machine.place.address, SINK_PORT) as sink:
        outbound, up = Outbound(machine, sink, ledger, chance), asyncio.Event()
        for _ in range(kills):
            machine.start()
            up.set()
            submitting = asyncio.create_task(outbound.submit(messages, up))
            before, some = sum(sink.taken.values()), chance.randint(10, messages // 6)
            while sum(sink.taken.values()) < before + some:
                sink.changed.clear()
                await sink.changed.wait()
            await asyncio.sleep(chance.random() * 0.3)
            up.clear()
            await asyncio.to_thread(machine.kill_all)
            outbound.after_kill()
            machine.start()
            up.set()
            await submitting
            await outbound.quiet()
            up.clear()
            await asyncio.to_thread(machine.kill_all)
            outbound.after_kill()
        machine.start()
        await outbound.quiet()
        assert await outbound.faults() == []
        assert ledger.acknowledged > kills * messages * 0.8
