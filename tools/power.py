"""Cuts the power at every flush and every answer and counts what became of the mail: `python -m tools.prove --power`.

Contract: for each seed, kind of work and file system one part: the work on a disk that logs, then the states a power cut can
    leave. The results of several runs add up in one file, which is written whole after each part, as is the table in
    docs/proof.md: a run that is cut short leaves what it has found. A file system that can't be mounted here is named with
    the reason. Timing is the machine's, so a seed chooses letters, changes and states, but does not repeat a log octet by octet.
Failure: exit code 1 when a part is not clean; the image of its first bad state is kept and named.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.crash.power import Part, Plan, cut_power
from tests.crash.power_disk import FILE_SYSTEMS, reason_against
from tests.crash.power_work import WORKLOADS
from tests.support.server import claimed_network
from tools.record import PAGE, RESULTS, commit, machine, replace, write_section

BEGIN, END = "<!-- written by the power cut -->\n", "<!-- end of the power cut -->\n"
MAIL = ("lost", "corrupt", "phantom", "duplicate", "partial")
_EXAMPLES = 20


def main(words: list[str]) -> int:
    arguments = _arguments(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))     # mounts and memory are given back on the way out
    results = Path(arguments.results or RESULTS / f"proof-power-{datetime.now(UTC).date().isoformat()}.json")
    found: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {"skipped": {}, "parts": []}
    deadline = time.monotonic() + arguments.minutes * 60
    with claimed_network() as network:
        kinds = arguments.file_systems.split(",")
        found["skipped"] |= {name: reason for name in kinds if (reason := reason_against(name))}
        plans = [Plan(kind, work, seed, arguments.states, arguments.subsets, arguments.serve_every, arguments.scale)
                 for seed in map(int, arguments.seeds.split(",")) for work in _in_turn(arguments.works.split(","), seed)
                 for kind in kinds if kind not in found["skipped"]]
        clean, proved = True, commit()
        for plan in plans:
            if time.monotonic() > deadline:
                print("the time is up")
                break
            part = cut_power(plan, network, lambda: time.monotonic() > deadline)
            clean &= part.is_clean
            tell(part)
            found["parts"].append(record(part, proved))
            write(found, results)
    write(found, results)
    print(section(found))
    return 0 if clean else 1


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.prove --power", description="Cut the power and count the mail.")
    parser.add_argument("--file-systems", default=",".join(FILE_SYSTEMS))
    parser.add_argument("--works", default=",".join(WORKLOADS))
    parser.add_argument("--seeds", default="2025", help="comma-separated: all works on all file systems for each of them")
    parser.add_argument("--states", type=int, default=0, help="of each part at most; 0: all")
    parser.add_argument("--subsets", type=int, default=3, help="random ones of each cut")
    parser.add_argument("--serve-every", type=int, default=50, help="of so many states one gets a whole server; 0: none")
    parser.add_argument("--scale", type=float, default=1.0, help="how much work is done in each part")
    parser.add_argument("--minutes", type=float, default=75.0)
    parser.add_argument("--results", default="", help="the file to add to")
    return parser.parse_args(words)


def _in_turn(works: list[str], seed: int) -> list[str]:
    """Another seed begins with other work: where the time does not do for all, several runs do."""
    return random.Random(seed).sample(works, len(works))


def tell(part: Part) -> None:
    """One line."""
    verdict = "clean" if part.is_clean else f"NOT CLEAN {part.unmountable[:2]} {part.faults[:3]} {part.findings[:3]} {part.kept}"
    print(f"{part.plan.file_system:6}{part.plan.work:10} seed {part.plan.seed}  {part.flushes:5,} flushes  {part.acks:4,} "
          f"answers  {part.states:6,} of {part.possible:6,} states in {part.took_s:6.1f} s  {verdict}", flush=True)


# -- what is written --


def record(part: Part, proved: str) -> dict[str, Any]:
    """A part as the results keep it. proved: the commit."""
    counts = Counter(kind for kind, _ in part.faults)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"), "commit": proved, "machine": machine(), **asdict(part.plan),
        "flushes": part.flushes, "acknowledgements": part.acks, "possible_states": part.possible, "states": part.states,
        "kinds": part.kinds, "served": part.served, "mended": part.mended, "not_mountable": len(part.unmountable),
        **{name: counts[name] for name in MAIL},
        "order_or_state": sum(counts.values()) - sum(counts[name] for name in MAIL),
        "findings": len(part.findings), "examples": [*part.unmountable, *map(" ".join, part.faults), *part.findings][:_EXAMPLES],
        "work_s": part.work_s, "took_s": part.took_s,
    }


def write(found: dict[str, Any], results: Path) -> None:
    """Both files, each replaced as a whole."""
    replace(results, json.dumps(found, indent=1) + "\n")
    if results.parent != RESULTS:
        return      # a trial
    write_section(PAGE, BEGIN, section(found), END)


def section(found: dict[str, Any]) -> str:
    """The part of docs/proof.md that is a result: a column for each file system."""
    kinds = [kind for kind in FILE_SYSTEMS if any(part["file_system"] == kind for part in found["parts"])]
    parts = {kind: [part for part in found["parts"] if part["file_system"] == kind] for kind in kinds}
    rows = [("flushes", "flushes"), ("answers to clients", "acknowledgements"), ("crash states", "states"),
            ("of them with a whole server", "served"), *((f"**{name}**", name) for name in MAIL),
            ("uid, uid_validity, modseq or mailbox state wrong", "order_or_state"),
            ("findings of `fumibako check`, commands undone, no start", "findings"),
            ("not mountable", "not_mountable"), ("mounted after the file system's own repair", "mended")]
    table = "".join(f"| {title} | " + " | ".join(f"{sum(part[key] for part in parts[kind]):,}" for kind in kinds) + " |\n"
                    for title, key in rows)
    of_kind = Counter({kind: 0 for kind in ("worst", "subset", "torn")})
    for part in found["parts"]:
        for name, count in part["kinds"].items():
            of_kind[name.split()[0]] += count
    runs = {name: sorted({str(part[name]) for part in found["parts"]}) for name in ("commit", "machine", "seed", "work")}
    skipped = "".join(f"{kind} was left out: {reason}. " for kind, reason in found["skipped"].items())
    states, took_s = (sum(part[name] for part in found["parts"]) for name in ("states", "took_s"))
    return (f"Commit {', '.join(runs['commit'])}; {'; '.join(runs['machine'])}; seeds {', '.join(runs['seed'])}; work: "
            f"{', '.join(runs['work'])}. {states:,} states in {took_s:,.0f} s: {of_kind['worst']:,} worst cases, "
            f"{of_kind['subset']:,} subsets, {of_kind['torn']:,} torn. {skipped}\n\n"
            f"| | {' | '.join(kinds)} |\n| --- |{' ---: |' * len(kinds)}\n{table}\n")
