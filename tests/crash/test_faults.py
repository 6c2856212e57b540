"""Every way of writing on a disk that fails: a sample of the sweep, and with --long all of it.

spec/reliability.md §5.1, check 4.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.fault_ways import WAYS, Way
from tests.crash.faults import KINDS_OF, Tally, make_template, sweep

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

# error, kind, sticky, and which N: half of them for every second way.
SAMPLES = (
    (("ENOSPC", "write", True, (2, 9)), ("EIO", "sync", False, (1,)), ("EMFILE", "open", True, (1,))),
    (("EDQUOT", "write", False, (1, 7)), ("EIO", "write", True, (3,)), ("ENOSPC", "rename", False, (1,)),
     ("EMFILE", "open", False, (1,))),
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_disk_that_fails(way: Way, place: Path) -> None:
    template = make_template(way, place / "template")
    tallies = [sweep(way, template, place / str(number), error, kind, sticky=sticky, numbers=numbers)
               for number, (error, kind, sticky, numbers) in enumerate(SAMPLES[WAYS.index(way) % 2])]
    assert not [one for tally in tallies for one in tally.wrong]
    assert sum(tally.trials for tally in tallies) >= 1


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_every_call_fails_in_every_way(way: Way, place: Path) -> None:
    template = make_template(way, place / "template")
    tallies: list[Tally] = []
    for error, kinds in KINDS_OF.items():
        tallies += [sweep(way, template, place / f"{error}-{kind}-{sticky}", error, kind, sticky=sticky)
                    for kind in kinds for sticky in (False, True)]
    assert not [f"{tally.error} {tally.kind} {one}" for tally in tallies for one in tally.wrong]
    assert any(tally.refused for tally in tallies)
