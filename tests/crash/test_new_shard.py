"""A second shard is made while the process dies or its disk fails at every write and sync of it: no half of one is ever seen."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fumibako.model.ids import AccountId
from fumibako.model.ops import AccountMade, AddAccount, Delivered, Refusal, Refused, Result
from fumibako.store.disk import DiskIO
from fumibako.store.sqlite import engine as engine_module
from fumibako.store.sqlite.database import open_reader
from fumibako.store.sqlite.engine import Engine, EngineFailed
from tests.crash import story
from tests.crash.disks import KILL, FaultyDisk, Trigger
from tests.crash.dying import told_by_child

pytestmark = pytest.mark.crash

CAROL = AccountId(3)
ADD_CAROL = AddAccount("carol@a.example", story.RECORD)
ENDLESS = 500


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two accounts of the story fill the first one."""
    monkeypatch.setattr(engine_module, "SHARD_ACCOUNTS", 2)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """Makes a store with a full first shard, in memory where there is one."""
    story.make(tmp_path / "data")
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as place:
        def make() -> Path:
            shutil.rmtree(Path(place) / "data", ignore_errors=True)
            return shutil.copytree(tmp_path / "data", Path(place) / "data")
        yield make


def add_carol(engine: Engine) -> Result:
    (result, _), = engine.execute([ADD_CAROL], story.NOW_MS)
    assert isinstance(result, AccountMade | Refused), result
    return result


def shards(directory: Path) -> list[int]:
    database = open_reader(directory / "control.db")
    found = [row[0] for row in database.rows("SELECT id FROM shard ORDER BY id")]
    database.close()
    return found


def is_whole(directory: Path, *, answered: bool) -> None:
    """Nothing half made is seen, what was answered is there, and the next try ends with Carol in shard 2."""
    assert not story.faults(directory)
    before = shards(directory)
    engine = Engine(directory, now_ms=story.NOW_MS)
    result = add_carol(engine)
    if isinstance(result, Refused):
        assert result.refusal is Refusal.EXISTS and before == [1, 2]
    else:
        assert not answered and before == [1] and result.account.shard == 2
    both = [story.deliver(1, story.inline(1), story.ALICE), story.deliver(2, story.inline(2), CAROL)]
    assert all(isinstance(one, Delivered) for one, _ in engine.execute(both, story.NOW_MS))
    engine.close()
    assert shards(directory) == [1, 2] and not story.faults(directory)


@pytest.mark.parametrize("kind", ["write", "sync"])
def test_it_dies_at_every_write_and_sync(fresh: Callable[[], Path], kind: str) -> None:
    def work(directory: Path, trigger: Trigger, told: Callable[[], object]) -> None:
        at = trigger.at
        trigger.mend()
        engine = Engine(directory, FaultyDisk(trigger), story.NOW_MS)
        trigger.seen, trigger.at = 0, at
        add_carol(engine)
        told()

    for at in range(1, ENDLESS):
        directory, trigger = fresh(), Trigger(kind, at, KILL)
        answered, died = told_by_child(lambda told, d=directory, t=trigger: work(d, t, told))   # type: ignore[misc]
        is_whole(directory, answered=answered > 0)
        if not died:
            assert at > 8 and answered
            return
    raise AssertionError("it never lives through it")


@pytest.mark.parametrize(
    "name", ["shard-directory:1", "database-opened:4", "shard-opened:1", "before-commit:1", "after-commit:1"])
def test_it_dies_at_a_named_place(fresh: Callable[[], Path], name: str) -> None:
    directory = fresh()

    def work(told: Callable[[], object]) -> None:
        add_carol(Engine(directory, now_ms=story.NOW_MS))
        told()

    answered, died = told_by_child(work, name)
    assert died and not answered
    assert shards(directory) == ([1, 2] if name == "after-commit:1" else [1])
    is_whole(directory, answered=False)


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "sticky"])
def test_a_full_disk_refuses_the_account(fresh: Callable[[], Path], sticky: bool) -> None:
    for at in range(1, ENDLESS):
        directory, trigger = fresh(), Trigger("write", 1 << 60, errno.ENOSPC, sticky=sticky)
        engine = Engine(directory, FaultyDisk(trigger), story.NOW_MS)
        trigger.at = trigger.seen + at
        result = add_carol(engine)
        if not trigger.fired:
            engine.close()
            assert at > 20
            return
        assert isinstance(result, Refused) and result.refusal is Refusal.DISK_FULL, at
        assert shards(directory) == [1] and not story.faults(directory)
        trigger.mend()
        assert isinstance(engine.execute([story.deliver(9, story.inline(9), story.ALICE)], story.NOW_MS)[0][0], Delivered)
        made = add_carol(engine)
        assert isinstance(made, AccountMade) and made.account.shard == 2, at
        engine.close()
        is_whole(directory, answered=True)
    raise AssertionError("the sweep does not end")


@pytest.mark.parametrize("kind", ["write", "sync"])
def test_a_failing_disk_ends_the_engine_and_the_next_start_goes_on(fresh: Callable[[], Path], kind: str) -> None:
    for at in range(1, ENDLESS):
        directory, trigger = fresh(), Trigger(kind, 1 << 60, errno.EIO)
        engine = Engine(directory, FaultyDisk(trigger), story.NOW_MS)
        trigger.at = trigger.seen + at
        answered = stopped = False
        try:
            answered = isinstance(add_carol(engine), AccountMade)
        except EngineFailed:
            stopped = True
        seen = trigger.seen
        engine.give_up()
        engine.close()
        assert stopped or answered
        assert kind == "write" or not stopped or trigger.seen == seen, "after a failed sync there is no other"
        is_whole(directory, answered=answered)
        if not trigger.fired:
            return
    raise AssertionError("the sweep does not end")


