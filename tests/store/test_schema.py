"""Tables are made in numbered steps that never change."""

from pathlib import Path

import pytest

from fumibako.store import schema
from fumibako.store.schema import SchemaError, migrate, steps
from fumibako.store.sqlite.database import open_writer


@pytest.mark.parametrize("kind", ["control", "queue", "mail"])
def test_every_table_is_strict_and_made_once(tmp_path: Path, kind: str) -> None:
    database = open_writer(tmp_path / "x.db")
    migrate(database, kind, 1)
    migrate(database, kind, 2)
    assert database.row("PRAGMA user_version") == (steps(kind)[-1][0],)
    assert database.rows("SELECT name FROM pragma_table_list WHERE NOT strict AND schema = 'main' "
                         "AND name NOT LIKE 'sqlite_%'") == []
    assert database.row("PRAGMA synchronous") == (2,) and database.row("PRAGMA journal_mode") == ("wal",)
    database.close()


def test_a_newer_file_is_refused_in_plain_words(tmp_path: Path) -> None:
    database = open_writer(tmp_path / "x.db")
    migrate(database, "mail", 1)
    database.run("PRAGMA user_version = 99")
    with pytest.raises(SchemaError, match="newer Fumibako"):
        migrate(database, "mail", 1)
    database.close()


def test_an_altered_step_is_refused(tmp_path: Path) -> None:
    database = open_writer(tmp_path / "x.db")
    migrate(database, "mail", 1)
    database.run("UPDATE migration SET checksum = 'x'")
    with pytest.raises(SchemaError, match="another build"):
        migrate(database, "mail", 1)
    database.close()


def test_a_step_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "steps", lambda kind: [(1, "CREATE TABLE a(x) STRICT; CREATE TABLE b(x INTEGER) STRICT")])
    database = open_writer(tmp_path / "x.db")
    with pytest.raises(Exception, match="missing datatype"):
        migrate(database, "mail", 1)
    assert database.rows("SELECT name FROM sqlite_schema") == [] and database.row("PRAGMA user_version") == (0,)
    database.close()
