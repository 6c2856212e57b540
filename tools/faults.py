"""Lets every call of every way of writing fail, and counts what came of it: `python -m tools.prove --faults`.

Contract: the sweep in memory tries every N until a pass without a fault, for each error, kind of call, once and for as long as
    it lasts; then, as root and with strace, the kernel says no to the processes of a running server. bench/results gets a file
    with every count, and with what was wrong word for word; docs/proof.md gets the table when the run is over and was asked
    for everything.
Failure: exit code 1 where anything was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.crash.disks import INJECTED
from tests.crash.fault_live import Live, cases
from tests.crash.fault_ways import WAYS, Way
from tests.crash.faults import KINDS_OF, Tally, make_template, sweep
from tests.crash.machine import Machine
from tests.support.server import Place, claimed_network
from tools.record import PAGE, RESULTS, commit, replace, write_section

BEGIN, END = "<!-- written by the faults -->\n", "<!-- end of the faults -->\n"
COUNTS = ("trials", "refused", "stopped", "went_on")


def sweeps(way: Way, place: Path) -> Iterator[Tally]:
    """Every error of every kind of call in one way."""
    template = make_template(way, place / "template")
    for error, kinds in KINDS_OF.items():
        for kind in kinds:
            for sticky in (False, True):
                yield sweep(way, template, place / "trial", error, kind, sticky=sticky)


def _pass_over_injected(unraisable: Any) -> None:
    """Where SQLite goes on after an error, apsw has nobody to raise it to; what was injected is nothing to print."""
    if str(unraisable.exc_value) != INJECTED:
        sys.__unraisablehook__(unraisable)


def run(ways: tuple[Way, ...]) -> list[Tally]:
    sys.unraisablehook = _pass_over_injected
    memory = Path("/dev/shm")   # noqa: S108
    tallies: list[Tally] = []
    for way in ways:
        begun_s = time.monotonic()
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
            mine = list(sweeps(way, Path(place)))
        tallies += mine
        wrong = [f"{one.error} {one.kind}: {what}" for one in mine for what in one.wrong]
        print(f"{way.name:30} {sum(one.trials for one in mine):5,} faults in {time.monotonic() - begun_s:5.1f} s  "
              f"{'clean' if not wrong else f'NOT CLEAN {wrong[:3]}'}", flush=True)
    return tallies


async def run_live() -> Live:
    """All cases of one running server."""
    place = Path(tempfile.mkdtemp(prefix="fumibako-faults-"))
    with claimed_network() as network:
        machine = Machine(place / "data", Place(f"{network}.9"))
        live = Live(machine, place)
        try:
            live.begin()
            await live.prepare()
            for case in cases():
                await live.try_case(case)
            await live.judge()
        finally:
            machine.kill_all()
    if not live.wrong:
        shutil.rmtree(place)
    return live


def reason_against_live() -> str:
    if os.geteuid() != 0:
        return "needs root"
    return "" if shutil.which("strace") else "needs strace"


# -- what is written --


def summary(tallies: list[Tally], live: Live | None, took_s: float, looked_at: str) -> dict[str, Any]:
    """by_way: how many faults there were, how often it was refused, the engine stopped, or the way went on all the same."""
    def counts(mine: list[Tally]) -> dict[str, int]:
        sums = {name: sum(getattr(one, name) for one in mine) for name in COUNTS}
        return {**sums, "wrong": sum(len(one.wrong) for one in mine)}

    ways = dict.fromkeys(one.way for one in tallies)
    return {
        "date": datetime.now(UTC).date().isoformat(), "commit": looked_at, "took_s": round(took_s),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}", "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "by_way": {name: counts([one for one in tallies if one.way == name]) for name in ways},
        "by_error": {name: counts([one for one in tallies if one.error == name]) for name in KINDS_OF},
        "answers": {name: sorted(set().union(*(one.answers for one in tallies if one.error == name))) for name in KINDS_OF},
        "live": {name: dict(Counter(answers)) for name, answers in (live.said if live else {}).items()},
        "wrong": [*(f"{one.way}, {one.error}, {one.kind}: {what}" for one in tallies for what in one.wrong),
                  *(live.wrong if live else ())],
    }


def section(found: dict[str, Any]) -> str:
    """The part of docs/proof.md that is a result."""
    names = (*COUNTS, "wrong")
    head = "faults | refused, in the right words | of them stopped, and started clean | success all the same | **anything wrong**"
    everything = {name: sum(one[name] for one in found["by_way"].values()) for name in names}

    def table(title: str, rows: dict[str, dict[str, int]]) -> str:
        body = "".join(f"| {name} | {' | '.join(f'{counts[one]:,}' for one in names)} |\n" for name, counts in rows.items())
        return f"| {title} | {head} |\n| --- |{' ---: |' * len(names)}\n{body}\n"

    live = sum(sum(answers.values()) for answers in found["live"].values())
    said = sum(count for answers in found["live"].values() for answer, count in answers.items()
               if answer.startswith(("250", "OK")))
    return (f"{found['date']}, commit {found['commit']}; {found['machine']}, {found['system']}, Python {found['python']}; "
            f"{found['took_s']:,} s. In the running server the kernel said no in {live:,} cases, of which {said:,} ended in "
            f"success all the same (EINTR, the jobs process, fewer calls than N); wrong: {len(found['wrong'])}.\n\n"
            + table("error", found["by_error"]) + table("way", {**found["by_way"], "**all**": everything}))


def write(found: dict[str, Any], *, page: bool) -> None:
    path = RESULTS / f"proof-faults-{found['date']}.json"
    replace(path, json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    if page:
        write_section(PAGE, BEGIN, section(found), END)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.prove --faults", description="Let every call fail, and look.")
    parser.add_argument("--ways", default="", help="only ways whose name contains this; docs/proof.md then stays as it is")
    parser.add_argument("--no-live", action="store_true", help="without the running server")
    asked = parser.parse_args(arguments)
    begun_s, looked_at = time.monotonic(), commit()
    tallies = run(tuple(way for way in WAYS if asked.ways in way.name))
    reason = "not asked for" if asked.no_live else reason_against_live()
    live = None if reason else asyncio.run(run_live())
    if reason:
        print(f"without the running server: {reason}")
    found = summary(tallies, live, time.monotonic() - begun_s, looked_at)
    write(found, page=not asked.ways and live is not None)
    print(section(found))
    for one in found["wrong"]:
        print(one)
    return 1 if found["wrong"] else 0
