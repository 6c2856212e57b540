"""The network between a client and the server is cut and comes back (reliability.md, check 25): nothing is lost, and doubled only
where the reply was."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.support.clients import Wire, hand_in, imap, imap_wire, letter, messages, smtp_wire, submit, trusting
from tests.support.mx import OtherServer, in_a_thread
from tests.support.server import PASSWORD, LiveServer, eventually, needs

pytestmark = [pytest.mark.system, pytest.mark.root, pytest.mark.timeout(1_200)]
FAR = "127.0.8.1"       # the client behind the line that is cut; everybody else is near
LONG_CUTS_S = [pytest.param(seconds, marks=pytest.mark.long) for seconds in (5.0, 30.0, 300.0)]
CUTS_S = [1.0, *LONG_CUTS_S]


def again_s(cut_s: float) -> float:
    """How long to wait once the line is back: TCP doubles its pauses, so that what was cut may need as long again."""
    return max(60.0, cut_s)


def _nft(rules: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


@contextmanager
def cut(*sides: str) -> Iterator[None]:
    """No packet from or to FAR arrives, or none that `sides` say. The rules live in the network of the tests."""
    sides = sides or (f"ip daddr {FAR}", f"ip saddr {FAR}")
    rules = "\n".join(f"add rule inet cut input {side} drop" for side in sides)
    _nft(f"add table inet cut\nadd chain inet cut input {{ type filter hook input priority 0; }}\n{rules}\n")
    try:
        yield
    finally:
        _nft("delete table inet cut\n")


@pytest.fixture
def server(fresh: LiveServer) -> LiveServer:
    needs("nft")
    fresh.init(server__workers="2")
    fresh.populate("example.jp", "alice", "bob")
    fresh.start()
    return fresh


def _subjects(server: LiveServer) -> Counter[str]:
    with imap(server) as client:
        found = messages(client)
    return Counter(one.partition(b"Subject: ")[2].partition(b"\r\n")[0].decode() for one in found)


def _hand_in(server: LiveServer, subject: str) -> None:
    hand_in(server.place.endpoint("smtp"), letter(subject), "bob@neighbour.example", "alice@example.jp")


def _until_data(server: LiveServer, cut_s: float) -> Wire:
    """A far client that may send its message now."""
    wire = smtp_wire(server, source=FAR)
    wire.socket.settimeout(again_s(cut_s))
    for line in ("EHLO far.example", "MAIL FROM:<bob@neighbour.example>", "RCPT TO:<alice@example.jp>"):
        assert wire.ask(line).startswith("250"), line
    assert wire.ask("DATA").startswith("354")
    return wire


@pytest.mark.parametrize("cut_s", LONG_CUTS_S)
def test_in_the_middle_of_a_message(server: LiveServer, cut_s: float) -> None:
    """It goes on; where the server has lost its patience meanwhile, nothing was taken, and the client's next attempt is."""
    wire = _until_data(server, cut_s)
    half = b"Subject: half\r\n\r\n" + b"one line of it\r\n" * 5_000
    wire.send(half)
    with cut():
        wire.send(half[17:])
        time.sleep(cut_s)
        assert _subjects(server) == {}
    if not _is_taken(wire):
        assert cut_s > 180
        assert _subjects(server) == {}
        _hand_in(server, "half")
    wire.close()
    assert _subjects(server) == {"half": 1}
    server.stop()


def _is_taken(wire: Wire) -> bool:
    """Whether the end of the message gets its 250."""
    try:
        wire.send(b".\r\n")
        return wire.reply().startswith("250 ")
    except ConnectionError:
        return False


@pytest.mark.parametrize("cut_s", CUTS_S)
def test_the_reply_is_lost(server: LiveServer, cut_s: float) -> None:
    """The message has arrived, the 250 has not: the client sends it again, as it must (RFC 5321 §6.1). Those are there twice."""
    for number in range(3):
        wire = _until_data(server, cut_s)
        wire.send(b"Subject: unanswered %d\r\n\r\nhello\r\n" % number)
        with cut(f"ip daddr {FAR}"):
            wire.send(b".\r\n")
            eventually(lambda number=number: f"unanswered {number}" in _subjects(server), "it has arrived")
            time.sleep(cut_s / 3)
            wire.socket.setblocking(False)
            with suppress(BlockingIOError):
                assert wire.socket.recv(100) == b"", "the reply was not lost"
            wire.close()
    assert set(_subjects(server).values()) == {1}
    for subject in ("unanswered 0", "unanswered 1", "unanswered 2", "answered"):
        _hand_in(server, subject)
    assert _subjects(server) == {"unanswered 0": 2, "unanswered 1": 2, "unanswered 2": 2, "answered": 1}
    server.stop()


