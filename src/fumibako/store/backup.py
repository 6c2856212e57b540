"""A backup: the databases of one moment and the segments they refer to, as a directory that can be restored by itself.

Contract: what is read must stay: the caller holds a pin, or DIR/LOCK, and has begun the snapshots. A sealed segment that
    the last backup in the same place has is a second name of that file, and one on the same file system a second name of
    the store's own; so a backup takes only what changed, and any backup may be removed. A directory gets its name when it
    is complete and durable; what a crash leaves begins with ".unfinished-" and goes at the next backup.
Failure: BackupFault; OSError (ENOSPC: nothing is left behind); apsw.Error.
"""

from __future__ import annotations

import errno
import fcntl
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fumibako.store.disk import DiskIO
from fumibako.store.failpoint import reach
from fumibako.store.manifest import (
    FORMAT,
    LATEST,
    MANIFEST,
    BackedUp,
    BackupFault,
    Fault,
    Manifest,
    Progress,
    copy_file,
    find_backup,
    format_manifest,
    hash_file,
    plain_errors,
    read_manifest,
    verify,
)
from fumibako.store.segment import HEADER_OCTETS, segment_path
from fumibako.store.sqlite.snapshot import KeptSegment, Snapshot, Snapshots

_UNFINISHED = ".unfinished-"
_LOCK = ".lock"
_CONFIG = "config"
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP}


