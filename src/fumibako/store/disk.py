"""Every call the store makes on files of its own, in one place, so that tests can let each of them fail or crash.

Contract: paths and descriptors only, no policy. SQLite's own files go through the VFS named by `vfs`.
Failure: OSError as the kernel said it.
"""

from __future__ import annotations

import os
from pathlib import Path


class DiskIO:
    """The real disk. vfs: name of the SQLite VFS to open databases with, "" for the default one."""

    vfs: str = ""

    def open_read(self, path: Path) -> int:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def open_write(self, path: Path) -> int:
        """Makes the file where it is missing; 0600."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def open_new(self, path: Path) -> int:
        """FileExistsError when it is there already; 0600."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def pread(self, descriptor: int, size_octets: int, offset: int) -> bytes:
        """Short only at the end of the file."""
        try:
            octets = os.pread(descriptor, size_octets, offset)
            while octets and len(octets) < size_octets:
                more = os.pread(descriptor, size_octets - len(octets), offset + len(octets))
                if not more:
                    break
                octets += more
            return octets
        except OSError as error:
            raise _named(error, descriptor) from None

    def pwrite(self, descriptor: int, octets: bytes | memoryview, offset: int) -> None:
        """All of it, or OSError."""
        try:
            written = os.pwrite(descriptor, octets, offset)
            if written < len(octets):
                rest = memoryview(octets)
                while written < len(octets):
                    written += os.pwrite(descriptor, rest[written:], offset + written)
        except OSError as error:
            raise _named(error, descriptor) from None

    def fdatasync(self, descriptor: int) -> None:
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            raise _named(error, descriptor) from None

    def fsync_directory(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise _named(error, descriptor) from None
        finally:
            os.close(descriptor)

    def truncate(self, path: Path, size_octets: int) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, size_octets)       # truncate(2) is not tried again after EINTR (PEP 475)
        finally:
            os.close(descriptor)

    def link(self, source: Path, target: Path) -> None:
        os.link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def make_directory(self, path: Path) -> None:
        """0700; one that is there already is fine."""
        path.mkdir(mode=0o700, exist_ok=True)

    def names(self, path: Path) -> list[str]:
        return os.listdir(path)

    def size_octets(self, path: Path) -> int:
        return os.stat(path).st_size

    def touched_ms(self, path: Path) -> int:
        """When its octets, or its names, last changed: a second name is as young as the link is."""
        facts = os.stat(path)
        return max(facts.st_mtime_ns, facts.st_ctime_ns) // 1_000_000

    def capacity_octets(self, path: Path) -> int:
        """Of the whole file system."""
        facts = os.statvfs(path)
        return facts.f_blocks * facts.f_frsize

    def free_octets(self, path: Path) -> int:
        """What a process without privileges may still write."""
        facts = os.statvfs(path)
        return facts.f_bavail * facts.f_frsize


def _named(error: OSError, descriptor: int) -> OSError:
    """The error with the path of its file: the kernel knows it, an error of a call on a descriptor doesn't."""
    try:
        return OSError(error.errno, error.strerror, os.readlink(f"/proc/self/fd/{descriptor}"))
    except OSError:
        return error
