"""Where things lie in a data directory.

Contract: DIR/{LOCK, control.db, queue.db, queue/, spool/, shard-NNN/{mail.db, seg/}}; directories 0700, files 0600.
"""

from __future__ import annotations

from pathlib import Path

from fumibako.store.disk import DiskIO

LOCK = "LOCK"
CONTROL = "control.db"
QUEUE = "queue"         # queue.db and the directory of its segments
SPOOL = "spool"
SHARD = "shard-"


def shard_directory(shard_id: int) -> str:
    return f"{SHARD}{shard_id:03d}"


def make_directories(disk: DiskIO, directory: Path, shard: str = "") -> None:
    """DIR and what every DIR has; with `shard`: that shard's. Durable when it returns."""
    wanted = [directory / shard, directory / shard / "seg"] if shard else [directory, directory / QUEUE, directory / SPOOL]
    for path in wanted:
        existed = path.exists()
        disk.make_directory(path)
        # What lies above DIR belongs to others: perhaps we may not even read it.
        if path != directory or not existed:
            disk.fsync_directory(path.parent)
