"""A process that dies while segments are compacted, and disks that fail meanwhile: every message is there, and once."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fumibako.model import ops
from fumibako.model.ids import Uid
from fumibako.model.queue import DAY_MS
from fumibako.store import failpoint
from fumibako.store.disk import DiskIO
from fumibako.store.sqlite.compaction import REPLACED_MS
from fumibako.store.sqlite.engine import Engine, EngineFailed
from fumibako.store.sqlite.reader import Reader
from tests.crash import story
from tests.crash.disks import FaultyDisk, Trigger
from tests.crash.dying import told_by_child

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]

LATER_MS = story.NOW_MS + 21 * DAY_MS
COUNT, KEPT, COMPACTED = 12, (2, 5, 9), 3
# The steps of a compaction in order; whatever is reached before the first of them belongs to other work.
STEPS = ("blobs-moved", "segment-written", "segment-synced", "before-commit", "after-commit",
         "segment-condemned", "segment-unlinked", "unlink-synced")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sealed segments of which most is dead: three small ones to compact, and the queue's, in which nothing lives."""
    directory = tmp_path_factory.mktemp("thin") / "data"
    story.make(directory)
    for first in range(1, COUNT + 1, COUNT // COMPACTED):
        engine = Engine(directory, now_ms=story.NOW_MS)
        for number in range(first, first + COUNT // COMPACTED):
            engine.execute([story.deliver(number, story.inline(number), story.ALICE)], story.NOW_MS)
        engine.close()      # each start begins a new segment
    engine = Engine(directory, now_ms=story.NOW_MS)
    gone = tuple(Uid(number) for number in range(1, COUNT + 1) if number not in KEPT)
    engine.execute([ops.Expunge(story.ALICE, story.INBOX, gone, only_deleted=False)], story.NOW_MS)
    engine.execute([story.enqueue(100, story.inline(100), "x@b.example")], story.NOW_MS)
    engine.execute([ops.ChangeQueue(ops.QueueAction.DELETE, (), story.NOW_MS)], story.NOW_MS)
    engine.housekeep(story.NOW_MS)
    engine.close()
    assert len(list((directory / "shard-001" / "seg").iterdir())) == COMPACTED
    return directory


def compact(engine: Engine) -> None:
    """Until nothing is left to do, now and in each hour in which old files may go."""
    for hour in range(4):
        while engine.housekeep(LATER_MS + hour * REPLACED_MS):
            pass


def whole(directory: Path) -> bool:
    """Exactly the messages that were kept, each as it was delivered."""
    reader = Reader(directory)
    try:
        view = reader.view(story.ALICE, story.INBOX)
        assert view is not None and tuple(view.uids) == KEPT
        emails = [entry.email_id for entry in reader.entries(story.ALICE, story.INBOX, [Uid(uid) for uid in KEPT])]
        return [reader.read(story.ALICE, email, 0, 1 << 20) for email in emails] == [
            b"Return-Path: <>\r\n" + story.octets(number, story.SMALL) for number in KEPT]
    finally:
        reader.close()


def finished(directory: Path) -> bool:
    """After another start: one segment holds everything, the old files are gone, `check` finds nothing."""
    engine = Engine(directory, now_ms=story.NOW_MS)
    assert whole(directory) and not story.faults(directory)
    compact(engine)
    engine.close()
    engine = Engine(directory, now_ms=story.NOW_MS)     # seals what was being filled: a thin one is compacted in its turn
    compact(engine)
    engine.close()
    octets = sum(path.stat().st_size for path in (directory / "shard-001" / "seg").iterdir())
    needed = sum(len(story.octets(number, story.SMALL)) + 128 for number in KEPT)
    return whole(directory) and not story.faults(directory) and octets == needed


@pytest.mark.parametrize("visit", [1, 2])
@pytest.mark.parametrize("step", STEPS)
def test_a_process_that_dies_there(step: str, visit: int, tmp_path: Path, template: Path) -> None:
    directory = tmp_path / "data"
    shutil.copytree(template, directory)

    def work(answered: Callable[[], object]) -> None:
        failpoint.arm("")
        engine = Engine(directory, now_ms=story.NOW_MS)
        answered()
        failpoint.arm(f"{step}:{visit}")
        compact(engine)
        engine.close()

    assert told_by_child(work, "") == (1, True)
    assert finished(directory)


def test_a_process_that_dies_again_and_again(tmp_path: Path, template: Path) -> None:
    """Each start gets one step further; the tail that each death leaves is cut."""
    directory = tmp_path / "data"
    shutil.copytree(template, directory)

    def work(answered: Callable[[], object]) -> None:
        compact(Engine(directory, now_ms=story.NOW_MS))

    for step in STEPS * 2:
        told_by_child(work, f"{step}:1")
        assert whole(directory) and not story.faults(directory), step
    assert finished(directory)


@pytest.mark.parametrize(("kind", "code", "sticky"), [
    ("write", errno.ENOSPC, False), ("write", errno.ENOSPC, True), ("write", errno.EIO, True), ("sync", errno.EIO, False)])
def test_the_nth_fault(kind: str, code: int, sticky: bool, template: Path, place: Path) -> None:
    """A full disk stops nothing: there is another try. Anything else ends the engine, and the next one goes on."""
    for at in range(1, 500):
        directory, trigger = place / str(at), Trigger(kind, 1, code, sticky=sticky)
        shutil.copytree(template, directory)
        trigger.mend()
        engine = Engine(directory, FaultyDisk(trigger), story.NOW_MS)
        trigger.seen, trigger.at = 0, at
        try:
            compact(engine)
            trigger.mend()
            assert whole(directory) and not story.faults(directory), at
            compact(engine)
        except EngineFailed:
            assert code != errno.ENOSPC, at
            engine.give_up()
        else:
            assert kind != "sync" or not trigger.fired, at
        trigger.mend()
        engine.close()
        assert finished(directory), at
        shutil.rmtree(directory)
        if not trigger.fired:
            break
    assert at > 8


def test_a_read_error_of_an_old_segment_stops_nothing(tmp_path: Path, template: Path) -> None:
    """A bad sector: mail that can still be read goes on being served, and the store takes new mail."""
    directory = tmp_path / "data"
    shutil.copytree(template, directory)

    class Worn(DiskIO):
        def pread(self, descriptor: int, size_octets: int, offset: int) -> bytes:
            raise OSError(errno.EIO, "injected")

    engine = Engine(directory, Worn(), story.NOW_MS)
    compact(engine)
    assert isinstance(engine.execute([story.deliver(50, story.inline(50), story.BOB)], story.NOW_MS)[0][0], ops.Delivered)
    engine.close()
    assert whole(directory) and not story.faults(directory)
