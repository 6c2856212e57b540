"""Rounds of work and death: load, kill, restart, finish, compare."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from dataclasses import dataclass, field

from tests.crash.clients import imap_peer
from tests.crash.drain import Reading, faults_of_the_store
from tests.crash.load import BOXES, Load, Mover
from tests.crash.machine import MOVERS, Machine
from tests.support.ledger import Ledger, Verdicts

BACK_S = 10.0       # from the start to "ready", whatever was found


@dataclass(slots=True)
class Round:
    """What one round did. how: of its death; reached: the failpoint was; messages: deliveries and APPENDs that were
    acknowledged; recovery_s: from exec to "ready" after it."""

    number: int
    how: str
    workers: int
    attempted: int = 0
    acknowledged: int = 0
    messages: int = 0
    changes: int = 0
    killed_after: int = 0
    reached: bool = False
    recovery_s: float = 0.0
    verdicts: Verdicts = field(default_factory=Verdicts)
    store_faults: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not self.verdicts.faults and not self.store_faults


@dataclass(slots=True)
class Campaign:
    """Rounds on one machine. deliveries: of each round."""

    machine: Machine
    ledger: Ledger
    chance: random.Random
    deliveries: int
    workers: int
    reading: Reading = field(init=False)
    movers: dict[str, Mover] = field(default_factory=dict)
    rounds: int = 0

    def __post_init__(self) -> None:
        self.reading = Reading(self.machine)

    async def round(self, how: str, *, afresh: bool = False) -> Round:
        """how: "all", "storage", "another", "recovery", "failpoint NAME:COUNT"."""
        self.rounds += 1
        result = Round(self.rounds, how, self.workers)
        failpoint = how.removeprefix("failpoint ") if how.startswith("failpoint ") else ""
        before = len(self.ledger.entries), self.ledger.acknowledged, self.ledger.messages, self._changes()
        if failpoint:
            how = await self._start_with(result, failpoint)
        elif self.machine.process is None:
            await asyncio.to_thread(self.machine.start)
        await self._work(result, how)
        await self._compare(result, afresh)
        result.attempted = len(self.ledger.entries) - before[0]
        result.acknowledged = self.ledger.acknowledged - before[1]
        result.messages = self.ledger.messages - before[2]
        result.changes = self._changes() - before[3]
        return result

    def _changes(self) -> int:
        return sum(mover.commands for mover in self.movers.values())

    async def _start_with(self, result: Round, failpoint: str) -> str:
        """How it is to die then: a failpoint that the start itself reaches has done its work already."""
        await asyncio.to_thread(self.machine.kill_all)
        try:
            await asyncio.to_thread(self.machine.start, failpoint, (), BACK_S)
        except AssertionError:
            result.reached = True
            await asyncio.to_thread(self.machine.kill_all)
            await asyncio.to_thread(self.machine.start, "", (), BACK_S)
            return "all"
        return result.how

    async def _work(self, result: Round, how: str) -> None:
        up, now = asyncio.Event(), asyncio.Event()
        up.set()
        kill_after = result.killed_after = self.chance.randint(1, max(1, self.deliveries * 9 // 10))
        load = Load(self.machine, self.ledger, self.chance, f"r{self.rounds}", self.deliveries, up,
                    lambda answered: now.set() if answered >= kill_after else None)
        for address in MOVERS:
            chance = random.Random(self.chance.random())
            mover = self.movers.setdefault(address, Mover(self.machine, self.ledger, chance, address, "", up))
            mover.up, mover.prefix, mover.stopping = up, f"r{self.rounds}{address[:2]}", False
        async with asyncio.TaskGroup() as group:
            moving = [group.create_task(mover.run()) for mover in self.movers.values()]
            killing = group.create_task(self._kill(result, how, up, now))
            await load.run()
            now.set()
            await killing
            for mover in self.movers.values():
                mover.stopping = True
            await asyncio.wait(moving)

    # -- how it dies --

    async def _kill(self, result: Round, how: str, up: asyncio.Event, now: asyncio.Event) -> None:
        machine = self.machine
        if how.startswith("failpoint"):
            result.reached = await self._somebody_died(now)
        else:
            await now.wait()
            await asyncio.sleep(self.chance.random() * 0.01)
        if how in ("storage", "another"):
            victims = [machine.storage()] if how == "storage" else machine.others()
            victim = self.chance.choice([one for one in victims if one] or [0])
            if victim:
                os.kill(victim, signal.SIGKILL)
                return
            how = "all"     # everything is one process
        up.clear()
        await asyncio.to_thread(machine.kill_all)
        if how == "recovery":
            for _ in range(self.chance.randint(1, 3)):
                machine.begin(self.chance.choice(("", "mid-recovery:1", "recovered:1")))
                await asyncio.sleep(self.chance.random() * 0.8)
                await asyncio.to_thread(machine.kill_all)
        await asyncio.to_thread(machine.start, "", (), BACK_S)
        result.recovery_s = machine.starts[-1]
        up.set()

    async def _somebody_died(self, give_up: asyncio.Event) -> bool:
        """Waits until the failpoint was reached; False when the load is nearly done without it."""
        machine = self.machine
        assert machine.process is not None
        born = set(machine.children())
        while not give_up.is_set() and machine.process.poll() is None and born <= set(machine.children()):
            await asyncio.sleep(0.01)
        return not give_up.is_set()

    # -- what is left --

    async def _compare(self, result: Round, afresh: bool) -> None:
        result.verdicts = await self.reading.drain(list(self.ledger.entries.values()), afresh=afresh)
        for address, mover in self.movers.items():
            async with imap_peer(self.machine.place.endpoint("imap"), address) as peer:
                states = {box: await peer.state(box) for box in BOXES}
            mover.judge(states, result.verdicts)
            for box, state in states.items():
                self.reading.observe(address, box, state, result.verdicts)
        result.store_faults = await asyncio.to_thread(faults_of_the_store, self.machine)
