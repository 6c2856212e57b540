"""The pair behaves as two ends of a network do."""

import asyncio

import pytest

from fumibako.net.stream import PlaintextAfterStartTLS
from fumibako.net.tls import ServerTls, opportunistic_client, read_pair
from tests.support.certificates import write_pair
from tests.support.streams import stream_pair


async def test_octets_addresses_and_the_end():
    client, server = stream_pair()
    assert (server.peer.host, client.peer.port) == ("198.51.100.1", 25)
    await client.write(b"ab")
    await client.write(b"c")
    assert await server.read() in {b"ab", b"abc"}
    client.close()
    while await server.read():
        pass
    assert server.eof.is_set()
    server.close()
    await asyncio.gather(client.wait_closed(), server.wait_closed())
    with pytest.raises(ConnectionResetError):
        await server.write(b"x")


async def test_a_reader_that_does_not_read_holds_back_the_rest():
    client, server = stream_pair()
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(client.write(b"x" * 2_000_000))
        await asyncio.sleep(0.05)
        assert not sending.done()
        assert 65536 <= len(server._in) <= 2 * 65536
        total = 0
        while total < 2_000_000:
            total += len(await server.read())


async def test_tls_over_the_pair(tmp_path):
    context = ServerTls([read_pair(*write_pair(tmp_path, "mail.example.jp"))]).context("smtp")
    client, server = stream_pair()
    async with asyncio.TaskGroup() as group:
        group.create_task(server.start_tls(context, server_side=True))
        group.create_task(client.start_tls(opportunistic_client(), server_side=False))
    await client.write(b"hello")
    assert await server.read() == b"hello"
    assert client.tls.server_end_point == server.tls.server_end_point != b""


async def test_plaintext_before_tls_is_refused(tmp_path):
    context = ServerTls([read_pair(*write_pair(tmp_path, "mail.example.jp"))]).context("smtp")
    client, server = stream_pair()
    await client.write(b"MAIL FROM:<>\r\n")
    while not server._in:
        await asyncio.sleep(0)
    with pytest.raises(PlaintextAfterStartTLS):
        await server.start_tls(context, server_side=True)
