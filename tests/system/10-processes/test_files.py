"""Too few files for too many peers: they are turned away without a busy loop, and the rest goes on (reliability.md, check 14)."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.support.clients import Wire, arrived, hand_in, imap_wire, letter, smtp_wire
from tests.support.server import LiveServer, Place, eventually

pytestmark = pytest.mark.system
FILES, PEERS, SATURATED_S = 256, 2000, 2.0


def _spent_s(server: LiveServer) -> float:
    """Processor time of all processes of the server."""
    assert server.process is not None
    ticks = 0
    for process in (server.process.pid, *server.children()):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _knock(place: Place, stack: contextlib.ExitStack) -> list[socket.socket]:
    """Connections from many addresses that say nothing and stay."""
    found = []
    for number in range(PEERS):
        peer = stack.enter_context(socket.socket())
        peer.setblocking(False)
        peer.bind((f"127.0.{4 + number % 40}.1", 0))
        with contextlib.suppress(BlockingIOError):
            peer.connect(place.endpoint(("smtp", "imap", "pop3", "imaps")[number % 4]))
        found.append(peer)
    return found


def _told(peer: socket.socket) -> bytes:
    """What a peer has been told so far; b"?" where it waits."""
    try:
        return peer.recv(4096)
    except BlockingIOError:
        return b"?"
    except ConnectionResetError:
        return b""


@pytest.mark.usefixtures("many_files")
@pytest.mark.root       # addresses of its own network, and 2000 files of ours
@pytest.mark.parametrize("workers", ["0", "1"])
def test_two_thousand_peers_meet_256_files(fresh: LiveServer, place: Place, workers: str) -> None:
    fresh.files_max = FILES
    fresh.init(server__workers=workers)
    fresh.populate("example.jp", "alice")
    fresh.start()
    assert f"each process may open {FILES} files" in fresh.errors_text()
    before, mail = imap_wire(fresh), smtp_wire(fresh)
    before.command("SELECT INBOX")
    with contextlib.ExitStack() as stack:
        peers = _knock(place, stack)
        turned_away = [0]

        def refused() -> int:
            said = [_told(peer) for peer in peers]
            turned_away[0] += sum(one == b"" or one.startswith((b"421 ", b"* BYE", b"-ERR")) for one in said)
            return turned_away[0]

        eventually(lambda: refused() > PEERS - FILES, "those beyond the limit are turned away")
        spent_s, begun = _spent_s(fresh), time.monotonic()
        pause = threading.Event()
        while (passed_s := time.monotonic() - begun) < SATURATED_S:     # the others stay where they are, and more come
            pause.wait(0.02)
            with contextlib.suppress(OSError), Wire(place.endpoint("smtp")) as wire:
                assert wire.reply()[:3] in ("421", "220", "")
            assert before.command("NOOP")[-1].startswith("a OK")
        share = (_spent_s(fresh) - spent_s) / passed_s
        mail.ask("EHLO x.example")
        for line in ("MAIL FROM:<x@neighbour.example>", "RCPT TO:<alice@example.jp>"):
            assert mail.ask(line).startswith("250")
        assert mail.ask("DATA").startswith("354")
        mail.send(b"Subject: while full\r\n\r\n" + (b"x" * 70 + b"\r\n") * 6000 + b".\r\n")     # through a file of its own
        assert mail.reply().startswith("250 ")
        assert "* 1 EXISTS" in before.command("NOOP")
    released = time.monotonic()
    eventually(lambda: _greets(place), "somebody new is served", 2)
    recovery_s = time.monotonic() - released
    print(f"14 {workers} workers: {share:.0%} of a core while full, {recovery_s:.2f} s to recover")
    hand_in(place.endpoint("smtp"), letter("afterwards"), "x@neighbour.example", "alice@example.jp")
    arrived(fresh, "afterwards")
    before.close()
    mail.close()
    assert share < 0.3
    assert not re.search("traceback", fresh.errors_text())
    fresh.stop()


def _greets(place: Place) -> bool:
    with contextlib.suppress(OSError), Wire(place.endpoint("smtp")) as wire:
        return wire.reply().startswith("220 ")
    return False
