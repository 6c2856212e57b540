"""What a backup says about itself: manifest.json, and the ways in which backup and restore say no.

Contract: a backup is a directory with manifest.json, which names every other file of it with size and SHA-256; it is
    written last. DEST/latest names the newest one.
Failure: BackupFault.
"""

from __future__ import annotations

import enum
import errno
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import msgspec

from fumibako.store.disk import DiskIO

FORMAT = 1
MANIFEST = "manifest.json"
LATEST = "latest"
PIECE_OCTETS = 1 << 20
_LITTLE_OCTETS = 1 << 20

Progress = Callable[[int], None]    # octets done since the last call


class Fault(enum.StrEnum):
    """Why a backup or a restore ends without having done its work."""

    INSIDE = "the backup would lie in the data directory"
    BUSY = "another backup is being written there"
    GONE = "a segment went while it was read"
    NO_MOMENT = "the store could not be frozen"
    NO_BACKUP = "not a backup"
    NEWER = "written by a newer program"
    DAMAGED = "a file is damaged"
    NOT_MADE = "not a data directory"
    NOT_EMPTY = "the data directory holds accounts or mail"
    IN_USE = "the data directory is in use"


class BackupFault(Exception):
    """fault: why; place: the file or directory it is about."""

    def __init__(self, fault: Fault, place: str = "") -> None:
        super().__init__(f"{fault}: {place}" if place else str(fault))
        self.fault, self.place = fault, place


class BackedUp(msgspec.Struct, frozen=True):
    """One file. path: relative to the backup, with "/"."""

    path: str
    size_octets: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """format: of the backup, see FORMAT; program: the version that wrote it; at_ms: the one moment of all databases."""

    format: int
    id: str
    program: str
    hostname: str
    time: str
    at_ms: int
    accounts: int
    messages: int
    octets: int
    files: tuple[BackedUp, ...]


class _AnyManifest(msgspec.Struct):
    format: int


@contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """What SQLite says of a full disk or a damaged database, as backup and restore say it."""
    try:
        yield
    except (apsw.FullError, apsw.IOError, apsw.CantOpenError) as error:
        # SQLite calls it an I/O error where the shared memory of a log finds no room.
        full = isinstance(error, apsw.FullError) or DiskIO().free_octets(path.parent) < _LITTLE_OCTETS
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(path)) from None
    except (apsw.CorruptError, apsw.NotADBError):
        raise BackupFault(Fault.DAMAGED, str(path)) from None


def find_backup(source: Path) -> Path:
    """The backup that `source` is, or whose newest one it holds."""
    for place in (source, source / LATEST):
        if (place / MANIFEST).is_file():
            return place.resolve()
    raise BackupFault(Fault.NO_BACKUP, str(source))


def read_manifest(backup: Path) -> Manifest:
    try:
        octets = (backup / MANIFEST).read_bytes()
        if msgspec.json.decode(octets, type=_AnyManifest).format > FORMAT:
            raise BackupFault(Fault.NEWER, str(backup))
        manifest = msgspec.json.decode(octets, type=Manifest)
    except (OSError, msgspec.DecodeError):
        raise BackupFault(Fault.DAMAGED, str(backup / MANIFEST)) from None
    if any(not _is_inside(file.path) for file in manifest.files):
        raise BackupFault(Fault.DAMAGED, str(backup / MANIFEST))
    return manifest


def _is_inside(path: str) -> bool:
    """A restore writes where the manifest says: nowhere but below the data directory."""
    parts = path.split("/")
    return bool(path) and not any(part in ("", ".", "..") for part in parts)


def format_manifest(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def verify(backup: Path, manifest: Manifest, disk: DiskIO, progress: Progress = lambda octets: None) -> None:
    """Read every file again. BackupFault DAMAGED names the first that is not as it was written."""
    for file in manifest.files:
        try:
            found = hash_file(disk, backup / file.path, progress)
        except OSError:
            found = ("", -1)
        if found != (file.sha256, file.size_octets):
            raise BackupFault(Fault.DAMAGED, str(backup / file.path))


def hash_file(disk: DiskIO, path: Path, progress: Progress = lambda octets: None) -> tuple[str, int]:
    """SHA-256 in hexadecimal, and the size."""
    return _pump(disk, path, None, -1, progress)


def copy_file(disk: DiskIO, source: Path, target: Path, limit: int = -1,
              progress: Progress = lambda octets: None) -> tuple[str, int]:
    """The first `limit` octets (all: -1) into a new file, durably; SHA-256 and size of them."""
    descriptor = disk.open_new(target)
    try:
        found = _pump(disk, source, descriptor, limit, progress)
        disk.fdatasync(descriptor)
        return found
    finally:
        disk.close(descriptor)


def _pump(disk: DiskIO, source: Path, target: int | None, limit: int, progress: Progress) -> tuple[str, int]:
    digest, at = hashlib.sha256(), 0
    reading = disk.open_read(source)
    try:
        while at != limit:
            octets = disk.pread(reading, PIECE_OCTETS if limit < 0 else min(PIECE_OCTETS, limit - at), at)
            if not octets:
                break
            digest.update(octets)
            if target is not None:
                disk.pwrite(target, octets, at)
            at += len(octets)
            progress(len(octets))
    finally:
        disk.close(reading)
    return digest.hexdigest(), at
