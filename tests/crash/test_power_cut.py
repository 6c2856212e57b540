"""The power goes at a flush or an answer: whatever part of the later writes the disk kept, what was answered is there.

spec/reliability.md §5.1, check 2: a sample on ext4 here, all states on three file systems by `python -m tools.prove --power`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.power import Plan, cut_power
from tests.crash.power_disk import reason_against
from tests.support.ledger import Fault
from tests.support.server import claimed_network

pytestmark = [pytest.mark.crash, pytest.mark.root, pytest.mark.timeout(180)]

SEED = 2025
STATES = 12     # of each kind of work; the last one holds all kinds at once
WORKS = ("accept", "deliver", "rollover", "move", "expunge", "upgrade", "mixed")
UPKEEP = ("backup", "export", "compaction", "restore")


@pytest.fixture(scope="module")
def own_loopback() -> Iterator[str]:
    """The first three numbers of a network of ours; mounts are ours alone, too, and go with this process."""
    with claimed_network() as found:
        if reason := reason_against("ext4"):
            pytest.skip(reason)
        yield found


@pytest.mark.parametrize("work", WORKS)
def test_what_was_answered_survives_a_power_cut(own_loopback: str, work: str) -> None:
    part = cut_power(Plan("ext4", work, SEED, STATES, serve_every=STATES if work == "mixed" else 0, scale=0.5), own_loopback)
    assert part.is_clean, (part.kept, part.unmountable[:5], part.faults[:10], part.findings[:10])
    assert part.states == STATES
    assert part.mended == 0


@pytest.mark.long
@pytest.mark.parametrize("work", UPKEEP)
def test_what_was_finished_survives_a_power_cut(own_loopback: str, work: str) -> None:
    part = cut_power(Plan("ext4", work, SEED, 40), own_loopback)
    assert part.is_clean, (part.kept, part.unmountable[:5], part.faults[:10], part.findings[:10])
    assert part.states == 40


@pytest.mark.parametrize(("change", "work"), [
    ("no-segment-sync", "deliver"), ("no-log-sync", "accept"), ("no-log-sync", "append")])
def test_a_store_that_answers_too_early_is_found_out(own_loopback: str, change: str, work: str) -> None:
    part = cut_power(Plan("ext4", work, SEED, 20, subsets=1, scale=0.5, change=change), own_loopback)
    assert part.count(Fault.LOST) > 0
    assert change != "no-segment-sync" or part.count(Fault.CORRUPT) > 0
