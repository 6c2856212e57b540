"""The loop between a core and a stream: what comes between, and what is said then."""

import asyncio
import logging

import pytest

from fumibako.faces.serve import FLUSH_AFTER_EVENTS, LOGIN_S, Patience, run_session
from fumibako.proto.reader import Need, ProtocolError
from fumibako.services import StoreUnavailable
from tests.support.clock import FakeClock
from tests.support.served import run_served
from tests.support.streams import half_close, stream_pair


class LineCore:
    """Lines in, lines out."""

    def __init__(self) -> None:
        self.buffer, self.out, self.written = b"", b"", 0

    @property
    def unread(self) -> int:
        return len(self.buffer)

    def receive_data(self, data: bytes) -> None:
        self.buffer += data

    def next_event(self):
        if b"\n" not in self.buffer:
            return Need.BYTES
        line, _, self.buffer = self.buffer.partition(b"\n")
        if line == b"garbage":
            self.out += b"no\n"
            raise ProtocolError("garbage")
        return line

    def data_to_send(self) -> bytes:
        out, self.out = self.out, b""
        self.written += bool(out)
        return out


class LineSession:
    """Answers `<line>!`; some lines do something else first."""

    def __init__(self, timeout_s: float = 60) -> None:
        self.core = LineCore()
        self.core.out = b"hello\n"
        self.closed = self.wants_tls = False
        self.starttls_context = None
        self.timeout_s, self.clock = timeout_s, FakeClock()
        self.patience = Patience(self.clock)
        self.ended, self.running, self.cancelled = 0, asyncio.Event(), False
        self.push = asyncio.Event()
        self.pushes = False
        self.release = asyncio.Event()

    async def on_event(self, event: bytes) -> None:
        match event:
            case b"quit":
                self.closed = True
            case b"store":
                raise StoreUnavailable("away")
            case b"bug":
                raise ValueError("secret detail")
            case b"disk":
                raise OSError(5, "secret detail")
            case b"idle":
                self.pushes = True
            case b"tls":
                self.wants_tls = True
            case b"wait":
                self.running.set()
                try:
                    await self.release.wait()
                except asyncio.CancelledError:
                    self.cancelled = True
                    raise
        self.core.out += event + b"!\n"

    def idle(self):
        return self._pushed() if self.pushes else None

    async def _pushed(self) -> None:
        await self.push.wait()
        self.push.clear()
        self.core.out += b"news\n"

    def on_tls(self) -> None: ...

    def on_timeout(self) -> None:
        self.core.out += b"slow\n"

    def on_stop(self) -> None:
        self.core.out += b"stopping\n"

    def on_failure(self) -> None:
        self.core.out += b"failure\n"

    async def on_end(self) -> None:
        self.ended += 1


async def converse(session: LineSession, *sent: bytes, stop: asyncio.Event | None = None) -> bytes:
    """Everything the server says to these octets until the session ends."""
    client, server = stream_pair()
    heard = b""
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(run_served(session, server, stop or asyncio.Event()))
        for octets in sent:
            await client.write(octets)
        while data := await client.read():
            heard += data
    assert session.ended == 1
    return heard


async def test_a_conversation_octet_by_octet_and_whole() -> None:
    sent = b"one\ntwo\nquit\n"
    expected = b"hello\none!\ntwo!\nquit!\n"
    assert await converse(LineSession(), sent) == expected
    assert await converse(LineSession(), *(bytes([octet]) for octet in sent)) == expected


async def test_answers_of_pipelined_commands_leave_together_but_not_without_bound() -> None:
    session = LineSession()
    await converse(session, b"x\n" * (FLUSH_AFTER_EVENTS * 2) + b"quit\n")
    assert session.core.written == 4    # greeting, twice sixteen, the rest


