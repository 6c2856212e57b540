"""Datagrams on real loopback sockets: answers at once, answers to be waited for, and none."""

import asyncio
import contextlib
import socket

import pytest
import uvloop

from fumibako.net.datagram import serve_datagrams
from fumibako.net.listen import Listener, bind

LOOPS = pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])


@contextlib.asynccontextmanager
async def served(respond, stopping=None):
    """A connected client socket of a service that answers with `respond`."""
    sockets, stopping = bind(Listener("dns", ("127.0.0.1:0",)), datagrams=True), stopping or asyncio.Event()
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.setblocking(False)
    client.connect(sockets[0].getsockname())
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(serve_datagrams(sockets, respond, stopping))
            yield client
            stopping.set()
    finally:
        client.close()
    assert sockets[0].fileno() == -1


async def received(client, count):
    loop = asyncio.get_running_loop()
    return [await asyncio.wait_for(loop.sock_recv(client, 100), 5) for _ in range(count)]


def run(loop_factory, main):
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(asyncio.wait_for(main, 10))


@LOOPS
def test_silence_and_answers_in_order(loop_factory):
    async def main():
        async with served(lambda octets, peer: None if octets == b"?" else octets.upper()) as client:
            for octets in (b"a", b"?", b"b"):
                client.send(octets)
            assert await received(client, 2) == [b"A", b"B"]

    run(loop_factory, main())


@LOOPS
def test_the_socket_is_not_read_while_an_answer_is_waited_for(loop_factory):
    async def main():
        gate, seen = asyncio.Event(), []

        async def later(octets):
            await gate.wait()
            return octets.upper()

        def respond(octets, peer):
            seen.append(octets)
            return octets.upper() if gate.is_set() else later(octets)

        async with served(respond) as client:
            for octets in (b"a", b"b", b"c"):
                client.send(octets)
            while not seen:
                await asyncio.sleep(0)
            for _ in range(10):
                await asyncio.sleep(0)
            assert seen == [b"a"]
            gate.set()
            assert await received(client, 3) == [b"A", b"B", b"C"]

    run(loop_factory, main())


async def test_an_answer_that_fails_costs_nothing_but_itself(caplog):
    async def fail():
        raise KeyError("a bug")

    async def nothing():
        return None

    answers = {b"fail": fail, b"nothing": nothing}
    async with served(lambda octets, peer: answers[octets]() if octets in answers else octets) as client:
        for octets in (b"fail", b"nothing", b"a"):
            client.send(octets)
        assert await received(client, 1) == [b"a"]
    assert [record.exc_info[0] for record in caplog.records] == [KeyError]


async def test_a_stop_lets_the_answer_under_way_go_out():
    gate, asked, stopping = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def later(octets):
        asked.set()
        await gate.wait()
        return octets.upper()

    async with served(lambda octets, peer: later(octets), stopping) as client:
        client.send(b"a")
        await asked.wait()
        stopping.set()
        await asyncio.sleep(0)
        gate.set()
        assert await received(client, 1) == [b"A"]


@pytest.mark.parametrize("own", [True, False], ids=["bound-by-us", "handed-over"])
def test_what_came_before_the_service_is_answered_from_the_address_it_went_to(own):
    """A worker that starts late finds datagrams in its socket; a client takes no answer from elsewhere (RFC 2181 §4.1)."""
    async def main():
        if own:
            bound = bind(Listener("dns", ("127.0.3.10:0",)), datagrams=True)[0]
        else:
            bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            bound.setblocking(False)
            bound.bind(("127.0.3.10", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.bind(("127.0.0.1", 0))
            client.sendto(b"early", bound.getsockname())
            stopping = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(serve_datagrams([bound], lambda octets, peer: octets, stopping))
                octets, sockname = await asyncio.get_running_loop().sock_recvfrom(client, 100)
                stopping.set()
        assert (octets, sockname[0]) == (b"early", "127.0.3.10")

    run(asyncio.new_event_loop, main())
