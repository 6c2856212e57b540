"""Many clients that send an octet now and then, and when the server has had enough of each."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

WIRE_S = 30.0


@dataclass(slots=True)
class Peer:
    """kind: as the test calls it; since_s: when it had said its last whole line; ended_s: when the server hung up."""

    kind: str
    socket: socket.socket
    since_s: float
    octet: bytes
    ended_s: float = 0.0

    @property
    def waited_s(self) -> float:
        return self.ended_s - self.since_s


def connected(kind: str, endpoint: tuple[str, int], source: str, lines: Sequence[bytes], octet: bytes) -> Peer:
    """A peer that has been greeted and has said these lines, each answered."""
    opened = socket.socket()
    opened.settimeout(WIRE_S)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.bind((source, 0))
    opened.connect(endpoint)
    assert opened.recv(1024), f"no greeting for {kind}"
    for line in lines:
        opened.sendall(line)
        assert opened.recv(1024)[:1] in b"23", f"{kind}: {line!r}"
    opened.setblocking(False)
    return Peer(kind, opened, time.monotonic(), octet)


@dataclass(slots=True)
class Drippers:
    """Each peer sends its octets once in every_s, until it is cut off, in a thread of its own."""

    peers: list[Peer]
    every_s: float
    over: threading.Event = field(default_factory=threading.Event)
    sent: int = 0
    _thread: threading.Thread | None = None

    def __enter__(self) -> Drippers:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        assert self._thread is not None
        self._thread.join()
        for peer in self.peers:
            peer.socket.close()

    @property
    def living(self) -> list[Peer]:
        return [peer for peer in self.peers if not peer.ended_s]

    def _run(self) -> None:
        with selectors.EpollSelector() as selector:
            for peer in self.peers:
                selector.register(peer.socket, selectors.EVENT_READ, peer)
            due, pause_s = list(self.peers), self.every_s / len(self.peers)
            next_s = time.monotonic()
            while not self.over.is_set() and selector.get_map():
                for key, _ in selector.select(max(0.0, min(next_s - time.monotonic(), 0.1))):
                    self._hear(key.data, selector)
                while next_s <= time.monotonic():
                    peer = due[self.sent % len(due)]
                    self.sent += 1
                    next_s += pause_s
                    if not peer.ended_s:
                        with suppress(OSError):
                            peer.socket.send(peer.octet)

    @staticmethod
    def _hear(peer: Peer, selector: selectors.BaseSelector) -> None:
        """A farewell is passed over; the end is noted."""
        try:
            over = not peer.socket.recv(4096)
        except OSError:
            over = True
        if over:
            peer.ended_s = time.monotonic()
            selector.unregister(peer.socket)
