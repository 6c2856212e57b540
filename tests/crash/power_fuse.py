"""A file system of one file, the disk, that writes down every write, discard and flush in the order in which they arrive.

`python -m tests.crash.power_fuse DISK LOG MOUNTPOINT` runs until it is unmounted. LOG: see power_log.py. One thread: a
flush covers exactly the records before its own.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import Any

import mfusepy

from tests.crash.power_log import DISCARD, FLUSH, NAME, RECORD, WRITE


class LoggedFile(mfusepy.Operations):    # type: ignore[misc] # it has no types
    """Holds DISK under the name NAME."""

    use_ns = True

    def __init__(self, disk: str, log: str) -> None:
        self._disk = os.open(disk, os.O_RDWR)
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._disk).st_size

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2}
        if path == f"/{NAME}":
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": self._size}
        raise mfusepy.FuseOSError(errno.ENOENT)

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", NAME]

    def open(self, path: str, flags: int) -> int:
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(self._disk, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        os.pwrite(self._disk, data, offset)
        os.writev(self._log, [RECORD.pack(WRITE, offset, len(data)), data])
        return len(data)

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        os.write(self._log, RECORD.pack(FLUSH, 0, 0))
        return 0

    def fallocate(self, path: str, mode: int, offset: int, size: int, fh: int) -> int:
        """Discard and write-zeroes of the loop device: zeros either way."""
        end = min(offset + size, self._size)
        for start in range(offset, end, 1 << 20):
            os.pwrite(self._disk, bytes(min(1 << 20, end - start)), start)
        os.write(self._log, RECORD.pack(DISCARD, offset, max(0, end - offset)))
        return 0


if __name__ == "__main__":
    mfusepy.FUSE(LoggedFile(*sys.argv[1:3]), sys.argv[3], foreground=True, nothreads=True)
