"""A disk that fails at its N-th call of a kind, ours and SQLite's counted together."""

from __future__ import annotations

import errno
import itertools
import os
import signal
from pathlib import Path

import apsw

from fumibako.store.disk import DiskIO

INJECTED = "injected"
KILL = -1       # instead of an error: the process dies there
# What a sweep counts. "write": everything that needs room; "sync": fsync and fdatasync; the others are calls of that name.
KINDS = {
    "write": frozenset({"create", "pwrite", "mkdir", "link"}), "open": frozenset({"create", "open"}),
    "pwrite": frozenset({"pwrite"}), "sync": frozenset({"sync"}), "rename": frozenset({"rename", "link"}),
    "unlink": frozenset({"unlink"}), "mkdir": frozenset({"mkdir"}), "truncate": frozenset({"truncate"}),
}
# SQLite's own codes for a call that failed, where its VFS for Unix has one of its own.
_CODES = {"pwrite": apsw.SQLITE_IOERR_WRITE, "sync": apsw.SQLITE_IOERR_FSYNC, "truncate": apsw.SQLITE_IOERR_TRUNCATE,
          "unlink": apsw.SQLITE_IOERR_DELETE}
_names = itertools.count(1)


class Trigger:
    """kind: of KINDS; at: which call of it fails, counted from 1; code: errno, or KILL; sticky: so do all later ones
    until `mend`; below: only calls on files of that part of the data directory count."""

    def __init__(self, kind: str, at: int, code: int, *, sticky: bool = False, below: str = "") -> None:
        self.kind, self.at, self.code, self.sticky, self.below = kind, at, code, sticky, below
        self.calls = KINDS[kind]
        self.seen = 0
        self.fired = 0
        self.struck = ""        # the call that failed first, and on what

    def mend(self) -> None:
        self.at = 1 << 60

    def strikes(self, call: str, path: str) -> bool:
        """path: "" where it isn't known."""
        if call not in self.calls or self.below not in path:
            return False
        self.seen += 1
        hit = self.seen >= self.at if self.sticky else self.seen == self.at
        self.fired += hit
        if hit and self.code == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        if hit and not self.struck:
            self.struck = f"{call} {path}"
        return hit


class FaultyDisk(DiskIO):
    """DiskIO whose calls, and those of the SQLite databases opened with it, the trigger may fail."""

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = trigger
        self.vfs = f"faulty-{next(_names)}"
        self._vfs = _FaultyVfs(self.vfs, trigger)      # apsw unregisters it when nobody holds it

    def _check(self, call: str, path: Path | str = "") -> None:
        if self.trigger.strikes(call, str(path)):
            raise OSError(self.trigger.code, f"injected {errno.errorcode[self.trigger.code]}", str(path))

    def open_read(self, path: Path) -> int:
        self._check("open", path)
        return super().open_read(path)

    def open_new(self, path: Path) -> int:
        self._check("create", path)
        return super().open_new(path)

    def open_write(self, path: Path) -> int:
        self._check("open" if path.exists() else "create", path)
        return super().open_write(path)

    def make_directory(self, path: Path) -> None:
        self._check("mkdir", path)
        super().make_directory(path)

    def pwrite(self, descriptor: int, octets: bytes | memoryview, offset: int) -> None:
        self._check("pwrite", _path_of(descriptor))
        super().pwrite(descriptor, octets, offset)

    def link(self, source: Path, target: Path) -> None:
        self._check("link", target)
        super().link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        self._check("rename", target)
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._check("unlink", path)
        super().unlink(path)

    def truncate(self, path: Path, size_octets: int) -> None:
        self._check("truncate", path)
        super().truncate(path, size_octets)

    def fdatasync(self, descriptor: int) -> None:
        self._check("sync", _path_of(descriptor))
        super().fdatasync(descriptor)

    def fsync_directory(self, path: Path) -> None:
        self._check("open", path)
        self._check("sync", path)
        super().fsync_directory(path)


def _path_of(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


class _FaultyVfs(apsw.VFS):
    """Says of a failed call what SQLite's VFS for Unix says: FULL for ENOSPC of a write, else an I/O error with its errno."""

    def __init__(self, name: str, trigger: Trigger) -> None:
        self.trigger = trigger
        self.errno = 0
        super().__init__(name, "")

    def xOpen(self, name: apsw.URIFilename | str | None, flags: list[int]) -> _FaultyFile:
        path = _text(name)
        if self.trigger.strikes("open" if os.path.exists(path) else "create", path):
            self.errno = self.trigger.code
            raise apsw.CantOpenError(INJECTED)
        return _FaultyFile(name, flags, self)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        if self.trigger.strikes("unlink", filename):
            raise self.error("unlink")
        super().xDelete(filename, syncdir)

    def xGetLastError(self) -> tuple[int, str]:
        return self.errno, ""

    def error(self, call: str) -> apsw.Error:
        self.errno = self.trigger.code
        if call == "pwrite" and self.errno == errno.ENOSPC:
            return apsw.FullError(INJECTED)
        found = apsw.IOError(INJECTED)
        found.extendedresult = _CODES[call]      # type: ignore[attr-defined]
        return found


class _FaultyFile(apsw.VFSFile):
    def __init__(self, name: apsw.URIFilename | str | None, flags: list[int], vfs: _FaultyVfs) -> None:
        self._vfs = vfs
        self._path = _text(name)
        self._reads_only = bool(flags[0] & apsw.SQLITE_OPEN_READONLY)
        super().__init__("", name, flags)       # None: a temporary file

    def _check(self, call: str) -> None:
        if self._vfs.trigger.strikes(call, self._path):
            raise self._vfs.error(call)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._check("pwrite")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._check("sync")
        super().xSync(flags)

    def xLock(self, level: int) -> None:
        """Whoever only reads can't have a file to himself, and at the end SQLite asks for that all the same."""
        if self._reads_only and level == apsw.SQLITE_LOCK_EXCLUSIVE:
            raise apsw.BusyError("it only reads")
        super().xLock(level)

    def xTruncate(self, newsize: int) -> None:
        self._check("truncate")
        super().xTruncate(newsize)


def _text(name: apsw.URIFilename | str | None) -> str:
    return "" if name is None else name if isinstance(name, str) else name.filename()
