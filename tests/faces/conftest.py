"""The mail house every face test may ask for."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.mailhouse import MailHouse, mail_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[MailHouse]:
    async with mail_house(tmp_path / "data") as opened:
        yield opened
