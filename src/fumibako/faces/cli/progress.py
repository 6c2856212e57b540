"""How far long work has come: a bar on a terminal, a line now and then elsewhere, nothing with --json.

Contract: everything of it goes to standard error; the answer stays alone on standard output.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from fumibako.faces.cli.house import Progress
from fumibako.faces.cli.terminal import Terminal

_TENTHS = 10


@contextmanager
def progress_shown(terminal: Terminal, title: str, *, in_octets: bool = True) -> Iterator[Progress]:
    """The function to be told (done, in all): octets, or pieces."""
    words = terminal.words(title)
    if terminal.as_json:
        yield lambda done, total: None
    elif sys.stderr.isatty():
        with _bar(words, in_octets=in_octets) as progress:
            yield progress
    else:
        yield _lines(words, size_text if in_octets else str)


@contextmanager
def _bar(title: str, *, in_octets: bool) -> Iterator[Progress]:
    from rich.console import Console  # noqa: PLC0415 (rich loads slowly: only where a bar is drawn)
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    count = DownloadColumn() if in_octets else MofNCompleteColumn()
    columns = TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn()
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(title: str, shown_as: Callable[[int], str]) -> Progress:
    shown = 0

    def progress(done: int, total: int) -> None:
        nonlocal shown
        tenths = done * _TENTHS // total if total else _TENTHS
        if tenths > shown:
            shown = tenths
            click.echo(f"{title}: {tenths * 100 // _TENTHS} %  {shown_as(done)}", err=True)
    return progress


def size_text(octets: int) -> str:
    """1536 -> "1.5 KB"."""
    size, unit = float(octets), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if size < 1_000:
            break
        size, unit = size / 1_024, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
