"""A backup becomes a data directory again.

Contract: DIR was made by `init` and holds nobody and no mail; its fumibako.toml and tls/ stay as they are. Every file of the
    backup is read and compared before DIR is touched. From then on DIR/RESTORING stands there until all is durable: a
    directory with it is not opened by anything but the next `restore`, which begins again. Files are copies, never second
    names. Then the counters jump (store.sqlite.epoch).
Failure: BackupFault; OSError; apsw.Error.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fumibako.store.disk import DiskIO
from fumibako.store.failpoint import reach
from fumibako.store.manifest import BackupFault, Fault, Manifest, copy_file, find_backup, plain_errors, read_manifest, verify
from fumibako.store.schema import migrate, steps
from fumibako.store.sqlite.database import open_reader, open_writer
from fumibako.store.sqlite.epoch import Jump, begin_epoch, jump
from fumibako.store.sqlite.layout import CONTROL, LOCK, QUEUE, SPOOL, make_directories
from fumibako.store.trouble import refusal_of, tell

MARK = "RESTORING"
_CONFIG = "config/"
_KINDS = {CONTROL: "control", f"{QUEUE}.db": "queue"}


def is_half_restored(directory: Path) -> bool:
    """A restore into it was broken off: the next one has to finish it."""
    return (directory / MARK).exists()


def restore(directory: Path, source: Path, now_ms: int, progress: Callable[[int, int], None],
            disk: DiskIO | None = None) -> Manifest:
    """progress: octets done and in all; every file is read twice, to be compared and to be copied."""
    disk = disk or DiskIO()
    backup = find_backup(source)
    manifest = read_manifest(backup)
    with _locked(directory, disk):
        _demand_empty(directory, disk)
        done, total = 0, 2 * manifest.octets

        def advance(octets: int) -> None:
            nonlocal done
            done += octets
            progress(done, total)

        verify(backup, manifest, disk, advance)
        _demand_known(backup, manifest, disk)
        _mark(directory, disk)
        _fill(directory, backup, manifest, disk, advance)
        for name in _databases(manifest):
            _count_anew(directory, name, jump(manifest.at_ms, now_ms), now_ms, disk)
            reach("restore-counted")
        _give_to_owner(directory)
        _make_durable(directory, disk)
        progress(total, total)
        reach("restore-complete")
        disk.unlink(directory / MARK)
        try:
            disk.fsync_directory(directory)
        except OSError as error:        # everything is there; the mark may come back with a power cut, and asks for it again
            tell(str(directory / MARK), refusal_of(error), error)
    return manifest


@contextmanager
def _locked(directory: Path, disk: DiskIO) -> Iterator[None]:
    lock = disk.open_write(directory / LOCK)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        disk.close(lock)
        raise BackupFault(Fault.IN_USE, str(directory)) from None
    try:
        yield
    finally:
        disk.close(lock)


def _demand_empty(directory: Path, disk: DiskIO) -> None:
    """Nothing of anybody's is overwritten. What a broken restore left is nobody's."""
    if is_half_restored(directory):
        return
    if not (directory / CONTROL).exists():
        raise BackupFault(Fault.NOT_MADE, str(directory))
    mail = [path.relative_to(directory) for path in sorted(directory.glob("shard-*/mail.db"))]
    for name, table in ((CONTROL, "principal"), (f"{QUEUE}.db", "q_message"), *((str(path), "email") for path in mail)):
        with plain_errors(directory / name):
            database = open_reader(directory / name, disk.vfs)
            try:
                if database.row(f"SELECT 1 FROM {table} LIMIT 1"):  # noqa: S608 - our own names
                    raise BackupFault(Fault.NOT_EMPTY, str(directory))
            finally:
                database.close()


def _databases(manifest: Manifest) -> list[str]:
    return [file.path for file in manifest.files if file.path.endswith(".db") and not file.path.startswith(_CONFIG)]


def kind_of(name: str) -> str:
    """Whose steps a database goes by: its path in a data directory or a backup -> "control", "queue" or "mail"."""
    return _KINDS.get(name, "mail")


def _demand_known(backup: Path, manifest: Manifest, disk: DiskIO) -> None:
    """No database of a newer program; and all there are."""
    names = _databases(manifest)
    if not {CONTROL, f"{QUEUE}.db"} <= set(names):
        raise BackupFault(Fault.DAMAGED, str(backup))
    for name in names:
        if schema_of(backup / name, disk) > steps(kind_of(name))[-1][0]:
            raise BackupFault(Fault.NEWER, str(backup))


def schema_of(path: Path, disk: DiskIO) -> int:
    """The number of the newest step of a database of a backup."""
    with plain_errors(path):
        database = open_reader(path, disk.vfs)
        try:
            return int(database.row("PRAGMA user_version")[0])
        finally:
            database.close()


def _mark(directory: Path, disk: DiskIO) -> None:
    disk.close(disk.open_write(directory / MARK))
    disk.fsync_directory(directory)
    reach("restore-marked")


def _fill(directory: Path, backup: Path, manifest: Manifest, disk: DiskIO, progress: Callable[[int], None]) -> None:
    """Everything of the store goes, then the backup's files come."""
    for path in directory.iterdir():
        if path.is_dir() and (path.name.startswith("shard-") or path.name in (QUEUE, SPOOL)):
            shutil.rmtree(path)
        elif path.name.endswith((".db", ".db-wal", ".db-shm", ".db-journal")):
            path.unlink()
    disk.fsync_directory(directory)
    reach("restore-emptied")
    make_directories(disk, directory)
    for file in manifest.files:
        if not file.path.startswith(_CONFIG):
            target = directory / file.path
            for parent in reversed(target.relative_to(directory).parents):
                disk.make_directory(directory / parent)
            if copy_file(disk, backup / file.path, target, progress=progress) != (file.sha256, file.size_octets):
                raise BackupFault(Fault.DAMAGED, str(backup / file.path))
    for name in _databases(manifest):
        if kind_of(name) == "mail":
            make_directories(disk, directory, str(Path(name).parent))
    reach("restore-copied")


def _count_anew(directory: Path, name: str, by: Jump, now_ms: int, disk: DiskIO) -> None:
    kind = kind_of(name)
    owners = _owners(directory, str(Path(name).parent), disk) if kind == "mail" else []
    with plain_errors(directory / name):
        database = open_writer(directory / name, disk.vfs)
        try:
            migrate(database, kind, now_ms)
            begin_epoch(database, kind, by, owners)
        finally:
            database.close()


def _owners(directory: Path, shard: str, disk: DiskIO) -> list[int]:
    with plain_errors(directory / CONTROL):
        control = open_reader(directory / CONTROL, disk.vfs)
        try:
            return [row[0] for row in control.rows("SELECT p.id FROM principal p JOIN shard s ON s.id = p.shard "
                                                   "WHERE s.directory = ? ORDER BY p.id", shard)]
        finally:
            control.close()


def _give_to_owner(directory: Path) -> None:
    """root restores for the user who runs the server: the owner of the directory."""
    owner = directory.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        for path in directory.rglob("*"):
            if path.lstat().st_uid == 0:
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _make_durable(directory: Path, disk: DiskIO) -> None:
    for path in directory.iterdir():
        if path.is_dir():
            for inner in (*(one for one in path.rglob("*") if one.is_dir()), path):
                disk.fsync_directory(inner)
    disk.fsync_directory(directory)
