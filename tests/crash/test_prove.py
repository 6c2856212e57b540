"""What `make prove` writes is true at every moment of the run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from tests.crash.rounds import Round
from tests.support.ledger import Fault
from tools import prove

ASKED = argparse.Namespace(rounds=3, deliveries=10, seed=1)


def one_round(number: int) -> Round:
    return Round(number, "all", 0, attempted=10, acknowledged=9, recovery_s=0.5)


def written(directory: Path) -> dict[str, Any]:
    [path] = directory.iterdir()        # and nothing beside it
    return json.loads(path.read_text())


def test_the_record_is_whole_after_each_round(tmp_path: Path) -> None:
    record = prove.Record(ASKED, tmp_path)
    for count in (1, 2):
        record.add(one_round(count))
        found = written(tmp_path)
        assert (found["rounds"], found["rounds_asked"], found["finished"], len(found["each"])) == (count, 3, False, count)
        assert found["attempted"] == 10 * count
    record.add(one_round(3))
    record.write(finished=True)
    assert written(tmp_path)["finished"] and "| rounds, each with a kill -9 | 3 |" in prove.section(record.found)


def test_a_run_that_a_fault_ends_says_how_far_it_came(tmp_path: Path) -> None:
    record, bad = prove.Record(ASKED, tmp_path), one_round(1)
    bad.verdicts.add(Fault.LOST, "r1-1")
    record.add(bad)
    record.write(finished=True)
    assert written(tmp_path)["faults"] == [["lost", "r1-1"]]
    assert "| 1 of 3 that were asked for |" in prove.section(record.found)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), AssertionError("the queue does not get empty")])
def test_a_run_that_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(arguments: argparse.Namespace, done: Any) -> None:
        done(one_round(1))
        raise error

    page = tmp_path / "proof.md"
    page.write_text("as it was")
    monkeypatch.setattr(prove, "run", run)
    monkeypatch.setattr(prove, "PAGE", page)
    monkeypatch.setattr(prove.Record.__init__, "__defaults__", (tmp_path / "results",))
    monkeypatch.setattr("sys.argv", ["prove", "--rounds", "3"])
    with pytest.raises(type(error)):
        prove.main()
    found = written(tmp_path / "results")
    assert (found["rounds"], found["rounds_asked"], found["finished"]) == (1, 3, False)
    assert found["cut_short_by"] == f"{type(error).__name__}: {error}"
    assert page.read_text() == "as it was"
