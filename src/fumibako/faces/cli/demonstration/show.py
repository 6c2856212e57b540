"""The order of the acts, and what happens when one goes wrong.

Contract: without the house nothing is shown; each other act stands for itself. At most ACT_S an act (a Maildir may take longer).
Failure: none leaves `perform` but an interruption: a failed act is a row.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from fumibako.faces.cli.demonstration.bounce import bounce
from fumibako.faces.cli.demonstration.decoding import decoding
from fumibako.faces.cli.demonstration.failed import Failed
from fumibako.faces.cli.demonstration.journey import journey, open_house
from fumibako.faces.cli.demonstration.maildir import bring_in
from fumibako.faces.cli.demonstration.plug import plug
from fumibako.faces.cli.demonstration.screen import Screen
from fumibako.faces.cli.demonstration.settings import shell_lines, thunderbird_lines
from fumibako.faces.cli.demonstration.world import World, open_world
from fumibako.net.clock import Clock
from fumibako.proto.reader import ProtocolError
from fumibako.services.texts import N_

ACT_S = 60.0
MAILDIR_S = 3600.0

Act = Callable[[Screen, World], Awaitable[None]]


async def perform(screen: Screen, maildir: Path | None, *, keep: bool) -> None:
    """Everything, from the first server to the last line."""
    screen.title(N_("文箱 Fumibako: two whole mail servers on this machine, and what they say themselves"))
    try:
        async with open_world(Clock()) as world:
            if await _play(screen, world, open_house):
                await _play_all(screen, world, maildir)
            screen.verdict()
            if keep:
                await _stay(screen, world)
    except (Failed, OSError) as error:      # no world at all
        screen.fail(error)


async def _play_all(screen: Screen, world: World, maildir: Path | None) -> None:
    if maildir is not None:
        await _play(screen, world, lambda screen, world: bring_in(screen, world, maildir), MAILDIR_S)
    for act in (journey, bounce, decoding, plug):
        await _play(screen, world, act)


async def _play(screen: Screen, world: World, act: Act, limit_s: float = ACT_S) -> bool:
    """One act; False when it broke off."""
    try:
        async with asyncio.timeout(limit_s):
            await act(screen, world)
    except (Failed, OSError, ProtocolError) as error:       # TimeoutError is an OSError
        screen.fail(error)
        return False
    except ExceptionGroup as group:     # of an act with several connections
        known, unknown = group.split((Failed, OSError, ProtocolError))
        if unknown is not None or known is None:
            raise
        screen.fail(known.exceptions[0])
        return False
    return True


async def _stay(screen: Screen, world: World) -> None:
    """Until Ctrl-C, SIGTERM or a closed terminal: all are the orderly end now."""
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    screen.lines(N_("The servers stay up. Try them:"), shell_lines(world))
    screen.lines(N_("Thunderbird and other mail programs:"), thunderbird_lines(world, screen.words))
    screen.lines(N_("Ctrl-C ends the servers and removes their data."), ())
    await ended.wait()
