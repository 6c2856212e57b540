"""A disk that fails at its N-th write or sync, ours and SQLite's counted together."""

from __future__ import annotations

import errno
import itertools
from pathlib import Path

import apsw

from fumibako.store.disk import DiskIO

_names = itertools.count(1)


class Trigger:
    """kind: "write" or "sync"; at: which call of it fails, counted from 1; sticky: so do all later ones until `mend`."""

    def __init__(self, kind: str, at: int, code: int, *, sticky: bool = False) -> None:
        self.kind, self.at, self.code, self.sticky = kind, at, code, sticky
        self.seen = 0
        self.fired = 0

    def mend(self) -> None:
        self.at = 1 << 60

    def strikes(self, kind: str) -> bool:
        if kind != self.kind:
            return False
        self.seen += 1
        hit = self.seen >= self.at if self.sticky else self.seen == self.at
        self.fired += hit
        return hit


class FaultyDisk(DiskIO):
    """DiskIO whose calls, and those of the SQLite databases opened with it, the trigger may fail."""

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = trigger
        self.vfs = f"faulty-{next(_names)}"
        self._vfs = _FaultyVfs(self.vfs, trigger)      # apsw unregisters it when nobody holds it

    def _check(self, kind: str) -> None:
        if self.trigger.strikes(kind):
            raise OSError(self.trigger.code, f"injected {errno.errorcode[self.trigger.code]}")

    def open_new(self, path: Path) -> int:
        self._check("write")
        return super().open_new(path)

    def pwrite(self, descriptor: int, octets: bytes | memoryview, offset: int) -> None:
        self._check("write")
        super().pwrite(descriptor, octets, offset)

    def link(self, source: Path, target: Path) -> None:
        self._check("write")
        super().link(source, target)

    def fdatasync(self, descriptor: int) -> None:
        self._check("sync")
        super().fdatasync(descriptor)

    def fsync_directory(self, path: Path) -> None:
        self._check("sync")
        super().fsync_directory(path)


class _FaultyVfs(apsw.VFS):
    def __init__(self, name: str, trigger: Trigger) -> None:
        self._trigger = trigger
        super().__init__(name, "")

    def xOpen(self, name: apsw.URIFilename | str | None, flags: list[int]) -> _FaultyFile:
        return _FaultyFile(name, flags, self._trigger)


class _FaultyFile(apsw.VFSFile):
    def __init__(self, name: apsw.URIFilename | str | None, flags: list[int], trigger: Trigger) -> None:
        self._trigger = trigger
        super().__init__("", name, flags)       # None: a temporary file

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._trigger.strikes("write"):
            raise apsw.FullError("injected") if self._trigger.code == errno.ENOSPC else apsw.IOError("injected")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        if self._trigger.strikes("sync"):
            raise apsw.IOError("injected")
        super().xSync(flags)
