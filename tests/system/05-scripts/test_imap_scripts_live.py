"""The IMAP scripts of tests/dialogues/test_imap_scripts.py against the running server, through TLS."""

from __future__ import annotations

import pytest

from tests.dialogues import test_imap_scripts as scripts
from tests.support.scripts_live import play_script
from tests.support.server import LiveServer

pytestmark = [pytest.mark.system, pytest.mark.skipif(not scripts.NAMES, reason="suites/imap-dialogues is not beside the project")]


@pytest.mark.parametrize("cut", [0, 7], ids=["whole", "cut"])
@pytest.mark.parametrize("name", scripts.NAMES)
def test_script(house: LiveServer, name: str, cut: int) -> None:
    play_script(house, name, cut)
