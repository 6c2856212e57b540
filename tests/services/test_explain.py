"""What the usual refusals mean, in words."""

import pytest

from fumibako.model.queue import Outcome, OutcomeKind
from fumibako.services.explain import explanation_of
from fumibako.services.texts import text


@pytest.mark.parametrize(("status", "reply", "words"), [
    ("5.1.1", "550 5.1.1 <x> User unknown", "存在しません"), ("5.0.0", "550 user unknown", "存在しません"),
    ("5.1.2", "", "ドメイン"), ("5.1.10", "", "受け取らない"), ("4.2.2", "452 4.2.2 mailbox full", "いっぱい"),
    ("5.2.2", "552 5.2.2 over quota", "いっぱい"), ("5.3.4", "552 5.3.4 too big", "大き"), ("4.4.1", "", "つながりません"),
    ("4.4.3", "", "DNS"), ("5.4.7", "", "期限"), ("5.7.26", "550-5.7.26 unauthenticated, SPF and DKIM", "SPF"),
    ("5.7.1", "554 5.7.1 blocked using zen.spamhaus.org", "ブロックリスト"), ("4.7.1", "451 4.7.1 Greylisted", "2回目"),
    ("5.7.1", "550 5.7.1 rejected", "規則"), ("4.7.0", "421 4.7.0 slow down", "制限"), ("4.3.0", "451 4.3.0 error", "一時"),
    ("5.5.0", "554 5.5.0 no", "断りました"), ("5.6.7", "", "日本語"),
])
def test_the_usual_refusals_are_explained_in_japanese(status: str, reply: str, words: str) -> None:
    kind = OutcomeKind.FAILED if status.startswith("5") else OutcomeKind.DEFERRED
    explanation = explanation_of(Outcome(kind, status, "", reply))
    assert words in text("ja", explanation)
    assert text("ja", explanation).endswith("。")


def test_every_status_has_an_explanation() -> None:
    for klass in (4, 5):
        for subject in range(8):
            for detail in range(30):
                assert explanation_of(Outcome(OutcomeKind.FAILED, f"{klass}.{subject}.{detail}", ""))
