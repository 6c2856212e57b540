"""The caps on connections, held over all workers: each counts its own, storage counts those it is asked about.

Contract: DESIGN §4 (counters that must be global). Asked after a worker's own caps have let the connection in, so that a flood
    costs storage nothing; what a worker takes on without asking (processes.Worker) is kept back from what storage gives out.
Failure: none; while storage is away each worker holds its own cap, and the session says itself what it cannot do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fumibako.model.ops import Enter, Leave
from fumibako.store.base import Store, StoreRefused, StoreUnavailable


@asynccontextmanager
async def admitted(store: Store, claims: Sequence[tuple[str, int]]) -> AsyncIterator[str]:
    """"" for a connection that every cap allows, else the key it exceeds. claims: what it is counted under, and how many may be
    there. Counted until the end."""
    held: list[str] = []
    try:
        yield await _claimed(store, claims, held)
    finally:
        for key in held:
            try:
                await store.commit(Leave(key))
            except StoreUnavailable:
                pass        # what a lost connection held was given back with it


async def _claimed(store: Store, claims: Sequence[tuple[str, int]], held: list[str]) -> str:
    for key, limit in claims:
        try:
            await store.commit(Enter(key, limit))
        except StoreRefused:
            return key
        except StoreUnavailable:
            break
        held.append(key)
    return ""
