"""A worker's side of the storage socket, against a storage process made of a script."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fumibako.app.storage import storage_thread
from fumibako.model.change import Change, Revoked
from fumibako.model.frames import (
    MAX_IN_FLIGHT,
    Answer,
    Closing,
    Failure,
    FrameBuffer,
    FromStorage,
    Hello,
    Request,
    Told,
    format_frame,
    parse_to_storage,
)
from fumibako.model.ids import AccountId
from fumibako.model.ops import Append, Appended, Body, Counted, Done, Ping, Watch
from fumibako.net.ipc import FIRST_RETRY_S, LAST_RETRY_S, Pulse, StorageClient, StorageGone
from fumibako.net.listen import Listener, bind
from fumibako.store.sqlite.engine import create
from tests.support.server import eventually

ALICE = AccountId(1)


class Storage:
    """Collects requests; answers when told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: asyncio.Queue[Request] = asyncio.Queue()
        self.writers: list[asyncio.StreamWriter] = []
        self.version = 1
        self.server: asyncio.Server | None = None

    async def start(self) -> None:
        self.server = await asyncio.start_unix_server(self.serve, self.path)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        writer.write(format_frame(Hello(self.version)))
        frames = FrameBuffer()
        while octets := await reader.read(1 << 16):
            for frame in map(parse_to_storage, frames.feed(octets)):
                if isinstance(frame, Request):
                    self.requests.put_nowait(frame)

    def send(self, *frames: FromStorage) -> None:
        self.writers[-1].write(b"".join(map(format_frame, frames)))

    async def stop(self) -> None:
        assert self.server is not None
        self.server.close()
        for writer in self.writers:
            writer.close()


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    with tempfile.TemporaryDirectory() as directory:
        storage = Storage(Path(directory) / "s")
        await storage.start()
        yield storage
        await storage.stop()


