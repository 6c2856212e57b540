"""Hours of ordinary work in minutes: does the server grow, leak, stumble or lose anything? `python -m tools.soak --minutes 75`.

Contract: spec/reliability.md §5.2, check 23. Mail by SMTP, LMTP and submission at 70 % of what a short run at full speed took,
    three people who move their mail about by IMAP, POP3, DNS, and mail for another server, which is started anew every
    second. Memory, files and tasks of the server's processes are looked at every few seconds; at the end everything it
    holds is compared with the ledger. The result is a file of bench/results and a part of docs/proof.md.
Failure: exit code 1 when a figure is missed; the data directory is kept and named.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import random
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import linear_regression
from typing import Any

from tests.crash.clients import Broken, dotted, log_in, pop3_unique_ids, smtp_peer
from tests.crash.drain import Reading, faults_of_the_store
from tests.crash.load import Load, Mover
from tests.crash.machine import MOVERS, READERS, SENDER, Machine
from tests.crash.sink import Sink
from tests.support.lag import ask_lag
from tests.support.ledger import Entry, Ledger, Verdicts, make_letter
from tests.support.server import Place, claimed_network, resident_octets
from tools.record import PAGE, RESULTS, commit, replace, write_section

BEGIN, END = "<!-- written by the soak -->\n", "<!-- end of the soak -->\n"
SHARE = 0.7                         # of the measured maximum
CALIBRATION = 1_000                 # messages at full speed
WARM_UP = 0.2                       # of the time
OUTGOING_PER_S, LOOK_S, IDLE_S = 3, 3.0, 20.0       # IDLE_S: connections between messages are closed by then
SLOPE_MB, LEFT_OVER = 1.0, 5        # RSS per 10,000 messages; files and tasks more than before
PORT = 2_628


@dataclass(frozen=True, slots=True)
class Sample:
    """rss_octets: anonymous memory of each process, in the order of their start; files: that they have open together,
    but for segments: of those a process keeps the last few it read from."""

    at_s: float
    messages: int
    rss_octets: tuple[int, ...]
    files: int


@dataclass(slots=True)
class Soak:
    """One run on one machine."""

    machine: Machine
    ledger: Ledger
    chance: random.Random
    sink: Sink = field(default_factory=Sink)
    up: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    samples: list[Sample] = field(default_factory=list)
    sent: int = 0
    outgoing: list[str] = field(default_factory=list)       # letters for another server that were answered with 250
    asked: dict[str, int] = field(default_factory=lambda: {"pop3": 0, "dns": 0, "restarts": 0})
    movers: list[Mover] = field(default_factory=list)

    async def run(self, minutes: float) -> dict[str, Any]:
        async with asyncio.TaskGroup() as group:
            other = group.create_task(self._other_server())
            found = await self._run(minutes)
            other.cancel()
        return found

    async def _run(self, minutes: float) -> dict[str, Any]:
        self.up.set()
        begun_s = time.monotonic()
        await self._load(CALIBRATION)
        highest = CALIBRATION / (time.monotonic() - begun_s)
        self.movers = [Mover(self.machine, self.ledger, random.Random(number), address, f"m{number}", self.up)
                       for number, address in enumerate(MOVERS)]
        await self._work(minutes * 60 * WARM_UP, highest * SHARE)
        reading = Reading(self.machine)
        await reading.drain(list(self.ledger.entries.values()))     # threads and connections that it takes are there then
        await asyncio.sleep(IDLE_S)
        before, tasks_before = self.sample(), await self.tasks()
        self.samples.clear()
        await self._work(minutes * 60 * (1 - WARM_UP), highest * SHARE)
        lag = await asyncio.to_thread(ask_lag, self.machine)
        verdicts = await reading.drain(list(self.ledger.entries.values()))
        await asyncio.sleep(IDLE_S)
        after, tasks_after = self.sample(), await self.tasks()
        return {"highest_per_s": round(highest), "messages": self.sent, "outgoing": len(self.outgoing), **self.asked,
                "imap_commands": sum(mover.commands for mover in self.movers), "slopes_mb": self._slopes_mb(),
                "rss_mb": [[round(octets / 1e6, 1) for octets in one.rss_octets] for one in (before, after)],
                "files": [before.files, after.files], "tasks": [tasks_before, tasks_after],
                "lag": {role: {name: one[name] for name in ("p50_ms", "p99_ms", "max_ms")} for role, one in lag.items()},
                "faults": [f"{fault} {what}" for fault, what in verdicts.faults] + self._outgoing_faults(verdicts),
                "samples": [asdict(one) for one in self.samples]}

    # -- work --

    async def _work(self, seconds: float, per_s: float) -> None:
        self.over.clear()
        for mover in self.movers:
            mover.stopping = False
        async with asyncio.TaskGroup() as group:
            moving = [group.create_task(mover.run()) for mover in self.movers]
            beside = [group.create_task(one()) for one in (self._outgoing, self._readers, self._samples)]
            await self._load(round(seconds * per_s), per_s)
            self.over.set()
            for mover in self.movers:
                mover.stopping = True
            await asyncio.wait([*moving, *beside])

    async def _load(self, count: int, per_s: float = math.inf) -> None:
        before = self.sent

        def note(answered: int) -> None:
            self.sent = before + answered

        await Load(self.machine, self.ledger, self.chance, f"s{before}", count, self.up, note, per_s).run()

    async def _every(self, pause_s: float, step: Callable[[], Awaitable[None]]) -> None:
        while not self.over.is_set():
            with suppress(Broken):
                await step()
            await asyncio.sleep(pause_s)

    async def _outgoing(self) -> None:
        await self._every(1 / OUTGOING_PER_S, self._send_out)

    async def _send_out(self) -> None:
        letter = make_letter(f"out-{len(self.outgoing)}-{self.sent}", 4_000, self.chance, SENDER)
        recipient = f"ok-{len(self.outgoing)}@d{len(self.outgoing)}.example"
        async with smtp_peer(self.machine.place.endpoint("submission")) as peer:
            await log_in(peer, SENDER)
            for line in (f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{recipient}>"):
                await peer.demand(line, "250")
            await peer.demand("DATA", "354")
            self.ledger.attempt(Entry(letter.id, "outgoing", (recipient,), letter.sha256))
            await peer.send(dotted(letter.octets))
            reply = await peer.reply()
            self.ledger.ack(letter.id, reply[:3], reply[4:])
            if reply.startswith("250"):
                self.outgoing.append(letter.id)

    async def _other_server(self) -> None:
        """It is there for most of each second while there is work, and then for good; sessions that it has begun it ends."""
        while True:
            server = await asyncio.start_server(self.sink.serve, self.machine.place.address, PORT, limit=1 << 24)
            try:
                await asyncio.sleep(0.9)
                while self.over.is_set():
                    await asyncio.sleep(0.1)
            finally:
                server.close()
            self.asked["restarts"] += 1
            await asyncio.sleep(0.1)

    async def _readers(self) -> None:
        await self._every(1.0, self._read)

    async def _read(self) -> None:
        await pop3_unique_ids(self.machine.place.endpoint("pop3"), self.chance.choice(READERS))
        self.asked["pop3"] += 1
        answer = await asyncio.to_thread(_ask_dns, self.machine.place.endpoint("dns"))
        self.asked["dns"] += answer

    # -- looking at it --

    async def _samples(self) -> None:
        while not self.over.is_set():
            self.samples.append(self.sample())
            await asyncio.sleep(LOOK_S)

    def sample(self) -> Sample:
        children = self.machine.children()
        files = sum(not name.endswith(".seg") for child in children for name in _open_files(child))
        return Sample(round(time.monotonic(), 1), self.sent, tuple(map(resident_octets, children)), files)

    async def tasks(self) -> int:
        return sum(one["tasks"] for one in (await asyncio.to_thread(ask_lag, self.machine)).values())

    def _slopes_mb(self) -> list[float]:
        """Growth of each process over 10,000 messages in the second half of the run: by then every cache should be warm."""
        late = self.samples[len(self.samples) // 2:]
        messages = [one.messages for one in late]
        slopes = [linear_regression(messages, octets)[0] for octets in zip(*(one.rss_octets for one in late), strict=True)]
        return [round(slope * 10_000 / 1e6, 2) for slope in slopes]

    def _outgoing_faults(self, verdicts: Verdicts) -> list[str]:
        taken: dict[str, int] = {}
        for (letter_id, _), count in self.sink.taken.items():
            taken[letter_id] = taken.get(letter_id, 0) + count
        return ([f"lost {one}: another server never got it" for one in self.outgoing if one not in taken]
                + [f"duplicate {one}: sent {count} times" for one, count in taken.items() if count > 1])


def _open_files(process: int) -> Iterator[str]:
    for number in os.listdir(f"/proc/{process}/fd"):
        with suppress(FileNotFoundError):       # closed meanwhile
            yield os.readlink(f"/proc/{process}/fd/{number}")


def _ask_dns(endpoint: tuple[str, int]) -> int:
    """1 when `ledger.example. MX` was answered."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(5)
        asking.sendto(b"\x12\x34\1\0\0\1\0\0\0\0\0\0\6ledger\7example\0\0\17\0\1", endpoint)
        try:
            return int(asking.recv(512)[:2] == b"\x12\x34")
        except TimeoutError:
            return 0


