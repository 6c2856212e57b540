"""The store in one process: what happens when the disk fails or a caller leaves."""

import asyncio
from pathlib import Path

import pytest

from fumibako.model.ops import AddDomain, Ping
from fumibako.store.base import StoreUnavailable
from fumibako.store.local import LocalStore
from tests.contract.building import NOW_MS, add_account, append, deliver
from tests.store.disks import FailingDisk


async def test_after_a_failed_sync_nothing_is_known_or_done(tmp_path: Path) -> None:
    disk = FailingDisk()
    store = LocalStore(tmp_path, lambda: NOW_MS, disk=disk)
    alice = await add_account(store)
    disk.fail = "fdatasync"
    for result in await asyncio.gather(*(deliver(store, number, alice.id) for number in range(20)), return_exceptions=True):
        assert isinstance(result, StoreUnavailable)
    disk.fail = ""
    assert store.failed
    with pytest.raises(StoreUnavailable):
        await store.commit(Ping())
    assert await store.mailboxes(alice.id) == []       # reading goes on
    await store.close()


async def test_an_operation_happens_although_its_caller_left(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, lambda: NOW_MS)
    task = asyncio.create_task(store.commit(AddDomain("example.jp")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await store.commit(Ping())
    assert await store.domain("example.jp") is not None
    await store.close()


async def test_close_finishes_what_was_handed_over(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, lambda: NOW_MS)
    task = asyncio.create_task(store.commit(AddDomain("example.jp")))
    await asyncio.sleep(0)
    await store.close()
    assert (await task).domain.name == "example.jp"     # type: ignore[union-attr]
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.commit(Ping())


async def test_a_store_is_there_after_a_restart(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, lambda: NOW_MS)
    alice = await add_account(store)
    await deliver(store, 1, alice.id)
    secret = await store.secret("thread")
    await store.close()
    store = LocalStore(tmp_path, lambda: NOW_MS)
    assert await store.secret("thread") == secret
    assert (await append(store, alice.id, 1, 2)).uid == 2
    assert len(await store.read(alice.id, 1, 0, 999)) == 32
    await store.close()


async def test_reads_from_many_threads(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, lambda: NOW_MS)
    alice = await add_account(store)
    for number in range(20):
        await deliver(store, number, alice.id, octets=b"%02d" % number * 100)
    reads = [store.read(alice.id, 1 + number % 20, 6, 8) for number in range(400)]
    views = [store.view(alice.id, 1) for _ in range(50)]
    assert list(await asyncio.gather(*reads)) == [b"%02d" % (number % 20) for number in range(400)]
    assert {len(view) for view in await asyncio.gather(*views) if view} == {20}
    await store.close()