@pytest.mark.parametrize("cut_s", LONG_CUTS_S)
def test_in_the_middle_of_a_handshake(server: LiveServer, cut_s: float) -> None:
    """It goes on, or fails after its 30 seconds; the next one works, and nobody else waits."""
    plain = socket.create_connection(server.place.endpoint("imaps"), again_s(cut_s), (FAR, 0))
    secured = trusting(server).wrap_socket(plain, server_hostname=server.hostname, do_handshake_on_connect=False)
    secured.setblocking(False)
    with cut():
        with suppress(ssl.SSLWantReadError):
            secured.do_handshake()
        begun_s = time.monotonic()
        imap_wire(server).close()
        assert time.monotonic() - begun_s < 5
        time.sleep(cut_s)
    secured.settimeout(again_s(cut_s))
    try:
        secured.do_handshake()
        assert secured.recv(100).startswith(b"* OK ")
    except (ConnectionError, ssl.SSLError):
        assert cut_s >= 30
    secured.close()
    with Wire(server.place.endpoint("imaps"), tls=trusting(server), source=FAR) as wire:
        assert wire.line().startswith("* OK ")
    server.stop()


@pytest.mark.parametrize("cut_s", LONG_CUTS_S)
def test_in_idle(server: LiveServer, cut_s: float) -> None:
    """What happened meanwhile is told when the line is back: every message, every flag."""
    with Wire(server.place.endpoint("imaps"), tls=trusting(server), source=FAR) as wire:
        wire.socket.settimeout(again_s(cut_s))
        wire.line()
        for line in (f'LOGIN alice@example.jp "{PASSWORD}"', "SELECT INBOX"):
            assert wire.command(line)[-1].startswith("a OK"), line
        wire.send(b"b IDLE\r\n")
        assert wire.line().startswith("+")
        with cut():
            for number in range(5):
                _hand_in(server, f"while away {number}")
            with imap_wire(server) as near:
                near.command("SELECT INBOX")
                assert near.command("STORE 2 +FLAGS (\\Flagged)")[-1].startswith("a OK")
            time.sleep(cut_s)
        told = [wire.line()]
        while not any("FETCH" in line and "\\Flagged" in line for line in told):
            told.append(wire.line())
            assert told[-1], told
        assert [line for line in told if "EXISTS" in line][-1] == "* 5 EXISTS", told
        wire.send(b"DONE\r\n")
        while not (line := wire.line()).startswith("b OK"):
            assert line
    server.stop()


@pytest.mark.parametrize("cut_s", LONG_CUTS_S)
def test_on_the_way_out(server: LiveServer, cut_s: float) -> None:
    """Another server's 250 is late by the cut: it comes once the line is back, and the mail is not sent again. What found no
    connection meanwhile is tried again, here by the administrator, who need not wait the five minutes."""
    subjects = ["cut 0", "cut 1", "cut 2"][: 1 if cut_s > 60 else 3]       # one cut each
    server.stop()
    server.configure(relay__smarthost=f'"{FAR}:2626"')
    server.start()
    with in_a_thread(Cutting(cut_s), FAR, 2626) as other:
        for subject in subjects:
            submit(server, letter(subject, sender="alice@example.jp"), "bob@elsewhere.example")
        eventually(lambda: _retried(server) == [], "the queue is empty", 4 * again_s(cut_s))
    assert sorted(one.partition(b"Subject: ")[2][:5].decode() for one in other.messages) == subjects
    server.stop()


def _retried(server: LiveServer) -> list[object]:
    """What is still in the queue, looked at every two seconds."""
    time.sleep(2)
    server.run_cli("queue", "retry", "--all")
    return list(server.json("queue", "list"))


class Cutting(OtherServer):
    """The line is cut whenever it says that it has taken a message."""

    def __init__(self, cut_s: float) -> None:
        super().__init__()
        self.cut_s, self.one_at_a_time = cut_s, asyncio.Lock()

    async def _say(self, writer: asyncio.StreamWriter, reply: str) -> bool:
        if not reply.startswith("250 2.0.0 queued"):
            return await super()._say(writer, reply)
        async with self.one_at_a_time:
            with cut():
                said = await super()._say(writer, reply)
                await asyncio.to_thread(time.sleep, self.cut_s)
        return said
