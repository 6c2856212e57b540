"""A data directory in a place that belongs to others."""

from __future__ import annotations

from pathlib import Path

from fumibako.store.disk import DiskIO
from fumibako.store.sqlite.engine import Engine, create


class Watched(DiskIO):
    """Notes which directories are opened to be made durable."""

    def __init__(self) -> None:
        super().__init__()
        self.synced: list[Path] = []

    def fsync_directory(self, path: Path) -> None:
        self.synced.append(path)
        super().fsync_directory(path)


def test_bug_a_server_could_not_start_below_a_directory_it_may_not_read(tmp_path: Path) -> None:
    """`/srv/mail` with 0711 above DIR: only who makes DIR needs to sync what lies above it."""
    first, second = Watched(), Watched()
    create(tmp_path / "data", 0, first)
    assert tmp_path in first.synced
    Engine(tmp_path / "data", second).close()
    assert tmp_path not in second.synced
