"""Kills the server again and again under load and counts what became of every acknowledged mail: `python -m tools.prove --kills`.

Contract: rounds of deliveries and mailbox changes, each with a death in the middle: of everything, of the storage process, of
    a worker, during recovery, or at a named failpoint; with 0, 1 and 2 workers in turn. Then commands that are killed and done
    again (tests/crash/commands.py). A file of bench/results keeps every round from its end on, and how many were asked for;
    docs/proof.md gets the sum when the run is over. The same seed gives the same choices.
Failure: exit code 1 at the first round that is not clean; its data directory is kept and named. A run that is cut short leaves
    the record of the rounds it did, not `finished`, and docs/proof.md as it was.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fumibako.store.failpoint import FAILPOINTS
from tests.crash.commands import KINDS, Commands
from tests.crash.machine import Machine
from tests.crash.rounds import Campaign, Round
from tests.support.ledger import Ledger
from tests.support.server import Place, claimed_network
from tools.record import PAGE, RESULTS, commit, machine, replace, write_section

BEGIN, END = "<!-- written by make prove -->\n", "<!-- end -->\n"
ROUNDS_OF_A_MACHINE = 10
LETTERS = 500       # in the house whose commands are killed
WORKERS = (0, 1, 2)
# The others are reached when the server is idle or starts, or by mail that goes on to others: tests/crash goes there.
ELSEWHERE = ("mid-outbox", "segment-unlinked", "mid-recovery", "recovered", "database-opened", "shard-directory", "shard-opened")
RARE = ("spool-synced", "spool-adopted", "mid-lease", "mid-settle")
REACHED_BY_LOAD = tuple(name for name in FAILPOINTS if name not in ELSEWHERE)


def deaths(chance: random.Random) -> Iterator[str]:
    """Yields kinds of death without end; every second one is at a failpoint, each of them in its turn."""
    while True:
        for name in REACHED_BY_LOAD:
            yield chance.choice(("all", "all", "recovery", "storage", "another"))
            yield f"failpoint {name}:{chance.randint(1, 10 if name in RARE else 60)}"


async def run_machine(
    machine: Machine, kinds: list[str], deliveries: int, chance: random.Random, workers: int, done: Callable[[Round], None]
) -> list[Round]:
    """The rounds of one data directory; the last one reads every octet again. done: told of each at its end."""
    machine.make(workers=workers)
    ledger = Ledger(machine.directory.with_name("ledger"))
    campaign = Campaign(machine, ledger, chance, deliveries, workers)
    rounds: list[Round] = []
    for kind in kinds:
        rounds.append(await campaign.round(kind, afresh=len(rounds) == len(kinds) - 1))
        done(rounds[-1])
        if not rounds[-1].is_clean:
            break
    ledger.close()
    return rounds


def tell(one: Round) -> None:
    """One line."""
    verdict = "clean" if one.is_clean else f"NOT CLEAN {one.verdicts.faults[:5]} {one.store_faults}"
    print(f"{one.how:32} workers {one.workers}  {one.attempted:6,} attempted  {one.acknowledged:6,} acknowledged  "
          f"{one.changes:5,} mailbox changes  back after {one.recovery_s:.2f} s  {verdict}", flush=True)


def run(arguments: argparse.Namespace, done: Callable[[Round], None]) -> None:
    """All rounds, or those up to the first that is not clean; the commands after them."""
    chance, deadline = random.Random(arguments.seed), time.monotonic() + arguments.minutes * 60
    kinds = deaths(chance)
    asked, count = arguments.rounds or (1 << 30 if arguments.minutes else 0), 0
    with claimed_network() as network:
        while count < asked and (not arguments.minutes or time.monotonic() < deadline):
            mine = [next(kinds) for _ in range(min(ROUNDS_OF_A_MACHINE, asked - count))]
            workers = WORKERS[count // ROUNDS_OF_A_MACHINE % len(WORKERS)]
            with _kept_unless_clean(network) as (machine, rounds):
                rounds += asyncio.run(run_machine(machine, mine, arguments.deliveries, chance, workers, done))
            if not rounds[-1].is_clean:
                return
            count += len(rounds)
        if arguments.commands:
            with _kept_unless_clean(network) as (machine, rounds):
                rounds += run_commands(machine, arguments.commands, chance, done)


@contextmanager
def _kept_unless_clean(network: str) -> Iterator[tuple[Machine, list[Round]]]:
    """A machine, and its rounds, to be filled in; the directory stays where one is not clean or something else went wrong."""
    place, rounds = Path(tempfile.mkdtemp(prefix="fumibako-prove-")), list[Round]()
    machine = Machine(place / "data", Place(f"{network}.9"))
    try:
        yield machine, rounds
    finally:
        machine.kill_all()
        if rounds and rounds[-1].is_clean:
            shutil.rmtree(place)
        else:
            print(f"kept: {place}", flush=True)


def run_commands(machine: Machine, count: int, chance: random.Random, done: Callable[[Round], None]) -> list[Round]:
    """So many kills of commands, the kinds in turn, up to the first that is not clean."""
    commands = Commands(machine, machine.directory.parent, chance, LETTERS)
    commands.begin()
    rounds: list[Round] = []
    for number in range(count):
        rounds.append(commands.trial(KINDS[number % len(KINDS)]))
        done(rounds[-1])
        if not rounds[-1].is_clean:
            break
    return rounds


# -- what is written --


class Record:
    """The file of one run: written anew after each round, in one step, so that at any moment it is whole and true."""

    def __init__(self, arguments: argparse.Namespace, directory: Path = RESULTS) -> None:
        self._arguments, self._begun_s, self._proved = arguments, time.monotonic(), commit()
        self.path = directory / f"proof-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
        self.rounds: list[Round] = []
        self.found: dict[str, Any] = {}

    def add(self, one: Round) -> None:
        self.rounds.append(one)
        tell(one)
        self.write()

    def write(self, *, finished: bool = False, cut_short_by: str = "") -> None:
        """finished: the run came to its end, with all rounds that were asked for or with one that is not clean."""
        took_s = time.monotonic() - self._begun_s
        self.found = {**summary(self.rounds, self._arguments, took_s), "commit": self._proved,
                      "finished": finished, "cut_short_by": cut_short_by}
        each = [{"how": one.how, "reached": one.reached, "workers": one.workers, "attempted": one.attempted,
                 "acknowledged": one.acknowledged, "messages": one.messages, "changes": one.changes, "recovery_s": one.recovery_s,
                 "counts": one.verdicts.counts, "faults": one.verdicts.faults, "store_faults": one.store_faults}
                for one in self.rounds]
        replace(self.path, json.dumps({**self.found, "each": each}, indent=1) + "\n")


def summary(rounds: list[Round], arguments: argparse.Namespace, took_s: float) -> dict[str, Any]:
    """What a reader wants to know first."""
    commands = [one for one in rounds if one.how.startswith("killed: ")]
    under_load = [one for one in rounds if one not in commands]
    faults = [(str(fault), what) for one in rounds for fault, what in one.verdicts.faults]
    recoveries = sorted(one.recovery_s for one in rounds if one.recovery_s)
    return {
        "date": datetime.now(UTC).date().isoformat(), "commit": "", "machine": machine(),
        "system": f"{platform.system()} {platform.release()}", "python": platform.python_version(),
        "seed": arguments.seed, "took_s": round(took_s),
        "rounds": len(under_load), "rounds_asked": arguments.rounds, "deliveries": arguments.deliveries,
        "failpoints_reached": sum(one.reached for one in under_load),
        "commands_killed": sum(one.reached for one in commands), "commands": len(commands),
        "messages": sum(one.messages for one in rounds),
        "attempted": sum(one.attempted for one in rounds),
        "acknowledged": sum(one.acknowledged for one in rounds), "mailbox_changes": sum(one.changes for one in rounds),
        "faults": faults, "store_faults": [what for one in rounds for what in one.store_faults],
        "recovery_median_s": round(recoveries[len(recoveries) // 2], 2) if recoveries else 0.0,
        "recovery_worst_s": round(recoveries[-1], 2) if recoveries else 0.0,
    }


def section(found: dict[str, Any]) -> str:
    """The part of docs/proof.md that is a result."""
    names = ("lost", "corrupt", "phantom", "duplicate", "partial")
    kinds = {name: sum(fault == name for fault, _ in found["faults"]) for name in names}
    rest = len(found["faults"]) - sum(kinds.values())
    short = f" of {found['rounds_asked']:,} that were asked for" if found["rounds"] < found["rounds_asked"] else ""
    rows = [
        ("rounds, each with a kill -9", f"{found['rounds']:,}{short}"),
        ("of them at a failpoint", str(found["failpoints_reached"])),
        ("kills of a backup, a restore, an export, an import, a compaction", f"{found['commands_killed']:,}"),
        ("commands attempted", f"{found['attempted']:,}"), ("of them acknowledged", f"{found['acknowledged']:,}"),
        ("of them changes by IMAP", f"{found['mailbox_changes']:,}"), ("messages acknowledged", f"{found['messages']:,}"),
        *((f"**{name}**", f"**{count}**") for name, count in kinds.items()),
        ("uid, uid_validity, modseq or mailbox state wrong", str(rest)),
        ("findings of `fumibako check`", str(len(found["store_faults"]))),
        ("from start to \"ready\" after a kill", f"median {found['recovery_median_s']} s, worst {found['recovery_worst_s']} s"),
    ]
    table = "".join(f"| {name} | {value} |\n" for name, value in rows)
    return (f"{found['date']}, commit {found['commit']}, {found['system']}, Python {found['python']}, seed {found['seed']}, "
            f"{found['took_s']:,} s.\n\n"
            f"| | |\n| --- | ---: |\n{table}\n")


def write_page(found: dict[str, Any]) -> None:
    """The result into docs/proof.md."""
    write_section(PAGE, BEGIN, section(found), END)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.prove --kills", description="Kill the server and count its mail.")
    parser.add_argument("--rounds", type=int, default=100, help="0: as many as the minutes allow")
    parser.add_argument("--minutes", type=float, default=0.0, help="no new directory after so many; 0: however long it takes")
    parser.add_argument("--deliveries", type=int, default=1_000, help="of each round")
    parser.add_argument("--commands", type=int, default=60, help="kills of commands behind the rounds")
    parser.add_argument("--seed", type=int, default=2025)
    arguments = parser.parse_args(words)
    record = Record(arguments)
    try:
        run(arguments, record.add)
    except BaseException as error:
        record.write(cut_short_by=f"{type(error).__name__}: {error}")
        print(f"cut short after {len(record.rounds)} rounds: {record.path}", flush=True)
        raise
    record.write(finished=True)
    write_page(record.found)
    print(section(record.found))
    return 0 if all(one.is_clean for one in record.rounds) else 1
