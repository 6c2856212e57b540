"""One house a test, and somebody logged in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.imap_session import Client, House


@pytest.fixture
async def house(tmp_path: Path):
    house = await House.build(tmp_path / "data")
    yield house
    await house.close()


@pytest.fixture
async def client(house: House) -> Client:
    return await house.login()
