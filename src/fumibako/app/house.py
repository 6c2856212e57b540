"""The house as the command line sees it: make a data directory, serve it, open it, check it.

Contract: what `open` gives holds what is committed through it, with the server up (through its socket) or down.
Failure: HouseError with one line for the person.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from fumibako import __version__
from fumibako.app.build import build_admin, build_survey, build_zones, server_tls
from fumibako.app.journal import log_to_stderr, read_trace
from fumibako.app.rescue import back_up, bring_back, take_back
from fumibako.app.serving import Server
from fumibako.app.storage import remote_store
from fumibako.config import FILE_NAME, Config, ConfigError, config_template, load_config, parse_config
from fumibako.faces.cli.house import (
    BackupReport,
    BackupWish,
    CheckReport,
    Desk,
    Finding,
    HouseError,
    InitReport,
    Misconfigured,
    Progress,
    RestoreReport,
)
from fumibako.net.clock import Clock
from fumibako.net.listen import ListenError
from fumibako.net.offload import Offload
from fumibako.net.tls import TlsFileError, make_self_signed
from fumibako.proto.message.cache import Remaking
from fumibako.services.migrate.exporting import Exporting
from fumibako.services.migrate.importing import Importing
from fumibako.services.recall import Recalled, Wanted
from fumibako.services.texts import N_
from fumibako.store.base import Store
from fumibako.store.check import check
from fumibako.store.local import LocalStore
from fumibako.store.restore import is_half_restored
from fumibako.store.schema import NewerSchema, SchemaError
from fumibako.store.sqlite.engine import DirectoryDamaged, DirectoryInUse, EngineFailed, create
from fumibako.store.sqlite.opening import demand_usable


class House:
    """faces.cli.house.House, for real."""

    def __init__(self) -> None:
        self._clock = Clock()

    def now_ms(self) -> int:
        return self._clock.now_ms()

    # -- init --

    def init(self, directory: Path, hostname: str, translate: Callable[[str], str]) -> InitReport:
        """Make what is missing; what is there stays as it is."""
        template = config_template(hostname, translate)
        _checked(lambda: parse_config(template, directory))
        if not directory.exists():
            directory.mkdir(mode=0o700, parents=True)
            _sync_directory(directory.parent)
        made = [FILE_NAME] if _write_new(directory / FILE_NAME, template.encode()) else []
        config = _checked(lambda: load_config(directory))
        _refuse_half_restored(directory)
        made += self._make_certificate(config)
        if not (directory / "control.db").exists():
            try:
                create(directory, self.now_ms())
            except OSError as error:
                raise HouseError(N_("{directory}: {error}"), directory=directory, error=error) from None
            made += ["control.db", "queue.db", "shard-001"]
        return InitReport(directory, config.server.hostname, tuple(made))

    def _make_certificate(self, config: Config) -> list[str]:
        """A pair, whenever a crash comes: the certificate waits under another name until the key is there."""
        certificate, key = config.tls.certificate, config.tls.key
        waiting = certificate.with_name(certificate.name + ".waiting")
        if not certificate.exists() and not key.exists():
            chain, private = make_self_signed(config.server.hostname, (), self.now_ms())
            for path in (certificate, key):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _sync_directory(path.parent.parent)
            waiting.unlink(missing_ok=True)     # of a try that was cut off
            _write_new(waiting, chain)
            _write_new(key, private)
        if certificate.exists() or not waiting.exists():
            return []
        waiting.rename(certificate)
        _sync_directory(certificate.parent)
        return [str(path.relative_to(config.directory)) for path in (certificate, key) if path.is_relative_to(config.directory)]

    # -- serve --

    def serve(self, directory: Path, announce: Callable[[str], None]) -> int:
        """Stay until SIGTERM."""
        self._need_made(directory)
        config = _checked(lambda: load_config(directory))
        log_to_stderr()
        try:
            server_tls(config)
            server = Server(config, self._clock)
            server.bind()
        except (TlsFileError, ListenError) as error:
            raise HouseError(N_("{error}"), error=error) from None
        for warning in server.drop_privileges():
            announce(warning)
        with _said_plainly():
            demand_usable(directory)        # as the user it belongs to; a child of ours would end with a traceback
        return server.run(announce)

    # -- open, check, trace --

    @asynccontextmanager
    async def open(self, directory: Path) -> AsyncIterator[Desk]:
        """The server's storage process when it is up, else the data directory itself."""
        self._need_made(directory)
        config = _checked(lambda: load_config(directory))
        offload = Offload()
        async with self._open_store(directory, offload) as (store, running):
            zones = build_zones(config, store)
            yield Desk(build_admin(store, self._clock, offload), zones, build_survey(config, zones, self._clock),
                       Exporting(store), Importing(store, self._clock), running)
        offload.close()

    @asynccontextmanager
    async def _open_store(self, directory: Path, offload: Offload) -> AsyncIterator[tuple[Store, bool]]:
        try:
            with _said_plainly():
                local = LocalStore(directory, self.now_ms, offload=offload.run)
        except DirectoryInUse:
            async with remote_store(directory, offload) as remote:
                yield remote, True
            return
        try:
            yield local, False
        finally:
            await local.close()

    def check(self, directory: Path, *, repair: bool) -> CheckReport:
        """Look for damage; the server must be down for a repair."""
        self._need_made(directory)
        try:
            with _said_plainly():
                report = check(directory, repair=repair, now_ms=self.now_ms(), remaking=Remaking)
        except DirectoryInUse:
            raise HouseError(N_("{directory} is in use: stop the server first"), directory=directory) from None
        return CheckReport(tuple(Finding(one.kind, one.place, one.count, one.examples, one.repaired) for one in report.findings),
                           report.unfinished)

    # -- backup and restore --

    def backup(self, directory: Path, wish: BackupWish, progress: Progress) -> BackupReport:
        """The server may be up; it goes on working."""
        config = _checked(lambda: load_config(directory))
        self._need_made(directory)
        return back_up(config, wish, self._clock, progress)

    def restore(self, directory: Path, source: Path, progress: Progress) -> RestoreReport:
        """Fill a directory that was just made, or finish what an earlier restore began."""
        _checked(lambda: load_config(directory))
        return bring_back(directory, source, self._clock, progress)

    async def recall(self, directory: Path, source: Path, wanted: Wanted, progress: Progress) -> Recalled:
        """A part of a backup into a living account; the server may be up."""
        _checked(lambda: load_config(directory))
        self._need_made(directory)
        offload = Offload()
        try:
            async with self._open_store(directory, offload) as (store, _):
                return await take_back(store, source, wanted, self._clock, offload, progress)
        finally:
            offload.close()

    def trace(self, directory: Path, query: str) -> list[dict[str, object]]:
        self._need_made(directory)
        return read_trace(directory, query)

    def _need_made(self, directory: Path) -> None:
        _refuse_half_restored(directory)
        if not (directory / "control.db").exists():
            problem = N_("{directory} is not a data directory; make one with: fumibako init --data {directory} --hostname NAME")
            raise HouseError(problem, directory=directory)


