"""Backups of a store that this process has to itself."""

from pathlib import Path

from fumibako.store.backup import Origin, Wish, Written, claim, write_backup
from fumibako.store.disk import DiskIO
from fumibako.store.sqlite.engine import Engine
from fumibako.store.sqlite.snapshot import Snapshots
from tests.contract.building import NOW_MS


def back_up(engine: Engine, destination: Path, number: int = 1, *, at_ms: int = NOW_MS, keep: int = 0, verify: bool = False,
            disk: DiskIO | None = None, config: dict[str, Path] | None = None) -> Written:
    disk = disk or DiskIO()
    with claim(engine.directory, destination, disk):
        snapshots = Snapshots(engine.directory, disk)
        try:
            snapshots.begin()
            origin = Origin("mail.example.jp", "0.0.1", at_ms + number * 1000, f"{number:08x}")
            return write_backup(engine.directory, snapshots, origin, Wish(destination, config or {}, keep, verify),
                                lambda done, total: None, disk)
        finally:
            snapshots.close()
