"""The running server whose kernel says no: a sample of the cases, and with --long all of them.

spec/reliability.md §5.1, check 4; §5.2, check 14.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from fumibako.app.storage import STORAGE_SOCKET
from tests.crash.clients import smtp_peer
from tests.crash.fault_live import Case, Live, cases
from tests.crash.machine import Machine
from tests.support.server import needs
from tests.support.strace import injecting

pytestmark = [pytest.mark.crash, pytest.mark.root, pytest.mark.timeout(900)]

SATURATED_S = 1.0
SAMPLES = ("storage pwrite64 EDQUOT 2 data", "worker pwrite64 EINTR 1..6 large", "worker openat EMFILE 1+ large",
           "storage pwrite64 EIO 1 append", "worker pwrite64 EDQUOT 1 large")


async def run(machine: Machine, chosen: list[Case], place: Path) -> Live:
    needs("strace")
    live = Live(machine, place)
    live.begin()
    await live.prepare()
    for case in chosen:
        await live.try_case(case)
    await live.judge()
    return live


async def test_the_kernel_says_no(machine: Machine, tmp_path: Path) -> None:
    live = await run(machine, [case for case in cases() if case.name in SAMPLES], tmp_path)
    assert not live.wrong, "\n".join(live.wrong)


@pytest.mark.long
async def test_the_kernel_says_no_everywhere(machine: Machine, tmp_path: Path) -> None:
    live = await run(machine, cases(), tmp_path)
    assert not live.wrong, "\n".join(live.wrong)


def cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("role", ["worker", "storage"])
async def test_nobody_can_be_let_in_and_nobody_spins(machine: Machine, tmp_path: Path, role: str) -> None:
    """accept has no descriptor for as long as it lasts: the process rests between its tries, and goes on afterwards."""
    needs("strace")
    machine.make(workers=1)
    machine.start()
    live = Live(machine, tmp_path)
    victim = live.process(role)
    with injecting(victim, "accept4", "error=EMFILE:when=1+", tmp_path / "trace"):
        waiting = await (asyncio.open_connection(*machine.place.endpoint("smtp")) if role == "worker"
                         else asyncio.open_unix_connection(machine.directory / STORAGE_SOCKET))
        await asyncio.sleep(0.2)
        before = cpu_s(victim)
        await asyncio.sleep(SATURATED_S)
        assert cpu_s(victim) - before < 0.3 * SATURATED_S
    tries = (tmp_path / "trace").read_text().count("EMFILE")
    assert 2 <= tries < 100, "strace makes each of them slow: a loop without a pause would still try thousands of times"
    begun = time.monotonic()
    assert await asyncio.wait_for(waiting[0].read(1), 2), "the one who waited is served, or told"
    if role == "worker":
        async with smtp_peer(machine.place.endpoint("smtp")):
            pass
    waiting[1].close()
    assert time.monotonic() - begun < 2
