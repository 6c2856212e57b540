"""Listening sockets, caps, and the end of a service."""

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket

import pytest

from fumibako.net.endpoint import endpoint_of
from fumibako.net.listen import Caps, Listener, ListenError, bind, serve, systemd_sockets, within
from fumibako.net.stream import open_stream


def opened(*addresses, **options):
    sockets = bind(Listener("test", addresses), **options)
    found = [str(endpoint_of(one.getsockname())) for one in sockets]
    for one in sockets:
        one.close()
    return found


def test_addresses():
    assert opened("127.0.0.3:0")[0].startswith("127.0.0.3:")
    assert opened("[::1]:0")[0].startswith("[::1]:")
    both = opened(":0")
    assert [one.rpartition(":")[0] for one in both] == ["0.0.0.0", "[::]"]
    assert len({one.rpartition(":")[2] for one in both}) == 1
    assert opened("127.0.0.1:0", datagrams=True)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "mail.example.jp:25", "127.0.0.1:65536", "127.0.0.1:+25", "127.1:25", "", "::1:x"])
def test_nonsense_is_named(address):
    with pytest.raises(ListenError, match=r"\[listen\] test = "):
        bind(Listener("test", (address,)))


def test_a_taken_port_is_named_and_nothing_stays_open():
    taken = bind(Listener("a", ("127.0.0.1:0",)))[0]
    text = str(endpoint_of(taken.getsockname()))
    with pytest.raises(ListenError, match="another program listens there"):
        bind(Listener("b", ("127.0.0.2:0", text)))
    taken.close()


def test_several_processes_may_share_a_port():
    first = bind(Listener("a", ("127.0.0.1:0",)), reuse_port=True)
    text = str(endpoint_of(first[0].getsockname()))
    second = bind(Listener("a", (text,)), reuse_port=True)
    assert first[0].getsockname() == second[0].getsockname()
    for one in first + second:
        one.close()


def test_unix_socket_replaces_a_dead_one_only(tmp_path):
    path = tmp_path / "lmtp.sock"
    listener = Listener("lmtp", (f"unix:{path}",))
    first = bind(listener)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ListenError, match="another program"):
        bind(listener)
    first[0].close()        # the file stays, nobody listens
    bind(listener)[0].close()
    path.unlink()
    path.write_text("precious")
    with pytest.raises(ListenError):
        bind(listener)
    assert path.read_text() == "precious"


def test_sockets_from_systemd():
    assert systemd_sockets({"LISTEN_PID": "1", "LISTEN_FDS": "1"}, 2) == {}
    assert systemd_sockets({"LISTEN_PID": "2", "LISTEN_FDS": "0"}, 2) == {}
    handed = bind(Listener("a", ("127.0.0.1:0", "127.0.0.2:0")))
    first = 400
    for index, one in enumerate(handed):
        os.dup2(one.fileno(), first + index)
    found = systemd_sockets({"LISTEN_PID": "2", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "smtp"}, 2, first)
    assert [found["smtp"][0].getsockname(), found["unknown"][0].getsockname()] == [one.getsockname() for one in handed]
    assert not os.get_inheritable(first) and not found["smtp"][0].getblocking()
    for one in (*handed, *found["smtp"], *found["unknown"]):
        one.close()


@contextlib.asynccontextmanager
async def serving(session, address="127.0.0.1:0", **options):
    """A running service; yields (endpoint, stopping, its task)."""
    sockets = bind(Listener("test", (address,)))
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve(sockets, session, stopping=stopping, **options))
        try:
            yield endpoint_of(sockets[0].getsockname()), stopping, task
        finally:
            stopping.set()


async def greet(stream):
    await stream.write(b"hello\r\n")
    await stream.read()


async def first_octets(endpoint, source=""):
    stream = await open_stream(endpoint, 5, source)
    return stream, await stream.read(timeout_s=5)


def refuse(reason):
    return f"421 4.7.0 {reason}\r\n".encode()


async def test_cap_per_address_and_in_all():
    caps = Caps(total=4, per_address=2, drain_s=0)
    async with serving(greet, caps=lambda _: caps, refuse=refuse) as (endpoint, _, _):
        kept = [await first_octets(endpoint, "127.0.0.2") for _ in range(2)]
        assert [octets for _, octets in kept] == [b"hello\r\n"] * 2
        _, refused = await first_octets(endpoint, "127.0.0.2")
        assert refused == b"421 4.7.0 too many connections from your address\r\n"
        kept += [await first_octets(endpoint, "127.0.0.3") for _ in range(2)]
        _, refused = await first_octets(endpoint, "127.0.0.4")
        assert refused == b"421 4.7.0 too many connections\r\n"
        kept[0][0].abort()      # a place is free again
        octets = b""
        while octets != b"hello\r\n":
            stream, octets = await first_octets(endpoint, "127.0.0.2")
        for one in [stream, *(one for one, _ in kept)]:
            one.abort()


