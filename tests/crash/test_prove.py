"""What `make prove` writes is true at every moment of the run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from tests.crash.rounds import Round
from tests.support.ledger import Fault
from tools import kills, prove

ASKED = argparse.Namespace(rounds=3, deliveries=10, seed=1)


def one_round(number: int) -> Round:
    return Round(number, "all", 0, attempted=10, acknowledged=9, recovery_s=0.5)


def written(directory: Path) -> dict[str, Any]:
    [path] = directory.iterdir()        # and nothing beside it
    return json.loads(path.read_text())


def test_the_record_is_whole_after_each_round(tmp_path: Path) -> None:
    record = kills.Record(ASKED, tmp_path)
    for count in (1, 2):
        record.add(one_round(count))
        found = written(tmp_path)
        assert (found["rounds"], found["rounds_asked"], found["finished"], len(found["each"])) == (count, 3, False, count)
        assert found["attempted"] == 10 * count
    record.add(one_round(3))
    record.write(finished=True)
    assert written(tmp_path)["finished"] and "| rounds, each with a kill -9 | 3 |" in kills.section(record.found)


def test_a_run_that_a_fault_ends_says_how_far_it_came(tmp_path: Path) -> None:
    record, bad = kills.Record(ASKED, tmp_path), one_round(1)
    bad.verdicts.add(Fault.LOST, "r1-1")
    record.add(bad)
    record.write(finished=True)
    assert written(tmp_path)["faults"] == [["lost", "r1-1"]]
    assert "| 1 of 3 that were asked for |" in kills.section(record.found)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), AssertionError("the queue does not get empty")])
def test_a_run_that_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(arguments: argparse.Namespace, done: Any) -> None:
        done(one_round(1))
        raise error

    page = tmp_path / "proof.md"
    page.write_text("as it was")
    monkeypatch.setattr(kills, "run", run)
    monkeypatch.setattr(kills, "PAGE", page)
    monkeypatch.setattr(kills.Record.__init__, "__defaults__", (tmp_path / "results",))
    with pytest.raises(type(error)):
        kills.main(["--rounds", "3"])
    found = written(tmp_path / "results")
    assert (found["rounds"], found["rounds_asked"], found["finished"]) == (1, 3, False)
    assert found["cut_short_by"] == f"{type(error).__name__}: {error}"
    assert page.read_text() == "as it was"


def test_the_long_run_goes_through_all_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the time it was given, with one seed; a part that ends in an error is not clean and keeps the others from nothing."""
    told: list[list[str]] = []

    def part(words: list[str]) -> int:
        told.append(words)
        if "--rounds" in words:
            raise AssertionError("the queue does not get empty")
        return 0

    monkeypatch.setattr(prove, "PARTS", dict.fromkeys(prove.PARTS, part))
    assert not prove.long_run(31, 10.0)
    assert len(told) == len(prove.PARTS)
    seeded = [words for words in told if words]         # the faults leave nothing to chance
    assert all(words[-2:] in (["--seed", "31"], ["--seeds", "31"]) for words in seeded)
    kills_minutes, power_minutes = (float(words[words.index("--minutes") + 1]) for words in told if "--minutes" in words)
    assert kills_minutes < 5 and 8.5 < power_minutes < 9.5      # what is left, and nothing was used up here
