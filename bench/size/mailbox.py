"""One mailbox from 1 message to 1,000,000: SELECT, a window of FETCH, STATUS, and the memory of the worker.

Contract: one worker, so that every session shares its view. cold: the first SELECT of a fresh server, rows in the page cache
    of the system; warm: while another session has the mailbox selected. Medians of the rounds.
Failure: RuntimeError.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.imap import ImapClient
from bench.size.fill import fill
from bench.size.place import Place, Serving, add_accounts
from bench.size.timing import load, median_ms, timed_ms

HOST = "127.78.0.1"
SESSIONS = 20
_WARM_ROUNDS, _SETTLE_S = 11, 1.0


def measure(directory: Path, sizes: Sequence[int], rounds: int) -> list[dict[str, float]]:
    place = Place(directory, HOST, workers=1)
    filled_s = _fill(place, sizes)
    found = []
    for size in sizes:
        turns = [_turn(place, size) for _ in range(rounds)]
        row = {name: median(turn[name] for turn in turns) for name in turns[0]}
        found.append({"messages": size, "fill_s": filled_s[size], **row, "load": load()})
        print(f"  {found[-1]}", flush=True)
    return found


def _fill(place: Place, sizes: Sequence[int]) -> dict[int, float]:
    taken = {}
    with place.engine() as engine:
        ids = add_accounts(engine, [_user(size) for size in sizes], opened=True)
        for size, account_id in zip(sizes, ids, strict=True):
            begun = time.monotonic()
            fill(engine, account_id, size)
            taken[size] = time.monotonic() - begun
            print(f"  {size:,} messages filled in {taken[size]:.1f} s", flush=True)
    return taken


def _user(size: int) -> str:
    return f"holder{size}"


def _turn(place: Place, size: int) -> dict[str, float]:
    with place.serve() as serving:
        first, other = place.client(_user(size)), place.client(_user(size))
        before = _settled(serving)
        found = {"cold_ms": timed_ms(lambda: first.command("SELECT INBOX"))}
        one = _settled(serving)
        found["alone_again_ms"] = median_ms(lambda: first.command("SELECT INBOX"), 3)
        found["warm_ms"] = median_ms(lambda: _select(other), _WARM_ROUNDS)
        found |= _commands(other, size)
        many = [other, *(place.client(_user(size)) for _ in range(SESSIONS - 2))]
        for client in many:
            client.command("SELECT INBOX")
        twenty = _settled(serving)
        for client in (first, *many):
            client.close()
        return found | {"memory_before": before, "memory_one": one, "memory_twenty": twenty}


def _select(client: ImapClient) -> None:
    client.command("SELECT INBOX")


def _commands(client: ImapClient, size: int) -> dict[str, float]:
    window = f"FETCH {max(1, size - 49)}:{size} (UID FLAGS ENVELOPE)"
    commands = {"window_ms": window, "newer_ms": f"UID FETCH {size + 1}:* (FLAGS)", "status_ms": "STATUS INBOX (MESSAGES UNSEEN)",
                "noop_ms": "NOOP", "store_ms": f"STORE {size} FLAGS (\\Seen)"}
    return {name: median_ms(lambda text=text: client.command(text), _WARM_ROUNDS)      # type: ignore[misc]
            for name, text in commands.items()}


def _settled(serving: Serving) -> int:
    time.sleep(_SETTLE_S)
    return serving.memory("worker 1")
