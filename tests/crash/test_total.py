"""The sum of all proofs: each run counts once, and the READMEs claim only what the file says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fumibako
from tools import total
from tools.power import MAIL

CLAIMS = ("none lost", "1 通もありません")
NAME = f"release-{fumibako.__version__}.json"


def kills(**changes: Any) -> dict[str, Any]:
    return {"date": "2026-01-01", "commit": "abc1234", "seed": 7, "machine": "2 cores", "rounds": 10, "commands_killed": 2,
            "messages": 1_000, "acknowledged": 1_500, "mailbox_changes": 400, "faults": [], "store_faults": [],
            "cut_short_by": "", "each": []} | changes


def cut(file_system: str, **changes: Any) -> dict[str, Any]:
    counts = dict.fromkeys((*MAIL, "order_or_state", "findings", "not_mountable"), 0)
    return {"at": "2026-01-01", "commit": "abc1234", "seed": 7, "machine": "2 cores", "work": "accept",
            "file_system": file_system, "states": 250, **counts} | changes


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in total.READMES:
        (tmp_path / name).write_text(f"before\n{total.BEGIN}old\n{total.END}after\n")
    return tmp_path


def put(place: Path, name: str, found: dict[str, Any]) -> None:
    (place / f"proof-{name}.json").write_text(json.dumps(found))


def summed(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / NAME).read_text())
    return found


def test_each_run_counts_once_and_stays(place: Path) -> None:
    put(place, "1", kills())
    put(place, "power-1", {"skipped": {}, "parts": [cut(name) for name in ("ext4", "xfs", "btrfs")]})
    assert total.add_up(place, place)
    put(place, "2", kills(seed=8, messages=500))
    put(place, "3", kills(messages=900))        # of a commit and seed that were counted
    put(place, "power-2", {"skipped": {}, "parts": [cut("ext4", states=300), cut("xfs", seed=8)]})
    (place / "proof-1.json").unlink()           # its figures stay
    assert total.add_up(place, place) and total.add_up(place, place)
    assert {key: summed(place)["sum"][key] for key in ("messages", "kills", "cuts", "faults", "runs")} == {
        "messages": 1_500, "kills": 24, "cuts": 1_050, "faults": 0, "runs": 6}
    assert all(run["machine"] and run["commit"] and run["seed"] for run in summed(place)["runs"])
    text = (place / "README.md").read_text()
    assert "1,500 acknowledged messages, 24 kills, 1,050 power cuts on three file systems: none lost, altered or doubled" in text
    assert text.startswith("before\n") and text.endswith("after\n") and f"bench/results/{NAME}" in text
    assert "1,500 通" in (place / "README.ja.md").read_text()
    assert total.next_seed(place) == total.FIRST_SEED


@pytest.mark.parametrize("fault", [
    ("1", kills(seed=9, faults=[["lost", "r1-1"]])), ("1", kills(seed=9, store_faults=["blob"])),
    ("1", kills(faults=[["lost", "r1-1"]], messages=1)),
    ("1", kills(seed=9, cut_short_by="AssertionError: the server did not come up")),
    ("2", {"skipped": {}, "parts": [cut("ext4", seed=9, findings=1)]}),
    ("2", {"skipped": {}, "parts": [cut("ext4", seed=9, commit="abc1234+", lost=1)]})])
def test_with_any_fault_nothing_is_claimed(place: Path, fault: tuple[str, dict[str, Any]]) -> None:
    put(place, "0", kills())
    put(place, "power-1", {"skipped": {}, "parts": [cut("ext4")]})
    assert total.add_up(place, place) and "none lost" in (place / "README.md").read_text()
    put(place, *fault)
    assert not total.add_up(place, place)
    for name in total.READMES:
        assert not any(claim in (place / name).read_text() for claim in CLAIMS)
    (place / f"proof-{fault[0]}.json").unlink()
    assert not total.add_up(place, place), "a fault is forgotten"


def test_what_can_not_be_done_again_is_left_out(place: Path) -> None:
    put(place, "1", kills(commit="abc1234+"))
    put(place, "2", kills(seed=None))
    put(place, "damage-1", {"trials": 3})
    put(place, "power-1", {"skipped": {}, "parts": [cut("ext4")]})
    assert total.add_up(place, place)
    assert set(summed(place)["left_out"]) == {"proof-1.json", "proof-2.json"} and summed(place)["sum"]["messages"] == 0
    assert "none lost" not in (place / "README.md").read_text()


def test_who_ends_a_run_makes_no_fault_and_older_files_count_less_rather_than_more(place: Path) -> None:
    old = kills(cut_short_by="KeyboardInterrupt: ")
    del old["messages"], old["commands_killed"], old["machine"]
    put(place, "1", old | {"system": "Linux 6", "python": "3.11"})
    assert total.add_up(place, place)
    assert (summed(place)["sum"]["messages"], summed(place)["sum"]["kills"]) == (1_100, 10)


@pytest.mark.parametrize("name", total.READMES)
def test_the_readme_says_what_the_file_says(name: str) -> None:
    text = (total.ROOT / name).read_text("utf-8").partition(total.BEGIN)[2].partition(total.END)[0]
    if not (total.RESULTS / NAME).exists():     # nothing of this version was proved yet
        assert not any(claim in text for claim in CLAIMS)
        return
    found = json.loads((total.RESULTS / NAME).read_text("utf-8"))
    runs = found["runs"]
    assert text == total.sentence(total.READMES[name], found, NAME) + "\n"
    assert {**total.summed(runs), "at": ""} == {**found["sum"], "at": ""}
