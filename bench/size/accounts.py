"""From 1 account to 100,000 on one machine: what those cost that nobody has used yet.

Contract: accounts are made by AddAccount with one precomputed password record; nobody of them has logged in or got mail
    before. login: each sample another account, Argon2 and SCRAM as always; rcpt: RCPT TO of one SMTP session, each another.
Failure: RuntimeError.
"""

from __future__ import annotations

import random
import smtplib
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.machine import cpu_s
from bench.servers import DOMAIN, SMTP_PORT
from bench.size.place import Place, Serving, add_accounts
from bench.size.timing import load, timed_ms

HOST = "127.78.0.2"
_LOGINS, _RCPTS = 10, 100


def measure(directory: Path, sizes: Sequence[int]) -> list[dict[str, float]]:
    place, made, found = Place(directory, HOST), 0, []
    for size in sizes:
        begun = time.monotonic()
        with place.engine() as engine:
            add_accounts(engine, [_user(number) for number in range(made, size)])
            shards = len(engine._shards)
        fill_s, fresh, made = time.monotonic() - begun, size - made, size
        row = {"accounts": size, "add_ms": fill_s * 1000 / fresh, "shards": shards, "disk_octets": _disk(directory)}
        found.append(row | _serve(place, size))
        print(f"  {found[-1]}", flush=True)
    return found


def _user(number: int) -> str:
    return f"person{number}"


def _disk(directory: Path) -> int:
    """What is allocated."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def _serve(place: Place, size: int) -> dict[str, float]:
    chance = random.Random(size)
    with place.serve() as serving:
        time.sleep(1)
        memory = {"storage_octets": serving.memory("storage"), "worker_octets": serving.memory("worker 1"),
                  "all_octets": serving.memory()}
        logins = [timed_ms(lambda: place.client(_user(chance.randrange(size))).close()) for _ in range(_LOGINS)]
        listed_ms = timed_ms(lambda: _list(place, size))
        return {"start_s": serving.start_s, **memory, "login_ms": median(logins), "rcpt_ms": _rcpt_ms(place, size, chance),
                "list_ms": listed_ms, "idle_cpu_share": _idle_cpu(serving), "load": load()}


def _list(place: Place, size: int) -> None:
    if (told := place.command("account", "list").count(f"@{DOMAIN}")) < size:
        raise RuntimeError(f"{told} of {size} accounts listed")


def _rcpt_ms(place: Place, size: int, chance: random.Random) -> float:
    with smtplib.SMTP(place.host, SMTP_PORT, "client.example.org") as client:
        client.ehlo()
        client.mail("sender@example.org")
        found = []
        for _ in range(_RCPTS):
            user = _user(chance.randrange(size))
            found.append(timed_ms(lambda user=user: _rcpt(client, user)))      # type: ignore[misc]
        return median(found)


def _rcpt(client: smtplib.SMTP, user: str) -> None:
    code, text = client.rcpt(f"{user}@{DOMAIN}")
    if code != 250:
        raise RuntimeError(f"{code} {text!r}")


def _idle_cpu(serving: Serving) -> float:
    """Of one processor, while nobody asks for anything: housekeeping looks at every shard in turn."""
    before = cpu_s(serving.pid)
    time.sleep(10)
    return (cpu_s(serving.pid) - before) / 10
