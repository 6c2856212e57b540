"""Disks for tests: one that counts what is written and made durable, one on which a chosen call fails."""

import errno
from collections import Counter
from pathlib import Path

import apsw

from fumibako.store.disk import DiskIO


class _CountingFile(apsw.VFSFile):
    def __init__(self, name: object, flags: list[int], counts: Counter[str]) -> None:
        super().__init__("", name, flags)
        self.counts = counts

    def xSync(self, flags: int) -> None:
        self.counts["database sync"] += 1
        super().xSync(flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self.counts["database octets"] += len(data)
        super().xWrite(data, offset)


class _CountingVFS(apsw.VFS):
    def __init__(self, name: str, counts: Counter[str]) -> None:
        super().__init__(name, "")
        self.counts = counts

    def xOpen(self, name: object, flags: list[int]) -> apsw.VFSFile:
        return _CountingFile(name, flags, self.counts)


class CountingDisk(DiskIO):
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.vfs = f"counting-{id(self)}"
        self._vfs = _CountingVFS(self.vfs, self.counts)

    def pwrite(self, descriptor: int, octets: bytes | memoryview, offset: int) -> None:
        self.counts["write"] += 1
        self.counts["segment octets"] += len(octets)
        super().pwrite(descriptor, octets, offset)

    def fdatasync(self, descriptor: int) -> None:
        self.counts["segment sync"] += 1
        super().fdatasync(descriptor)

    def fsync_directory(self, path: Path) -> None:
        self.counts["directory sync"] += 1
        super().fsync_directory(path)


class FailingDisk(DiskIO):
    """fail: name of the method whose next calls fail with `code`; free: what free_octets says, -1 for the truth."""

    def __init__(self) -> None:
        self.fail, self.code, self.free = "", errno.EIO, -1
        self.linked: list[Path] = []

    def _perhaps(self, name: str) -> None:
        if name == self.fail:
            raise OSError(self.code, f"injected into {name}")

    def open_new(self, path: Path) -> int:
        self._perhaps("open_new")
        return super().open_new(path)

    def rename(self, source: Path, target: Path) -> None:
        self._perhaps("rename")
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._perhaps("unlink")
        super().unlink(path)

    def pwrite(self, descriptor: int, octets: bytes | memoryview, offset: int) -> None:
        self._perhaps("pwrite")
        super().pwrite(descriptor, octets, offset)

    def fdatasync(self, descriptor: int) -> None:
        self._perhaps("fdatasync")
        super().fdatasync(descriptor)

    def fsync_directory(self, path: Path) -> None:
        self._perhaps("fsync_directory")
        super().fsync_directory(path)

    def link(self, source: Path, target: Path) -> None:
        self._perhaps("link")
        super().link(source, target)
        self.linked.append(target)

    def free_octets(self, path: Path) -> int:
        return super().free_octets(path) if self.free < 0 else self.free
