"""The N-th write or sync fails, for every N there is: nothing is answered that is not durable, nothing answered gets lost.

spec/reliability.md §5.1, checks 4 and 5. ENOSPC is a refusal, and work goes on when there is room again; everything else ends
the engine, and a new one finds either the state before the failed step or the state after it.
"""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from fumibako.store.disk import DiskIO
from fumibako.store.sqlite.engine import EngineFailed
from tests.crash import story
from tests.crash.disks import FaultyDisk, Trigger

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]
SPOOLED = 4         # bodies in the story that go through the spool
Template = tuple[Path, list[story.Picture]]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A store before the story, and what it looks like before it and after each step."""
    directory = tmp_path_factory.mktemp("story")
    story.make(directory / "data")
    return directory / "data", story.pictures(directory / "told")


def tell_until_struck(directory: Path, trigger: Trigger) -> tuple[int, bool]:
    """The story on a disk that fails: steps that were answered, and whether the engine had to stop."""
    at = trigger.at
    trigger.mend()
    teller = story.Teller(directory, FaultyDisk(trigger))
    trigger.seen, trigger.at = 0, at        # neither start nor end are part of the sweep
    answered = 0
    try:
        for step in teller.steps():
            while not teller.tell(step):
                assert trigger.fired, "refused without a cause"
                assert not story.faults(directory), (answered, trigger.seen)
                trigger.mend()
            answered += 1
        teller.tidy()
    except EngineFailed:
        stopped, before = True, trigger.seen
        teller.engine.give_up()
        teller.engine.close()
        assert trigger.kind != "sync" or trigger.seen == before, "after a failed sync there is no other"
    else:
        stopped = False
        trigger.mend()
        teller.engine.close()
    return answered, stopped


def sweep(template: Template, place: Path, kind: str, code: int, *, sticky: bool) -> tuple[int, int]:
    """Fault after fault until the story ends without one; (faults, engines that had to stop)."""
    data, pictures = template
    stops = 0
    for at in range(1, 2_000):
        trigger = Trigger(kind, at, code, sticky=sticky)
        directory = place / str(at)
        shutil.copytree(data, directory)
        answered, stopped = tell_until_struck(directory, trigger)
        stops += stopped
        story.Teller(directory, DiskIO()).engine.close()
        assert not story.faults(directory), at
        if answered < len(pictures) - 1:
            assert stopped, at
            assert story.is_after(directory, pictures, answered), (at, answered)
        shutil.rmtree(directory)
        if not trigger.fired:
            return at - 1, stops
    raise AssertionError("the sweep does not end")


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "sticky"])
def test_a_full_disk_is_a_refusal_and_nothing_else(template: Template, place: Path, sticky: bool) -> None:
    faults, stops = sweep(template, place, "write", errno.ENOSPC, sticky=sticky)
    assert faults > 50
    assert stops == 0


def test_a_failed_sync_ends_the_engine_every_time(template: Template, place: Path) -> None:
    faults, stops = sweep(template, place, "sync", errno.EIO, sticky=False)
    assert faults > 25
    # A body that a worker can't sync is refused before storage hears of it: another try writes another file.
    assert stops == faults - SPOOLED


def test_a_failed_write_of_a_database_ends_the_engine(template: Template, place: Path) -> None:
    faults, stops = sweep(template, place, "write", errno.EIO, sticky=True)
    assert faults > 50 and stops > 0
