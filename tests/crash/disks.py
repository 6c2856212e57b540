"""A disk that fails at its N-th write or sync, ours and SQLite's counted together."""

from __future__ import annotations

import errno
import itertools
import os
import signal
from pathlib import Path

import apsw

from fumibako.store.disk import DiskIO

KILL = -1       # instead of an error: the process dies there
_names = itertools.count(1)


class Trigger:
    """kind: "write" or "sync"; at: which call of it fails, counted from 1; code: errno, or KILL; sticky: so do all later ones
    until `mend`; below: only calls on files of that part of the data directory count."""

    def __init__(self, kind: str, at: int, code: int, *, sticky: bool = False, below: str = "") -> None:
        self.kind, self.at, self.code, self.sticky, self.below = kind, at, code, sticky, below
        self.seen = 0
        self.fired = 0

    def mend(self) -> None:
        self.at = 1 << 60

    def strikes(self, kind: str, path: str) -> bool:
        """path: "" where it isn't known."""
        if kind != self.kind or self.below not in path:
            return False
        self.seen += 1
        hit = self.seen >= self.at if self.sticky else self.seen == self.at
        self.fired += hit
        if hit and self.code == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        return hit


class FaultyDisk(DiskIO):
    """DiskIO whose calls, and those of the SQLite databases opened with it, the trigger may fail."""

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = trigger
        self.vfs = f"faulty-{next(_names)}"
        self._vfs = _FaultyVfs(self.vfs, trigger)      # apsw unregisters it when nobody holds it

    def _check(self, kind: str, path: Path | str = "") -> None:
        if self.trigger.strikes(kind, str(path)):
            raise OSError(self.trigger.code, f"injected {errno.errorcode[self.trigger.code]}")

    def open_new(self, path: Path) -> int:
        self._check("write", path)
        return super().open_new(path)

    def open_write(self, path: Path) -> int:
        if not path.exists():
            self._check("write", path)
        return super().open_write(path)

    def make_directory(self, path: Path) -> None:
        self._check("write", path)
        super().make_directory(path)

    def pwrite(self, descriptor: int, octets: bytes | memoryview, offset: int) -> None:
        self._check("write", _path_of(descriptor))
        super().pwrite(descriptor, octets, offset)

    def link(self, source: Path, target: Path) -> None:
        self._check("write", target)
        super().link(source, target)

    def fdatasync(self, descriptor: int) -> None:
        self._check("sync", _path_of(descriptor))
        super().fdatasync(descriptor)

    def fsync_directory(self, path: Path) -> None:
        self._check("sync", path)
        super().fsync_directory(path)


def _path_of(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


class _FaultyVfs(apsw.VFS):
    def __init__(self, name: str, trigger: Trigger) -> None:
        self._trigger = trigger
        super().__init__(name, "")

    def xOpen(self, name: apsw.URIFilename | str | None, flags: list[int]) -> _FaultyFile:
        return _FaultyFile(name, flags, self._trigger)


class _FaultyFile(apsw.VFSFile):
    def __init__(self, name: apsw.URIFilename | str | None, flags: list[int], trigger: Trigger) -> None:
        self._trigger = trigger
        self._path = "" if name is None else name if isinstance(name, str) else name.filename()
        super().__init__("", name, flags)       # None: a temporary file

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._trigger.strikes("write", self._path):
            raise apsw.FullError("injected") if self._trigger.code == errno.ENOSPC else apsw.IOError("injected")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        if self._trigger.strikes("sync", self._path):
            raise apsw.IOError("injected")
        super().xSync(flags)
