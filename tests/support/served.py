"""A session on one half of an in-memory stream pair, run as net.listen.serve runs it."""

from __future__ import annotations

import asyncio

from fumibako.faces.serve import Session, run_session
from fumibako.net.stream import Stream


async def run_served(session: Session, stream: Stream, stopping: asyncio.Event) -> None:
    """Returns when the session is over, the stream closed. When `stopping` is set, the stream is interrupted."""
    async with asyncio.TaskGroup() as group:
        halt = group.create_task(_halt(stream, stopping))
        await run_session(session, stream, stopping)
        halt.cancel()
    stream.close()


async def _halt(stream: Stream, stopping: asyncio.Event) -> None:
    await stopping.wait()
    stream.interrupt()
