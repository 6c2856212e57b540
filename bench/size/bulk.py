"""What others notice of a STORE and an EXPUNGE of 50,000 messages: NOOP, FETCH and deliveries meanwhile.

Contract: one worker for everybody, which is the hardest case. Each probe is a thread with an account of its own,
    but for the one that has the same mailbox selected; `quiet` is the same without the bulk.
Failure: RuntimeError.
"""

from __future__ import annotations

import smtplib
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.servers import DOMAIN, SMTP_PORT
from bench.size.fill import fill, message
from bench.size.place import Place, add_accounts
from bench.size.timing import load, spread, timed_ms

HOST = "127.78.0.3"
_PAUSE_S, _QUIET_S = 0.005, 5.0
_COMMANDS = {"STORE": "STORE 1:{count} +FLAGS (\\Deleted)", "STORE silent": "STORE 1:{count} +FLAGS.SILENT (\\Flagged)",
             "EXPUNGE": "EXPUNGE"}


def measure(directory: Path, messages: int, count: int) -> list[dict[str, object]]:
    """messages: in the mailbox; count: of those are stored and expunged."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    place = Place(directory, HOST, workers=1)
    with place.engine() as engine:
        ids = add_accounts(engine, ["bulk", "noop", "fetch", "target"], opened=True)
        fill(engine, ids[0], messages)
        fill(engine, ids[2], 1_000)
    with place.serve():
        probes = _probes(place)
        client = place.client("bulk")
        client.command("SELECT INBOX")
        found = [{"command": "quiet", "messages": messages, **_during(probes, lambda: time.sleep(_QUIET_S))}]
        for name, text in _COMMANDS.items():
            row = _during(probes, lambda text=text: client.command(text.format(count=count)))     # type: ignore[misc]
            found.append({"command": name, "messages": messages, "count": count, **row})
        for row in found:
            print(f"  {row}", flush=True)
        return found


def _probes(place: Place) -> dict[str, Callable[[], object]]:
    other, fetcher, same = place.client("noop"), place.client("fetch"), place.client("bulk")
    for client in (other, fetcher, same):
        client.command("SELECT INBOX")
    smtp = smtplib.SMTP(place.host, SMTP_PORT, "client.example.org")
    mail = message(1)
    return {
        "NOOP": lambda: other.command("NOOP"),
        "FETCH": lambda: fetcher.command("FETCH 500:520 (UID FLAGS ENVELOPE)"),
        "delivery": lambda: smtp.sendmail("sender@example.org", [f"target@{DOMAIN}"], mail),
        "NOOP in the same mailbox": lambda: same.command("NOOP"),
    }


def _during(probes: dict[str, Callable[[], object]], work: Callable[[], object]) -> dict[str, object]:
    over = threading.Event()
    taken: dict[str, list[float]] = {name: [] for name in probes}

    def ask(name: str) -> None:
        while not over.is_set():
            taken[name].append(timed_ms(probes[name]))
            time.sleep(_PAUSE_S)

    threads = [threading.Thread(target=ask, args=(name,)) for name in probes]
    for thread in threads:
        thread.start()
    elapsed_ms = timed_ms(work)
    over.set()
    for thread in threads:
        thread.join()
    return {"elapsed_ms": elapsed_ms, "load": load(), "others": {name: spread(found) for name, found in taken.items()}}
