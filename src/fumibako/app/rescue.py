"""Backup and restore as commands: the way to one moment of the store, and every "no" in words.

Contract: with the server up its segments are pinned for the whole backup and it stands still only until every database has
    begun its read transaction; with the server down DIR/LOCK is held.
Failure: HouseError with one line for the person.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from fumibako import __version__
from fumibako.app.storage import STORAGE_SOCKET
from fumibako.config import FILE_NAME, Config
from fumibako.faces.cli.house import BackupReport, BackupWish, HouseError, RestoreReport
from fumibako.model.ops import Freeze, Pin, Refused, Thaw, Thawed
from fumibako.net.clock import Clock
from fumibako.net.ipc import StorageCall, StorageGone
from fumibako.net.offload import Offload
from fumibako.services.recall import Recalled, Wanted, recall
from fumibako.services.texts import N_
from fumibako.store.backup import Origin, Wish, claim, write_backup
from fumibako.store.base import Store
from fumibako.store.disk import DiskIO
from fumibako.store.manifest import BackupFault, Fault
from fumibako.store.past import PastStore
from fumibako.store.restore import restore
from fumibako.store.schema import SchemaError
from fumibako.store.sqlite.engine import DirectoryInUse, Engine
from fumibako.store.sqlite.snapshot import Snapshots

FREEZES = 20        # attempts to have every database begin within half a second

Report = Callable[[int, int], None]

_WORDS = {
    Fault.INSIDE: N_("{place} lies in the data directory; give a place outside of it"),
    Fault.BUSY: N_("another backup is being written to {place}"),
    Fault.GONE: N_("{place} went while it was read (did the server restart?); nothing was kept: run the backup again"),
    Fault.NO_MOMENT: N_("the store could not be stopped for a moment; nothing was kept: run the backup again"),
    Fault.NO_BACKUP: N_("{place} is no backup, and holds none"),
    Fault.NEWER: N_("{place} was written by a newer Fumibako; install that version to restore it"),
    Fault.DAMAGED: N_("{place} is damaged: it is not as it was written"),
    Fault.NOT_MADE: N_("{place} is not a data directory; make one with: fumibako init --data {place} --hostname NAME"),
    Fault.NOT_EMPTY: N_("{place} holds accounts or mail already; restore into a new one made by fumibako init, "
                        "or name an account: fumibako restore SRC --account ADDRESS"),
    Fault.IN_USE: N_("{place} is in use: stop the server first"),
}


@contextmanager
def in_words() -> Iterator[None]:
    """What goes wrong inside is said in one line."""
    try:
        yield
    except BackupFault as error:
        raise HouseError(_WORDS[error.fault], place=error.place) from None
    except StorageGone as error:
        raise HouseError(N_("the server's storage does not answer ({error}); nothing was kept"), error=error) from None
    except SchemaError as error:
        raise HouseError(N_("{error}"), error=error) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HouseError(N_("the disk is full: {error}"), error=error) from None
        raise HouseError(N_("{error}"), error=error) from None


def back_up(config: Config, wish: BackupWish, clock: Clock, progress: Report) -> BackupReport:
    """wish.destination: absolute."""
    disk, directory = DiskIO(), config.directory
    with (in_words(), claim(directory, wish.destination, disk),
          _one_moment(directory, clock, disk) as (snapshots, frozen_ms, at_ms)):
        origin = Origin(config.server.hostname, __version__, at_ms, clock.token(4).hex())
        wanted = Wish(wish.destination, _config_files(config), wish.keep, wish.verify)
        written = write_backup(directory, snapshots, origin, wanted, progress, disk)
    manifest = written.manifest
    return BackupReport(written.path, manifest.accounts, manifest.messages, len(manifest.files), manifest.octets,
                        written.new_files, written.new_octets, frozen_ms, written.removed)


def bring_back(directory: Path, source: Path, clock: Clock, progress: Report) -> RestoreReport:
    with in_words():
        manifest = restore(directory, source, clock.now_ms(), progress)
    return RestoreReport(manifest.time, manifest.hostname, manifest.accounts, manifest.messages, manifest.octets)


async def take_back(store: Store, source: Path, wanted: Wanted, clock: Clock, offload: Offload, progress: Report) -> Recalled:
    """wanted.into "": a name with the day of the backup is put in its place."""
    with in_words():
        past = PastStore(source, offload.run)
        try:
            named = replace(wanted, into=wanted.into.format(day=_day(past.manifest.at_ms)))
            return await recall(past, store, clock, named, progress)
        finally:
            await past.close()


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%Y-%m-%d")


@contextmanager
def _one_moment(directory: Path, clock: Clock, disk: DiskIO) -> Iterator[tuple[Snapshots, float, int]]:
    """Every database in a transaction of the same moment, how long the store stood still (ms), and when."""
    try:
        engine = Engine(directory, disk, clock.now_ms())
    except DirectoryInUse:
        with _pinned(directory) as call:
            snapshots = Snapshots(directory, disk)
            try:
                yield snapshots, *_begin_frozen(call, snapshots, clock)
            finally:
                snapshots.close()
        return
    try:
        snapshots = Snapshots(directory, disk)
        snapshots.begin()
        try:
            yield snapshots, 0.0, clock.now_ms()
        finally:
            snapshots.close()
    finally:
        engine.close()


@contextmanager
def _pinned(directory: Path) -> Iterator[StorageCall]:
    """The pin goes with the connection."""
    call = StorageCall(str(directory / STORAGE_SOCKET))
    try:
        call.ask(Pin())
        yield call
    finally:
        call.close()


def _begin_frozen(call: StorageCall, snapshots: Snapshots, clock: Clock) -> tuple[float, int]:
    """Only a freeze that still stood when the last transaction had begun makes one moment of them."""
    for _ in range(FREEZES):
        if isinstance(call.ask(Freeze()), Refused):     # another backup is at this point: it is over within half a second
            continue
        begun_s, at_ms = clock.monotonic_s(), clock.now_ms()
        snapshots.begin()
        thawed = call.ask(Thaw())
        frozen_ms = round((clock.monotonic_s() - begun_s) * 1000, 1)
        if thawed == Thawed(True):
            return frozen_ms, at_ms
        snapshots.end()
    raise BackupFault(Fault.NO_MOMENT)


def _config_files(config: Config) -> dict[str, Path]:
    """For the administrator alone: no restore touches fumibako.toml or tls/."""
    found = {FILE_NAME: config.directory / FILE_NAME}
    for path in sorted((config.directory / "tls").rglob("*")):
        if path.is_file():
            found[str(path.relative_to(config.directory))] = path
    for path in (config.tls.certificate, config.tls.key):
        if path.is_file() and not path.is_relative_to(config.directory):
            found[f"tls-elsewhere/{path.name}"] = path
    return found
