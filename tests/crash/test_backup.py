"""A backup while mail pours in, and a restore of it elsewhere (spec/reliability.md §5.1, check 11)."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fumibako.store.sqlite.reader import Reader
from tests.crash.clients import imap_peer
from tests.crash.drain import Reading, faults_of_the_store
from tests.crash.load import Load
from tests.crash.machine import READERS, Machine
from tests.support.ledger import Fault, Ledger
from tests.support.server import PROGRAM, Place, _environment

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]

DELIVERIES = 1_500


@pytest.fixture
def other(network: str, tmp_path: Path) -> Iterator[Machine]:
    """Another machine, elsewhere."""
    machine = Machine(tmp_path / "other", Place(f"{network}.8"))
    try:
        yield machine
    finally:
        machine.kill_all()


async def backup(machine: Machine, destination: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await asyncio.to_thread(machine.cli, "backup", str(destination), "--json"))
    return found


@pytest.mark.parametrize("workers", [0, 1])
async def test_what_was_acknowledged_before_a_backup_is_in_it(
        machine: Machine, other: Machine, tmp_path: Path, workers: int) -> None:
    machine.make(workers=workers)
    machine.start()
    ledger, chance = Ledger(tmp_path / "ledger"), random.Random(workers)
    up, warm = asyncio.Event(), asyncio.Event()
    up.set()
    load = Load(machine, ledger, chance, "a", DELIVERIES, up,
                lambda answered: warm.set() if answered >= DELIVERIES // 4 else None)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(load.run())
        await warm.wait()
        before = {entry.id for entry in ledger.entries.values() if entry.acknowledged}
        first = await backup(machine, tmp_path / "b")
        assert not running.done(), "the load ended before the backup did"
    second = await backup(machine, tmp_path / "b")
    assert first["frozen_ms"] < 500 and first["messages"] < second["messages"]
    assert len(before) >= DELIVERIES // 4
    reading = Reading(machine)
    assert not (await reading.drain(list(ledger.entries.values()))).faults
    async with imap_peer(machine.place.endpoint("imap"), READERS[0]) as peer:
        known = await peer.select("INBOX")

    # The older of the two backups, on another machine.
    other.make(workers=workers, populated=False)
    other.cli("restore", str(first["path"]))
    assert faults_of_the_store(other) == []
    other.start()
    reading.machine = other
    verdicts = await reading.drain(list(ledger.entries.values()), afresh=True)
    lost = {what.partition(" ")[0] for fault, what in verdicts.faults if fault is Fault.LOST}
    assert not lost & before, sorted(lost & before)[:5]
    assert not [one for one in verdicts.faults if one[0] is not Fault.LOST and not _is_younger(one, first["path"])]
    async with imap_peer(other.place.endpoint("imap"), READERS[0]) as peer:
        now = await peer.select("INBOX")
        assert now["UIDVALIDITY"] == known["UIDVALIDITY"] and now["UIDNEXT"] > known["UIDNEXT"]
        assert now["HIGHESTMODSEQ"] > known["HIGHESTMODSEQ"]
        since = b"(UID FLAGS) (CHANGEDSINCE %d)" % known["HIGHESTMODSEQ"]
        assert len(await peer.fetch("1:*", since)) == now["EXISTS"] > 0

    # New mail there gets no UID that anybody has seen before; the histories of the mailboxes go on.
    more = Load(other, ledger, chance, "later", 200, up)
    await more.run()
    again = await reading.drain(list(ledger.entries.values()))
    assert not [one for one in again.faults if one[0] is not Fault.LOST]
    assert not {what.partition(" ")[0] for fault, what in again.faults if fault is Fault.LOST} - lost
    assert faults_of_the_store(other) == []


def _is_younger(fault: tuple[Fault, str], backup: str) -> bool:
    """The first mail of an account came after the backup: its mailboxes are made anew, with another UIDVALIDITY."""
    kind, what = fault
    reader = Reader(Path(backup))
    account = reader.account(what.partition(" ")[0])
    mailboxes = reader.mailboxes(account.id) if account else []
    reader.close()
    return kind is Fault.UID_VALIDITY and not mailboxes


async def test_the_next_backup_takes_only_new_segments(machine: Machine, tmp_path: Path) -> None:
    machine.make(workers=1)
    machine.start()
    up = asyncio.Event()
    up.set()
    ledger, chance = Ledger(tmp_path / "ledger"), random.Random(7)
    await Load(machine, ledger, chance, "a", 300, up).run()
    machine.stop()
    machine.start()         # seals its segments
    first = await backup(machine, tmp_path / "b")
    await Load(machine, ledger, chance, "b", 20, up).run()
    second = await backup(machine, tmp_path / "b")
    old = {path.name: path.stat().st_ino for path in (Path(first["path"]) / "shard-001/seg").iterdir()}
    new = {path.name: path.stat().st_ino for path in (Path(second["path"]) / "shard-001/seg").iterdir()}
    assert old.items() <= new.items() and len(new) > len(old)
    databases = sum((Path(second["path"]) / name).stat().st_size for name in ("control.db", "queue.db", "shard-001/mail.db"))
    config = sum(path.stat().st_size for path in (Path(second["path"]) / "config").rglob("*") if path.is_file())
    segments = sum((Path(second["path"]) / "shard-001/seg" / name).stat().st_size for name in new.keys() - old.keys())
    queued = sum(path.stat().st_size for path in (Path(second["path"]) / "queue").glob("*.seg"))
    assert second["new_octets"] <= databases + config + segments + queued < first["octets"]


@pytest.mark.parametrize("point", ["backup-database:1", "backup-segment:1", "backup-complete:1"])
def test_a_backup_of_a_running_server_that_dies(machine: Machine, tmp_path: Path, point: str) -> None:
    machine.make(workers=1)
    machine.start()
    machine.cli("backup", str(tmp_path / "b"))
    asyncio.run(_some_mail(machine, tmp_path))
    died = subprocess.run([*PROGRAM, "backup", str(tmp_path / "b"), "--data", str(machine.directory)], check=False,
                          capture_output=True, env={**_environment(), "FUMIBAKO_FAILPOINT": point})
    assert died.returncode == -9
    assert machine.json("status")["running"] is True       # it goes on, and the pin went with the connection
    good = machine.json("backup", str(tmp_path / "b"), "--verify")
    assert good["messages"] > 0 and not list((tmp_path / "b").glob(".unfinished*"))


async def _some_mail(machine: Machine, tmp_path: Path) -> None:
    up = asyncio.Event()
    up.set()
    await Load(machine, Ledger(tmp_path / "ledger"), random.Random(3), "a", 50, up).run()


def test_an_unfinished_restore_is_not_served(other: Machine, machine: Machine, tmp_path: Path) -> None:
    machine.make(workers=1)
    machine.cli("backup", str(tmp_path / "b"))
    other.make(workers=1, populated=False)
    died = subprocess.run([*PROGRAM, "restore", str(tmp_path / "b"), "--data", str(other.directory)], check=False,
                          capture_output=True, env={**_environment(), "FUMIBAKO_FAILPOINT": "restore-copied:1"})
    assert died.returncode == -9
    for command in (("serve",), ("account", "list"), ("check",), ("init", "--hostname", "mail.a.example")):
        said = other.run_cli(*command)
        assert said.returncode == 1 and "fumibako restore SRC" in said.stderr, (command, said)
    other.cli("restore", str(tmp_path / "b"))
    other.start()
    assert other.json("status")["accounts"] == machine.json("status")["accounts"] > 0