# -- what is written --


def misses(found: dict[str, Any]) -> list[str]:
    """The figures that were not met."""
    wanted = {
        "memory grows": sum(found["slopes_mb"]) < SLOPE_MB,
        "files are left open": found["files"][1] - found["files"][0] <= LEFT_OVER,
        "tasks are left over": found["tasks"][1] - found["tasks"][0] <= LEFT_OVER,
        "the log is not JSON lines, or tells of a failure": not found["log_faults"],
        "mail is not as the ledger says": not found["faults"],
        "fumibako check finds something": not found["store_faults"],
        "a process of the server died": found["same_processes"],
    }
    return [what for what, met in wanted.items() if not met]


def section(found: dict[str, Any]) -> str:
    rows = [
        ("minutes", found["minutes"]),
        ("messages in", f"{found['messages']:,} ({SHARE:.0%} of {found['highest_per_s']}/s, the full speed)"),
        ("messages out; restarts of the other server", f"{found['outgoing']:,}; {found['restarts']:,}"),
        ("IMAP changes; POP3 sessions; DNS answers", f"{found['imap_commands']:,}; {found['pop3']:,}; {found['dns']:,}"),
        ("memory at rest before and after, MB: storage, jobs, workers",
         " → ".join(", ".join(map(str, octets)) for octets in found["rss_mb"])),
        ("**growth in the second half, MB for 10,000 messages**: storage, jobs, workers",
         f"**{sum(found['slopes_mb']):.2f}**: {', '.join(map(str, found['slopes_mb']))}"),
        ("open files but segments, before and after", " → ".join(map(str, found["files"]))),
        ("tasks before and after", " → ".join(map(str, found["tasks"]))),
        ("event loops under this load, worst p99 and max, ms",
         f"{max(one['p99_ms'] for one in found['lag'].values())}, {max(one['max_ms'] for one in found['lag'].values())}"),
        ("lines of the log; not JSON, or of a failure", f"{found['log_lines']:,}; {len(found['log_faults'])}"),
        ("**lost, corrupt, phantom, duplicate**", f"**{len(found['faults'])}**"),
        ("figures missed", "; ".join(misses(found)) or "none"),
    ]
    table = "".join(f"| {name} | {value} |\n" for name, value in rows)
    return (f"{found['date']}, commit {found['commit']}; {os.cpu_count()} cores, {found['system']}, Python {found['python']}, "
            f"seed {found['seed']}.\n\n| | |\n| --- | ---: |\n{table}\n")


