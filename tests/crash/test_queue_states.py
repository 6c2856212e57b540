"""At each write that leaves a state of docs/queue.md, before and after it: nothing lost or doubled, one end for everyone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from fumibako.store.check import check
from fumibako.store.failpoint import BY_OPERATION
from tests.crash import post
from tests.crash.dying import told_by_child

pytestmark = pytest.mark.crash

OPERATIONS = ("Enqueue", "Deliver", "DrainOutbox", "Lease", "Settle", "ReclaimLeases", "ChangeQueue")
PLACES = tuple(name for name in BY_OPERATION if name != "before-answer")       # that one is the storage process's own
WITHIN = ("mid-lease", "mid-settle", "mid-outbox", "spool-synced", "spool-adopted")
ENDLESS = 100
NAMES = tuple(f"{at}@{kind}" for kind in OPERATIONS for at in PLACES) + WITHIN
PAGE = Path(__file__).parents[2] / "docs" / "queue.md"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("post") / "data"
    post.make(directory)
    return directory


def lives_again(template: Path, place: Path, armed: str) -> bool:
    """A life that ends at the failpoint, and the next one; whether it was reached."""
    directory, memory = place / "data", post.Memory(place / "memory")
    shutil.rmtree(directory, ignore_errors=True)
    memory.path.unlink(missing_ok=True)
    shutil.copytree(template, directory)
    told, died = told_by_child(post.life(directory, memory), armed)
    assert died or told
    assert post.after(directory, memory) == [], armed
    assert not [one for one in check(directory).findings if not one.repaired], armed
    return died


@pytest.mark.parametrize("name", NAMES)
def test_it_dies_there_at_every_visit(template: Path, place: Path, name: str) -> None:
    for visit in range(1, ENDLESS):
        if not lives_again(template, place, f"{name}:{visit}"):
            assert visit > 1, f"{name} is never reached"
            return
    raise AssertionError("it never lives through the story")


def test_every_line_of_the_page_names_a_place_that_is_tested() -> None:
    rows = [line for line in PAGE.read_text("utf-8").split("\n") if line.startswith("| ") and "Failpoints" not in line]
    for row in rows:
        named = re.findall(r"`([a-z-]+(?:@[A-Za-z]+)?)`", row.rpartition("|")[0].rpartition("|")[2])
        assert named and set(named) <= set(NAMES), row
