"""Disks that log (power_fuse.py) and images of what they held at a cut: attached, mounted, and taken away again in every case."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.crash.power_log import NAME
from tests.support.server import _environment, die_with_tests, find_program

MEMORY = Path("/dev/shm")
MIB = 1 << 20
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE, _AUTOCLEAR, _DIRECT_IO = 0x4C82, 0x4C0A, 4, 16
_PUNCH_HOLE = 1 | 2         # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_MNT_DETACH = 2
_PIECE = 64 * 1024
_ZEROS = bytes(_PIECE)
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class FileSystem:
    """size_octets: of its images, which are sparse. mend: what a boot runs where mounting fails, () for nothing."""

    name: str
    size_octets: int
    make: tuple[str, ...]
    mend: tuple[str, ...] = ()


FILE_SYSTEMS = {
    "ext4": FileSystem("ext4", 96 * MIB, ("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"),
                       ("e2fsck", "-p", "-f")),
    "xfs": FileSystem("xfs", 384 * MIB, ("mkfs.xfs", "-q", "-f", "-K")),
    "btrfs": FileSystem("btrfs", 256 * MIB, ("mkfs.btrfs", "-q", "-f", "-K")),
}


class MountFailed(Exception):
    """The kernel would not have this image."""


def reason_against(name: str) -> str:
    """Why power can't be cut on this machine with that file system; "" where it can."""
    if os.geteuid() != 0:
        return "needs root"
    for path in ("/dev/fuse", "/dev/loop-control"):
        if not os.access(path, os.R_OK | os.W_OK):
            return f"no {path}"
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError) as error:
        return f"no libfuse (Debian libfuse3-3): {error}"
    if find_program(FILE_SYSTEMS[name].make[0]) is None:
        return f"not installed: {FILE_SYSTEMS[name].make[0]} (tools/setup.sh peers)"
    try:
        with scratch() as place:
            image = place / "image"
            make_file_system(FILE_SYSTEMS[name], image)
            (place / "mounted").mkdir()
            with mounted(image, name, place / "mounted"):
                return ""
    except (MountFailed, OSError) as error:
        return f"{name} can't be mounted here: {error}"


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory in memory. What processes left there that were killed goes now."""
    for left in MEMORY.glob("fumibako-power-*"):
        if not Path("/proc", left.name.split("-")[2]).exists():
            shutil.rmtree(left, ignore_errors=True)
    place = MEMORY / f"fumibako-power-{os.getpid()}-{time.monotonic_ns()}"
    place.mkdir(mode=0o700)
    try:
        yield place
    finally:
        shutil.rmtree(place)


def make_file_system(kind: FileSystem, image: Path) -> None:
    with image.open("wb") as file:
        file.truncate(kind.size_octets)
    command = [find_program(kind.make[0]) or "", *kind.make[1:], str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MountFailed(f"{kind.make[0]}: {done.stderr.strip()}")
    _dig_holes(image, kind.size_octets)


def _dig_holes(image: Path, size_octets: int) -> None:
    """Zeros that mkfs wrote take no room: an image is copied for every state."""
    with image.open("r+b") as file:
        for start in range(0, size_octets, _PIECE):
            if os.pread(file.fileno(), _PIECE, start) == _ZEROS:
                punch(file.fileno(), start, _PIECE)


def copy_sparse(source: Path, target: Path) -> None:
    """Holes stay holes."""
    with source.open("rb") as read, target.open("wb") as write:
        size = os.fstat(read.fileno()).st_size
        write.truncate(size)
        start = 0
        while start < size:
            try:
                start = os.lseek(read.fileno(), start, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                raise
            end = os.lseek(read.fileno(), start, os.SEEK_HOLE)
            while start < end:
                start += os.pwrite(write.fileno(), os.pread(read.fileno(), min(MIB, end - start), start), start)


def punch(descriptor: int, offset: int, size_octets: int) -> None:
    """Zeros that take no room."""
    arguments = ctypes.c_int(descriptor), ctypes.c_int(_PUNCH_HOLE), ctypes.c_int64(offset), ctypes.c_int64(size_octets)
    if size_octets and _libc.fallocate(*arguments):
        raise OSError(ctypes.get_errno(), "fallocate")


# -- loop devices and mounts --


def _attach(image: Path) -> tuple[int, str]:
    """(descriptor, path) of a loop device that lets go of the image when nobody holds it any more."""
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(100):
            with open("/dev/loop-control", "rb") as control:
                path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            # struct loop_config: fd, block size, struct loop_info64 (lo_flags at 52 of its 232 octets), reserved
            config = struct.pack("<II52xI176x64x", backing, 512, _AUTOCLEAR)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
                return device, path
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:      # somebody else was faster
                    raise
            threading.Event().wait(0.01)
        raise OSError(errno.EBUSY, "no free loop device")
    finally:
        os.close(backing)


@contextmanager
def mounted(image: Path, kind: str, place: Path) -> Iterator[None]:
    """The file system of an image at `place`, its journal replayed; MountFailed when the kernel refuses it."""
    device, path = _attach(image)
    try:
        # A signal may end the test right behind the mount: an unmount too many does no harm.
        try:
            if _libc.mount(path.encode(), os.fsencode(place), kind.encode(), 0, None):
                raise MountFailed(os.strerror(ctypes.get_errno()))
        finally:
            os.close(device)
        yield
    finally:
        unmount(place)


def unmount(place: Path) -> None:
    """At once, or for a few tries while a process that was killed lets go of it; then for whenever it does."""
    for _ in range(50):
        if _libc.umount2(os.fsencode(place), 0) == 0:
            return
        if ctypes.get_errno() != errno.EBUSY:
            break
        threading.Event().wait(0.05)
    _libc.umount2(os.fsencode(place), _MNT_DETACH)


def mend(kind: FileSystem, image: Path) -> bool:
    """What a boot does before it mounts; False where the file system has nothing of the kind or it does not help."""
    if not kind.mend:
        return False
    command = [find_program(kind.mend[0]) or "", *kind.mend[1:], str(image)]
    return subprocess.run(command, capture_output=True, check=False).returncode in (0, 1)       # 1: mended


# -- a disk that logs --


@dataclass(frozen=True, slots=True)
class LoggedDisk:
    """root: where it is mounted; log: what it was told; blank: its image as mkfs left it."""

    kind: FileSystem
    root: Path
    log: Path
    blank: Path

    def position(self) -> int:
        """Octets of the log so far."""
        return os.stat(self.log).st_size


@contextmanager
def logged_disk(kind: FileSystem, place: Path) -> Iterator[LoggedDisk]:
    """A new file system on a disk that logs; log and blank stay in `place` afterwards."""
    disk, blank, log, window, root = (place / name for name in ("disk", "blank", "log", "window", "root"))
    window.mkdir()
    root.mkdir()
    make_file_system(kind, blank)
    copy_sparse(blank, disk)
    log.touch()
    with ExitStack() as stack:
        stack.callback(disk.unlink)
        process = subprocess.Popen([sys.executable, "-m", "tests.crash.power_fuse", str(disk), str(log), str(window)],
                                   env=_environment(), cwd=Path(__file__).parents[2], stdin=subprocess.DEVNULL,
                                   preexec_fn=die_with_tests)   # noqa: PLW1509 (it takes no lock)
        stack.callback(_end, process)
        stack.callback(unmount, window)
        for _ in range(500):
            if (window / NAME).exists():
                break
            if process.poll() is not None:
                raise MountFailed(f"power_fuse ends with {process.returncode}")
            threading.Event().wait(0.02)
        stack.enter_context(mounted(window / NAME, kind.name, root))
        yield LoggedDisk(kind, root, log, blank)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    if process.poll() is None:
        process.kill()
        process.wait()
