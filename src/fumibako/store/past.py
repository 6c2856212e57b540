"""A backup as a store that can only be read: whose mail was in it, where, and with which flags.

Contract: that of store.base without the writing; nothing of the backup is changed, and it may lie on a disk that can't be
    written. Every commit is refused.
Failure: BackupFault for what is no backup, or one of another version than this program's databases; else that of the reader.
"""

from __future__ import annotations

from pathlib import Path

from fumibako.model.frames import Command
from fumibako.model.ops import Refusal, Result
from fumibako.store.base import StoreRefused
from fumibako.store.disk import DiskIO
from fumibako.store.manifest import BackupFault, Fault, find_backup, read_manifest
from fumibako.store.reading import ReadingStore
from fumibako.store.restore import schema_of
from fumibako.store.schema import steps
from fumibako.store.spool import Offload
from fumibako.store.sqlite.layout import CONTROL
from fumibako.store.sqlite.reader import Reader


class PastStore(ReadingStore):
    """source: a backup, or the place of several. at_ms: the moment it shows."""

    def __init__(self, source: Path, offload: Offload) -> None:
        backup, disk = find_backup(source), DiskIO()
        self.manifest = read_manifest(backup)
        for file in self.manifest.files:
            if file.path.endswith("mail.db") or file.path == CONTROL:
                known = steps("control" if file.path == CONTROL else "mail")[-1][0]
                found = schema_of(backup / file.path, disk)
                if found != known:
                    raise BackupFault(Fault.NEWER if found > known else Fault.OLDER, str(backup))
        super().__init__(Reader(backup, disk), disk, offload)

    async def _commit(self, operation: Command) -> Result:
        raise StoreRefused(Refusal.NOT_ALLOWED, "a backup is only read")

    async def close(self) -> None:
        self._reader.close()
