"""A TCP or Unix socket without TLS on the event loop: what asyncio's own transport does, in fewer turns of the loop.

asyncio begins and ends each connection in several turns, asks the system who the peer is though accept has told, and makes room
for 256 KiB at each read. A connection that brings one message of 4 KB notices: it lasts six reads.

Contract: an asyncio.Transport for one `asyncio.Protocol`. Octets that arrive go to `data_received` as a view that is good only
    during that call. `close` sends what is buffered first; with nothing buffered the connection ends inside it.
    `hand_over` gives the socket away, for TLS.
Failure: `connection_lost` with the OSError of the system.
"""

from __future__ import annotations

import asyncio
import socket
import threading

from fumibako.net.wakeup import Wakeup

READ_OCTETS = 64 * 1024
HIGH_WATER = 64 * 1024      # of the output, until the protocol says otherwise


class _Room(threading.local):
    """What octets are received into, one for all connections of an event loop."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_OCTETS))


_room = _Room()


class PlainTransport(asyncio.Transport):
    """raw: connected and non-blocking, with TCP_NODELAY where it is TCP; peername: as accept gave it."""

    def __init__(self, raw: socket.socket, protocol: asyncio.Protocol, peername: object) -> None:
        super().__init__({"socket": raw, "peername": peername})
        self._loop = asyncio.get_running_loop()
        self._raw, self._protocol = raw, protocol
        self._out = bytearray()
        self._high_water = HIGH_WATER
        self._reading = self._held_back = False     # held_back: the protocol has been told that it sends too much
        self._closing = self._ended = False
        self._emptied: Wakeup[None] | None = None
        protocol.connection_made(self)
        self.resume_reading()

    # -- reading --

    def resume_reading(self) -> None:
        if not self._reading and not self._closing:
            self._reading = True
            self._loop.add_reader(self._raw, self._receive)

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._raw)

    def _receive(self) -> None:
        view = _room.view
        try:
            count = self._raw.recv_into(view)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error)
            return
        if count:
            self._protocol.data_received(view[:count])      # type: ignore[arg-type]  # a view, as the contract says
        elif self._protocol.eof_received():
            self.pause_reading()
        else:
            self.close()

    # -- writing --

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high_water = HIGH_WATER if high is None else high

    def get_write_buffer_size(self) -> int:
        return len(self._out)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return
        if not self._out:
            try:
                sent = self._raw.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self._fail(error)
                return
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
            self._loop.add_writer(self._raw, self._send_rest)
        self._out += data
        if len(self._out) > self._high_water and not self._held_back:
            self._held_back = True
            self._protocol.pause_writing()

    def _send_rest(self) -> None:
        try:
            sent = self._raw.send(self._out)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error)
            return
        del self._out[:sent]
        if self._held_back and len(self._out) <= self._high_water // 4:
            self._held_back = False
            self._protocol.resume_writing()
        if not self._out:
            self._loop.remove_writer(self._raw)
            self._have_sent()

    def _have_sent(self) -> None:
        if self._emptied is not None:
            self._emptied.set_result(None)
        if self._closing:
            self._end(None)

    # -- the end --

    async def hand_over(self) -> socket.socket:
        """The socket, once everything written is sent; this transport is done with it. ConnectionError: it is lost meanwhile."""
        self.pause_reading()
        if self._out:
            self._emptied = Wakeup(self._loop)
            await self._emptied
        if self._closing:
            raise ConnectionResetError("the connection is closed")
        self._closing = self._ended = True
        return self._raw

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self.pause_reading()
        if not self._out:
            self._end(None)

    def abort(self) -> None:
        self._fail(None)

    def _fail(self, error: OSError | None) -> None:
        """It ends in the next turn of the loop: whoever is just sending must not be told before they have done so."""
        if self._ended:
            return
        self._closing = True
        self.pause_reading()
        if self._out:
            self._loop.remove_writer(self._raw)
            self._out.clear()
        self._loop.call_soon(self._end, error)

    def _end(self, error: OSError | None) -> None:
        if self._ended:
            return
        self._ended = True
        if self._emptied is not None:
            self._emptied.set_result(None)
        try:
            self._protocol.connection_lost(error)
        finally:
            self._raw.close()