@contextmanager
def _said_plainly() -> Iterator[None]:
    """Why a data directory does not open, as one line for the person."""
    try:
        yield
    except NewerSchema as error:
        problem = N_("{path} was written by a newer Fumibako: it has schema {found}, and this one ({version}) knows schema "
                     "{known} at most. Going back is not possible: install the newer version again, or restore a backup")
        raise HouseError(problem, path=error.path, found=error.found, known=error.known, version=__version__) from None
    except (SchemaError, DirectoryDamaged, EngineFailed, OSError) as error:
        raise HouseError(N_("the store does not open: {error}"), error=error) from None


def _checked(load: Callable[[], Config]) -> Config:
    try:
        return load()
    except ConfigError as error:
        raise Misconfigured(error.problem, **error.values) from None


def _refuse_half_restored(directory: Path) -> None:
    if is_half_restored(directory):
        problem = N_("a restore into {directory} was broken off; finish it with: fumibako restore SRC --data {directory}")
        raise HouseError(problem, directory=directory)


def _write_new(path: Path, octets: bytes) -> bool:
    """False when it exists already; readable by its owner only. After a crash it is there as a whole or not at all."""
    if path.exists():
        return False
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    os.rename(new, path)
    _sync_directory(path.parent)
    return True


def _sync_directory(path: Path) -> None:
    """What was named in it stays; a directory of others that we may not read is theirs to look after."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
