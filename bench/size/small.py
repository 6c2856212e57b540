"""The whole server on a small machine: 1 processor, 512 MB, 20 accounts, 100,000 messages, ordinary work.

Contract: a control group (version 1 or 2, whichever can be written) holds the server and nothing else; its memory counts
    page cache too. Where none can be written: taskset to one processor, and RLIMIT_AS is no measure of memory, so that the
    sum of proportional set sizes is told instead. Work: 20 IMAP sessions over TLS, each with its INBOX selected and asking
    every second, deliveries at 50 a second, and a search of bodies at the end of each ten seconds.
Failure: RuntimeError when something is refused, a process of the server dies, or a message is missing.
"""

from __future__ import annotations

import os
import smtplib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.imap import ImapClient
from bench.servers import DOMAIN, SMTP_PORT
from bench.size.fill import fill, message
from bench.size.place import Place, add_accounts
from bench.size.timing import load, spread, timed_ms

HOST = "127.78.0.6"
MEMORY_OCTETS = 512 * 1024 * 1024
_ACCOUNTS, _RATE, _SEARCH_EVERY_S = 20, 50, 10
_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Cage:
    """How the server is held. files: where the memory's peak and the kills stand."""

    kind: str
    prefix: tuple[str, ...]
    peak: Path | None = None
    kills: Path | None = None


def measure(directory: Path, messages: int, seconds: float) -> dict[str, object]:
    place = Place(directory, HOST)
    users = [f"person{number}" for number in range(_ACCOUNTS)]
    with place.engine() as engine:
        for account_id in add_accounts(engine, users, opened=True):
            fill(engine, account_id, messages // _ACCOUNTS)
    with _cage() as cage, place.serve(cage.prefix) as serving:
        roles = serving.roles
        sessions = [place.client(user, tls=True) for user in users]
        found = _work(place, users, sessions, seconds)
        if serving.roles != roles:
            raise RuntimeError(f"a process died: {serving.log()[-2000:]}")
        found |= {"cage": cage.kind, "pss_octets": serving.memory(), **_told(cage), "load": load()}
        _check(sessions, messages, int(found["delivered"]))     # type: ignore[call-overload]
    print(f"  {found}", flush=True)
    return found


def _work(place: Place, users: list[str], sessions: list[ImapClient], seconds: float) -> dict[str, object]:
    over, failures = threading.Event(), list[Exception]()
    taken: dict[str, list[float]] = {"session": [], "delivery": [], "search": []}

    def until_over(work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except Exception as error:
                failures.append(error)
        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def ask(client: ImapClient) -> None:
        taken["session"].append(timed_ms(lambda: client.command("SELECT INBOX")))
        while not over.wait(1.0):
            taken["session"].append(timed_ms(lambda: client.command("FETCH * (UID FLAGS ENVELOPE)")))

    def search() -> None:
        client = place.client(users[0], tls=True)
        client.command("SELECT INBOX")
        while not over.wait(_SEARCH_EVERY_S):
            taken["search"].append(timed_ms(lambda: client.command('SEARCH BODY "soon read"')))

    threads = [until_over(lambda client=client: ask(client)) for client in sessions]     # type: ignore[misc]
    threads.append(until_over(search))
    taken["delivery"] = _deliver(place, users, seconds)
    over.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return {"seconds": seconds, "delivered": len(taken["delivery"]), **{name: spread(ms) for name, ms in taken.items()}}


def _deliver(place: Place, users: list[str], seconds: float) -> list[float]:
    found, begun = [], time.monotonic()
    with smtplib.SMTP(place.host, SMTP_PORT, "client.example.org") as smtp:
        for number in range(int(seconds * _RATE)):
            time.sleep(max(0.0, begun + number / _RATE - time.monotonic()))
            recipient = f"{users[number % len(users)]}@{DOMAIN}"
            found.append(timed_ms(lambda: smtp.sendmail("sender@example.org", [recipient], message(number))))  # noqa: B023
    return found


def _check(sessions: list[ImapClient], messages: int, delivered: int) -> None:
    if (there := sum(client.messages("INBOX") for client in sessions)) != messages + delivered:
        raise RuntimeError(f"{there} messages, not {messages} + {delivered}")


# -- the cage --


@contextmanager
def _cage() -> Iterator[Cage]:
    name = f"fumibako-bench-{os.getpid()}"
    made: list[Path] = []
    try:
        yield _version_1(name, made) or _version_2(name, made) or Cage("taskset to one processor, memory not limited",
                                                                       ("taskset", "-c", "0"))
    finally:
        for place in made:
            try:
                place.rmdir()
            except OSError as error:
                print(f"  {place} stays: {error}", flush=True)


def _version_1(name: str, made: list[Path]) -> Cage | None:
    memory, cpu = _V1 / name, _V1.parent / "cpu" / name
    try:
        for place in (memory, cpu):
            place.mkdir()
            made.append(place)
        (memory / "memory.limit_in_bytes").write_text(str(MEMORY_OCTETS))
        (cpu / "cpu.cfs_period_us").write_text("100000")
        (cpu / "cpu.cfs_quota_us").write_text("100000")
    except OSError:
        return None
    return Cage("control groups, version 1", _enter(memory, cpu), memory / "memory.max_usage_in_bytes",
                memory / "memory.oom_control")


def _version_2(name: str, made: list[Path]) -> Cage | None:
    place = _V2 / name
    try:
        place.mkdir()
        made.append(place)
        (place / "memory.max").write_text(str(MEMORY_OCTETS))
        (place / "cpu.max").write_text("100000 100000")
    except OSError:
        return None
    return Cage("control group, version 2", _enter(place), place / "memory.peak", place / "memory.events")


def _enter(*places: Path) -> tuple[str, ...]:
    entering = "; ".join(f"echo $$ > {place}/cgroup.procs" for place in places)
    return "sh", "-c", f'{entering}; exec "$@"', "sh"


def _told(cage: Cage) -> dict[str, object]:
    """What the group knows. rss_octets: without page cache."""
    if cage.peak is None or cage.kills is None:
        return {}
    killed = next((int(line.split()[1]) for line in cage.kills.read_text().splitlines() if line.startswith("oom_kill ")), 0)
    stat = dict(line.split() for line in (cage.peak.parent / "memory.stat").read_text().splitlines())
    return {"peak_octets": int(cage.peak.read_text()), "killed": killed, "rss_octets": int(stat.get("rss", stat.get("anon", 0)))}
