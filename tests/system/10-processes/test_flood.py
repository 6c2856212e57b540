"""Thousands of connections from many addresses: the good client is greeted at once (reliability.md, check 16)."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, suppress

import pytest

from tests.support.clients import Wire, smtp_wire
from tests.support.server import LiveServer, Place

pytestmark = pytest.mark.system
ADDRESSES, GREETINGS = 50, 40


@pytest.mark.usefixtures("many_files")
@pytest.mark.root       # addresses of its own network
@pytest.mark.timeout(600)
def test_a_flood_from_fifty_addresses(fresh: LiveServer, place: Place, long: bool) -> None:
    peers, cap = (5000, 50) if long else (1000, 10)
    fresh.init(server__workers="2")
    fresh.populate("example.jp", "alice")
    for setting, value in (("limits.exempt", "192.0.2.0/24"), ("limits.connections_per_address", str(cap)),
                           ("limits.connections", "10000")):
        fresh.say("policy", "set", setting, value)
    fresh.start()
    with ExitStack() as stack:
        for number in range(cap):       # the first sessions of all allocate what stays
            with Wire(place.endpoint("smtp"), source=f"127.0.5.{number % 4 + 1}") as wire:
                wire.reply()
        idle_octets = fresh.resident_octets()
        flood = [_knock(stack, place, number) for number in range(peers)]
        waits_s = sorted(_greeting_s(fresh) for _ in range(GREETINGS))
        greeted = refused = 0
        for peer in flood:
            peer.settimeout(10)
            with suppress(ConnectionResetError):
                said = peer.recv(512)
                greeted, refused = greeted + said.startswith(b"220 "), refused + said.startswith(b"421 ")
        grown = (fresh.resident_octets() - idle_octets) / max(1, greeted)
    p95_s = waits_s[GREETINGS * 95 // 100]
    print(f"16 {peers} connections from {ADDRESSES} addresses: p95 {p95_s * 1000:.0f} ms, {greeted} greeted, {refused} refused, "
          f"{grown / 1024:.1f} KB each")
    assert p95_s < 1
    assert greeted == ADDRESSES * cap
    assert grown < 40 * 1024
    fresh.stop()


def _knock(stack: ExitStack, place: Place, number: int) -> socket.socket:
    peer = stack.enter_context(socket.socket())
    peer.bind((f"127.0.4.{1 + number % ADDRESSES}", 0))
    peer.connect(place.endpoint("smtp"))
    return peer


def _greeting_s(server: LiveServer) -> float:
    begun = time.monotonic()
    smtp_wire(server, source="127.0.6.1").close()
    return time.monotonic() - begun
