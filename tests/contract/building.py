"""Values for tests of the store, and the two kinds of store to run them on."""

import asyncio
import hashlib
import multiprocessing
import socket
import sys
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

from fumibako.model.account import Account, PasswordRecord
from fumibako.model.ids import AccountId, TraceId
from fumibako.model.ops import (
    AccountMade,
    AddAccount,
    AddDomain,
    Append,
    Appended,
    Body,
    Deliver,
    Delivered,
    LocalRecipient,
    Placed,
)
from fumibako.net.ipc import StorageClient
from fumibako.store.base import Store, expect
from fumibako.store.local import LocalStore
from fumibako.store.process import serve_storage
from fumibako.store.remote import RemoteStore

NOW_MS = 1_750_000_000_000
PASSWORD = PasswordRecord("$argon2id$", b"salt", 4096, b"stored", b"server")
MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"


def body(octets: bytes = MESSAGE) -> Body:
    return Body(len(octets), hashlib.sha256(octets).digest(), zlib.crc32(octets), octets)


def trace(number: int) -> TraceId:
    return TraceId(number.to_bytes(16, "big"))


async def add_account(store: Store, address: str = "alice@example.jp", quota: int = 0) -> Account:
    domain = address.rpartition("@")[2]
    if await store.domain(domain) is None:
        await store.commit(AddDomain(domain))
    return expect(await store.commit(AddAccount(address, PASSWORD, quota)), AccountMade).account


async def deliver(store: Store, number: int, *accounts: AccountId, octets: bytes = MESSAGE,
                  **recipient: object) -> tuple[Placed, ...]:
    recipients = tuple(LocalRecipient(account, f"{account}@example.jp", b"X: 1\r\n", **recipient) for account in accounts)
    operation = Deliver(trace(number), body(octets), b"cache", recipients, NOW_MS)
    return expect(await store.commit(operation), Delivered).placed


async def append(store: Store, account: AccountId, mailbox: int, number: int, *flags: str, octets: bytes = MESSAGE,
                 quota: int = 0) -> Placed:
    message = Appended(body(octets), b"cache", flags, NOW_MS)
    result = await store.commit(Append(account, mailbox, trace(number), (message,), quota))
    return expect(result, Delivered).placed[0]


async def mailbox_ids(store: Store, account: AccountId) -> dict[str, int]:
    return {mailbox.name: mailbox.id for mailbox in await store.mailboxes(account)}


_forks = multiprocessing.get_context("forkserver")      # a fresh process in milliseconds
_forks.set_forkserver_preload(["fumibako.store.process", "tests.contract.building"])


def _serve(directory: Path, listener: socket.socket) -> None:
    sys.exit(serve_storage(directory, listener, lambda: NOW_MS))


@contextmanager
def storage_process(directory: Path, socket_path: Path) -> Iterator[BaseProcess]:
    """A real process that owns the directory, its clock standing still; SIGTERM at the end."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path))
        listener.listen()
        process = _forks.Process(target=_serve, args=(directory, listener))
        process.start()
    try:
        yield process
    finally:
        process.terminate()
        process.join(30)
        socket_path.unlink()


@asynccontextmanager
async def local_store(directory: Path) -> AsyncIterator[Store]:
    store = LocalStore(directory, lambda: NOW_MS)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def remote_store(directory: Path, socket_path: Path) -> AsyncIterator[Store]:
    client = StorageClient(str(socket_path))
    running = asyncio.create_task(client.run())
    await client.ready()
    store = RemoteStore(directory, client)
    try:
        yield store
    finally:
        await store.close()
        running.cancel()
        await asyncio.wait([running])
