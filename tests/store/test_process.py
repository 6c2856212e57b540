"""The storage process's loop: several workers, orderly and disorderly ends."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fumibako.model.change import Arrived, Change, Revoked
from fumibako.model.frames import (
    Answer,
    Closing,
    Command,
    Failure,
    FrameBuffer,
    FromStorage,
    Hello,
    Request,
    Told,
    format_frame,
    parse_from_storage,
)
from fumibako.model.ops import (
    AccountMade,
    Delivered,
    Done,
    Enter,
    FlagMode,
    Freeze,
    LockMaildrop,
    Pin,
    Ping,
    Refusal,
    Refused,
    SetFlags,
    SetPassword,
    Thaw,
    Thawed,
    Watch,
)
from fumibako.net.ipc import StorageCall, StorageGone
from fumibako.store.process import StorageServer
from fumibako.store.sqlite import engine as engine_module
from tests.contract.building import NOW_MS, PASSWORD
from tests.store.disks import FailingDisk
from tests.store.sqlite.test_engine import ALICE, delivery, opened


class Peer:
    """A worker made of a blocking socket."""

    def __init__(self, path: Path, hello: FromStorage | None = None) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        self.frames: list[FromStorage] = []
        self.buffer = FrameBuffer()
        self.last = 0
        self.socket.sendall(format_frame(hello or Hello()))

    def send(self, *operations: Command) -> None:
        for operation in operations:
            self.last += 1
            self.socket.sendall(format_frame(Request(self.last, operation)))

    def receive(self) -> FromStorage | None:
        """The next frame; None at the end."""
        while not self.frames:
            octets = self.socket.recv(1 << 16)
            if not octets:
                return None
            self.frames += [parse_from_storage(frame) for frame in self.buffer.feed(octets)]
        return self.frames.pop(0)

    def ask(self, operation: Command) -> object:
        self.send(operation)
        frame = self.receive()
        assert isinstance(frame, Answer) and frame.id == self.last
        return frame.result


class House:
    def __init__(self, directory: Path) -> None:
        self.disk = FailingDisk()
        self.path = directory / "s"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.server = StorageServer(opened(directory / "data", self.disk), self.listener, lambda: NOW_MS)
        self.status: list[int] = []
        self.thread = threading.Thread(target=lambda: self.status.append(self.server.run()))
        self.thread.start()

    def peer(self) -> Peer:
        peer = Peer(self.path)
        assert peer.receive() == Hello()
        return peer

    def end(self) -> int:
        self.thread.join(10)
        return self.status[0]


@pytest.fixture
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("p"))
    yield house
    house.server.stop()
    house.end()
    house.listener.close()


def test_a_change_comes_before_its_answer_and_only_to_watchers(house: House) -> None:
    one, two = house.peer(), house.peer()
    assert (one.ask(Watch(ALICE)), two.ask(Ping())) == (Done(), Done())
    two.send(delivery(1))
    change = Change(ALICE, 2, NOW_MS, (Arrived(1, 1, 1, 0),))
    assert one.receive() == Told(change)
    answer = two.receive()
    assert isinstance(answer, Answer) and isinstance(answer.result, Delivered)
    one.send(delivery(2))
    assert [type(one.receive()) for _ in range(2)] == [Told, Answer]


def test_a_revocation_goes_to_all(house: House) -> None:
    one, two = house.peer(), house.peer()
    one.ask(Ping())
    two.send(SetPassword("alice@example.jp", PASSWORD))
    assert one.receive() == two.receive() == Closing(Revoked(ALICE))


def test_what_a_worker_held_is_released_with_it(house: House) -> None:
    one, two = house.peer(), house.peer()
    assert [one.ask(LockMaildrop(ALICE)), one.ask(Enter("k", 1)), one.ask(Watch(ALICE))] == [Done()] * 3
    denied = two.ask(LockMaildrop(ALICE))
    assert isinstance(denied, Refused) and denied.refusal is Refusal.IN_USE
    one.socket.close()
    assert house.peer().ask(Ping()) == Done()       # by now the loop has seen the end of the other connection
    assert [two.ask(LockMaildrop(ALICE)), two.ask(Enter("k", 1))] == [Done()] * 2
    assert isinstance(two.ask(delivery(1)), Delivered)


def test_many_requests_at_once_are_answered_in_order(house: House) -> None:
    peer = house.peer()
    thread = threading.Thread(target=lambda: peer.send(*(delivery(number) for number in range(500))))
    thread.start()
    answers = [peer.receive() for _ in range(500)]
    thread.join()
    assert [answer.id for answer in answers if isinstance(answer, Answer)] == list(range(1, 501))
    assert [answer.result.placed[0].uid for answer in answers] == list(range(1, 501))       # type: ignore[union-attr]


def test_behind_a_batch_of_several_the_next_one_waits_for_company_and_nobody_else_waits(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fumibako.store.process.GATHER_S", 0.4)
    batches: list[int] = []
    execute = house.server._engine.execute
    monkeypatch.setattr(house.server._engine, "execute", lambda operations, now_ms: (
        batches.append(len(operations)), execute(operations, now_ms))[1])
    several, other = house.peer(), house.peer()
    several.socket.sendall(b"".join(format_frame(Request(number, delivery(number))) for number in (1, 2, 3)))
    assert [type(several.receive()) for _ in range(3)] == [Answer] * 3 and batches == [3]
    several.send(delivery(4))
    time.sleep(0.1)
    other.send(delivery(5))
    assert [type(peer.receive()) for peer in (several, other)] == [Answer] * 2 and batches == [3, 2]
    begun_s = time.monotonic()
    assert isinstance(other.ask(delivery(6)), Delivered) and isinstance(other.ask(Ping()), Done)
    assert time.monotonic() - begun_s < 0.4 and batches == [3, 2, 1]


@pytest.mark.parametrize("octets", [
    b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\xc1", format_frame(Hello()), format_frame(Answer(1, Done())),
    b"\x00\x00\x00\x03\x93\xa5H", b"GET / HTTP/1.0\r\n\r\n"])
def test_a_peer_that_talks_nonsense_is_dropped(house: House, octets: bytes) -> None:
    peer = house.peer()
    peer.socket.sendall(octets)
    assert peer.receive() is None
    assert house.peer().ask(Ping()) == Done()


def test_another_version_or_no_greeting_is_dropped(house: House) -> None:
    other = Peer(house.path, Hello(99))
    assert [other.receive(), other.receive()] == [Hello(), None]
    eager = Peer(house.path, Request(1, Ping()))    # type: ignore[arg-type]
    assert [eager.receive(), eager.receive()] == [Hello(), None]


def test_a_bug_is_a_failure_of_its_request(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a bug")
    monkeypatch.setitem(engine_module._EXECUTORS, SetFlags, broken)
    peer = house.peer()
    peer.send(SetFlags(ALICE, 1, (1,), FlagMode.ADD, ()), Ping())
    assert peer.receive() == Failure(1, "ZeroDivisionError: a bug")
    assert peer.receive() == Answer(2, Done())


def test_stop_answers_what_was_received(house: House) -> None:
    peer = house.peer()
    peer.ask(Ping())
    house.server.stop()
    assert peer.receive() is None and house.end() == 0


def test_a_failing_disk_ends_the_process_without_an_answer(house: House) -> None:
    peer, other = house.peer(), house.peer()
    other.ask(Ping())       # a connection that ends with unread octets in it is reset
    house.disk.fail = "fdatasync"
    peer.send(delivery(1))
    assert (peer.receive(), other.receive()) == (None, None)
    assert house.end() == 70


def test_a_worker_that_does_not_read_is_dropped(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fumibako.store.process.UNREAD_OCTETS", 100_000)
    deaf, busy = house.peer(), house.peer()
    deaf.ask(Watch(ALICE))
    for number in range(0, 6_000, 50):
        busy.send(*(delivery(number + place, octets=b"") for place in range(50)))
        assert all(isinstance(busy.receive(), Answer) for _ in range(50))
    received = 0
    while deaf.receive() is not None:
        received += 1
    assert received < 6_000


def test_while_frozen_nothing_durable_happens(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fumibako.store.process.FREEZE_S", 60.0)
    backup, busy, second = house.peer(), house.peer(), house.peer()
    assert backup.ask(Freeze()) == Done()
    busy.send(delivery(1), Ping())
    second.send(Freeze())
    busy.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        busy.receive()
    assert house.server._engine.uid_next(ALICE, 1) == 1
    assert backup.ask(Thaw()) == Thawed(True)
    busy.socket.settimeout(10)
    assert [type(busy.receive()) for _ in range(2)] == [Answer, Answer]
    assert second.receive() == Answer(1, Done())        # its turn comes afterwards


def test_a_freeze_that_lasts_too_long_is_over_and_says_so(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fumibako.store.process.FREEZE_S", 0.05)
    backup, busy = house.peer(), house.peer()
    assert backup.ask(Freeze()) == Done()
    assert isinstance(busy.ask(delivery(1)), Delivered)
    assert backup.ask(Thaw()) == Thawed(False)


def test_a_freeze_ends_with_its_connection(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fumibako.store.process.FREEZE_S", 60.0)
    backup, busy = house.peer(), house.peer()
    assert backup.ask(Freeze()) == Done()
    busy.send(delivery(1))
    backup.socket.close()
    answer = busy.receive()
    assert isinstance(answer, Answer) and isinstance(answer.result, Delivered)


def test_a_call_without_a_loop(house: House) -> None:
    call = StorageCall(str(house.path))
    assert call.ask(Pin()) == Done() and house.server._memory.pinned
    assert isinstance(call.ask(delivery(1)), Delivered)
    assert isinstance(call.ask(SetPassword("alice@example.jp", PASSWORD)), AccountMade)     # a Closing comes before the answer
    second = StorageCall(str(house.path))
    call.close()
    assert second.ask(Ping()) == Done()
    assert house.peer().ask(Ping()) == Done() and not house.server._memory.pinned
    house.server.stop()
    with pytest.raises(StorageGone):
        for _ in range(2):
            second.ask(Ping())
    second.close()
    house.end()
    house.listener.close()
    with pytest.raises(StorageGone):
        StorageCall(str(house.path))


def test_a_store_that_is_never_idle_is_tidied_too(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Purging and compaction waited for five seconds without a request, which a busy server never has."""
    pieces: list[bool] = []
    monkeypatch.setattr(house.server._engine, "housekeep", lambda now_ms, *, pinned: bool(pieces.append(pinned)))
    peer = house.peer()
    peer.ask(Ping())
    assert not pieces
    monkeypatch.setattr("fumibako.store.process.BUSY_MS", (0, 0))
    for _ in range(3):
        peer.ask(Ping())
    assert len(pieces) >= 2 and not any(pieces)
