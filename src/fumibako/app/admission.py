"""The cap per address, held over all workers: each counts its own connections, storage counts everybody's.

Contract: DESIGN §4 (counters that must be global). Asked after a worker's own cap has let the connection in, so that a flood
    costs storage nothing; exempt networks are never asked about.
Failure: none; while storage is away each worker holds its own cap, and the session says itself what it cannot do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fumibako.model.ops import Enter, Leave
from fumibako.net.listen import Caps, within
from fumibako.store.base import Store, StoreRefused, StoreUnavailable


@asynccontextmanager
async def admitted(store: Store, key: str, host: str, caps: Caps) -> AsyncIterator[bool]:
    """Whether the connection is one that the cap allows; key: what is counted together with it. Counted until the end."""
    if not host or "/" in host or within(host, caps.exempt):
        yield True
        return
    try:
        await store.commit(Enter(key, caps.per_address))
    except StoreRefused:
        yield False
        return
    except StoreUnavailable:
        yield True
        return
    try:
        yield True
    finally:
        try:
            await store.commit(Leave(key))
        except StoreUnavailable:
            pass        # what a lost connection held was given back with it
