"""What the reads of a store say when the database can't be read."""

from pathlib import Path

import pytest

from fumibako.store.base import StoreUnavailable
from fumibako.store.remote import RemoteStore
from tests.contract.building import local_store


class NoClient:
    async def close(self) -> None: ...


async def test_a_directory_that_cannot_be_read_is_unavailable(tmp_path: Path) -> None:
    store = RemoteStore(tmp_path, NoClient())
    with pytest.raises(StoreUnavailable):
        store.directory_version()
    for read in (store.domains, store.settings):
        with pytest.raises(StoreUnavailable):
            await read()
    async with local_store(tmp_path):
        assert store.directory_version() and not await store.domains()      # as soon as it can be read again
    await store.close()