@dataclass(frozen=True, slots=True)
class Origin:
    """What the manifest says besides the files. id: hexadecimal, of chance; at_ms: the moment of the snapshots."""

    hostname: str
    program: str
    at_ms: int
    id: str

    @property
    def time(self) -> str:
        return datetime.fromtimestamp(self.at_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")


@dataclass(frozen=True, slots=True)
class Written:
    """new_*: what is in no earlier backup of the place; removed: names of backups beyond `keep`."""

    path: Path
    manifest: Manifest
    new_files: int
    new_octets: int
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """destination: the place of all backups; config: files kept for the administrator; keep: 0 for all; verify: read again."""

    destination: Path
    config: Mapping[str, Path]
    keep: int = 0
    verify: bool = False


@contextmanager
def claim(directory: Path, destination: Path, disk: DiskIO) -> Iterator[None]:
    """The place for backups, made where it is missing, ours alone."""
    if destination.resolve().is_relative_to(directory.resolve()):
        raise BackupFault(Fault.INSIDE, str(destination))
    destination.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = disk.open_write(destination / _LOCK)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BackupFault(Fault.BUSY, str(destination)) from None
        for left in destination.glob(f"{_UNFINISHED}*"):
            if left.is_symlink():
                left.unlink()
            else:
                shutil.rmtree(left)
        yield
    finally:
        disk.close(lock)


def write_backup(directory: Path, snapshots: Snapshots, origin: Origin, wish: Wish,
                 progress: Callable[[int, int], None], disk: DiskIO) -> Written:
    """progress: octets done and octets in all. Call inside `claim`, with the snapshots begun."""
    name = f"{origin.time}-{origin.id}"
    unfinished = wish.destination / f"{_UNFINISHED}{name}"
    try:
        disk.make_directory(unfinished)
        writing = _Writing(directory, unfinished, disk, _previous(wish.destination))
        manifest = writing.all(snapshots, origin, wish, progress)
        if wish.verify:
            verify(unfinished, manifest, disk)
        _make_durable(disk, unfinished)
        reach("backup-complete")
        disk.rename(unfinished, wish.destination / name)
        _point(disk, wish.destination, name)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    removed = _thin_out(disk, wish.destination, wish.keep, name)
    return Written(wish.destination / name, manifest, writing.new_files, writing.new_octets, removed)


def _previous(destination: Path) -> tuple[Path, dict[str, BackedUp]]:
    """The newest backup there, with its files; one that can't be read is none."""
    try:
        path = find_backup(destination)
        return path, {file.path: file for file in read_manifest(path).files}
    except BackupFault:
        return destination, {}


@dataclass(slots=True)
class _Writing:
    directory: Path
    target: Path
    disk: DiskIO
    previous: tuple[Path, dict[str, BackedUp]]
    files: list[BackedUp] = field(default_factory=list)
    new_files: int = 0
    new_octets: int = 0
    done: int = 0

    def all(self, snapshots: Snapshots, origin: Origin, wish: Wish, progress: Callable[[int, int], None]) -> Manifest:
        kept = [(snapshot, snapshot.segments()) for snapshot in snapshots.all()]
        total = sum(snapshot.size_octets + sum(one.end for one in segments) for snapshot, segments in kept)

        def advance(octets: int) -> None:
            self.done += octets
            progress(min(self.done, total), total)

        for snapshot, segments in kept:
            self._database(snapshot, advance)
            reach("backup-database")
            for one in segments:
                self._segment(snapshot, one, advance)
                reach("backup-segment")
        for name, source in wish.config.items():
            path = self._place(f"{_CONFIG}/{name}")
            self._add(path, copy_file(self.disk, source, self.target / path), new=True)
        progress(total, total)
        messages = sum(shard.count("email WHERE entries > 0") for shard in snapshots.shards.values())
        manifest = Manifest(FORMAT, origin.id, origin.program, origin.hostname, origin.time, origin.at_ms,
                            snapshots.control.count("principal"), messages,
                            sum(file.size_octets for file in self.files), tuple(self.files))
        self._write(MANIFEST, format_manifest(manifest))
        return manifest

    def _place(self, path: str) -> str:
        """The path, its directories made."""
        (self.target / path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def _add(self, path: str, found: tuple[str, int], *, new: bool) -> None:
        self.files.append(BackedUp(path, found[1], found[0]))
        if new:
            self.new_files += 1
            self.new_octets += found[1]

    def _write(self, path: str, octets: bytes) -> None:
        descriptor = self.disk.open_new(self.target / path)
        try:
            self.disk.pwrite(descriptor, octets, 0)
            self.disk.fdatasync(descriptor)
        finally:
            self.disk.close(descriptor)

    def _database(self, snapshot: Snapshot, progress: Progress) -> None:
        path = self.target / self._place(snapshot.name)
        descriptor = self.disk.open_new(path)
        self.disk.close(descriptor)
        with plain_errors(path):
            snapshot.copy(path, progress)
        found = hash_file(self.disk, path)
        before, known = self.previous[0] / snapshot.name, self.previous[1].get(snapshot.name)
        if known == BackedUp(snapshot.name, found[1], found[0]) and self._same_again(before, path):
            self._add(snapshot.name, found, new=False)
            return
        descriptor = self.disk.open_write(path)
        try:
            self.disk.fdatasync(descriptor)
        finally:
            self.disk.close(descriptor)
        self._add(snapshot.name, found, new=True)

    def _same_again(self, before: Path, path: Path) -> bool:
        """Nothing changed in it: two names of one file take the room of one."""
        spare = path.with_name(f"{path.name}.same")
        if not self._link(before, spare):
            return False
        self.disk.rename(spare, path)
        return True

    def _segment(self, snapshot: Snapshot, kept: KeptSegment, progress: Progress) -> None:
        path = self._place(str(segment_path(Path(snapshot.segments_name), kept.number)))
        source, target = self.directory / path, self.target / path
        try:
            if not kept.sealed:
                found = copy_file(self.disk, source, target, kept.end, progress)
                self._add(path, found, new=True)
            elif (known := self._unchanged(path, source)) and self._link(self.previous[0] / path, target):
                progress(kept.end)
                self._add(path, (known.sha256, known.size_octets), new=False)
            elif self._link(source, target):
                self._add(path, hash_file(self.disk, target, progress), new=True)
            else:
                self._add(path, copy_file(self.disk, source, target, -1, progress), new=True)
        except FileNotFoundError:
            raise BackupFault(Fault.GONE, str(source)) from None
        if self.files[-1].size_octets < kept.end:
            raise BackupFault(Fault.DAMAGED, str(source))

    def _unchanged(self, path: str, source: Path) -> BackedUp | None:
        """The last backup's file of that number, if it is this segment: a store that was restored elsewhere may have made
        another one under the same number, and the first record's random trace_id tells them apart."""
        known, before = self.previous[1].get(path), self.previous[0] / path
        if known is None or known.size_octets != self.disk.size_octets(source) or not before.exists():
            return None
        return known if self._head(before) == self._head(source) else None

    def _head(self, path: Path) -> bytes:
        descriptor = self.disk.open_read(path)
        try:
            return self.disk.pread(descriptor, HEADER_OCTETS, 0)
        finally:
            self.disk.close(descriptor)

    def _link(self, source: Path, target: Path) -> bool:
        try:
            self.disk.link(source, target)
        except OSError as error:
            if error.errno in _NO_LINK:
                return False
            raise
        return True


def _make_durable(disk: DiskIO, directory: Path) -> None:
    """The names, from the innermost directory outwards; the files are durable already."""
    for path in sorted((path for path in directory.rglob("*") if path.is_dir()), reverse=True):
        disk.fsync_directory(path)
    disk.fsync_directory(directory)


def _point(disk: DiskIO, destination: Path, name: str) -> None:
    spare = destination / f"{_UNFINISHED}{LATEST}"
    spare.unlink(missing_ok=True)
    spare.symlink_to(name)
    disk.rename(spare, destination / LATEST)
    disk.fsync_directory(destination)


def _thin_out(disk: DiskIO, destination: Path, keep: int, newest: str) -> tuple[str, ...]:
    """Remove the oldest beyond `keep`: first under a name that is no backup's, so that none is ever half there."""
    if keep < 1:
        return ()
    backups = sorted(path for path in destination.iterdir()
                     if not path.is_symlink() and not path.name.startswith(".") and (path / MANIFEST).is_file())
    old = [path for path in backups if path.name != newest][:max(0, len(backups) - keep)]
    for path in old:
        spare = destination / f"{_UNFINISHED}{path.name}"
        disk.rename(path, spare)
        shutil.rmtree(spare)
    disk.fsync_directory(destination)
    return tuple(path.name for path in old)
