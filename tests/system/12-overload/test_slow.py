"""Thousands who send an octet now and then, and one who reads nothing, at a running server (reliability.md, check 17)."""

from __future__ import annotations

import os
import select
import smtplib
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.clients import WIRE_S, imap, letter, trusting
from tests.support.dripping import Drippers, Peer, connected
from tests.support.server import PASSWORD, LiveServer, Place, eventually

pytestmark = pytest.mark.system
MIB = 1 << 20
ADDRESSES = 50
SPARE_S = 10.0      # how much later than its deadline a slow session may go
MESSAGE = [b"EHLO c\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<alice@example.jp>\r\n", b"DATA\r\n"]


@dataclass(frozen=True, slots=True)
class Scale:
    """How long the server is patient, how many are slow, and how long is measured. rate: of the baseline that has to be left."""

    each: int
    every_s: float
    measure_s: float
    rate: float
    deadline_s: tuple[tuple[str, float], ...] = (("smtp", 300.0), ("message", 180.0), ("imap", 60.0), ("pop3", 60.0))
    write_s: float = 60.0


SHORT = Scale(100, 0.3, 0.5, 0.3, deadline_s=(("smtp", 3.0), ("message", 2.5), ("imap", 2.5), ("pop3", 2.5)), write_s=1.0)
LONG = Scale(2000, 9.0, 15.0, 0.8)
HURRIED = """
import sys
from fumibako.__main__ import main
from fumibako.faces import pop3, smtp
from fumibako.faces.imap import session
from fumibako.net.stream import Stream
smtp.COMMAND_S, smtp.BLOCK_S, session.BEFORE_LOGIN_S, pop3.BEFORE_LOGIN_S = 3.0, 2.5, 2.5, 2.5
Stream.write.__defaults__ = (1.0,)
sys.exit(main())
"""


@pytest.fixture
def scale(long: bool) -> Scale:
    return LONG if long else SHORT


@pytest.fixture
def server(fresh: LiveServer, long: bool) -> LiveServer:
    """As it comes, or with less patience where there is no time for its own."""
    fresh.init(server__workers="2")
    fresh.populate("example.jp", "alice", "bob")
    for setting, value in (("limits.exempt", "127.0.6.0/24"), ("limits.connections_per_address", "400"),
                           ("limits.connections", "10000")):
        fresh.say("policy", "set", setting, value)
    if not long:
        fresh.program = (sys.executable, "-c", HURRIED)
    fresh.start()
    return fresh


@dataclass(frozen=True, slots=True)
class Traffic:
    """cpu_ms: of all processes of the server for one delivery; it does not hang on what else the machine does meanwhile."""

    per_s: float
    cpu_ms: float


