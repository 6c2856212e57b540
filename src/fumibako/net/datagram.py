"""UDP service: a question comes in, an answer goes out from the very address that was asked.

Specification: RFC 2181 §4.1 and §4.2 (a reply comes from the address and port the query went to).
Contract: `respond` is called on the event loop for every datagram and must be quick; None means silence.
    Datagrams that find the socket's send buffer full are dropped, as the network would.
Failure: none that a peer can cause.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence

from fumibako.net.endpoint import Endpoint, endpoint_of

Respond = Callable[[bytes, Endpoint], bytes | None]

RECEIVE_OCTETS = 4096
PER_WAKE = 64           # then the event loop gets its turn
# <linux/in.h>: Python has no names for these.
IP_PKTINFO = 8
_IN_PKTINFO = struct.Struct("=i4s4s")       # interface, local address, header destination


async def serve_datagrams(sockets: Sequence[socket.socket], respond: Respond, stopping: asyncio.Event) -> None:
    """Answers datagrams on bound, non-blocking UDP sockets until `stopping` is set; then closes them."""
    loop = asyncio.get_running_loop()
    try:
        for bound in sockets:
            _ask_for_destination(bound)
            loop.add_reader(bound, _drain, bound, respond)
        await stopping.wait()
    finally:
        for bound in sockets:
            loop.remove_reader(bound)
            bound.close()


def _ask_for_destination(bound: socket.socket) -> None:
    if bound.family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        bound.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)


def _drain(bound: socket.socket, respond: Respond) -> None:
    for _ in range(PER_WAKE):
        try:
            octets, ancillary, _, sockname = bound.recvmsg(RECEIVE_OCTETS, socket.CMSG_SPACE(64))
        except OSError:     # nothing left, or a queued ICMP error that concerns nobody here
            return
        answer = respond(octets, endpoint_of(sockname))
        if answer is not None:
            try:
                bound.sendmsg([answer], _same_source(ancillary), 0, sockname)
            except OSError:
                pass        # buffer full or no route back: a lost datagram


def _same_source(ancillary: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """The control message that makes the answer leave from the address the question came to."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            _, local, _ = _IN_PKTINFO.unpack(data[: _IN_PKTINFO.size])
            return [(level, kind, _IN_PKTINFO.pack(0, local, b"\0\0\0\0"))]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return [(level, kind, data)]
    return []
