"""A log that SQLite would silently stop reading is found out."""

from pathlib import Path

import pytest

from fumibako.store.disk import DiskIO
from fumibako.store.sqlite.database import Database, open_writer
from fumibako.store.sqlite.log import log_fault

HEADER, FRAME = 32, 24 + 4096


@pytest.fixture
def written(tmp_path: Path) -> tuple[Database, Path]:
    database = open_writer(tmp_path / "x.db")
    database.run("CREATE TABLE t(x)")
    for number in range(4):
        database.run("INSERT INTO t VALUES(?)", number)
    return database, tmp_path / "x.db"


def flip(path: Path, at: int) -> None:
    octets = bytearray(path.read_bytes())
    octets[at] ^= 4
    path.write_bytes(octets)


def test_a_whole_log_and_none(written: tuple[Database, Path]) -> None:
    database, path = written
    assert log_fault(path, DiskIO()) == ""
    database.run("PRAGMA wal_checkpoint(RESTART)")
    database.run("INSERT INTO t VALUES(9)")         # overwrites the first frame: those behind it are of an earlier round
    assert log_fault(path, DiskIO()) == ""
    database.close()
    assert log_fault(path, DiskIO()) == ""


@pytest.mark.parametrize("at", [0, 17, 30, HEADER + 2, HEADER + 9, HEADER + 1000, HEADER + FRAME + 20])
def test_a_bit_before_the_end(written: tuple[Database, Path], at: int) -> None:
    _, path = written
    flip(path.with_name("x.db-wal"), at)
    assert "damaged" in log_fault(path, DiskIO())


def test_what_a_failed_write_leaves_at_the_end_is_no_damage(written: tuple[Database, Path]) -> None:
    _, path = written
    log = path.with_name("x.db-wal")
    log.write_bytes(log.read_bytes()[:-100])
    assert log_fault(path, DiskIO()) == ""
