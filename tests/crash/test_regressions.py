"""Faults that the crash tests found, each with its name."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path

import pytest

from fumibako.app import house
from fumibako.app.build import server_tls
from fumibako.config import load_config
from fumibako.store.disk import DiskIO
from fumibako.store.segment import segment_path, settle_names
from fumibako.store.sqlite.engine import Engine, EngineFailed
from tests.crash import story
from tests.crash.disks import FaultyDisk, Trigger

pytestmark = pytest.mark.crash
SEGMENTS = Path("data", "shard-001", "seg")


@pytest.fixture
def trigger() -> Trigger:
    trigger = Trigger("write", 1, errno.ENOSPC, sticky=True)
    trigger.mend()
    return trigger


@pytest.fixture
def teller(tmp_path: Path, trigger: Trigger) -> story.Teller:
    story.make(tmp_path / "data")
    return story.Teller(tmp_path / "data", FaultyDisk(trigger))


def test_a_crash_before_the_first_commit_leaves_no_segment_behind(teller: story.Teller, tmp_path: Path) -> None:
    """It left a file of up to 4 MB that no row knew, for ever, and `check` called it damage."""
    unit = teller.engine._shards[1]
    assert unit.segments is not None
    unit.segments.append(story.inline(1), story.trace(1), ())
    unit.segments.flush()
    assert os.listdir(tmp_path / SEGMENTS) == ["0000000001.new"]
    teller.engine.close()
    Engine(tmp_path / "data", now_ms=story.NOW_MS).close()
    assert os.listdir(tmp_path / SEGMENTS) == []
    assert not story.faults(tmp_path / "data")


def test_a_crash_between_commit_and_name_keeps_the_segment(teller: story.Teller, tmp_path: Path) -> None:
    assert teller.tell(teller.steps()[0])
    teller.engine.close()
    (tmp_path / SEGMENTS / "0000000001.seg").rename(tmp_path / SEGMENTS / "0000000001.new")
    Engine(tmp_path / "data", now_ms=story.NOW_MS).close()
    assert os.listdir(tmp_path / SEGMENTS) == ["0000000001.seg"]
    assert not story.faults(tmp_path / "data")


def test_a_segment_with_a_name_is_never_removed_for_want_of_rows(tmp_path: Path) -> None:
    """An administrator who puts an older database back must not lose what it does not know: `check --repair` sets it aside."""
    segment_path(tmp_path, 7).write_bytes(b"somebody's mail")
    settle_names(DiskIO(), tmp_path, set())
    assert os.listdir(tmp_path) == ["0000000007.seg"]


def test_housekeeping_on_a_full_disk_does_not_stop_the_store(teller: story.Teller, trigger: Trigger) -> None:
    """It ended the process with 70, again and again every few seconds, for as long as the disk was full."""
    for step in teller.steps():
        assert teller.tell(step)
    trigger.at = trigger.seen + 1
    teller.tidy()
    assert trigger.fired
    trigger.mend()
    teller.tidy()
    teller.engine.close()
    assert not story.faults(teller.directory)


def test_a_full_disk_while_the_outbox_is_drained_is_a_refusal(teller: story.Teller, trigger: Trigger) -> None:
    """It ended the process, and the next start met the same outbox on the same disk."""
    *before, drain = teller.steps()[:10]
    for step in before:
        assert teller.tell(step)
    teller.engine.close()
    teller = story.Teller(teller.directory, FaultyDisk(trigger))    # a new start needs a new segment: the first write fails
    trigger.at = trigger.seen + 1
    assert not teller.tell(drain)
    trigger.mend()
    assert teller.tell(drain)
    teller.engine.close()
    assert not story.faults(teller.directory)


def test_no_sync_follows_a_failed_one(teller: story.Teller, trigger: Trigger) -> None:
    """Closing the database merged its log, which synced again: a second fsync succeeds without having written (fsyncgate)."""
    assert teller.tell(teller.steps()[0])
    trigger.kind, trigger.code, trigger.at = "sync", errno.EIO, 1
    trigger.seen = 0
    with pytest.raises(EngineFailed):
        teller.tell(teller.steps()[2])
    seen = trigger.seen
    teller.engine.give_up()
    teller.engine.close()
    assert trigger.seen == seen


def test_closing_a_failed_store_does_not_hide_that_it_failed(teller: story.Teller, trigger: Trigger) -> None:
    """The error of the last close replaced exit code 70, and with workers = 0 the server stayed up without a store."""
    trigger.code, trigger.at = errno.EIO, trigger.seen + 8
    with pytest.raises(EngineFailed):
        teller.tell(teller.steps()[0])
    teller.engine.close()
    Engine(teller.directory, now_ms=story.NOW_MS).close()      # the lock is free
    assert not story.faults(teller.directory)


class _PowerCut(BaseException):
    pass


def test_init_that_a_power_cut_broke_off_is_completed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key without its certificate was taken for the administrator's own: no later init made one, and no server started."""
    for last in itertools.count():
        directory, left, cut = tmp_path / str(last), itertools.repeat(True, last), False

        def cut_off(descriptor: int, left: object = left) -> None:
            if not next(left, False):       # type: ignore[call-overload]
                raise _PowerCut

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", cut_off)
            try:
                house.House().init(directory, "mail.example.jp", str)
            except _PowerCut:
                cut = True
        house.House().init(directory, "mail.example.jp", str)
        server_tls(load_config(directory))
        assert {path.name for path in (directory / "tls").iterdir()} == {"cert.pem", "key.pem"}
        if not cut:
            break
    assert last > 5