def _cpu_s(server: LiveServer) -> float:
    ticks = 0
    for child in server.children():
        ticks += sum(map(int, Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _good_traffic(server: LiveServer, seconds: float) -> Traffic:
    """One good client, a new connection for every tenth letter."""
    done, begun, cpu_s = 0, time.monotonic(), _cpu_s(server)
    while time.monotonic() < begun + seconds:
        with smtplib.SMTP(*server.place.endpoint("smtp"), local_hostname="good.example", timeout=WIRE_S,
                          source_address=("127.0.6.1", 0)) as client:
            for _ in range(10):
                client.send_message(letter("good traffic"), "bob@neighbour.example", ["bob@example.jp"])
                done += 1
    return Traffic(done / (time.monotonic() - begun), (_cpu_s(server) - cpu_s) * 1000 / done)


def _slow_ones(place: Place, each: int) -> list[Peer]:
    """Commands on each of the three, and messages beside them."""
    peers = []
    for number in range(each):
        source = f"127.0.4.{1 + number % ADDRESSES}"
        peers += [connected(kind, place.endpoint(kind), source, [], b"x") for kind in ("smtp", "imap", "pop3")]
        if number % 10 == 0:
            peers.append(connected("message", place.endpoint("smtp"), source, MESSAGE, b"x" * 9))
    return peers


@pytest.mark.usefixtures("many_files")
@pytest.mark.root       # addresses of its own network
@pytest.mark.timeout(900)
def test_slow_senders_hold_up_nobody_and_go(server: LiveServer, place: Place, scale: Scale) -> None:
    with Drippers(_slow_ones(place, 5), 0.1):
        baseline = _good_traffic(server, scale.measure_s)
    with Drippers(_slow_ones(place, scale.each), scale.every_s) as slow:
        settled_octets = server.resident_octets()
        under = _good_traffic(server, scale.measure_s)
        assert len(slow.living) == len(slow.peers), "nobody is slow any more"
        grown = (server.resident_octets() - settled_octets) / MIB
        eventually(lambda: not slow.living, "every slow session ends", max(dict(scale.deadline_s).values()) + SPARE_S)
        waited_s = {kind: [peer.waited_s for peer in slow.peers if peer.kind == kind] for kind, _ in scale.deadline_s}
    after = _good_traffic(server, scale.measure_s)
    kept = (baseline.cpu_ms + after.cpu_ms) / 2 / under.cpu_ms
    times = ", ".join(f"{kind} {min(waits):.1f}-{max(waits):.1f}" for kind, waits in waited_s.items())
    print(f"17 {len(slow.peers)} slow senders: good traffic {kept:.0%} by processor time, {under.per_s:.0f}/s "
          f"after {baseline.per_s:.0f}/s and before {after.per_s:.0f}/s, RSS + {grown:.1f} MB, gone after {times} s")
    for kind, deadline_s in scale.deadline_s:
        assert deadline_s - 0.5 <= min(waited_s[kind]) and max(waited_s[kind]) <= deadline_s + SPARE_S, kind
    assert grown < 4
    assert kept >= scale.rate
    server.stop()


def _fill(server: LiveServer, messages: int, octets: int) -> None:
    body = b"Subject: large\r\n\r\n" + (b"y" * 76 + b"\r\n") * (octets // 78)
    with imap(server) as client:
        for _ in range(messages):
            assert client.append("INBOX", None, None, body)[0] == "OK"
        client.select("INBOX")
        assert client.fetch("1:2", "(BODY.PEEK[])")[0] == "OK"      # what stays allocated after a first one


def _unsent_octets(peer: socket.socket) -> int:
    """What the system holds of the server for this peer (proc(5): /proc/net/tcp)."""
    number = f":{peer.getsockname()[1]:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().split("\n")[1:-1]]
    return sum(int(row[4].partition(":")[0], 16) for row in rows if row[2].endswith(number))


@pytest.mark.timeout(300)
def test_who_reads_nothing_costs_little_and_goes(server: LiveServer, scale: Scale, long: bool) -> None:
    """FETCH of everything, again and again, over TLS; not an octet of it is read."""
    count, each = (100, 10 * MIB) if long else (10, 2 * MIB)
    _fill(server, count, each)
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(WIRE_S)
        plain.connect(server.place.endpoint("imaps"))
        secured = trusting(server).wrap_socket(plain, server_hostname=server.hostname)
        secured.sendall(f'a LOGIN alice@example.jp "{PASSWORD}"\r\nb SELECT INBOX\r\n'.encode())
        said = b""
        while b"\r\nb OK" not in said:
            said += secured.recv(4096)
        before = peak = server.resident_octets()
        secured.sendall(b"c FETCH 1:* (BODY.PEEK[])\r\n" * 100)
        begun_s = time.monotonic()
        poll = select.poll()
        poll.register(secured, 0)       # only the end of the connection
        unsent = 0
        while not poll.poll(100):
            peak, unsent = max(peak, server.resident_octets()), max(unsent, _unsent_octets(secured))
            assert time.monotonic() < begun_s + scale.write_s + SPARE_S, "it waits for ever"
        waited_s = time.monotonic() - begun_s
    print(f"17 a reader of nothing: {count} x {each // MIB} MB asked for 100 times, RSS + {(peak - before) / MIB:.2f} MB, "
          f"{unsent / MIB:.2f} MB in the system, gone after {waited_s:.1f} s")
    assert waited_s >= scale.write_s - 0.5
    assert peak - before < 2 * MIB
    assert 0 < unsent < MIB
    server.stop()
