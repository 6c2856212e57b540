"""Every dialogue of tests/dialogues/imap, against the core alone: whole, octet by octet, and cut everywhere."""

from pathlib import Path

import pytest

from tests.proto.imap.face import ScriptedFace, config_of
from tests.support.dialogue import Dialogue, check_dialogue, load_dialogues

DIALOGUES = load_dialogues(Path(__file__).parents[2] / "dialogues" / "imap")


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=lambda dialogue: dialogue.name)
def test_dialogue(dialogue: Dialogue) -> None:
    config = config_of(dialogue.config)
    check_dialogue(dialogue, lambda: ScriptedFace(config, dialogue.replies, dialogue.config.get("start", "")))


def test_there_are_dialogues():
    assert len(DIALOGUES) >= 15
