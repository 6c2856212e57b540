"""Streams over real loopback sockets, on asyncio and on uvloop."""

import asyncio
import ssl
import sys

import pytest
import uvloop

from fumibako.net.endpoint import Endpoint, endpoint_of
from fumibako.net.listen import Listener, bind, serve
from fumibako.net.stream import PlaintextAfterStartTLS, RateFloor, Stream, open_stream
from fumibako.net.tls import ServerTls, end_point_binding, opportunistic_client, read_pair
from tests.support.certificates import write_pair
from tests.support.clock import FakeClock

EVIL = b"MAIL FROM:<evil@attacker.example>\r\n"


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return ServerTls([read_pair(*write_pair(tmp_path_factory.mktemp("tls"), "mail.example.jp"))])


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine on either event loop."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else None

    def runner(main):
        with asyncio.Runner(loop_factory=factory) as loop_runner:
            return loop_runner.run(asyncio.wait_for(main, 10))

    return runner


async def with_server(session, client, **options):
    """Serves on a loopback port while `client(endpoint)` runs; returns what it returned."""
    sockets = bind(Listener("test", ("127.0.0.1:0",)))
    stopping = asyncio.Event()
    endpoint = endpoint_of(sockets[0].getsockname())
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(sockets, session, stopping=stopping, **options))
        try:
            return await client(endpoint)
        finally:
            stopping.set()


async def read_all(stream):
    received = b""
    while data := await stream.read(timeout_s=5):
        received += data
    return received


def test_octets_come_back_in_order_and_half_close_still_gets_its_answer(run):
    payload = bytes(range(256)) * 4096      # 1 MiB: past both high-water marks

    async def echo(stream):
        await stream.write(await read_all(stream))

    async def client(endpoint):
        reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
        writer.write(payload)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    assert run(with_server(echo, client)) == payload


def test_addresses_are_known(run):
    seen = []

    async def session(stream):
        seen.append((stream.peer.host, stream.local.host, stream.local.port))
        await stream.write(b"x")

    async def client(endpoint):
        stream = await open_stream(endpoint, 5, source="127.0.0.7")
        await read_all(stream)
        stream.close()
        await stream.wait_closed()
        return endpoint.port

    port = run(with_server(session, client))
    assert seen == [("127.0.0.7", "127.0.0.1", port)]


def test_read_deadline(run):
    async def session(stream):
        with pytest.raises(TimeoutError):
            await stream.read(timeout_s=0.02)
        await stream.write(b"too slow")

    async def client(endpoint):
        stream = await open_stream(endpoint, 5)
        return await read_all(stream)

    assert run(with_server(session, client)) == b"too slow"


def test_an_interrupted_read_times_out_at_once_and_the_next_one_waits_anew(run):
    async def session(stream):
        asyncio.get_running_loop().call_soon(stream.interrupt)
        with pytest.raises(TimeoutError):
            await stream.read(timeout_s=60)
        stream.interrupt()      # nobody waits: nothing happens
        await stream.write(b"now")
        assert await stream.read(timeout_s=60) == b"later"
        await stream.write(b"done")

    async def client(endpoint):
        stream = await open_stream(endpoint, 5)
        assert await stream.read(5) == b"now"
        await stream.write(b"later")
        assert await stream.read(5) == b"done"
        stream.close()

    run(with_server(session, client))


def test_a_shorter_deadline_overtakes_a_longer_one(run):
    async def session(stream):
        await stream.read(timeout_s=60)
        with pytest.raises(TimeoutError):
            await stream.read(timeout_s=0)
        await stream.write(b"cut")

    async def client(endpoint):
        stream = await open_stream(endpoint, 5)
        await stream.write(b"x")
        assert await stream.read(5) == b"cut"
        stream.close()

    run(with_server(session, client))


