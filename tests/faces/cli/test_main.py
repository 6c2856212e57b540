"""The front of the command line: options anywhere, exit codes, two languages."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import click
import pytest

from fumibako.faces.cli.house import Desk, HouseError
from fumibako.faces.cli.main import EXIT_BUG, EXIT_NO, EXIT_OK, EXIT_USAGE, run, split_globals
from fumibako.faces.cli.terminal import system_language


class BrokenHouse:
    """Opens nothing: every command that needs a data directory fails with the given error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def open(self, directory: Path) -> AbstractAsyncContextManager[Desk]:
        raise self.error


@pytest.mark.parametrize(("words", "rest", "options"), [
    ("domain list --data D --json", ["domain", "list"], {"data": "D", "json": "yes"}),
    ("--lang=ja domain --data=D list", ["domain", "list"], {"lang": "ja", "data": "D"}),
    ("trace -- --json", ["trace", "--", "--json"], {}),
])
def test_global_options_stand_anywhere(words: str, rest: list[str], options: dict[str, str]) -> None:
    assert split_globals(words.split()) == (rest, options)


def test_a_global_option_without_its_value_is_a_usage_error() -> None:
    with pytest.raises(click.UsageError):
        split_globals(["domain", "list", "--data"])


@pytest.mark.parametrize(("words", "code", "says"), [
    ("--help", EXIT_OK, ""),
    ("--version", EXIT_OK, ""),
    ("nonsense --data D", EXIT_USAGE, "nonsense"),
    ("domain add --data D", EXIT_USAGE, "NAME"),
    ("domain list --lang fr", EXIT_USAGE, "--lang"),
    ("domain list", EXIT_USAGE, "--data DIR"),
    ("domain list --data D", EXIT_NO, "no such place"),
])
def test_exit_codes(
    words: str, code: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FUMIBAKO_DATA", raising=False)
    monkeypatch.setenv("LC_ALL", "C")
    house = BrokenHouse(HouseError("{place}", place="no such place"))

    assert run(house, words.split()) == code  # type: ignore[arg-type]
    assert says in capsys.readouterr().err


def test_a_bug_shows_itself(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LC_ALL", "C")

    assert run(BrokenHouse(ZeroDivisionError("oops")), ["domain", "list", "--data", "D"]) == EXIT_BUG  # type: ignore[arg-type]
    assert "oops" in capsys.readouterr().err


@pytest.mark.parametrize(("environment", "language"), [
    ({}, "en"), ({"LANG": "ja_JP.UTF-8"}, "ja"), ({"LC_ALL": "C", "LANG": "ja_JP.UTF-8"}, "en"), ({"LC_MESSAGES": "ja"}, "ja"),
])
def test_the_language_is_the_systems(environment: dict[str, str], language: str) -> None:
    assert system_language(environment) == language


def test_help_is_in_the_language_asked_for_and_only_then(capsys: pytest.CaptureFixture[str]) -> None:
    house = BrokenHouse(HouseError("unused"))
    for language, says in (("ja", "受け持つドメイン"), ("en", "The hosted domains.")):
        assert run(house, ["domain", "--help", "--lang", language]) == EXIT_OK  # type: ignore[arg-type]
        assert says in capsys.readouterr().out
