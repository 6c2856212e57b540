"""Bodies as they arrive."""

import errno
import hashlib
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.model.ids import TraceId
from fumibako.model.ops import Refusal
from fumibako.store.base import INLINE_OCTETS, StoreRefused
from fumibako.store.disk import DiskIO
from fumibako.store.segment import HEADER_OCTETS
from fumibako.store.spool import SpoolWriter
from fumibako.store.sqlite.housekeeping import SPOOL_MS, tidy_spool
from tests.store.disks import FailingDisk

TRACE = TraceId(bytes(16))


async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def writer(tmp_path: Path, disk: FailingDisk | None = None) -> SpoolWriter:
    return SpoolWriter(disk or FailingDisk(), tmp_path, "name", at_once)


@given(chunks=st.lists(st.binary(max_size=100), max_size=10))
async def test_small_bodies_stay_in_memory(tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]) -> None:
    directory, octets = tmp_path_factory.getbasetemp(), b"".join(chunks)
    one = writer(directory)
    for chunk in chunks:
        one.write(chunk)
    body = await one.finish(TRACE)
    assert (body.octets, body.size_octets, body.spool) == (octets, len(octets), "")
    assert (body.sha256, body.crc32) == (hashlib.sha256(octets).digest(), zlib.crc32(octets))
    assert not (directory / "name").exists()


@pytest.mark.parametrize("size", [1, 1000, 100_000, INLINE_OCTETS, INLINE_OCTETS + 1])
async def test_large_bodies_go_to_a_file(tmp_path: Path, size: int) -> None:
    octets = os.urandom(INLINE_OCTETS + 300_000)
    one = writer(tmp_path)
    for start in range(0, len(octets), size) if size >= 1000 else (0,):
        one.write(octets[start:start + size] if size >= 1000 else octets)
    body = await one.finish(TRACE)
    assert (body.octets, body.spool, body.size_octets) == (b"", "name", len(octets))
    assert (body.sha256, body.crc32) == (hashlib.sha256(octets).digest(), zlib.crc32(octets))
    assert (tmp_path / "name").read_bytes() == bytes(HEADER_OCTETS) + octets
    assert (tmp_path / "name").stat().st_mode & 0o777 == 0o600
    one.abandon()
    one.abandon()
    assert os.listdir(tmp_path) == []


async def test_exactly_the_limit_stays_in_memory(tmp_path: Path) -> None:
    one = writer(tmp_path)
    one.write(bytes(INLINE_OCTETS))
    assert not (await one.finish(TRACE)).spool and os.listdir(tmp_path) == []


async def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    disk = FailingDisk()
    disk.fail, disk.code = "pwrite", errno.ENOSPC
    one = writer(tmp_path, disk)
    with pytest.raises(StoreRefused, match="injected") as refused:
        one.write(bytes(INLINE_OCTETS + 1))
    assert refused.value.refusal is Refusal.DISK_FULL
    one.abandon()
    assert os.listdir(tmp_path) == []


async def test_finish_is_durable_or_an_error(tmp_path: Path) -> None:
    disk = FailingDisk()
    one = writer(tmp_path, disk)
    one.write(bytes(INLINE_OCTETS + 1))
    disk.fail = "fdatasync"
    with pytest.raises(StoreRefused, match="injected") as refused:
        await one.finish(TRACE)
    assert refused.value.refusal is Refusal.DISK_ERROR
    one.abandon()
    assert os.listdir(tmp_path) == []


def test_a_second_name_of_an_old_body_is_young(tmp_path: Path) -> None:
    """What has waited in the queue for hours is linked into the spool for its delivery; what was left there goes."""
    spool, segment = tmp_path / "spool", tmp_path / "segment"
    spool.mkdir()
    segment.write_bytes(b"octets")
    now_ms, long_ago = time.time_ns() // 1_000_000, time.time() - 10 * SPOOL_MS / 1000
    os.utime(segment, (long_ago, long_ago))
    os.link(segment, spool / "linked")
    (spool / "written").write_bytes(b"octets")
    tidy_spool(DiskIO(), spool, now_ms + SPOOL_MS // 2)
    assert sorted(os.listdir(spool)) == ["linked", "written"]
    tidy_spool(DiskIO(), spool, now_ms + 2 * SPOOL_MS)
    assert os.listdir(spool) == [] and segment.read_bytes() == b"octets"
