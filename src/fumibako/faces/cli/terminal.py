"""The terminal: language, JSON or tables, and the way from a command to the open data directory.

Contract: standard output carries the answer, standard error the complaints; exit 0 ok, 1 the answer is no, 2 usage or
    configuration, 70 bug.
Failure: a usage error when no data directory or password can be had; `fail` is the plain "no".
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import click

from fumibako.faces.cli.house import Desk, House
from fumibako.services.texts import N_, text

T = TypeVar("T")
LANGUAGES = ("en", "ja")


class Terminal:
    """What every command gets as its context object."""

    def __init__(self, house: House, directory: str, language: str, *, as_json: bool) -> None:
        self.house, self.language, self.as_json = house, language, as_json
        self._directory = directory

    @property
    def directory(self) -> Path:
        if not self._directory:
            raise click.UsageError(self.words(N_("name the data directory: --data DIR, or the variable FUMIBAKO_DATA")))
        return Path(self._directory).absolute()

    def words(self, message: str, **values: object) -> str:
        return text(self.language, message, **values)

    def say(self, message: str, **values: object) -> None:
        """One line for a person; silent with --json."""
        if not self.as_json:
            click.echo(self.words(message, **values))

    def fail(self, message: str, **values: object) -> NoReturn:
        """The answer is no."""
        click.echo(self.words(message, **values), err=True)
        raise click.exceptions.Exit(1)

    def rows(self, rows: Sequence[Mapping[str, object]], columns: Sequence[tuple[str, str]], empty: str) -> None:
        """A list: one JSON array, or a table with the named columns (key, heading)."""
        if self.as_json:
            click.echo(json.dumps(list(rows), ensure_ascii=False, indent=2))
        elif not rows:
            click.echo(self.words(empty))
        else:
            click.echo(_table([[self.words(heading) for _, heading in columns],
                               *[[_cell(row.get(key)) for key, _ in columns] for row in rows]]), nl=False)

    def value(self, value: Mapping[str, object], lines: Sequence[tuple[str, object]]) -> None:
        """One thing: a JSON object, or "heading: value" lines."""
        if self.as_json:
            click.echo(json.dumps(value, ensure_ascii=False, indent=2))
            return
        for heading, shown in lines:
            click.echo(f"{self.words(heading)}: {_cell(shown)}")

    def run(self, ask: Callable[[Desk], Awaitable[T]]) -> T:
        """Open the data directory, ask, close it again."""
        async def session() -> T:
            async with self.house.open(self.directory) as desk:
                return await ask(desk)
        return asyncio.run(session())


pass_terminal = click.make_pass_decorator(Terminal)


def system_language(environment: Mapping[str, str] = os.environ) -> str:
    """ja when the locale says so, else en."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if environment.get(name):
            return "ja" if environment[name].startswith("ja") else "en"
    return "en"


def read_password(terminal: Terminal, *, from_stdin: bool) -> str:
    """From standard input (first line) or asked twice without echo; never from the command line."""
    if from_stdin:
        # Only the line end goes: a password may end in a space.
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise click.UsageError(terminal.words(N_("no terminal to ask for the password: use --password-stdin")))
    return str(click.prompt(terminal.words(N_("Password")), hide_input=True, confirmation_prompt=True))


def _cell(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_cell(one) for one in value)
    # A control character from a peer's reply must not reach the terminal.
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in str("" if value is None else value))


def _table(rows: list[list[str]]) -> str:
    widths = [max(_columns(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ("  ".join(cell + " " * (width - _columns(cell)) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _columns(cell: str) -> int:
    """Japanese characters take two columns of a terminal."""
    from rich.cells import cell_len  # noqa: PLC0415 (rich loads slowly: only where a table is drawn)

    return cell_len(cell)
