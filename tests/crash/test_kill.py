"""No acknowledged mail is lost, altered or doubled by kill -9, wherever it strikes (spec/reliability.md §5.1, checks 1 and 7)."""

from __future__ import annotations

import random

import pytest

from tests.crash.machine import Machine
from tests.crash.rounds import Campaign
from tests.support.ledger import Ledger, read_ledger

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]

DELIVERIES = 1_000


@pytest.mark.parametrize(("workers", "how"), [(0, "all"), (1, "recovery"), (2, "storage")])
async def test_a_killed_server_has_every_acknowledged_mail_once(machine: Machine, workers: int, how: str) -> None:
    seed = 2025 + workers
    machine.make(workers=workers)
    ledger = Ledger(machine.directory.with_name("ledger"))
    campaign = Campaign(machine, ledger, random.Random(seed), DELIVERIES, workers)
    result = await campaign.round(how)
    assert result.is_clean, (seed, result.verdicts.faults[:10], result.store_faults)
    assert result.verdicts.counts["acknowledged"] > DELIVERIES // 2, result
    assert result.changes > 20
    assert read_ledger(machine.directory.with_name("ledger")) == ledger.entries