async def test_a_small_reply_does_not_wait_for_an_ack():
    """TCP_NODELAY: without it the greeting behind a TLS handshake came 42 ms late."""
    seen = []

    async def look(stream):
        own = stream._transport.get_extra_info("socket")
        seen.append(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    async with serving(look) as (endpoint, _, _):
        stream, octets = await first_octets(endpoint)
        assert octets == b"" and seen == [1]
        stream.abort()


async def test_exempt_networks_have_the_total_only():
    caps = Caps(total=5, per_address=1, exempt=(ipaddress.ip_network("127.0.0.0/8"),), drain_s=0)
    async with serving(greet, caps=lambda _: caps, refuse=refuse) as (endpoint, _, _):
        answers = [await first_octets(endpoint) for _ in range(6)]
        assert [octets[:3] for _, octets in answers] == [b"hel"] * 5 + [b"421"]
        for stream, _ in answers:
            stream.abort()


async def test_ipv6_is_counted_by_network_and_mapped_addresses_are_ipv4():
    assert within("192.0.2.1", (ipaddress.ip_network("192.0.2.0/24"),))
    everything = (ipaddress.ip_network("0.0.0.0/0"),)
    assert not within("", everything) and not within("::1", everything)
    assert str(endpoint_of(("::ffff:192.0.2.1", 25, 0, 0))) == "192.0.2.1:25"
    assert str(endpoint_of(("fe80::1%eth0", 25, 0, 2))) == "[fe80::1]:25"


async def test_a_session_that_fails_ends_alone(caplog):
    async def session(stream):
        if await stream.read() == b"bug":
            raise ZeroDivisionError
        await stream.write(b"fine")

    async with serving(session) as (endpoint, _, _):
        for octets, answer in ((b"bug", b""), (b"ok", b"fine")):
            stream = await open_stream(endpoint, 5)
            await stream.write(octets)
            assert await stream.read(timeout_s=5) == answer
            stream.abort()
    assert "ZeroDivisionError" in caplog.text


async def test_stopping_lets_sessions_say_goodbye():
    began = asyncio.Event()

    async def session(stream):
        await stream.read()
        began.set()
        await stop.wait()
        await stream.write(b"421 closing\r\n")

    async with serving(session) as (endpoint, stop, task):
        stream = await open_stream(endpoint, 5)
        await stream.write(b"x")
        await began.wait()
        stop.set()
        assert await stream.read(timeout_s=5) == b"421 closing\r\n"
        await asyncio.wait_for(task, 5)
        with pytest.raises(OSError):
            await open_stream(endpoint, 5)
        stream.abort()


async def test_sessions_that_do_not_end_are_cancelled():
    began, ended = asyncio.Event(), []

    async def session(stream):
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async with serving(session, caps=lambda _: Caps(drain_s=0.01)) as (endpoint, stop, task):
        stream = await open_stream(endpoint, 5)
        await began.wait()
        stop.set()
        await asyncio.wait_for(task, 5)
        assert ended == [True]
        assert await stream.read(timeout_s=5) == b""
        stream.abort()


async def test_cancelling_the_service_ends_everything():
    ended = []

    async def session(stream):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    sockets = bind(Listener("test", ("127.0.0.1:0",)))
    task = asyncio.create_task(serve(sockets, session))
    stream = await open_stream(endpoint_of(sockets[0].getsockname()), 5)
    await stream.write(b"x")
    while not stream.eof.is_set() and not ended:
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sockets[0].fileno() == -1
    stream.abort()


async def test_out_of_descriptors_one_peer_is_told(monkeypatch):
    """No spinning and no silent peers: the reserve descriptor is spent on a refusal."""
    accept, failures = socket.socket.accept, []

    def starved(listening):
        if not failures:
            failures.append(listening)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", starved)
    async with serving(greet, refuse=refuse) as (endpoint, _, _):
        stream = await open_stream(endpoint, 5)
        assert await stream.read(timeout_s=5) == b"421 4.7.0 out of resources\r\n"
        stream.abort()
        stream, octets = await first_octets(endpoint)
        assert octets == b"hello\r\n"
        stream.abort()


async def test_unix_peers_have_no_address(tmp_path):
    async def session(stream):
        await stream.write(f"{stream.peer.host!r} {stream.local}".encode())

    path = tmp_path / "s"
    async with serving(session, f"unix:{path}", caps=lambda _: Caps(per_address=5)):
        reader, writer = await asyncio.open_unix_connection(str(path))
        assert await reader.read() == f"'' unix:{path}".encode()
        writer.close()
