"""The houses every attack may ask for: one for mail on its way, one for its readers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.imap_session import House
from tests.support.mailhouse import MailHouse, mail_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[MailHouse]:
    async with mail_house(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
async def readers(tmp_path: Path) -> AsyncIterator[House]:
    """alice@example.jp, whose password is "secret"."""
    opened = await House.build(tmp_path / "readers")
    yield opened
    await opened.close()
