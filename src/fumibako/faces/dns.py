"""The authoritative DNS server: datagrams and TCP connections in, answers from our zones out.

Specification: RFC 1035 §4.2; RFC 7766 §6.2.1.1 (pipelining), §6.2.3 (idle time-outs), §8 (length and message together).
Contract: never recurses, for anyone. Over UDP a network gets so many answers a second, a large answer counting as
    many; beyond that every second one is an empty "ask over TCP", which a forged sender cannot do, and the rest are
    silence (response rate limiting).
Failure: garbage gets silence or FORMERR; a peer over TCP that sends garbage or dawdles is closed.
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from fumibako.net.clock import Clock
from fumibako.net.datagram import serve_datagrams
from fumibako.net.endpoint import Endpoint
from fumibako.net.listen import Caps, serve, within
from fumibako.net.stream import Stream
from fumibako.proto.dns.answer import Answerer
from fumibako.proto.dns.message import BadQuery, format_framed, format_truncated, parse_framed
from fumibako.proto.reader import ProtocolError

TCP_IDLE_S = 10.0
TCP_CAPS = Caps(total=1024, per_address=20, drain_s=2.0)
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
RESPONSES_PER_S = 10.0
BURST = 50.0
ORDINARY_OCTETS = 128       # an MX with its addresses, an SRV: what one response of the rate may weigh
TRACKED_NETWORKS = 10_000


def is_loopback(host: str) -> bool:
    """Who is exempt from the rate limit where no policy says otherwise."""
    return within(host, LOOPBACK)


class Verdict(enum.Enum):
    """What becomes of one UDP answer."""

    SEND = enum.auto()
    TRUNCATE = enum.auto()
    DROP = enum.auto()


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_s: float
    refused: int = 0


class ResponseRate:
    """A token bucket for each IPv4 /24 and IPv6 /56; the least recently seen is forgotten beyond 10,000.

    workers: among how many the kernel spreads what a network asks; each has its share of the rate, so that the rate is the
    server's.
    """

    def __init__(self, clock: Clock, per_s: float = RESPONSES_PER_S, burst: float = BURST, workers: int = 1) -> None:
        self._clock, self._per_s, self._burst = clock, per_s / workers, max(1.0, burst / workers)
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def judge(self, host: str, size_octets: int) -> Verdict:
        """Takes an answer from the budget of the host's network: one, or more by its size, so that asking for large
        ones brings nobody more octets. A budget that is whole is enough for any answer, which may leave it in debt.
        """
        cost = max(1.0, size_octets / ORDINARY_OCTETS)
        now_s = self._clock.monotonic_s()
        network = str(ipaddress.ip_network((host, 56 if ":" in host else 24), strict=False))
        bucket = self._buckets.pop(network, None) or _Bucket(self._burst, now_s)
        self._buckets[network] = bucket
        if len(self._buckets) > TRACKED_NETWORKS:
            self._buckets.popitem(last=False)
        bucket.tokens = min(self._burst, bucket.tokens + (now_s - bucket.filled_s) * self._per_s)
        bucket.filled_s = now_s
        if bucket.tokens >= min(self._burst, cost):
            bucket.tokens -= cost
            return Verdict.SEND
        bucket.refused += 1
        return Verdict.DROP if bucket.refused % 2 else Verdict.TRUNCATE


class DnsFace:
    """Answers from whatever zones are current. answerer: asked anew for every query once that is read, so that no query
    sent after a change is answered from before it; what it gives may have to be waited for.
    """

    def __init__(
        self, answerer: Callable[[], Answerer | Awaitable[Answerer]], clock: Clock,
        is_exempt: Callable[[str], bool] = is_loopback, rate: ResponseRate | None = None,
    ) -> None:
        self._answerer, self._clock, self._is_exempt = answerer, clock, is_exempt
        self._rate = rate or ResponseRate(clock)

    async def run(
        self, datagrams: Sequence[socket.socket], streams: Sequence[socket.socket], stopping: asyncio.Event
    ) -> None:
        """Serves bound UDP and TCP sockets until told to stop."""
        async with asyncio.TaskGroup() as group:
            group.create_task(serve_datagrams(datagrams, self.respond, stopping))
            group.create_task(serve(streams, self.session, caps=lambda descriptor: TCP_CAPS, stopping=stopping))

    def respond(self, octets: bytes, peer: Endpoint) -> bytes | Awaitable[bytes | None] | None:
        """The answer to one datagram, or None; something to wait for where the zones are being made anew."""
        answerer = self._answerer()
        if isinstance(answerer, Answerer):
            return self._respond(answerer, octets, peer)
        return self._respond_later(answerer, octets, peer)

    async def _respond_later(self, answerer: Awaitable[Answerer], octets: bytes, peer: Endpoint) -> bytes | None:
        return self._respond(await answerer, octets, peer)

    def _respond(self, answerer: Answerer, octets: bytes, peer: Endpoint) -> bytes | None:
        response = answerer.respond(octets, udp=True)
        if response is None or self._is_exempt(peer.host):
            return response
        match self._rate.judge(peer.host, len(response)):
            case Verdict.SEND:
                return response
            case Verdict.TRUNCATE:
                return _truncated(octets)
            case Verdict.DROP:
                return None

    async def session(self, stream: Stream) -> None:
        """One TCP connection: queries are answered in the order they come, each within the idle time of the last."""
        received = bytearray()
        deadline_s = self._clock.monotonic_s() + TCP_IDLE_S
        while octets := await stream.read(timeout_s=max(0.0, deadline_s - self._clock.monotonic_s())):
            received += octets
            while (query := parse_framed(received)) is not None:
                answerer = self._answerer()
                response = (answerer if isinstance(answerer, Answerer) else await answerer).respond(query, udp=False)
                if response is None:
                    return
                await stream.write(format_framed(response), timeout_s=TCP_IDLE_S)
                deadline_s = self._clock.monotonic_s() + TCP_IDLE_S


def _truncated(query: bytes) -> bytes | None:
    try:
        return format_truncated(query)
    except (BadQuery, ProtocolError):
        return None
