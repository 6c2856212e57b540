"""The way to one moment of the store."""

from pathlib import Path

import pytest

from fumibako.app.rescue import FREEZES, _begin_frozen, in_words
from fumibako.faces.cli.house import HouseError
from fumibako.model.ops import Done, Freeze, Refusal, Refused, Result, Thaw, Thawed
from fumibako.store.disk import DiskIO
from fumibako.store.sqlite.snapshot import Snapshots
from tests.contract.building import NOW_MS
from tests.store.sqlite.test_engine import delivery, opened
from tests.support.clock import FakeClock


class Call:
    """A storage process whose freezes end too early; it commits while a snapshot begins."""

    def __init__(self, stood: list[bool], directory: Path) -> None:
        self.stood, self.engine, self.asked = stood, opened(directory), 0

    def ask(self, operation: object) -> Result:
        self.asked += isinstance(operation, Freeze)
        if isinstance(operation, Thaw):
            stood = self.stood.pop(0)
            if not stood:
                self.engine.execute([delivery(100 + len(self.stood))], NOW_MS)
            return Thawed(stood)
        return Refused(Refusal.IN_USE) if self.asked == 1 else Done()


def test_only_a_freeze_that_stood_makes_a_moment(tmp_path: Path) -> None:
    call = Call([False, False, True], tmp_path / "data")
    snapshots = Snapshots(tmp_path / "data", DiskIO())
    _begin_frozen(call, snapshots, FakeClock())     # type: ignore[arg-type]
    assert call.asked == 4 and snapshots.shards[1].count("email") == 2      # begun anew, not those of the first attempt
    snapshots.close()
    call.engine.close()


def test_a_store_that_is_never_still_is_a_no(tmp_path: Path) -> None:
    call = Call([False] * FREEZES, tmp_path / "data")
    snapshots = Snapshots(tmp_path / "data", DiskIO())
    with pytest.raises(HouseError, match="could not be stopped"), in_words():
        _begin_frozen(call, snapshots, FakeClock())     # type: ignore[arg-type]
    snapshots.close()
    call.engine.close()
