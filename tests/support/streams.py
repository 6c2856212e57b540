"""Two connected `Stream`s in memory: no sockets, the same API, TLS included (asyncio's own loop only)."""

import asyncio

from fumibako.net.stream import Stream


class MemoryTransport(asyncio.Transport):
    """Hands what is written to the protocol at the other end, one turn of the loop later."""

    _start_tls_compatible = True    # asyncio's word for "you may put TLS on top of me"

    def __init__(self, protocol, sockname, peername):
        super().__init__({"sockname": sockname, "peername": peername})
        self.protocol, self.other = protocol, None
        self.written = bytearray()      # everything, for tests that look at the wire
        self._held, self._reading, self._closing = [], True, False

    def write(self, data):
        if not self._closing:
            self.written += data
            self._later(self.other._arrived, bytes(data))

    def write_eof(self):
        self._later(self.other._arrived, b"")

    def can_write_eof(self):
        return True

    def _later(self, call, *arguments):
        asyncio.get_running_loop().call_soon(call, *arguments)

    def _arrived(self, data):
        if self._closing:
            return
        if not self._reading:
            self._held.append(data)
        elif data and isinstance(self.protocol, asyncio.BufferedProtocol):      # TLS
            for start in range(0, len(data), 4096):
                piece = data[start : start + 4096]
                self.protocol.get_buffer(len(piece))[: len(piece)] = piece
                self.protocol.buffer_updated(len(piece))
        elif data:
            self.protocol.data_received(data)
        elif not self.protocol.eof_received():
            self.close()

    def pause_reading(self):
        self._reading = False

    def resume_reading(self):
        self._reading = True
        held, self._held = self._held, []
        for data in held:
            self._later(self._arrived, data)

    def is_reading(self):
        return self._reading and not self._closing

    def is_closing(self):
        return self._closing

    def set_protocol(self, protocol):
        self.protocol = protocol

    def get_protocol(self):
        return self.protocol

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def get_write_buffer_size(self):
        return 0

    def close(self):
        if not self._closing:
            self._later(self.other._arrived, b"")
            self._closing = True
            self._later(self.protocol.connection_lost, None)

    abort = close

    def _force_close(self, error):      # what asyncio calls on a failed handshake
        self.close()


def stream_pair(client=("198.51.100.1", 40000), server=("192.0.2.25", 25)):
    """(client, server): what one writes, the other reads."""
    ends = Stream(), Stream()
    transports = MemoryTransport(ends[0], client, server), MemoryTransport(ends[1], server, client)
    transports[0].other, transports[1].other = transports[1], transports[0]
    for stream, transport in zip(ends, transports, strict=True):
        stream.connection_made(transport)
    return ends
