"""At each named place, at its first three visits: what was answered is there, the rest is whole or absent, nothing is loose."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fumibako.store import failpoint
from fumibako.store.disk import DiskIO
from fumibako.store.failpoint import COMMAND_FAILPOINTS, FAILPOINTS
from tests.crash import story
from tests.crash.dying import told_by_child

pytestmark = pytest.mark.crash

SOURCE = Path(failpoint.__file__).parent
# These lie in the loops of the processes; rounds of tools/prove.py and test_queue_states.py go there.
OF_THE_PROCESS = ("before-request", "before-answer", "half-answered", "after-response")
ELSEWHERE = ("shard-directory", "shard-opened", "mid-migration")     # test_new_shard.py and store/test_golden.py go there
Template = tuple[Path, list[story.Picture]]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A store before the story, and what it looks like before it and after each step."""
    directory = tmp_path_factory.mktemp("story")
    story.make(directory / "data")
    return directory / "data", story.pictures(directory / "told")


def whole_story(directory: Path, answered: Callable[[], object]) -> None:
    """The story, three weeks, a second start, and what comes after another three."""
    teller = story.Teller(directory, DiskIO())
    for step in teller.steps():
        assert teller.tell(step)
        answered()
    teller.tidy()
    answered()
    teller.engine.close()
    teller = story.Teller(directory, DiskIO())
    teller.thin_out()
    teller.engine.close()


@pytest.mark.parametrize("visit", [1, 2, 3])
@pytest.mark.parametrize("name", [name for name in FAILPOINTS if name not in OF_THE_PROCESS + ELSEWHERE])
def test_a_process_that_dies_there(name: str, visit: int, tmp_path: Path, template: Template) -> None:
    data, before = template
    directory = tmp_path / "data"
    shutil.copytree(data, directory)
    answered, died = told_by_child(lambda tell: whole_story(directory, tell), f"{name}:{visit}")
    assert died or visit > 1, f"{name} is never reached"
    story.Teller(directory, DiskIO()).engine.close()        # recovery, as by the next start
    assert not story.faults(directory)
    if answered < len(before) - 1:
        assert story.is_after(directory, before, answered)


def test_every_failpoint_stands_in_the_source_once() -> None:
    places = [name for path in SOURCE.rglob("*.py") for name in re.findall(r'reach\("([a-z-]+)"[,)]', path.read_text())]
    assert sorted(places) == sorted(FAILPOINTS + COMMAND_FAILPOINTS)


def test_an_unknown_failpoint_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'after-lunch' is none of spool-synced, "):
        failpoint.arm("after-lunch:1")
    with pytest.raises(ValueError, match="'mid-lease' knows no operations, only before-request, "):
        failpoint.arm("mid-lease@Lease:1")
    assert failpoint._name == ""
