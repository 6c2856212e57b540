"""Every test here runs on both stores: all in one process, and through a storage process."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fumibako.store.base import Store
from tests.contract.building import local_store, remote_store, storage_process


@pytest.fixture(params=["local", "remote"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "local":
        async with local_store(tmp_path / "data") as found:
            yield found
        return
    # The path of a Unix socket has at most 107 octets: pytest's own directories may be longer.
    with tempfile.TemporaryDirectory() as short:
        path = Path(short) / "s"
        with storage_process(tmp_path / "data", path):
            async with remote_store(tmp_path / "data", path) as found:
                yield found
