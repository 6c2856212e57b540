"""A resolver that knows one thing: which name server hosts which domain. It forwards and never answers by itself.

Specification: RFC 1034 §5.3.1; RFC 1035 §4.1.1.
Contract: a question for a known domain goes to its server and the answer comes back octet by octet; anything else is
    REFUSED, so that no mail and no question of the demonstration ever leaves loopback.
Failure: OSError when the address is taken; a server that is silent makes this resolver silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fumibako.net.endpoint import Endpoint
from fumibako.proto.dns.message import BadQuery, Query, Response, format_response, parse_query
from fumibako.proto.dns.records import Rcode
from fumibako.proto.reader import ProtocolError

WAITING_MAX = 256

Address = tuple[str, int]


class _Upstream(asyncio.DatagramProtocol):
    """The way to one domain's server and back. Questions are told apart by id: those on the way have different ones."""

    def __init__(self, front: _Front) -> None:
        self._front = front
        self._askers: dict[int, Address] = {}
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def ask(self, question: bytes, asker: Address) -> None:
        assert self._transport is not None
        if len(self._askers) >= WAITING_MAX:
            self._askers.clear()        # lost ones; whoever still waits asks again
        self._askers[int.from_bytes(question[:2], "big")] = asker
        self._transport.sendto(question)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        asker = self._askers.pop(int.from_bytes(data[:2], "big"), None)
        if asker is not None:
            self._front.answer(data, asker)

    def error_received(self, exc: Exception) -> None:
        pass        # the server is down: the asker's patience decides


class _Front(asyncio.DatagramProtocol):
    """Where the questions come in."""

    def __init__(self) -> None:
        self.upstreams: dict[str, _Upstream] = {}
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Address) -> None:
        try:
            query = parse_query(data)
        except ProtocolError:
            return
        except BadQuery as error:
            self.answer(error.response, addr)
            return
        upstream = self._hosting(query)
        if upstream is not None:
            upstream.ask(data, addr)
        else:
            self.answer(format_response(query, Response(Rcode.REFUSED), query.payload_octets), addr)

    def _hosting(self, query: Query) -> _Upstream | None:
        name = query.name.to_text(omit_final_dot=True).lower()
        return next((there for domain, there in self.upstreams.items() if name == domain or name.endswith(f".{domain}")), None)

    def answer(self, octets: bytes, asker: Address) -> None:
        assert self._transport is not None
        self._transport.sendto(octets, asker)


@asynccontextmanager
async def forwarding(place: Endpoint, servers: Mapping[str, Endpoint]) -> AsyncIterator[None]:
    """Forwards at `place` (UDP) as long as the block runs. servers: domain -> its name server."""
    loop = asyncio.get_running_loop()
    transport, front = await loop.create_datagram_endpoint(_Front, local_addr=(place.host, place.port))
    opened: list[asyncio.BaseTransport] = [transport]
    try:
        for domain, server in servers.items():
            way, upstream = await loop.create_datagram_endpoint(lambda: _Upstream(front), remote_addr=(server.host, server.port))
            front.upstreams[domain] = upstream
            opened.append(way)
        yield
    finally:
        for one in opened:
            one.close()
