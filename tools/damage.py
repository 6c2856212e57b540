"""Damages a data directory in a thousand places, one at a time, and counts what was found: `python -m tools.prove --damage`.

Contract: the same seed plants the same damage. bench/results gets a file with every count, and with what was missed or wrong word
    for word; docs/proof.md gets the table when the run is over.
Failure: exit code 1 where something went wrong that never may; a damage that was missed is a figure, not a failure.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.crash import damage
from tests.crash.damage import Verdict
from tools.record import PAGE, RESULTS, commit, replace, write_section

BEGIN, END = "<!-- written by the damage -->\n", "<!-- end of the damage -->\n"
OUTCOMES = ("found", "without effect", "earlier", "missed")


def run(trials: int, seed: int, told: Callable[[int, Verdict], None]) -> list[Verdict]:
    """The kinds in turn, each trial with a chance of its own."""
    memory = Path("/dev/shm")   # noqa: S108
    verdicts = []
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
        damage.make(Path(place) / "template")
        planter = damage.Planter(Path(place) / "template")
        for number in range(trials):
            kind = damage.KINDS[number % len(damage.KINDS)]
            verdicts.append(damage.trial(planter, Path(place) / "trial", kind, random.Random(f"{seed} {number}")))
            told(number, verdicts[-1])
    return verdicts


def tell(number: int, verdict: Verdict) -> None:
    """A line for what is not as it should be, and one for each hundred."""
    if verdict.faults or verdict.outcome == "missed":
        print(f"{number}: {verdict.damage.what}: {verdict.outcome} {verdict.differs[:3]} {verdict.faults}", flush=True)
    if number % 100 == 99:
        print(f"{number + 1:,} trials", flush=True)


def summary(verdicts: list[Verdict], seed: int, took_s: float, looked_at: str) -> dict[str, Any]:
    """by_kind: outcome -> count, and how many stores refused to open, messages were unreadable, repairs left nothing to find."""
    by_kind = {}
    for kind in damage.KINDS:
        mine = [one for one in verdicts if one.damage.kind == kind]
        outcomes = Counter(one.outcome for one in mine)
        by_kind[kind] = {
            "trials": len(mine), **{name: outcomes[name] for name in OUTCOMES}, "refused": sum(bool(one.refused) for one in mine),
            "changed": sum("check changed the directory" in one.faults for one in mine),
            "unreadable": sum(one.unreadable for one in mine),
            "mended": sum(one.mended and one.outcome == "found" for one in mine),
            "faults": sum(bool(one.faults) for one in mine)}
    return {
        "date": datetime.now(UTC).date().isoformat(), "commit": looked_at,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}", "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(), "seed": seed,
        "took_s": round(took_s), "trials": len(verdicts), "by_kind": by_kind,
        "missed": [{"what": one.damage.what, "differs": one.differs} for one in verdicts if one.outcome == "missed"],
        "faults": [{"what": one.damage.what, "faults": one.faults} for one in verdicts if one.faults],
    }


def section(found: dict[str, Any]) -> str:
    """The part of docs/proof.md that is a result."""
    names = ("trials", *OUTCOMES, "refused", "mended", "changed", "faults")
    sums = {name: sum(one[name] for one in found["by_kind"].values()) for name in names}
    rows = [*found["by_kind"].items(), ("**all**", sums)]
    head = ("damage", "trials", "found", "without effect", "a moment earlier", "**missed**", "does not open, says why",
            "found, and nothing left after `--repair`", "**changed by `check`**",
            "**unaffected mail hurt, or anything else wrong**")
    table = "".join(f"| {kind} | {' | '.join(str(counts[name]) for name in names)} |\n" for kind, counts in rows)
    return (f"{found['date']}, commit {found['commit']}; {found['machine']}, {found['system']}, Python {found['python']}; "
            f"seed {found['seed']}; {found['trials']:,} trials in {found['took_s']:,} s.\n\n"
            f"| {' | '.join(head)} |\n| --- |{' ---: |' * len(names)}\n{table}\n")


def write(found: dict[str, Any]) -> None:
    """The record and the page."""
    path = RESULTS / f"proof-damage-{found['date']}.json"
    replace(path, json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    write_section(PAGE, BEGIN, section(found), END)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.prove --damage", description="Damage a data directory, and look.")
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=2025)
    asked = parser.parse_args(arguments)
    logging.getLogger().addHandler(logging.NullHandler())       # what the store says about each damage is not the result
    begun_s, looked_at = time.monotonic(), commit()
    verdicts = run(asked.trials, asked.seed, tell)
    found = summary(verdicts, asked.seed, time.monotonic() - begun_s, looked_at)
    write(found)
    print(section(found))
    return 1 if found["faults"] else 0
