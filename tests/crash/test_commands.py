"""Backup, restore, export, import and compaction, killed at a random moment and done again (spec/reliability.md §5.1, check 11).

A round of each here; `python -m tools.prove --kills --rounds 0 --commands 600` for longer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.crash.commands import KINDS, Commands
from tests.crash.machine import Machine
from tests.support.server import Place

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]

SEED, LETTERS = 2025, 80


@pytest.fixture(scope="module")
def commands(network: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    place = tmp_path_factory.mktemp("commands")
    machine = Machine(place / "data", Place(f"{network}.9"))
    try:
        found = Commands(machine, place, random.Random(SEED), LETTERS)
        found.begin()
        yield found
    finally:
        machine.kill_all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_and_the_same_again(commands: Commands, kind: str) -> None:
    result = commands.trial(kind)
    assert result.is_clean, (SEED, result.verdicts.faults[:10], result.store_faults[:10])
