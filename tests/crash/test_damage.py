"""Sixty places of a data directory are damaged, one at a time: `check` finds them, and what is whole stays readable.

`python -m tools.prove --damage` does a thousand.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import damage

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]

TRIALS_OF_A_KIND = 4
# SQLite has no checksums of pages: a bit in a value that nothing is derived from is one nobody can tell from the right one.
# A bit in the log ends it there, as a crash does; frames behind it may as well be what a commit that failed has left.
MISSABLE = {"page flip", "log flip"}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """In memory, where there is one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as found:
        yield Path(found)


@pytest.fixture(scope="module")
def planter(place: Path) -> damage.Planter:
    damage.make(place / "template")
    return damage.Planter(place / "template")


def test_the_directory_is_rich_and_sound(planter: damage.Planter) -> None:
    assert planter.findings == set() and len(planter.picture) > 100
    assert {key[0] for key in planter.picture} == set(damage.DATABASES[1:])
    for table in ("hold", "alias"):
        assert planter.dump["control.db", table]
    assert planter.dump["shard-001/mail.db", "outbox"]["id"]
    assert "31integer" not in planter.dump["shard-001/mail.db", "segment"]["id"]        # compaction has taken the first


@pytest.mark.parametrize("kind", damage.KINDS)
def test_damage_is_found_and_stays_where_it_is(planter: damage.Planter, place: Path, kind: str) -> None:
    for number in range(TRIALS_OF_A_KIND):
        verdict = damage.trial(planter, place / "trial", kind, random.Random(f"{kind} {number}"))
        assert not verdict.faults, verdict
        assert verdict.outcome != "missed" or kind in MISSABLE, verdict


def test_the_judge_sees_what_must_not_be(planter: damage.Planter, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damage said to hurt nobody that does, and one that is not looked for."""
    real = planter.plant
    monkeypatch.setattr(planter, "plant", lambda *given: _harmless(real(*given)))
    verdict = damage.trial(planter, place / "trial", "segment delete", random.Random(1))
    assert any("do not read as before" in fault for fault in verdict.faults)
    monkeypatch.setattr(damage, "_named", lambda *_: False)
    assert damage.trial(planter, place / "trial", "segment delete", random.Random(1)).outcome == "missed"


def _harmless(one: damage.Damage) -> damage.Damage:
    return damage.Damage(one.kind, one.what, one.place, lambda key: False)
