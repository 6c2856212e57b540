"""A data directory of a newer version is refused by every command in one line, in the reader's language."""

from pathlib import Path

import apsw
import pytest

import fumibako
from fumibako.store.schema import steps
from tests.support.server import LiveServer, Place

KINDS = {"control.db": "control", "queue.db": "queue", "shard-001/mail.db": "mail"}
TOLD = {"en": "was written by a newer Fumibako: it has schema 999, and this one ({version}) knows schema {known} at most.",
        "ja": "より新しい Fumibako が書いたものです（スキーマ 999）。"
              "このバージョン（{version}）が扱えるのはスキーマ {known} まで"}


@pytest.fixture
def server(tmp_path: Path) -> LiveServer:
    server = LiveServer(tmp_path / "data", Place("127.0.0.1", {}))
    server.say("init", "--hostname", "mail.example.jp")
    names = ("smtp", "submission", "submissions", "imap", "imaps", "pop3", "pop3s", "dns")
    server.configure(**{f"listen__{name}": "[]" for name in names})
    return server


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("command", [("serve",), ("check",), ("check", "--repair"), ("account", "list")])
@pytest.mark.parametrize("name", KINDS)
def test_it_names_both_versions(server: LiveServer, name: str, command: tuple[str, ...], language: str) -> None:
    database = apsw.Connection(str(server.directory / name))
    database.execute("PRAGMA user_version = 999")
    database.close()
    done = server.run_cli(*command, "--lang", language)
    assert done.returncode == 1, done
    expected = TOLD[language].format(version=fumibako.__version__, known=steps(KINDS[name])[-1][0])
    assert expected in done.stderr and str(server.directory / name) in done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("serve",), ("account", "list"), ("check",)])
@pytest.mark.parametrize("name", ["queue.db", "shard-001/mail.db"])
def test_a_database_that_is_gone_ends_in_one_line(server: LiveServer, name: str, command: tuple[str, ...]) -> None:
    (server.directory / name).unlink()
    done = server.run_cli(*command, "--lang", "en")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done
    assert name in done.stdout + done.stderr and not (server.directory / name).exists()


def test_what_a_killed_import_left_is_told_as_what_it_is(server: LiveServer) -> None:
    """Neither damage nor repaired: nobody asked for a repair."""
    (server.directory / "spool" / "left").write_bytes(b"half a body")
    done = server.run_cli("check", "--lang", "en")
    assert done.returncode == 0, done
    assert done.stdout.startswith("no damage found\n1 files in spool/") and "epaired" not in done.stdout
    assert server.run_cli("check", "--json").stdout == "[]\n"
