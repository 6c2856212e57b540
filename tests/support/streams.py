"""Two connected `Stream`s over a pair of sockets that believe to be somewhere else."""

import socket

from fumibako.net.plain import PlainTransport
from fumibako.net.stream import Stream

Address = tuple[str, int]


def stream_pair(client: Address = ("198.51.100.1", 40000), server: Address = ("192.0.2.25", 25)) -> tuple[Stream, Stream]:
    """(client, server): what one writes, the other reads."""
    ends = Stream(), Stream()
    for raw, stream, peer in zip(socket.socketpair(), ends, (server, client), strict=True):
        raw.setblocking(False)
        PlainTransport(raw, stream, peer)
    return ends


def half_close(stream: Stream) -> None:
    """Says that nothing more will come, and goes on reading."""
    raw: socket.socket = stream._open_transport().get_extra_info("socket")
    raw.shutdown(socket.SHUT_WR)
