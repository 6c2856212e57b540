"""What the command line needs of the program around it, handed in by app: the way to a data directory.

Contract: `open` gives a store that holds what was committed, with the server up (through its socket) or down
    (taking DIR/LOCK itself).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fumibako.services.admin import Admin
from fumibako.services.migrate.exporting import Exporting
from fumibako.services.migrate.importing import Importing
from fumibako.services.recall import Recalled, Wanted
from fumibako.services.survey import Survey
from fumibako.services.zones import Zones

Progress = Callable[[int, int], None]       # done, in all


class House(Protocol):
    """Everything a command may ask for. Failure: HouseError with a text for the person."""

    def init(self, directory: Path, hostname: str, translate: Callable[[str], str]) -> InitReport: ...
    def serve(self, directory: Path, announce: Callable[[str], None]) -> int: ...
    def open(self, directory: Path) -> AbstractAsyncContextManager[Desk]: ...
    def check(self, directory: Path, *, repair: bool) -> CheckReport: ...
    def backup(self, directory: Path, wish: BackupWish, progress: Progress) -> BackupReport: ...
    def restore(self, directory: Path, source: Path, progress: Progress) -> RestoreReport: ...
    async def recall(self, directory: Path, source: Path, wanted: Wanted, progress: Progress) -> Recalled: ...
    def trace(self, directory: Path, query: str) -> list[dict[str, object]]: ...
    def now_ms(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Desk:
    """An open data directory. running: the server is up."""

    admin: Admin
    zones: Zones
    survey: Survey
    exporting: Exporting
    importing: Importing
    running: bool


@dataclass(frozen=True, slots=True)
class InitReport:
    """made: names of what was created just now; already there: not listed."""

    directory: Path
    hostname: str
    made: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of damage that `check` found. where: the file; count: how often; examples: some of them; repaired: now right."""

    kind: str
    where: str
    count: int
    examples: tuple[str, ...]
    repaired: bool


@dataclass(frozen=True, slots=True)
class CheckReport:
    """findings: the damage; unfinished: files in DIR/spool of work that is under way or was cut off, which is none."""

    findings: tuple[Finding, ...]
    unfinished: int


@dataclass(frozen=True, slots=True)
class BackupWish:
    """destination: the place of all backups, absolute; keep: how many stay, 0 for all; verify: read everything again."""

    destination: Path
    keep: int
    verify: bool


@dataclass(frozen=True, slots=True)
class BackupReport:
    """new_*: what no earlier backup of the place has; frozen_ms: how long the server stood still; removed: old backups."""

    path: Path
    accounts: int
    messages: int
    files: int
    octets: int
    new_files: int
    new_octets: int
    frozen_ms: float
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """time and hostname: of the backup."""

    time: str
    hostname: str
    accounts: int
    messages: int
    octets: int


class HouseError(Exception):
    """The answer is no. problem: catalogue text with {named} fields."""

    def __init__(self, problem: str, **values: object) -> None:
        super().__init__(problem.format(**values))
        self.problem, self.values = problem, values


class Misconfigured(HouseError):
    """What the server is told by its configuration cannot be; trying again is no use. Exit 2."""