def write(found: dict[str, Any]) -> Path:
    """The file of this run, and its part of docs/proof.md."""
    path = RESULTS / f"soak-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    replace(path, json.dumps(found, indent=1) + "\n")
    write_section(PAGE, BEGIN, section(found), END)
    return path


def _log_faults(machine: Machine) -> tuple[int, list[str]]:
    lines, bad = machine.errors_text().split("\n")[:-1], []
    for line in lines:
        try:
            said = json.loads(line)
        except ValueError:
            bad.append(line)
            continue
        if "traceback" in said or said["level"] in ("error", "critical"):
            bad.append(line)
    return len(lines), bad[:20]


@contextmanager
def _machine(workers: int) -> Iterator[Machine]:
    place = Path(tempfile.mkdtemp(prefix="fumibako-soak-"))
    with claimed_network() as network:
        machine = Machine(place / "data", Place(f"{network}.9"))
        machine.make(workers=workers, smarthost=f"{network}.9:{PORT}")
        settings = machine.directory / "fumibako.toml"
        dns = f'[listen]\ndns = ["{network}.9:{machine.place.ports["dns"]}"]\n'
        settings.write_text(settings.read_text().replace("[listen]\n", dns))
        try:
            yield machine
        except BaseException:
            print(f"kept: {place}", flush=True)
            raise
        finally:
            machine.kill_all()
    shutil.rmtree(place)


def soak(minutes: float, workers: int, seed: int) -> dict[str, Any]:
    """One run, whatever came of it."""
    with _machine(workers) as machine:
        ledger = Ledger(machine.directory.with_name("ledger"))
        machine.start()
        children = machine.children()
        found = asyncio.run(Soak(machine, ledger, random.Random(seed)).run(minutes))
        same = machine.children() == children
        machine.stop()
        lines, log_faults = _log_faults(machine)
        store_faults = faults_of_the_store(machine)
    return {"date": datetime.now(UTC).date().isoformat(), "commit": commit(),
            "system": f"{platform.system()} {platform.release()}", "python": platform.python_version(), "seed": seed,
            "minutes": minutes, "workers": workers, **found, "same_processes": same, "log_lines": lines,
            "log_faults": log_faults, "store_faults": store_faults}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=75.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=2025)
    options = parser.parse_args()
    found = soak(options.minutes, options.workers, options.seed)
    print(section(found), write(found), *found["faults"][:10], *found["log_faults"][:5], sep="\n")
    return 1 if misses(found) else 0


if __name__ == "__main__":
    sys.exit(main())