class Pauses:
    """Collects the back-offs and lets them pass when told."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.turn = asyncio.Semaphore(0)

    async def __call__(self, delay_s: float) -> None:
        self.asked.append(delay_s)
        await self.turn.acquire()


@pytest.fixture
async def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
async def client(storage: Storage, pauses: Pauses) -> AsyncIterator[StorageClient]:
    client = StorageClient(str(storage.path), pauses)
    running = asyncio.create_task(client.run())
    yield client
    await client.close()
    running.cancel()
    await asyncio.wait([running])


async def turns(number: int = 20) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_answers_find_their_operation_in_any_order(storage: Storage, client: StorageClient) -> None:
    await client.ready()
    first, second = asyncio.create_task(client.submit(Ping())), asyncio.create_task(client.submit(Ping()))
    one, two = await storage.requests.get(), await storage.requests.get()
    storage.send(Answer(two.id, Counted(2)), Answer(one.id, Counted(1)))
    assert (await first, await second) == (Counted(1), Counted(2))


async def test_a_change_is_told_before_the_answer(storage: Storage, client: StorageClient) -> None:
    await client.ready()
    told: list[Change | Revoked] = []
    client.on_notice = told.append
    task = asyncio.create_task(client.submit(Ping()))
    task.add_done_callback(lambda _: told.append(Revoked(AccountId(99))))
    request = await storage.requests.get()
    change = Change(ALICE, 1, 0)
    storage.send(Told(change), Closing(Revoked(ALICE)), Answer(request.id, Done()))
    await task
    await turns()
    assert told == [change, Revoked(ALICE), Revoked(AccountId(99))]


async def test_a_failure_is_not_an_answer(storage: Storage, client: StorageClient) -> None:
    await client.ready()
    task = asyncio.create_task(client.submit(Ping()))
    storage.send(Failure((await storage.requests.get()).id, "a bug"))
    with pytest.raises(StorageGone, match="a bug"):
        await task


async def test_a_lost_connection_fails_everything_at_once(storage: Storage, client: StorageClient, pauses: Pauses) -> None:
    await client.ready()
    watching = asyncio.create_task(client.submit(Watch(ALICE)))
    storage.send(Answer((await storage.requests.get()).id, Done()))
    await watching
    told: list[Change | Revoked] = []
    client.on_notice = told.append
    tasks = [asyncio.create_task(client.submit(Ping())) for _ in range(MAX_IN_FLIGHT + 10)]
    for _ in range(MAX_IN_FLIGHT):
        await storage.requests.get()
    storage.writers[-1].close()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, StorageGone)
    assert told == [Revoked(ALICE)]     # changes were missed: its sessions begin anew
    with pytest.raises(StorageGone, match="away"):
        await client.submit(Ping())
    assert storage.requests.empty() and pauses.asked == [FIRST_RETRY_S]
    pauses.turn.release()
    await client.ready()
    again = asyncio.create_task(client.submit(Ping()))
    storage.send(Answer((await storage.requests.get()).id, Done()))
    assert await again == Done()


async def test_back_off(tmp_path: Path, pauses: Pauses) -> None:
    client = StorageClient(str(tmp_path / "nobody"), pauses)
    running = asyncio.create_task(client.run())
    for number in range(8):
        while len(pauses.asked) <= number:
            await asyncio.sleep(0)
        pauses.turn.release()
    assert pauses.asked[:3] == [FIRST_RETRY_S, 2 * FIRST_RETRY_S, 4 * FIRST_RETRY_S]
    assert pauses.asked[-1] == LAST_RETRY_S
    running.cancel()
    await asyncio.wait([running])


async def test_no_more_than_64_operations_are_in_flight(storage: Storage, client: StorageClient) -> None:
    await client.ready()
    tasks = [asyncio.create_task(client.submit(Ping())) for _ in range(MAX_IN_FLIGHT + 2)]
    requests = [await storage.requests.get() for _ in range(MAX_IN_FLIGHT)]
    await turns()
    assert storage.requests.empty()
    tasks[-2].cancel()      # it waits for its turn: it never leaves
    await turns()
    storage.send(Answer(requests[0].id, Done()))
    last = await storage.requests.get()
    storage.send(*(Answer(request.id, Done()) for request in [*requests[1:], last]))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results.count(Done()) == MAX_IN_FLIGHT + 1 and isinstance(results[-2], asyncio.CancelledError)
    assert storage.requests.empty()


async def test_no_more_than_8_mb_are_in_flight(storage: Storage, client: StorageClient) -> None:
    await client.ready()
    large = Append(ALICE, 1, bytes(16), (Appended(Body(3 << 20, bytes(32), 0, bytes(3 << 20)), b"", (), 0),))   # type: ignore[arg-type]
    tasks = [asyncio.create_task(client.submit(large)) for _ in range(3)]
    requests = [await storage.requests.get() for _ in range(2)]
    await turns()
    assert storage.requests.empty()
    storage.send(Answer(requests[0].id, Done()))
    requests.append(await storage.requests.get())
    storage.send(*(Answer(request.id, Done()) for request in requests[1:]))
    assert await asyncio.gather(*tasks) == [Done()] * 3


async def test_a_cancelled_operation_happens_and_its_answer_is_dropped(storage: Storage, client: StorageClient) -> None:
    await client.ready()
    task = asyncio.create_task(client.submit(Ping()))
    request = await storage.requests.get()
    task.cancel()
    await asyncio.wait([task])
    other = asyncio.create_task(client.submit(Ping()))
    storage.send(Answer(request.id, Done()), Answer((await storage.requests.get()).id, Done()))
    assert await other == Done()


async def test_another_version_never_becomes_ready(storage: Storage, client: StorageClient, pauses: Pauses) -> None:
    storage.version = 2
    while not pauses.asked:
        await asyncio.sleep(0)
    with pytest.raises(StorageGone):
        await client.submit(Ping())


@pytest.mark.parametrize("octets", [b"\xff" * 8, format_frame(Answer(77, Done())), format_frame(Request(1, Ping()))])
async def test_nonsense_breaks_the_connection_off(storage: Storage, client: StorageClient, pauses: Pauses, octets: bytes) -> None:
    await client.ready()
    task = asyncio.create_task(client.submit(Ping()))
    await storage.requests.get()
    storage.writers[-1].write(octets)
    with pytest.raises(StorageGone):
        await task


def test_the_pulse_of_a_storage_process(tmp_path: Path) -> None:
    create(tmp_path, 0)
    path = tmp_path / "storage.sock"
    pulse = Pulse(str(path))
    assert not pulse.beat()         # nobody there
    (listener,) = bind(Listener("storage", (f"unix:{path}",)))
    assert not pulse.beat()         # asked, and nobody answers yet
    with storage_thread(tmp_path, listener, lambda: 0, lambda: None):
        for _ in range(3):
            eventually(pulse.beat, "an answer")
    assert not any(pulse.beat() for _ in range(3))
    pulse.close()
    listener.close()
