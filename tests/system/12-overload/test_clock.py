"""Somebody sets the clock of the running server, again and again (reliability.md, check 21)."""

from __future__ import annotations

import json
import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.clients import arrived, hand_in, imap, imap_wire, letter, messages, submit
from tests.support.mx import OtherServer, in_a_thread
from tests.support.server import LiveServer, Place, eventually

pytestmark = pytest.mark.system
LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
HOUR_S, DAY_S, YEAR_S = 3600, 86_400, 365 * 86_400
DEFERRED = 3


def _at(text: str) -> float:
    """Seconds from now to a moment of UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() - time.time()


def _jumps() -> dict[str, float]:
    """Where the clock stands from then on, beside the true time."""
    return {
        "an hour on": HOUR_S, "back": 0, "an hour back": -HOUR_S, "a day on": DAY_S, "a day back": -DAY_S,
        "ten years on": 10 * YEAR_S,
        "before summer time in Berlin": _at("2027-03-28T00:59:58"), "before winter time in Berlin": _at("2027-10-31T00:59:58"),
        "before the leap second of 2016": _at("2016-12-31T23:59:58"), "that second again": _at("2016-12-31T23:59:58"),
        "before 2038-01-19": _at("2038-01-19T03:14:05"), "right again": 0,
    }


def _other() -> OtherServer:
    """It asks everybody to come back later, but for those it is told to take."""
    return OtherServer({f"RCPT TO:<later{number}@elsewhere.example>": "450 4.2.0 later" for number in range(DEFERRED)})


class Clock:
    """The time that the server's processes see; time that passes is the true one (DONT_FAKE_MONOTONIC)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set(0)

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(LIBRARY), "FAKETIME_TIMESTAMP_FILE": str(self._path), "FAKETIME_NO_CACHE": "1",
                "DONT_FAKE_MONOTONIC": "1", "TZ": "Europe/Berlin"}

    def set(self, beside_s: float) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(f"{beside_s:+.0f}\n")
        os.replace(new, self._path)


def _state(server: LiveServer) -> tuple[int, int, int]:
    """UIDVALIDITY, UIDNEXT and HIGHESTMODSEQ of Alice's INBOX."""
    with imap_wire(server) as wire:
        said = "\n".join(wire.command("STATUS INBOX (UIDVALIDITY UIDNEXT HIGHESTMODSEQ)"))
    found = [re.search(rf"{name} (\d+)", said) for name in ("UIDVALIDITY", "UIDNEXT", "HIGHESTMODSEQ")]
    return tuple(int(one[1]) for one in found if one is not None)       # type: ignore[return-value]


@pytest.mark.long       # tests/services/test_queue_clock.py is its short form
@pytest.mark.skipif(LIBRARY is None, reason="not installed: faketime (apt-get install faketime)")
@pytest.mark.timeout(300)
def test_the_clock_is_set_again_and_again(fresh: LiveServer, place: Place) -> None:
    clock = Clock(fresh.directory.with_name("clock"))
    fresh.init(relay__smarthost=f'"{place.address}:2626"')
    fresh.populate("example.jp", "alice", "bob")
    fresh.extra = clock.environment
    with in_a_thread(_other(), place.address, 2626) as other:
        fresh.start()
        children = fresh.children()
        for number in range(DEFERRED):
            submit(fresh, letter(f"later {number}", sender="alice@example.jp"), f"later{number}@elsewhere.example")
        eventually(lambda: _refused(other) == DEFERRED, "each is tried once")
        before = _state(fresh)
        for name, beside_s in _jumps().items():
            clock.set(beside_s)
            before = _ordinary_work(fresh, other, name, before)
            assert fresh.children() == children, name
            assert _refused(other) == DEFERRED, f"{name}: the backlog was tried again"
        waiting = json.loads(fresh.cli("queue", "list", "--json"))
        with imap(fresh) as client:
            notices = [one for one in messages(client) if b"multipart/report" in one]
        fresh.stop()
    noticed = fresh.errors_text().count("the clock was set by")
    assert noticed == len(_jumps()) - 1, "the last second of a leap is no jump; all else is"
    print(f"21 {len(_jumps())} jumps: 0 crashes, {len(notices)} bounces, {len(waiting)} of {DEFERRED} wait as before")
    assert (len(notices), len(waiting)) == (0, DEFERRED)


def _refused(other: OtherServer) -> int:
    return sum("RCPT TO:<later" in line for line in other.heard)


def _ordinary_work(server: LiveServer, other: OtherServer, name: str, before: tuple[int, int, int]) -> tuple[int, int, int]:
    """Mail in, mail out, a login, a flag; what a client may not see go back has not."""
    hand_in(server.place.endpoint("smtp"), letter(f"in {name}"), "bob@neighbour.example", "alice@example.jp")
    assert arrived(server, f"in {name}")
    sent = len(other.messages)
    submit(server, letter(f"out {name}", sender="alice@example.jp"), "taker@elsewhere.example")
    eventually(lambda: len(other.messages) == sent + 1, f"{name}: mail goes out at once", 5)
    with imap_wire(server) as wire:
        wire.command("SELECT INBOX")
        assert wire.command("STORE 1 FLAGS (\\Flagged)")[-1].startswith("a OK"), name
    now = _state(server)
    assert now[0] == before[0] and now[1] == before[1] + 1 and now[2] > before[2], (name, before, now)
    return now
