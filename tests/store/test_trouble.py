"""Trouble with a disk: which passes, and how often it is told."""

import errno
import logging

import pytest

from fumibako.model.ops import PASSING, Refusal
from fumibako.store import trouble


def test_what_passes() -> None:
    names = ("ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "EIO", "EROFS")
    found = {name: trouble.passing_refusal(getattr(errno, name)) for name in names}
    assert found == {"ENOSPC": Refusal.DISK_FULL, "EDQUOT": Refusal.DISK_FULL, "EMFILE": Refusal.NO_FILES,
                     "ENFILE": Refusal.NO_FILES, "EIO": None, "EROFS": None}
    assert trouble.refusal_of(OSError(errno.EIO, "no")) is Refusal.DISK_ERROR
    assert {found["ENOSPC"], found["EMFILE"], Refusal.DISK_ERROR, Refusal.LOCKED} == PASSING


def test_it_is_told_once_a_minute_and_place(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1_000.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    trouble.forget()
    with caplog.at_level(logging.WARNING):
        for place in ("/d/spool/a", "/d/spool/b", "/d/queue/1.seg"):
            trouble.tell(place, Refusal.DISK_FULL, "No space left on device")
        trouble.tell("/d/spool/c", Refusal.NO_FILES, "Too many open files")
        now_s += trouble.AGAIN_S
        trouble.tell("/d/spool/d", Refusal.DISK_FULL, "No space left on device")
    assert [line.partition(":")[0] for line in caplog.messages] == ["/d/spool/a", "/d/queue/1.seg", "/d/spool/c", "/d/spool/d"]
    assert "no more files" in caplog.messages[2] and "(Too many open files)" in caplog.messages[2]
