"""One part of a proof: a file system, a kind of work, then as many of the states that a power cut can leave as are asked for."""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fumibako.app.build import server_tls
from fumibako.config import load_config
from tests.crash.clients import dotted, imap_peer, smtp_peer
from tests.crash.machine import READERS, Machine
from tests.crash.power_diary import Diary
from tests.crash.power_disk import (
    FILE_SYSTEMS,
    FileSystem,
    LoggedDisk,
    MountFailed,
    copy_sparse,
    logged_disk,
    mend,
    mounted,
    scratch,
)
from tests.crash.power_judge import AFTERWARDS, judge
from tests.crash.power_states import Builder, DiskLog, State, all_states
from tests.crash.power_work import BEGINNINGS, CHANGES, FRESH, WORKLOADS, Stage, make_durable, running
from tests.support.ledger import Fault, make_letter
from tests.support.server import Place

SERVE_BACK_S = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """states: at most so many, 0 for all; subsets: of each cut; serve_every: how often a whole server starts on a state; change:
    of the server (power_serve.py)."""

    file_system: str
    work: str
    seed: int
    states: int = 0
    subsets: int = 3
    serve_every: int = 0
    scale: float = 1.0
    change: str = ""


@dataclass(slots=True)
class Part:
    """What came out. possible: states there were; mended: mounted only after the file system's own repair; kept: the first
    image that was not clean."""

    plan: Plan
    flushes: int = 0
    acks: int = 0
    possible: int = 0
    states: int = 0
    served: int = 0
    mended: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    unmountable: list[str] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    kept: str = ""
    work_s: float = 0.0
    took_s: float = 0.0

    @property
    def is_clean(self) -> bool:
        return not (self.unmountable or self.faults or self.findings)

    def count(self, fault: Fault) -> int:
        return sum(kind == fault for kind, _ in self.faults)


def cut_power(plan: Plan, network: str, stop: Callable[[], bool] = lambda: False) -> Part:
    """The work on a disk that logs, then the states. stop: asked between states."""
    part, begun = Part(plan), time.monotonic()
    kind, chance = FILE_SYSTEMS[plan.file_system], random.Random(f"{plan.seed} {plan.file_system} {plan.work}")
    with scratch() as place:
        with logged_disk(kind, place) as disk:
            diary, begin, end = _work(plan, disk, place, chance, network)
        part.work_s = round(time.monotonic() - begun, 1)
        log = DiskLog(disk.log, end)
        try:
            acks = [one for one in diary.acks if one >= begin]
            states = all_states(log, begin, acks, plan.subsets, chance)
            part.acks, part.flushes, part.possible = len(acks), sum(one.end > begin for one in log.epochs), len(states)
            if plan.states and len(states) > plan.states:
                states = sorted(chance.sample(states, plan.states), key=lambda one: one.epoch)
            _Examination(plan, part, diary, kind, place, network).all(Builder(log, disk.blank, place / "image"), states, stop)
        finally:
            log.close()
    part.took_s = round(time.monotonic() - begun, 1)
    return part


def _machine(directory: Path, network: str, errors: Path, change: str) -> Machine:
    machine = Machine(directory, Place(f"{network}.11"))
    machine.errors_path = errors
    if change:
        machine.program = (sys.executable, "-m", "tests.crash.power_serve", change)
    return machine


def _work(plan: Plan, disk: LoggedDisk, place: Path, chance: random.Random, network: str) -> tuple[Diary, int, int]:
    """What clients noted, and the positions between which power may go."""
    change = plan.change or CHANGES.get(plan.work, "")
    machine = _machine(disk.root / "data", network, place / "stderr", change)
    stage = Stage(machine, Diary(disk.position), chance, plan.scale)
    try:
        BEGINNINGS.get(plan.work, running)(stage)
        make_durable(stage)
        begin = disk.position()
        asyncio.run(WORKLOADS[plan.work](stage))       # type: ignore[arg-type]
        return stage.diary, begin, disk.position()
    except BaseException:
        print(machine.errors_text()[-3000:], file=sys.stderr)
        raise
    finally:
        machine.kill_all()


