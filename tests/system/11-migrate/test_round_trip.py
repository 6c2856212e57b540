"""A whole account out of a running server and into another account of it (reliability.md, check 12)."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from fumibako.app.storage import remote_store
from fumibako.model.account import Account
from fumibako.net.clock import Clock
from fumibako.net.offload import Offload
from fumibako.store.base import Store
from tests.support.corpus import Holding, fill, holding
from tests.support.server import Place, live_server

pytestmark = pytest.mark.system
ALICE, BOB = "alice@example.jp", "bob@example.jp"


async def _fill(directory: Path, count: int) -> None:
    offload = Offload()
    async with remote_store(directory, offload) as store:
        await fill(store, Clock(), await _account(store, ALICE), count)
    offload.close()


async def _holdings(directory: Path) -> list[Holding]:
    offload = Offload()
    async with remote_store(directory, offload) as store:
        found = [await holding(store, await _account(store, address)) for address in (ALICE, BOB)]
    offload.close()
    return found


async def _account(store: Store, address: str) -> Account:
    account = await store.account(address)
    assert account is not None
    return account


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("form", ["maildir", "mbox"])
def test_octets_flags_and_dates_are_the_same(place: Place, tmp_path: Path, form: str, long: bool) -> None:
    """330 messages in INBOX, 20,000 with --long, and 16 mailboxes more; mailboxes, roles and subscriptions, too."""
    with live_server(tmp_path / "data", place) as server:
        asyncio.run(_fill(server.directory, 20_000 if long else 330))
        begun = time.monotonic()
        went = json.loads(server.say("export", ALICE, str(tmp_path / "out"), "--format", form, "--json"))
        between = time.monotonic()
        came = json.loads(server.say("import", str(tmp_path / "out"), BOB, "--json"))
        done = time.monotonic()
        theirs, ours = asyncio.run(_holdings(server.directory))
        assert server.json("check") == []
    count = sum(len(messages) for _, messages in theirs.mailboxes.values())
    print(f"12 {form}: {count} messages, out {between - begun:.1f} s, in {done - between:.1f} s")
    assert (went["messages"], went["unreadable"]) == (came["imported"], []) == (count, [])
    assert count > (20_000 if long else 700)
    assert ours == theirs
