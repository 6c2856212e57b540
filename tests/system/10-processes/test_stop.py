"""SIGTERM under load: everybody gets an answer or a goodbye, nothing acknowledged is lost (reliability.md, check 24)."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from dataclasses import dataclass, field

import pytest

from tests.support.clients import Wire, imap, smtp_wire
from tests.support.server import PASSWORD, LiveServer, eventually

pytestmark = pytest.mark.system
ALICE = "alice@example.jp"


@dataclass
class Round:
    """One load of sessions; `sessions` in all, a fifth of them each kind."""

    server: LiveServer
    number: int
    sessions: int
    unfinished: list[Wire] = field(default_factory=list)        # in the middle of DATA
    finished: dict[str, Wire] = field(default_factory=dict)     # letter id -> where the dot was just sent
    envelope: list[Wire] = field(default_factory=list)          # between commands
    idle: list[Wire] = field(default_factory=list)              # IMAP IDLE
    maildrops: list[Wire] = field(default_factory=list)         # POP3, one after another's login: the maildrop is locked

    def begin(self, stack: contextlib.ExitStack) -> None:
        fifth = self.sessions // 5
        for number in range(2 * fifth):
            wire = stack.enter_context(smtp_wire(self.server))
            _until_354(wire)
            name = f"round-{self.number}-{number}"
            wire.send(f"Subject: {name}\r\n\r\nhello\r\n".encode())
            if number < fifth:
                self.finished[name] = wire
            else:
                self.unfinished.append(wire)
        self.envelope = [stack.enter_context(smtp_wire(self.server)) for _ in range(fifth)]
        for _ in range(fifth):
            self.idle.append(wire := stack.enter_context(Wire(self.server.place.endpoint("imap"))))
            wire.line()
            assert wire.command(f'LOGIN {ALICE} "{PASSWORD}"')[-1].startswith("a OK")
            wire.command("SELECT INBOX")
            wire.send(b"i IDLE\r\n")
            assert wire.line().startswith("+ ")
        for _ in range(fifth):
            self.maildrops.append(wire := stack.enter_context(Wire(self.server.place.endpoint("pop3"))))
            assert wire.line().startswith("+OK")
            wire.send(b"USER bob@example.jp\r\n")
            assert wire.line().startswith("+OK")

    def stop(self) -> tuple[float, set[str]]:
        """Dots and SIGTERM at the same moment; how long it took, and what was acknowledged."""
        for wire in self.finished.values():
            wire.send(b".\r\n")
        took_s = self.server.stop()
        acknowledged = set()
        for name, wire in self.finished.items():
            reply = wire.reply()
            assert reply.startswith(("250 2.0.0 ", "421 4.3.2 ", "451 ")), reply
            if reply.startswith("250"):
                acknowledged.add(name)
        for wire in (*self.unfinished, *self.envelope):
            assert b"421 4.3.2 " in wire.rest()
        for wire in self.idle:
            assert b"* BYE" in wire.rest()
        for wire in self.maildrops:
            assert b"+OK" not in wire.rest()      # RFC 1939 has no word for it: closed without one, or -ERR
        return took_s, acknowledged


def _until_354(wire: Wire) -> None:
    wire.ask("EHLO x.example")
    wire.send(b"MAIL FROM:<x@neighbour.example>\r\nRCPT TO:<%b>\r\nDATA\r\n" % ALICE.encode())
    assert [wire.reply()[:3] for _ in range(3)] == ["250", "250", "354"]


def _subjects(server: LiveServer) -> list[str]:
    with imap(server) as client:
        assert client.select("INBOX", readonly=True)[0] == "OK"
        fetched = client.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]
    return re.findall(r"round-\d+-\d+", "".join(part[1].decode() for part in fetched if isinstance(part, tuple)))


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.usefixtures("many_files")
def test_every_session_gets_its_answer_and_nothing_is_lost(fresh: LiveServer, workers: str, long: bool) -> None:
    rounds, sessions = (100, 500) if long else (3, 100)
    fresh.init(server__workers=workers, login__allow_plaintext="true")
    fresh.populate("example.jp", "alice", "bob")
    acknowledged: set[str] = set()
    slowest_s = 0.0
    for number in range(rounds):
        fresh.start()
        with contextlib.ExitStack() as stack:
            load = Round(fresh, number, sessions)
            load.begin(stack)
            took_s, taken = load.stop()
        assert took_s < 10
        slowest_s = max(slowest_s, took_s)
        acknowledged |= taken
    fresh.start()
    found = _subjects(fresh)
    fresh.stop()
    print(f"24 {workers} workers: {rounds} stops under {sessions} sessions, slowest {slowest_s:.2f} s, "
          f"{len(acknowledged)} acknowledged, {len(found)} found, {len(acknowledged - set(found))} lost")
    assert acknowledged, "no message was answered before the stop"
    assert not acknowledged - set(found)
    assert len(found) == len(set(found))


def test_a_second_sigterm_does_not_wait(fresh: LiveServer) -> None:
    """Storage hangs, so a session waits for its answer and the stop for the session."""
    fresh.init(server__workers="1")
    fresh.populate("example.jp", "alice")
    fresh.start()
    storage = fresh.children()[0]
    with contextlib.ExitStack() as stack:
        idle = stack.enter_context(smtp_wire(fresh))
        wire = stack.enter_context(smtp_wire(fresh))
        _until_354(wire)
        os.kill(storage, signal.SIGSTOP)
        wire.send(b"Subject: unanswered\r\n\r\nhello\r\n.\r\n")
        fresh.signal(signal.SIGTERM)
        assert b"421 4.3.2" in idle.rest()      # the stop has begun
        assert fresh.stop() < 4                 # the second one
        assert not wire.rest().startswith(b"250")
    fresh.start()       # what the power-cut-like end left is sound
    eventually(lambda: smtp_wire(fresh).close() is None, "it greets")
    fresh.stop()
    assert fresh.cli("check").startswith("no damage")
