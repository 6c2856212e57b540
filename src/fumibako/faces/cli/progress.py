"""How far long work is: a bar on a terminal, a plain line now and then elsewhere, nothing with --json.

Contract: told on standard error, so that standard output holds the answer alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from fumibako.faces.cli.terminal import Terminal
from fumibako.services.texts import N_

LINES = 10          # plain lines of one piece of work
FEWEST = 1000       # things that are worth a plain line


@contextmanager
def progress(terminal: Terminal, what: str) -> Iterator[Callable[[int, int], None]]:
    """what: catalogue text. Gives the function to be told (done, of how many)."""
    if terminal.as_json:
        yield lambda done, total: None
    elif sys.stderr.isatty():
        with _bar(terminal.words(what)) as told:
            yield told
    else:
        yield _lines(terminal, what)


def _lines(terminal: Terminal, what: str) -> Callable[[int, int], None]:
    def told(done: int, total: int) -> None:
        if done % max(FEWEST, total // LINES) == 0:
            line = terminal.words(N_("{what}: {done} of {total}"), what=terminal.words(what), done=done, total=total)
            click.echo(line, err=True)

    return told


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console  # noqa: PLC0415 (rich loads slowly: only where a bar is drawn)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