def test_a_nearly_full_disk_gets_no_new_shard(fresh: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    directory = fresh()
    engine = Engine(directory, now_ms=story.NOW_MS)
    monkeypatch.setattr(DiskIO, "free_octets", lambda *_: 1_000)
    result = add_carol(engine)
    assert isinstance(result, Refused) and result.refusal is Refusal.DISK_FULL
    engine.close()
    assert not (directory / "shard-002").exists()


def test_a_refused_account_leaves_no_shard(fresh: Callable[[], Path]) -> None:
    directory = fresh()
    engine = Engine(directory, now_ms=story.NOW_MS)
    (result, _), = engine.execute([AddAccount("alice@a.example", story.RECORD)], story.NOW_MS)
    assert isinstance(result, Refused) and result.refusal is Refusal.EXISTS
    assert shards(directory) == [1]
    engine.close()
    is_whole(directory, answered=False)


# -- two shards in one batch --


@pytest.fixture
def two(fresh: Callable[[], Path]) -> Callable[[], Path]:
    """Makes a store with Alice and Bob in shard 1, Carol in shard 2."""
    def make() -> Path:
        directory = fresh()
        engine = Engine(directory, now_ms=story.NOW_MS)
        assert isinstance(add_carol(engine), AccountMade)
        engine.close()
        return directory
    return make


BATCH = [(1, story.ALICE), (2, CAROL), (3, story.BOB), (4, CAROL)]


@pytest.mark.parametrize("full", ["shard-001", "shard-002", "mail.db"])
@pytest.mark.parametrize("sticky", [False, True], ids=["once", "sticky"])
def test_a_shard_that_is_full_refuses_its_own_part_of_a_batch(two: Callable[[], Path], full: str, sticky: bool) -> None:
    """mail.db: the first one that writes is struck, or both."""
    for at in range(1, ENDLESS):
        directory, trigger = two(), Trigger("write", 1 << 60, errno.ENOSPC, sticky=sticky, below=full)
        engine = Engine(directory, FaultyDisk(trigger), story.NOW_MS)
        trigger.at = trigger.seen + at
        batch = [story.deliver(number, story.inline(number), account) for number, account in BATCH]
        results = [result for result, _ in engine.execute(batch, story.NOW_MS)]
        refused = [isinstance(one, Refused) and one.refusal is Refusal.DISK_FULL for one in results]
        assert all(isinstance(one, Delivered) for one, no in zip(results, refused, strict=True) if not no)
        first, second = {refused[0], refused[2]}, {refused[1], refused[3]}
        struck = {full} if full != "mail.db" else {"shard-001", "shard-002"}
        assert first <= {False} or "shard-001" in struck
        assert second <= {False} or "shard-002" in struck
        assert len(first) == len(second) == 1, "a shard's part is one"
        assert any(refused) == bool(trigger.fired)
        trigger.mend()
        again = [one for one, no in zip(batch, refused, strict=True) if no]
        assert all(isinstance(one, Delivered) for one, _ in engine.execute(again, story.NOW_MS))
        engine.close()
        assert entries(directory) == (2, 2) and not story.faults(directory)
        if not trigger.fired:
            assert at > 4
            return
    raise AssertionError("the sweep does not end")


@pytest.mark.parametrize("failing", ["shard-001", "shard-002"])
@pytest.mark.parametrize("kind", ["write", "sync"])
def test_a_shard_whose_disk_fails_ends_the_engine(two: Callable[[], Path], failing: str, kind: str) -> None:
    """Nothing of the batch is answered; what the other shard had committed already is whole, and the key keeps it single."""
    for at in range(1, ENDLESS):
        directory, trigger = two(), Trigger(kind, 1 << 60, errno.EIO, below=failing, sticky=kind == "write")
        engine = Engine(directory, FaultyDisk(trigger), story.NOW_MS)
        trigger.at = trigger.seen + at
        batch = [story.deliver(number, story.inline(number), account) for number, account in BATCH]
        try:
            results = [result for result, _ in engine.execute(batch, story.NOW_MS)]
        except EngineFailed:
            results = []
        engine.give_up()
        engine.close()
        found = entries(directory)
        assert found[0] in (0, 2) and found[1] in (0, 2)
        # A file that can't be made is its mail's trouble only.
        assert all(isinstance(one, Delivered) or one.refusal is Refusal.DISK_ERROR for one in results)
        engine = Engine(directory, now_ms=story.NOW_MS)
        assert not story.faults(directory)
        assert all(isinstance(one, Delivered) for one, _ in engine.execute(batch, story.NOW_MS))
        engine.close()
        assert entries(directory) == (2, 2) and not story.faults(directory)
        if not trigger.fired:
            return
    raise AssertionError("the sweep does not end")


def entries(directory: Path) -> tuple[int, ...]:
    """How many messages lie in each shard."""
    found = []
    for shard in ("shard-001", "shard-002"):
        database = open_reader(directory / shard / "mail.db")
        found.append(database.row("SELECT count(*) FROM entry")[0])
        database.close()
    return tuple(found)
