"""A process of the server is killed: its work goes on in another one, and nothing is promised meanwhile."""

from __future__ import annotations

import json
import os
import re
import signal
import smtplib
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.clients import Wire, arrived, hand_in, imap, imap_wire, letter, messages, smtp_wire, trusting
from tests.support.server import PASSWORD, LiveServer, Place, eventually

pytestmark = pytest.mark.system
ALICE = "alice@example.jp"


@pytest.fixture
def server(fresh: LiveServer) -> LiveServer:
    fresh.init(server__workers="2")
    fresh.populate("example.jp", "alice", "bob")
    fresh.forgiven = re.compile("ended after|stor")
    fresh.start()
    return fresh


def _log(server: LiveServer, logger: str = "fumibako.supervisor") -> list[str]:
    lines = [json.loads(line) for line in server.errors_text().split("\n")[:-1]]
    return [line["message"] for line in lines if line["logger"] == logger]


@contextmanager
def _connecting(place: Place) -> Iterator[list[str]]:
    """Inside, connections are made all the time; afterwards the list says what went wrong with them."""
    wrong: list[str] = []
    over = threading.Event()

    def connect() -> None:
        while not over.wait(0.005):
            for listener in ("smtp", "imaps", "pop3"):
                try:
                    Wire(place.endpoint(listener)).close()
                except OSError as error:
                    wrong.append(f"{listener}: {error!r}")

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        yield wrong
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(("number", "name"), [(0, "storage"), (1, "jobs"), (2, "worker 0"), (3, "worker 1")])
def test_a_killed_process_is_replaced_and_no_port_closes(server: LiveServer, place: Place, number: int, name: str) -> None:
    before = server.children()
    with _connecting(place) as wrong:
        for _ in range(3):      # a short life each: it takes longer each time
            victim = (set(server.children()) - set(before) or {before[number]}).pop()
            os.kill(victim, signal.SIGKILL)
            eventually(lambda victim=victim: victim not in server.children() and len(server.children()) == 4, "a new process")
        eventually(lambda: _taken(place, f"after {name}"), "mail is taken again")
        arrived(server, f"after {name}")
    assert not wrong, wrong[:5]
    assert set(server.children()) >= set(before) - {before[number]}         # nobody else had to go
    told = _log(server)
    assert len(told) == 3 and all(re.match(rf"{name} \(process \d+\) ended after \d+\.\d s with signal 9", one) for one in told)
    assert "2 short lives in a row; it starts again in 0.2 s" in told[1] or "in 0.1 s" in told[1], told
    server.stop()


def _taken(place: Place, subject: str) -> bool:
    """False: a temporary refusal, while a worker has not found the new storage process yet."""
    try:
        hand_in(place.endpoint("smtp"), letter(subject), "x@neighbour.example", ALICE)
    except smtplib.SMTPResponseException as refused:
        assert refused.smtp_code in (421, 451), refused
        return False
    return True


def test_a_process_that_dies_at_once_every_time_is_tried_ever_slower(fresh: LiveServer, place: Place) -> None:
    """The configuration became unusable for a worker after the start: the others serve on, and the log says how often."""
    fresh.init(server__workers="1")
    fresh.populate("example.jp", "alice")
    fresh.forgiven = re.compile("ended after|failed")
    fresh.start()
    key = fresh.directory / "tls" / "key.pem"
    text = key.read_text()
    key.write_text("nonsense")
    os.kill(fresh.children()[2], signal.SIGKILL)
    eventually(lambda: any("4 short lives in a row; it starts again in 0.8 s" in one for one in _log(fresh)), "the pause grows")
    begun = time.monotonic()
    with Wire(place.endpoint("smtp")) as waiting:       # the port is open: whoever comes now is served later
        key.write_text(text)
        assert waiting.reply().startswith("220 ")
    assert time.monotonic() - begun < 5
    fresh.stop()


def test_while_storage_is_away_nothing_is_acknowledged(server: LiveServer, place: Place) -> None:
    smtp = [_mid_data(server) for _ in range(6)]
    fetching, idling, popping = imap_wire(server), imap_wire(server), _pop3(server)
    for wire in (fetching, idling):
        wire.command("SELECT INBOX")
    idling.send(b"i IDLE\r\n")
    assert idling.line().startswith("+ ")
    storage = server.children()[0]
    os.kill(storage, signal.SIGSTOP)        # nothing is answered from here on, then it is gone
    for wire in smtp:
        wire.send(b".\r\n")
    fetching.send(b'b APPEND INBOX {5}\r\n')
    assert fetching.line().startswith("+ ")
    fetching.send(b"hello\r\n")
    popping.send(b"DELE 1\r\nQUIT\r\n")
    os.kill(storage, signal.SIGKILL)
    for wire in smtp:
        assert wire.reply()[:3] in ("451", "421"), "nothing may be acknowledged"
        wire.close()
    said = fetching.rest()
    assert b"* BYE" in said and b"b OK" not in said, said
    assert b"* BYE" in idling.rest()
    said = popping.rest()
    assert b"+OK Bye" not in said, said
    for wire in (fetching, idling, popping):
        wire.close()
    _new_sessions_are_told_or_served(place)
    assert _log(server)[0].startswith("storage (process ")
    arrived(server, "it is back", "bob@example.jp")
    with imap(server) as client:
        assert len(messages(client)) == 0       # six unacknowledged letters: none was half accepted
    server.stop()


