"""fumibako demo: two whole servers on loopback do the main job; nothing to configure, nothing stays behind.

Contract: exit 0 when every line shown is as it should be, 1 when one is not. Everything is bounded in time; the servers and
    their directory are gone at the end, also after Ctrl-C or SIGTERM.
Failure: a step that fails is a row that says so; the acts that don't build on it go on.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import click

from fumibako.faces.cli.terminal import Terminal, pass_terminal


@dataclass(frozen=True, slots=True)
class Wishes:
    """keep: leave the servers up until Ctrl-C; maildir, svg: None without."""

    keep: bool
    maildir: Path | None
    svg: Path | None


@click.command()
@click.option("--keep", is_flag=True, help="Leave the servers up until Ctrl-C and print lines to try them with.")
@click.option("--maildir", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Bring in your own mail first.")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Also write what is shown as a picture.")
@pass_terminal
def demo(terminal: Terminal, keep: bool, maildir: Path | None, svg: Path | None) -> None:
    """Two servers on loopback show the main job."""
    try:
        passed = asyncio.run(_until_signal(lambda: _run(terminal, Wishes(keep, maildir, svg))))
    except asyncio.CancelledError:
        passed = False
    if not passed:
        raise click.exceptions.Exit(1)


async def _until_signal(main: Callable[[], Awaitable[bool]]) -> bool:
    """Ctrl-C, SIGTERM and a closed terminal end the run in order."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await main()


async def _run(terminal: Terminal, wishes: Wishes) -> bool:
    # Loaded only here: rich and the mail programs would slow down every other command.
    from rich.console import Console  # noqa: PLC0415

    from fumibako.faces.cli.demonstration.picture import draw  # noqa: PLC0415
    from fumibako.faces.cli.demonstration.screen import Screen, recording_console  # noqa: PLC0415
    from fumibako.faces.cli.demonstration.show import perform  # noqa: PLC0415

    console = None if terminal.as_json else Console(highlight=False)
    picture = recording_console() if wishes.svg else None
    screen = Screen(terminal.words, console, picture)
    await perform(screen, wishes.maildir, keep=wishes.keep)
    if wishes.svg and picture:
        wishes.svg.write_text(draw(picture, "fumibako demo"), encoding="utf-8")
    if terminal.as_json:
        rows = [{"act": row.act, "what": row.what, "result": "pass" if row.passed else "fail", "evidence": row.evidence}
                for row in screen.rows]
        click.echo(json.dumps({"rows": rows}, ensure_ascii=False, indent=2))
    return screen.passed