@pytest.mark.parametrize(("line", "last"), [
    (b"store", b"failure"), (b"bug", b"failure"), (b"disk", b"failure"), (b"garbage", b"no"),
])
async def test_what_ends_a_session(line: bytes, last: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        heard = await converse(LineSession(), b"one\n" + line + b"\ntwo\n")
    assert heard == b"hello\none!\n" + last + b"\n"
    assert ("secret detail" in caplog.text) == (line in (b"bug", b"disk"))


async def test_a_silent_peer() -> None:
    assert await converse(LineSession(timeout_s=0), b"") == b"hello\nslow\n"


def test_patience_with_a_command_and_with_a_login() -> None:
    clock = FakeClock()
    patience = Patience(clock, LOGIN_S)
    for waited_s, left_s in ((0, 60), (50, 10), (20, 0), (0, 0)):
        clock.advance(waited_s)
        assert patience.left_s(60) == left_s
    clock.advance(LOGIN_S - 80)
    patience.begin()
    assert patience.left_s(60) == 10 and not patience.login_is_overdue
    clock.advance(10)
    patience.begin()
    assert patience.left_s(60) == 0 and patience.login_is_overdue
    patience.logged_in()
    assert patience.left_s(60) == 60 and not patience.login_is_overdue


async def test_a_login_that_is_overdue_is_not_put_off_by_octets_that_wait() -> None:
    """Who always has something to say never lets a read run into its deadline."""
    session = LineSession()
    session.patience = Patience(session.clock, 5)
    client, server = stream_pair()

    async def on_event(event: bytes) -> None:
        session.core.out += event + b"!\n"
        session.clock.advance(1)
        server.data_received(b"x\n")       # there before the next read

    session.on_event = on_event
    server.data_received(b"x\n")
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(run_served(session, server, asyncio.Event()))
        assert await heard_until(client, b"slow\n") == b"hello\n" + b"x!\n" * 5 + b"slow\n"


async def test_stop_ends_a_waiting_session_at_once_and_a_busy_one_after_its_reply() -> None:
    stop = asyncio.Event()
    stop.set()
    assert await converse(LineSession(), stop=stop) == b"hello\nstopping\n"

    stop, session = asyncio.Event(), LineSession()

    async def stop_while_busy() -> None:
        await session.running.wait()
        stop.set()
        await asyncio.sleep(0)
        session.release.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(stop_while_busy())
        assert await converse(session, b"wait\nnever read\n", stop=stop) == b"hello\nwait!\nnever read!\nstopping\n"

    stop, session = asyncio.Event(), LineSession()
    async with asyncio.TaskGroup() as group:
        group.create_task(_set_later(stop))
        assert await converse(session, b"one\n", stop=stop) == b"hello\none!\nstopping\n"


async def _set_later(event: asyncio.Event) -> None:
    for _ in range(20):
        await asyncio.sleep(0)
    event.set()


async def test_a_running_command_is_cancelled_when_its_peer_is_gone() -> None:
    session = LineSession()
    client, server = stream_pair()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(run_session(session, server, asyncio.Event()))
        await client.write(b"wait\n")
        await session.running.wait()
        server.abort()
    assert session.cancelled and session.ended == 1


async def test_a_half_closed_peer_still_gets_its_answers() -> None:
    session = LineSession()
    client, server = stream_pair()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        task = group.create_task(run_session(session, server, asyncio.Event()))
        task.add_done_callback(lambda _: server.close())
        await client.write(b"one\n")
        half_close(client)
        heard = b""
        while data := await client.read():
            heard += data
    assert heard == b"hello\none!\n"


async def test_pushes_while_waiting() -> None:
    session = LineSession()
    client, server = stream_pair()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(run_session(session, server, asyncio.Event()))
        await client.write(b"idle\n")
        assert await heard_until(client, b"idle!\n") == b"hello\nidle!\n"
        for _ in range(2):
            session.push.set()
            assert await client.read() == b"news\n"
        await client.write(b"one\nquit\n")
        assert await client.read() == b"one!\nquit!\n"


async def heard_until(client, end: bytes) -> bytes:
    heard = b""
    while not heard.endswith(end):
        heard += await client.read()
    return heard


async def test_a_push_that_fails_ends_the_session() -> None:
    session = LineSession()

    async def fails() -> None:
        raise StoreUnavailable("away")

    session._pushed = fails
    assert await converse(session, b"idle\n") == b"hello\nidle!\nfailure\n"


async def test_octets_behind_starttls_close_the_connection() -> None:
    """CVE-2011-0411."""
    session = LineSession()
    session.starttls_context = object()
    assert await converse(session, b"tls\nevil\nquit\n") == b"hello\n"


async def test_an_unanswered_event_is_a_bug() -> None:
    session = LineSession()
    session.core.next_event = lambda: Need.REPLY
    assert await converse(session) == b"hello\nfailure\n"
