"""The store in a worker: operations through the storage process, reads on read-only connections of its own.

Contract: that of store.base. The client is handed in (net.ipc.StorageClient), because this room doesn't wait on sockets.
Failure: a ConnectionError of the client is StoreUnavailable.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from fumibako.model.change import Notice
from fumibako.model.frames import Command
from fumibako.model.ops import Refused, Result
from fumibako.store.base import StoreRefused, StoreUnavailable
from fumibako.store.disk import DiskIO
from fumibako.store.reading import ReadingStore
from fumibako.store.spool import Offload, offload_to_thread
from fumibako.store.sqlite.reader import Reader


class Submitter(Protocol):
    """What is needed of the connection to the storage process."""

    on_notice: Callable[[Notice], None]

    async def submit(self, operation: Command) -> Result:
        """ConnectionError: nothing is known to have happened."""

    async def close(self) -> None: ...


class RemoteStore(ReadingStore):
    """directory: DIR, which the storage process has open."""

    def __init__(self, directory: Path, client: Submitter, *,
                 offload: Offload = offload_to_thread, disk: DiskIO | None = None) -> None:
        disk = disk or DiskIO()
        super().__init__(Reader(directory, disk), disk, offload)
        self._client = client
        client.on_notice = self._tell

    async def _commit(self, operation: Command) -> Result:
        try:
            result = await self._client.submit(operation)
        except ConnectionError as error:
            raise StoreUnavailable(str(error)) from error
        if isinstance(result, Refused):
            raise StoreRefused(result.refusal, result.detail)
        return result

    async def close(self) -> None:
        await self._client.close()
        self._reader.close()
