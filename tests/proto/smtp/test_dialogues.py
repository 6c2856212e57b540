"""Every dialogue of tests/dialogues/smtp, against the core alone."""

from pathlib import Path

import pytest

from tests.proto.smtp.face import ScriptedFace, config_of
from tests.support.dialogue import Dialogue, check_dialogue, load_dialogues

DIALOGUES = load_dialogues(Path(__file__).parents[2] / "dialogues" / "smtp")


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=lambda dialogue: dialogue.name)
def test_dialogue(dialogue: Dialogue) -> None:
    config = config_of(dialogue.config)
    check_dialogue(dialogue, lambda: ScriptedFace(config, dialogue.replies))
