"""UDP service: a question comes in, an answer goes out from the very address that was asked.

Specification: RFC 2181 §4.1 and §4.2 (a reply comes from the address and port the query went to).
Contract: `respond` is called on the event loop for every datagram and must be quick; None means silence. Where the
    answer has to be waited for, the socket is not read meanwhile: later datagrams wait in the kernel's buffer.
    Datagrams that find the socket's send buffer full are dropped, as the network would.
Failure: none that a peer can cause; an answer that fails while it is waited for is logged, and silence.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fumibako.net.endpoint import Endpoint, endpoint_of

Respond = Callable[[bytes, Endpoint], bytes | Awaitable[bytes | None] | None]
Ancillary = list[tuple[int, int, bytes]]

RECEIVE_OCTETS = 4096
PER_WAKE = 64           # then the event loop gets its turn
# <linux/in.h>: Python has no names for these.
IP_PKTINFO = 8
_IN_PKTINFO = struct.Struct("=i4s4s")       # interface, local address, header destination

log = logging.getLogger("fumibako.net")


async def serve_datagrams(sockets: Sequence[socket.socket], respond: Respond, stopping: asyncio.Event) -> None:
    """Answers datagrams on bound, non-blocking UDP sockets until `stopping` is set; then closes them."""
    try:
        async with asyncio.TaskGroup() as group:
            services = [_Service(bound, respond, group) for bound in sockets]
            for service in services:
                ask_for_destination(service.bound)      # those handed over by others, too
                service.listen()
            try:
                await stopping.wait()
            finally:
                for service in services:
                    service.stop()
    finally:
        for bound in sockets:
            bound.close()


@dataclass(slots=True)
class _Service:
    """One socket."""

    bound: socket.socket
    respond: Respond
    group: asyncio.TaskGroup
    stopped: bool = False

    def listen(self) -> None:
        asyncio.get_running_loop().add_reader(self.bound, self._drain)

    def stop(self) -> None:
        self.stopped = True
        asyncio.get_running_loop().remove_reader(self.bound)

    def _drain(self) -> None:
        for _ in range(PER_WAKE):
            try:
                octets, ancillary, _, sockname = self.bound.recvmsg(RECEIVE_OCTETS, socket.CMSG_SPACE(64))
            except OSError:     # nothing left, or a queued ICMP error that concerns nobody here
                return
            answer = self.respond(octets, endpoint_of(sockname))
            if isinstance(answer, bytes):
                self._send(answer, ancillary, sockname)
            elif answer is not None:
                asyncio.get_running_loop().remove_reader(self.bound)
                self.group.create_task(self._send_later(answer, ancillary, sockname))
                return

    async def _send_later(self, awaited: Awaitable[bytes | None], ancillary: Ancillary, sockname: Any) -> None:
        try:
            answer = await awaited
        except Exception:       # a bug costs one answer, not the service
            log.exception("a datagram from %s stays without its answer", endpoint_of(sockname))
            answer = None
        if answer is not None:
            self._send(answer, ancillary, sockname)
        if not self.stopped:
            self.listen()

    def _send(self, answer: bytes, ancillary: Ancillary, sockname: Any) -> None:
        try:
            self.bound.sendmsg([answer], _same_source(ancillary), 0, sockname)
        except OSError:
            pass        # buffer full or no route back: a lost datagram


def ask_for_destination(bound: socket.socket) -> None:
    """Have the kernel note with each datagram which address it came to; those that wait already have no such note."""
    if bound.family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        bound.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)


def _same_source(ancillary: Ancillary) -> Ancillary:
    """The control message that makes the answer leave from the address the question came to."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            _, local, _ = _IN_PKTINFO.unpack(data[: _IN_PKTINFO.size])
            if not any(local):      # it came before the kernel was asked; where the socket is bound to is the best guess
                return []
            return [(level, kind, _IN_PKTINFO.pack(0, local, b"\0\0\0\0"))]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return [(level, kind, data)]
    return []