def test_a_reader_that_stops_is_cut_off_and_little_is_buffered(run):
    outcome = []

    async def session(stream):
        sent = 0
        try:
            while sent < 100_000_000:
                await stream.write(b"x" * 65536, timeout_s=0.1)
                sent += 65536
        except TimeoutError as error:
            outcome.append(str(error))
            raise
        finally:
            outcome.append(sent)

    async def client(endpoint):
        stream = await open_stream(endpoint, 5)
        stream._transport.pause_reading()
        while len(outcome) < 2:
            await asyncio.sleep(0)

        stream.abort()

    run(with_server(session, client))
    assert "has not read for 0.1 s" in outcome[0]
    assert outcome[1] < 20_000_000      # the kernel's buffers and our 256 KiB, not the whole


def test_peer_close_sets_events_and_fails_writes(run):
    seen = []

    async def session(stream):
        await stream.eof.wait()
        assert await stream.read() == b""
        assert not stream.closed.is_set()       # a half-closed peer may still be listening
        try:
            while True:
                await stream.write(b"x")
                await asyncio.sleep(0)
        except ConnectionError as error:
            seen.append((type(error), stream.closed.is_set()))
        finished.set()

    async def client(endpoint):
        stream = await open_stream(endpoint, 5)
        stream.abort()
        await finished.wait()

    finished = asyncio.Event()
    run(with_server(session, client))
    assert seen == [(ConnectionResetError, True)]


def test_starttls_round_trip_with_end_point_binding(run, tls):
    seen = []

    async def session(stream):
        await stream.read()
        await stream.start_tls(tls.context("smtp"), server_side=True, announce=b"220 go\r\n")
        await stream.write(await stream.read() * 50_000)
        seen.append(stream.tls)

    async def client(endpoint):
        stream = await open_stream(endpoint, 5)
        await stream.write(b"STARTTLS\r\n")
        assert await stream.read() == b"220 go\r\n"
        await stream.start_tls(opportunistic_client(), server_side=False, server_hostname="mail.example.jp")
        seen.append(stream.tls)
        await stream.write(b"hello")
        return len(await read_all(stream))

    assert run(with_server(session, client)) == 250_000
    ours, theirs = seen[1], seen[0]
    assert ours.version == theirs.version == "TLSv1.3"
    assert ours.server_end_point == theirs.server_end_point == end_point_binding(theirs.peer_certificate) != b""


@pytest.mark.parametrize("split", [False, True])
def test_plaintext_pipelined_behind_starttls_closes_the_connection(run, tls, split):
    """A8: the server side of CVE-2011-0411."""
    seen = []

    async def session(stream):
        command = await stream.read()
        await stream.write(b"220 go\r\n")
        if command != b"STARTTLS\r\n":
            seen.append("core refuses what it holds unread")     # one segment: the octets are in the core's buffer
            return
        while split and not stream._in:
            await asyncio.sleep(0)
        try:
            await stream.start_tls(tls.context("smtp"), server_side=True)
        except PlaintextAfterStartTLS as error:
            seen.append(type(error).__name__)
            raise

    async def client(endpoint):
        stream = await open_stream(endpoint, 5)
        await stream.write(b"STARTTLS\r\n" + (b"" if split else EVIL))
        await stream.read()
        if split:
            await stream.write(EVIL)
        rest = await read_all(stream)
        stream.abort()
        return rest

    assert run(with_server(session, client)) == b""
    assert seen == ["PlaintextAfterStartTLS" if split else "core refuses what it holds unread"]


def test_injected_plaintext_still_in_the_kernel_breaks_the_handshake(run, tls):
    """A8: octets that were not read yet become a bad ClientHello, never a command."""
    seen = []

    async def session(stream):
        await stream.read()
        try:
            await stream.start_tls(tls.context("smtp"), server_side=True, announce=b"220 go\r\n")
        except (ssl.SSLError, ConnectionError) as error:
            seen.append(error)
            assert stream.closed.is_set()
            raise
        seen.append(await stream.read())

    async def client(endpoint):
        stream = await open_stream(endpoint, 5)
        await stream.write(b"STARTTLS\r\n")
        await stream.read()
        await stream.write(EVIL)
        await read_all(stream)
        stream.abort()

    run(with_server(session, client))
    assert len(seen) == 1 and isinstance(seen[0], (ssl.SSLError, ConnectionError))