@dataclass(slots=True)
class _Examination:
    plan: Plan
    part: Part
    diary: Diary
    kind: FileSystem
    place: Path
    network: str

    def all(self, builder: Builder, states: list[State], stop: Callable[[], bool]) -> None:
        for number, state in enumerate(states, 1):
            if stop():
                return
            builder.build(state)
            serve = bool(self.plan.serve_every) and number % self.plan.serve_every == 0 and bool(self.diary.probe)
            self._one(builder.image, state, serve)
            if not self.part.is_clean and not self.part.kept and not self.plan.change:
                self._keep(builder, state)
            self.part.states += 1
            self.part.served += serve
            name = f"{state.kind.rstrip('0123456789')} at {state.at}"
            self.part.kinds[name] = self.part.kinds.get(name, 0) + 1

    def _one(self, image: Path, state: State, serve: bool) -> None:
        label = f"epoch {state.epoch} {state.kind} at {state.at} {state.cut}: "
        try:
            with self._mounted(image) as root:
                if self.plan.work in FRESH:
                    self.part.findings += [label + what for what in _init_again(root / "data", self.place)]
                if serve:
                    self.part.findings += [label + what for what in self._serve(root / "data")]
                verdicts, findings = judge(root / "data", self.diary, state)
        except MountFailed as error:
            self.part.unmountable.append(label + str(error))
            return
        self.part.faults += [(str(fault), label + what) for fault, what in verdicts.faults]
        self.part.findings += [label + what for what in findings]

    def _keep(self, builder: Builder, state: State) -> None:
        """The image as the cut left it, outside memory."""
        builder.build(state)
        self.part.kept = str(Path(tempfile.mkdtemp(prefix="fumibako-power-")) / f"{self.kind.name}.img")
        copy_sparse(builder.image, Path(self.part.kept))

    @contextmanager
    def _mounted(self, image: Path) -> Iterator[Path]:
        root = self.place / "root"
        with ExitStack() as stack:
            try:
                stack.enter_context(mounted(image, self.kind.name, root))
            except MountFailed:
                if not mend(self.kind, image):
                    raise
                stack.enter_context(mounted(image, self.kind.name, root))
                self.part.mended += 1
            yield root

    def _serve(self, directory: Path) -> list[str]:
        """A whole server on the state: it comes up, takes one more mail, shows it and what was there, and is killed."""
        machine = _machine(directory, self.network, self.place / "stderr", "")
        try:
            machine.start(within_s=SERVE_BACK_S)
            return asyncio.run(_use(machine, self.diary))
        except Exception as error:
            return [f"serve: {type(error).__name__}: {error}"]
        finally:
            machine.kill_all()


def _init_again(directory: Path, place: Path) -> list[str]:
    """init on what a cut left of it ends well, and the server finds its certificate."""
    machine = Machine(directory, Place(""))
    code, out, errors = machine.here("init", "--hostname", machine.hostname)
    if code:
        return [f"init says {code}: {out}{errors}"]
    try:
        server_tls(load_config(directory))
    except Exception as error:
        return [f"init was there: {error}"]
    return []


async def _use(machine: Machine, diary: Diary) -> list[str]:
    holder = READERS[0]
    letter = make_letter(AFTERWARDS, 2_000, random.Random(1))
    async with smtp_peer(machine.place.endpoint("smtp")) as peer:
        for line, code in (("MAIL FROM:<ledger@sender.example>", "250"), (f"RCPT TO:<{holder}>", "250"), ("DATA", "354")):
            await peer.demand(line, code)
        await peer.send(dotted(letter.octets))
        if not (reply := await peer.reply()).startswith("250"):
            return [f"serve: takes no mail: {reply}"]
    async with imap_peer(machine.place.endpoint("imap"), holder) as reader:
        there = await reader.state("INBOX")
        letters = await reader.letters("1:*")
    wrong = [f"serve: {letter_id} has other octets" for letter_id, sha256 in letters.values()
             if diary.sums.get(letter_id, sha256) != sha256]
    last = letters[max(there.messages)]
    return wrong + ([] if last == (AFTERWARDS, letter.sha256) else [f"serve: the new mail is {last}"])