def _mid_data(server: LiveServer) -> Wire:
    wire = smtp_wire(server)
    wire.ask("EHLO x.example")
    wire.ask("MAIL FROM:<x@neighbour.example>")
    assert wire.ask(f"RCPT TO:<{ALICE}>").startswith("250")
    assert wire.ask("DATA").startswith("354")
    wire.send(b"Subject: unacknowledged\r\n\r\nhello\r\n")
    return wire


def _pop3(server: LiveServer) -> Wire:
    hand_in(server.place.endpoint("smtp"), letter("to be deleted"), "x@neighbour.example", "bob@example.jp")
    arrived(server, "to be deleted", "bob@example.jp")
    wire = Wire(server.place.endpoint("pop3s"), tls=trusting(server))
    wire.line()
    for line in ("USER bob@example.jp", f"PASS {PASSWORD}"):
        wire.send(f"{line}\r\n".encode())
        assert wire.line().startswith("+OK")
    return wire


def _new_sessions_are_told_or_served(place: Place) -> None:
    """Storage comes back in its own time, and each worker finds it by itself: until then the answer is a temporary one."""
    def transaction() -> str:
        with Wire(place.endpoint("smtp")) as wire:
            reply = wire.reply()
            for line in ("EHLO x.example", "MAIL FROM:<x@neighbour.example>", "RCPT TO:<bob@example.jp>", "DATA",
                         "Subject: it is back\r\n\r\nhello\r\n."):
                if reply[:1] not in "23":
                    break
                reply = wire.ask(line)
            return reply
    seen: list[str] = []
    eventually(lambda: seen.append(transaction()) or (len(seen) > 5 and all(one.startswith("250") for one in seen[-6:])),
               "both workers take mail again")
    assert all(one[:3] in ("421", "451", "250") for one in seen), seen


def test_bug_the_cap_per_address_was_multiplied_by_the_workers(fresh: LiveServer, place: Place) -> None:
    """Each worker counted for itself: with four of them an address had four times its share."""
    fresh.init(server__workers="4")
    fresh.populate("example.jp", "alice")
    fresh.say("policy", "set", "limits.exempt", "192.0.2.0/24")
    fresh.say("policy", "set", "limits.connections_per_address", "5")
    fresh.start()
    for listener, welcome, refused in (("smtp", "220 ", "421 "), ("imap", "* OK ", "* BYE "), ("pop3", "+OK", "-ERR")):
        with ExitStack() as stack:
            greetings = [stack.enter_context(Wire(place.endpoint(listener))).line() for _ in range(30)]
        assert sum(one.startswith(welcome) for one in greetings) == 5, greetings
        assert sum(one.startswith(refused) for one in greetings) == 25, greetings
    eventually(lambda: all(_greeting(place).startswith("220 ") for _ in range(5)), "who left is not counted")
    fresh.stop()


@pytest.mark.parametrize(("cap", "least"), [(6, 6), (40, 34)])     # 4 workers; of 40 each may keep 2 places for itself
def test_bug_the_cap_of_a_listener_was_multiplied_by_the_workers(fresh: LiveServer, place: Place, cap: int, least: int) -> None:
    fresh.init(server__workers="4")
    fresh.populate("example.jp", "alice")
    fresh.say("policy", "set", "limits.connections", str(cap))       # of loopback, which no cap per address concerns
    fresh.start()
    with ExitStack() as stack:
        greetings = [stack.enter_context(Wire(place.endpoint("smtp"))).line() for _ in range(80)]
        assert least <= sum(one.startswith("220 ") for one in greetings) <= cap, greetings
        assert all("oo many connections, " in one for one in greetings if not one.startswith("220 ")), greetings
        with Wire(place.endpoint("imap")) as other:
            assert other.line().startswith("* OK ")     # each listener has its own
    eventually(lambda: all(_greeting(place).startswith("220 ") for _ in range(5)), "who left is not counted")
    fresh.stop()


def _greeting(place: Place) -> str:
    with Wire(place.endpoint("smtp")) as wire:
        return wire.line()