def test_reply_injected_before_the_handshake_is_refused_by_our_client(run, tls):
    """A9: a man in the middle appends replies to the 220 that invites the handshake."""
    async def session(stream):
        await stream.read()
        await stream.write(b"220 go\r\n")
        await stream.read()
        await stream.write(b"250 smtp.attacker.example\r\n")
        await stream.read()

    async def client(endpoint):
        stream = await open_stream(endpoint, 5)
        await stream.write(b"STARTTLS\r\n")
        assert await stream.read() == b"220 go\r\n"
        await stream.write(b"next\r\n")
        while not stream._in:
            await asyncio.sleep(0)
        with pytest.raises(PlaintextAfterStartTLS):
            await stream.start_tls(opportunistic_client(), server_side=False)
        return stream.closed

    run(with_server(session, client))


def test_implicit_tls_keeps_an_early_client_hello(run, tls):
    async def session(stream):
        assert stream.tls is not None
        await stream.write(b"220 " + await stream.read())

    async def client(endpoint):
        stream = await open_stream(endpoint, 5)
        await stream.start_tls(opportunistic_client(), server_side=False)
        await stream.write(b"early")
        return await read_all(stream)

    assert run(with_server(session, client, tls_context=tls.context("submissions"))) == b"220 early"


def test_handshake_that_never_comes_ends(run, tls):
    async def session(stream):
        with pytest.raises((ConnectionError, TimeoutError)):
            await stream.start_tls(tls.context("smtp"), server_side=True, announce=b"220 go\r\n", timeout_s=0.05)
        assert stream.closed.is_set()

    async def client(endpoint):
        stream = await open_stream(endpoint, 5)
        assert await stream.read() == b"220 go\r\n"
        return await read_all(stream)

    assert run(with_server(session, client)) == b""


def test_tls_read_buffer_is_one_record():
    assert asyncio.sslproto.SSLProtocol.max_size == 16 * 1024


@pytest.mark.parametrize("implicit", [True, False])
def test_connections_share_what_tls_records_are_received_into_and_nothing_else(run, tls, implicit):
    buffers = set()

    async def session(stream):
        if not implicit:
            await stream.start_tls(tls.context("imap"), server_side=True, announce=b"go")
        buffers.add(id(getattr(getattr(stream._transport, "_ssl_protocol", None), "_ssl_buffer", None)))
        while data := await stream.read(timeout_s=5):
            await stream.write(data)

    async def one(endpoint, number):
        stream = await open_stream(endpoint, 5)
        if not implicit:
            await stream.read()
        await stream.start_tls(opportunistic_client(), server_side=False)
        sent, received = bytes([number]) * 100_000, b""
        async with asyncio.TaskGroup() as group:
            group.create_task(stream.write(sent))
            while len(received) < len(sent):
                received += await stream.read(timeout_s=5)
        stream.close()
        return received == sent

    async def client(endpoint):
        return await asyncio.gather(*(one(endpoint, number) for number in range(10)))

    options = {"tls_context": tls.context("imaps")} if implicit else {}
    assert run(with_server(session, client, **options)) == [True] * 10
    assert len(buffers) == 1


def test_rate_floor_gives_credit_for_what_came():
    clock = FakeClock()
    floor = RateFloor(clock.monotonic_s(), octets_per_s=500, grace_s=10)
    assert floor.remaining_s(clock.monotonic_s(), 0) == pytest.approx(10)
    clock.advance(12)
    assert floor.remaining_s(clock.monotonic_s(), 1000) == pytest.approx(0)
    assert floor.remaining_s(clock.monotonic_s(), 999) < 0


def test_endpoint_text():
    assert str(Endpoint("::1", 25)) == "[::1]:25"
    assert str(Endpoint("192.0.2.1", 25)) == "192.0.2.1:25"
    assert str(Endpoint("/run/lmtp.sock", 0)) == "unix:/run/lmtp.sock"


def test_stream_refuses_use_before_connection():
    async def main():
        stream = Stream()
        with pytest.raises(RuntimeError):
            await stream.write(b"x")
        await stream.wait_closed()

    asyncio.run(main())
    assert sys.version_info >= (3, 11)
