"""A socket on the event loop: order, backpressure, errors, the end, and the way to TLS; on asyncio and on uvloop."""

import asyncio
import socket

import pytest
import uvloop

from fumibako.net.plain import PlainTransport


class Noted(asyncio.Protocol):
    """What was told, in order. keep: whether our side stays open behind the peer's last octet."""

    def __init__(self, *, keep=False):
        self.told, self.octets, self.keep = [], bytearray(), keep
        self.lost = asyncio.Event()
        self.on_data = lambda: None

    def connection_made(self, transport):
        self.told.append("made")

    def data_received(self, data):
        self.octets += data
        self.on_data()

    def eof_received(self):
        self.told.append("eof")
        return self.keep

    def pause_writing(self):
        self.told.append("pause")

    def resume_writing(self):
        self.told.append("resume")

    def connection_lost(self, exc):
        self.told.append(type(exc) if exc else "lost")
        self.lost.set()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Runs `main(transport, protocol, peer)` on either loop; peer: the other socket, non-blocking."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else None

    async def begin(main, options):
        raw, peer = socket.socketpair()
        raw.setblocking(False)
        peer.setblocking(False)
        protocol = Noted(**options)
        transport = PlainTransport(raw, protocol, ("192.0.2.1", 25))
        with peer:
            await asyncio.wait_for(main(transport, protocol, peer), 10)
            transport.abort()
            await asyncio.wait_for(protocol.lost.wait(), 5) if raw.fileno() >= 0 else None

    def runner(main, **options):
        with asyncio.Runner(loop_factory=factory) as loop_runner:
            loop_runner.run(begin(main, options))

    return runner


async def received(peer, count):
    octets = b""
    while len(octets) < count:
        octets += await asyncio.get_running_loop().sock_recv(peer, 1 << 16)
    return octets


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def test_more_than_the_system_takes_arrives_in_order_and_the_sender_is_held_back(run):
    payload = bytes(range(256)) * 8192      # 2 MiB

    async def main(transport, protocol, peer):
        for start in range(0, len(payload), 65536):
            transport.write(payload[start : start + 65536])
        assert protocol.told == ["made", "pause"] and transport.get_write_buffer_size() > 1 << 20
        transport.close()
        assert transport.is_closing() and not protocol.lost.is_set()        # what is buffered goes first
        transport.write(b"too late")
        assert await received(peer, len(payload)) == payload
        await protocol.lost.wait()
        assert protocol.told == ["made", "pause", "resume", "lost"]
        assert await asyncio.get_running_loop().sock_recv(peer, 10) == b""

    run(main)


def test_what_has_nothing_to_send_ends_at_once(run):
    async def main(transport, protocol, peer):
        transport.write(b"bye")
        transport.close()
        assert protocol.told == ["made", "lost"]
        assert transport.get_extra_info("socket").fileno() == -1
        assert await received(peer, 3) == b"bye"

    run(main)


def test_closed_from_within_what_it_tells(run):
    async def main(transport, protocol, peer):
        protocol.on_data = transport.close
        peer.send(b"x")
        await protocol.lost.wait()
        assert protocol.told == ["made", "lost"] and protocol.octets == b"x"

    run(main)


def test_aborted_in_the_middle_nobody_is_told_inside_the_call(run):
    async def main(transport, protocol, peer):
        transport.write(b"x" * 5_000_000)
        transport.abort()
        assert not protocol.lost.is_set() and not transport.get_write_buffer_size()
        transport.abort()
        await protocol.lost.wait()
        await asyncio.sleep(0.01)
        assert protocol.told == ["made", "pause", "lost"]       # once

    run(main)


@pytest.mark.parametrize("keep", [True, False])
def test_the_end_of_what_the_peer_says(run, keep):
    async def main(transport, protocol, peer):
        peer.shutdown(socket.SHUT_WR)
        await until(lambda: "eof" in protocol.told)
        await asyncio.sleep(0.01)
        assert protocol.told == (["made", "eof"] if keep else ["made", "eof", "lost"])      # and no busy loop of "eof"
        transport.write(b"still here")
        assert (await asyncio.get_running_loop().sock_recv(peer, 10)) == (b"still here" if keep else b"")

    run(main, keep=keep)


def test_a_peer_that_is_gone_is_an_error_once(run):
    async def main(transport, protocol, peer):
        transport.pause_reading()
        peer.close()
        transport.write(b"x")
        transport.write(b"y")
        await protocol.lost.wait()
        assert protocol.told == ["made", BrokenPipeError]

    run(main)


def test_a_peer_that_leaves_while_much_is_unsent(run):
    async def main(transport, protocol, peer):
        transport.pause_reading()
        transport.write(b"x" * 5_000_000)
        peer.close()
        await protocol.lost.wait()
        assert protocol.told[:2] == ["made", "pause"] and issubclass(protocol.told[2], ConnectionError)

    run(main)


def test_paused_nothing_arrives(run):
    async def main(transport, protocol, peer):
        transport.pause_reading()
        peer.send(b"early")
        await asyncio.sleep(0.01)
        assert not protocol.octets
        transport.resume_reading()
        transport.resume_reading()
        await until(lambda: protocol.octets == b"early")

    run(main)


def test_the_socket_is_handed_over_when_everything_is_sent(run):
    async def main(transport, protocol, peer):
        transport.write(b"x" * 5_000_000)
        transport.pause_reading()
        peer.send(b"hello")
        async with asyncio.TaskGroup() as group:
            handing = group.create_task(transport.hand_over())
            await asyncio.sleep(0.01)
            assert not handing.done()
            await received(peer, 5_000_000)
        raw = handing.result()
        assert protocol.told == ["made", "pause", "resume"] and not protocol.octets
        transport.abort()       # it has nothing to do with it any more
        await asyncio.sleep(0.01)
        assert raw.recv(10) == b"hello" and not protocol.lost.is_set()
        raw.close()

    run(main)


def test_a_lost_connection_is_not_handed_over(run):
    async def main(transport, protocol, peer):
        transport.write(b"x" * 5_000_000)
        async with asyncio.TaskGroup() as group:
            handing = group.create_task(_outcome(transport.hand_over()))
            await asyncio.sleep(0.01)
            peer.close()
        assert isinstance(handing.result(), ConnectionResetError)

    run(main)


async def _outcome(awaitable):
    try:
        return await awaitable
    except OSError as error:
        return error
