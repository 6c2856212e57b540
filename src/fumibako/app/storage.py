"""The way to the storage process: its socket, the client that keeps connected, and the process itself in a thread.

Contract: `remote_store` gives a store that is connected; what is committed through it is durable in the other process.
Failure: StoreUnavailable when the storage process does not answer within STORAGE_S.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from socket import socket

from fumibako.net.ipc import StorageClient
from fumibako.net.offload import Offload
from fumibako.store.base import Store, StoreUnavailable
from fumibako.store.process import StorageServer
from fumibako.store.remote import RemoteStore
from fumibako.store.sqlite.engine import Engine

STORAGE_SOCKET = "storage.sock"
STORAGE_S = 30.0        # recovery after a crash may take a while


@asynccontextmanager
async def remote_store(directory: Path, offload: Offload) -> AsyncIterator[Store]:
    """The store of a running server, seen from another process."""
    client = StorageClient(str(directory / STORAGE_SOCKET))
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as group:
        running = group.create_task(client.run())
        store = RemoteStore(directory, client, offload=offload.run)
        try:
            await _until_ready(client)
            yield store
        except Exception as error:      # leaves as itself, not as a group of one
            failure = error
        finally:
            await store.close()
            running.cancel()
    if failure is not None:
        raise failure


async def _until_ready(client: StorageClient) -> None:
    try:
        async with asyncio.timeout(STORAGE_S):
            await client.ready()
    except TimeoutError:
        raise StoreUnavailable("the storage process does not answer") from None


@contextmanager
def storage_thread(
    directory: Path, listener: socket, now_ms: Callable[[], int], on_failure: Callable[[], None]
) -> Iterator[None]:
    """The storage process's loop as a thread of this process (workers = 0). on_failure: the disk or a database failed."""
    server: list[StorageServer] = []
    started = threading.Event()

    def work() -> None:
        try:
            server.append(StorageServer(Engine(directory, now_ms=now_ms()), listener, now_ms))
        finally:
            started.set()
        if server[0].run() != 0:
            on_failure()

    thread = threading.Thread(target=work, name="storage", daemon=True)
    thread.start()
    started.wait()
    if not server:
        raise StoreUnavailable("the store cannot be opened")
    try:
        yield
    finally:
        server[0].stop()
        thread.join()
