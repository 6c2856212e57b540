"""A backup as a store that can only be read: whose mail was in it, where, and with which flags.

Contract: that of store.base without the writing; nothing of the backup is changed, and it may lie on a disk that can't be
    written. Of one that an older program wrote, copies of the databases are brought up to date in a directory of their own
    (below $TMPDIR), which goes with `close`. Every commit is refused.
Failure: BackupFault for what is no backup, or one of a newer program; OSError (ENOSPC: no room for the copies); else that of
    the reader.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from fumibako.model.frames import Command
from fumibako.model.ops import Refusal, Result
from fumibako.store.base import StoreRefused
from fumibako.store.disk import DiskIO
from fumibako.store.manifest import BackedUp, BackupFault, Fault, copy_file, find_backup, plain_errors, read_manifest
from fumibako.store.reading import ReadingStore
from fumibako.store.restore import kind_of, schema_of
from fumibako.store.schema import migrate, steps
from fumibako.store.spool import Offload
from fumibako.store.sqlite.database import open_writer
from fumibako.store.sqlite.layout import CONTROL
from fumibako.store.sqlite.reader import Reader


class PastStore(ReadingStore):
    """source: a backup, or the place of several. at_ms: the moment it shows."""

    def __init__(self, source: Path, offload: Offload) -> None:
        backup, disk = find_backup(source), DiskIO()
        self.manifest = read_manifest(backup)
        databases = [file for file in self.manifest.files if file.path == CONTROL or file.path.endswith("mail.db")]
        ages = [steps(kind_of(file.path))[-1][0] - schema_of(backup / file.path, disk) for file in databases]
        if min(ages, default=0) < 0:
            raise BackupFault(Fault.NEWER, str(backup))
        self._copies = _brought_up_to_date(backup, databases, self.manifest.at_ms, disk) if any(ages) else None
        super().__init__(Reader(Path(self._copies.name) if self._copies else backup, disk), disk, offload)

    async def _commit(self, operation: Command) -> Result:
        raise StoreRefused(Refusal.NOT_ALLOWED, "a backup is only read")

    async def close(self) -> None:
        self._reader.close()
        if self._copies:
            self._copies.cleanup()


def _brought_up_to_date(backup: Path, databases: list[BackedUp], at_ms: int, disk: DiskIO) -> TemporaryDirectory[str]:
    """Copies of the databases as this program has them, beside names for the segments where they are."""
    copies = TemporaryDirectory(prefix="fumibako-backup-")
    try:
        for file in databases:
            target, segments = Path(copies.name, file.path), (backup / file.path).with_name("seg")
            target.parent.mkdir(exist_ok=True)
            if copy_file(disk, backup / file.path, target) != (file.sha256, file.size_octets):
                raise BackupFault(Fault.DAMAGED, str(backup / file.path))
            with plain_errors(target):
                database = open_writer(target, disk.vfs)
                try:
                    migrate(database, kind_of(file.path), at_ms)
                finally:
                    database.close()
            if segments.is_dir():
                target.with_name("seg").symlink_to(segments)
    except BaseException:
        copies.cleanup()
        raise
    return copies
