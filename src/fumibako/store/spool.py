"""Takes a body in as it arrives: small ones stay in memory, large ones go to a file of DIR/spool.

Contract: one pass; SHA-256 and CRC32 are made on the way. A spooled file begins with room for the record header, so that
    the engine makes it a segment of its own by giving it another name.
Failure: StoreRefused from write and finish: the disk is full, fails, or no file can be opened; nothing of it is kept after
    abandon.
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fumibako.model.ids import TraceId
from fumibako.model.ops import Body
from fumibako.store.base import INLINE_OCTETS, StoreRefused
from fumibako.store.disk import DiskIO
from fumibako.store.failpoint import reach
from fumibako.store.segment import HEADER_OCTETS
from fumibako.store.trouble import refusal_of, tell

# Runs a blocking function beside the loop and gives back what it returned.
Offload = Callable[..., Awaitable[Any]]
offload_to_thread: Offload = asyncio.to_thread


class SpoolWriter:
    """The BodyWriter of the contract. name: of a spool file that nobody else uses."""

    def __init__(self, disk: DiskIO, spool: Path, name: str, offload: Offload) -> None:
        self.size_octets = 0
        self._disk, self._spool, self._name, self._offload = disk, spool, name, offload
        self._chunks: list[bytes] = []
        self._sha256, self._crc32 = hashlib.sha256(), 0
        self._descriptor = -1
        self._spooled = False

    def write(self, octets: bytes) -> None:
        self._sha256.update(octets)
        self._crc32 = zlib.crc32(octets, self._crc32)
        if not self._spooled:
            self._chunks.append(octets)
        with self._refusing():
            if self._spooled:
                self._disk.pwrite(self._descriptor, octets, HEADER_OCTETS + self.size_octets)
            self.size_octets += len(octets)
            if not self._spooled and self.size_octets > INLINE_OCTETS:
                self._begin_spooling()

    def _begin_spooling(self) -> None:
        self._descriptor, self._spooled = self._disk.open_new(self._spool / self._name), True
        self._disk.pwrite(self._descriptor, bytes(HEADER_OCTETS) + b"".join(self._chunks), 0)
        self._chunks.clear()

    async def finish(self, trace_id: TraceId) -> Body:
        digest = self._sha256.digest()
        if not self._spooled:
            return Body(self.size_octets, digest, self._crc32, b"".join(self._chunks))
        try:
            with self._refusing():
                await self._offload(self._disk.fdatasync, self._descriptor)
            reach("spool-synced")
        finally:
            self._close()
        return Body(self.size_octets, digest, self._crc32, spool=self._name)

    def abandon(self) -> None:
        self._chunks.clear()
        if self._spooled:
            self._close()
            try:
                self._disk.unlink(self._spool / self._name)
            except FileNotFoundError:
                pass    # the engine has taken it over, or it was abandoned before
            except OSError as error:    # housekeeping takes it away in an hour
                tell(str(self._spool / self._name), refusal_of(error), error.strerror)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            refusal = refusal_of(error)
            tell(str(self._spool / self._name), refusal, error.strerror)
            raise StoreRefused(refusal, f"spool: {error.strerror}") from error

    def _close(self) -> None:
        if self._descriptor >= 0:
            self._disk.close(self._descriptor)
            self._descriptor = -1
