"""Views: in place for flags and arrivals, a new generation for an expunge, and what a tracker tells of it."""

from __future__ import annotations

import asyncio
import logging
from array import array
from pathlib import Path

import pytest

from fumibako.model.change import Arrived, FlagsChanged
from fumibako.model.mailbox import Flag
from fumibako.model.ops import Append, Appended, Expunge, FlagMode, Ping, SetFlags, Watch
from fumibako.model.view import View
from fumibako.proto.message.cache import pack_index
from fumibako.proto.message.index import Indexer
from fumibako.services.views import LiveView, News, Tracker, Views, recent_count
from tests.support.imap_session import House


def view(*uids: int) -> View:
    return View(array("I", uids), array("Q", [0] * len(uids)), array("Q", [1] * len(uids)),
                uid_validity=1, uid_next=max(uids, default=0) + 1, highest_modseq=1)


def track(live: LiveView) -> Tracker:
    tracker = Tracker(live, lambda: None)
    live.trackers.add(tracker)
    return tracker


def arrive(live: LiveView, uid: int) -> None:
    live.arrive([Arrived(1, uid, uid, 0)], 2)


def test_arrivals_and_flags_are_in_place() -> None:
    live = LiveView(view(1, 2))
    tracker = track(live)
    arrive(live, 3)
    live.set_flags(FlagsChanged(1, (2, 3), (Flag.SEEN, Flag.SEEN)), 3)
    assert tracker.view is live.view and list(live.view.flags) == [0, Flag.SEEN, Flag.SEEN]
    # The client hears of message 3 first; what flags it has it asks then.
    assert tracker.take(expunge=False) == News((), 3, (2,))
    assert tracker.take(expunge=True) == News()


def test_an_expunge_waits_until_it_may_be_told() -> None:
    live = LiveView(view(1, 2, 3, 4, 5))
    early, late = track(live), track(live)
    live.expunge([2, 4])
    arrive(live, 6)
    assert early.take(expunge=True) == News((2, 3), 4, ())
    assert late.take(expunge=False) == News((), 6, ())
    assert list(late.view.uids) == [1, 2, 3, 4, 5, 6] and list(early.view.uids) == [1, 3, 5, 6]
    live.expunge([6])
    live.set_flags(FlagsChanged(1, (5,), (1,)), 4)
    assert late.view.flags[4] == 1
    assert late.take(expunge=True) == News((2, 3, 4), None, (5,))
    assert early.take(expunge=True) == News((4,), None, (5,))
    assert live._gone == []


def test_a_message_that_came_and_went_unseen_is_never_told() -> None:
    live = LiveView(view(1))
    tracker = track(live)
    arrive(live, 2)
    live.expunge([2])
    arrive(live, 3)
    assert tracker.take(expunge=True) == News((), 2, ())
    assert list(tracker.view.uids) == [1, 3]


def test_changes_that_come_twice_do_no_harm() -> None:
    live = LiveView(view(1, 2))
    arrive(live, 2)
    live.expunge([9])
    assert list(live.view.uids) == [1, 2] and live.view.generation == 0


def test_recent_spans() -> None:
    assert recent_count(array("I", [1, 5, 6, 9]), [(1, 2), (6, 20)], 4) == 3


@pytest.fixture
async def house(tmp_path: Path):
    house = await House.build(tmp_path / "data")
    yield house
    await house.close()


async def append(house: House, mailbox_id: int, flags: tuple[str, ...] = ()) -> None:
    writer = house.store.body_writer()
    writer.write(b"Subject: x\r\n\r\n")
    indexer = Indexer()
    indexer.feed(b"Subject: x\r\n\r\n")
    trace_id = house.clock.trace_id()
    message = Appended(await writer.finish(trace_id), pack_index(indexer.close()), flags, 0)
    await house.store.commit(Append((await house.account()).id, mailbox_id, trace_id, (message,)))


async def test_a_view_is_shared_followed_and_dropped(house: House) -> None:
    account = await house.account()
    views = house.mailboxes.views
    one = await views.enter(account.id, lambda: None)
    two = await views.enter(account.id, lambda: None)
    inbox = (await house.store.mailboxes(account.id))[0]
    first, second = await one.track(inbox.id), await two.track(inbox.id)
    assert first is not None and second is not None and first.live is second.live
    await append(house, inbox.id, ("word",))
    await house.store.commit(SetFlags(account.id, inbox.id, (1,), FlagMode.ADD, ("\\Seen",)))
    fresh = await house.store.view(account.id, inbox.id)
    assert fresh is not None
    for name in ("uids", "flags", "modseqs", "uid_next", "highest_modseq"):
        assert getattr(first.view, name) == getattr(fresh, name)
    assert one.keywords == await house.store.keywords(account.id) and "word" in one.keywords.values()
    await house.store.commit(Expunge(account.id, inbox.id, (1,), only_deleted=False))
    assert first.take(expunge=True).exists is None and len(first.view) == 0
    one.untrack(inbox.id, first)
    two.untrack(inbox.id, second)
    assert one.account.live == {}
    await one.end()
    assert views._accounts != {}
    await two.end()
    assert views._accounts == {}


async def test_watching_begins_and_ends_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    account, told = await house.account(), []
    commit = house.store.commit

    async def counted(operation):
        if isinstance(operation, Watch):
            told.append(operation.on)
        return await commit(operation)

    monkeypatch.setattr(house.store, "commit", counted)
    async with asyncio.TaskGroup() as group:
        stays = [group.create_task(house.mailboxes.views.enter(account.id, lambda: None)) for _ in range(3)]
    async with asyncio.TaskGroup() as group:
        for stay in stays:
            group.create_task(stay.result().end())
    assert told == [True, False]


async def test_a_wrong_view_is_loaded_again_and_logged(house: House, caplog: pytest.LogCaptureFixture) -> None:
    account = await house.account()
    stay = await house.mailboxes.views.enter(account.id, lambda: None)
    inbox = (await house.store.mailboxes(account.id))[0]
    await append(house, inbox.id)
    first = await stay.track(inbox.id)
    assert first is not None
    del first.view.uids[0], first.view.flags[0], first.view.modseqs[0]      # a bug somewhere
    with caplog.at_level(logging.ERROR):
        second = await stay.track(inbox.id)
    assert "differs from its row" in caplog.text
    assert second is not None and list(second.view.uids) == [1] and first.live.wrong and not second.live.wrong


async def test_changes_while_a_view_is_loading_are_not_lost(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await house.account()
    stay = await house.mailboxes.views.enter(account.id, lambda: None)
    inbox = (await house.store.mailboxes(account.id))[0]
    read = house.store.view

    async def slow(account_id, mailbox_id):
        loaded = await read(account_id, mailbox_id)
        await append(house, inbox.id)       # committed and told after the snapshot was read
        return loaded

    monkeypatch.setattr(house.store, "view", slow)
    tracker = await stay.track(inbox.id)
    assert tracker is not None and list(tracker.view.uids) == [1]


async def test_a_change_on_its_way_is_waited_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker's delivery was answered; its change waits in this worker's socket until storage answers something."""
    account = await house.account()
    stay = await house.mailboxes.views.enter(account.id, lambda: None)
    inbox = (await house.store.mailboxes(account.id))[0]
    tracker = await stay.track(inbox.id)
    assert tracker is not None
    commit, tell, on_their_way, pings = house.store.commit, house.store._tell, [], 0

    async def answered(operation):
        nonlocal pings
        if isinstance(operation, Ping):
            pings += 1
            while on_their_way:
                tell(on_their_way.pop(0))
        return await commit(operation)

    monkeypatch.setattr(house.store, "commit", answered)
    monkeypatch.setattr(house.store, "_tell", on_their_way.append)
    await append(house, inbox.id)
    assert not tracker.has_news
    await stay.catch_up()
    assert tracker.take(expunge=False).exists == 1
    before = pings
    await stay.catch_up()
    assert pings == before      # nothing new: one row was read


def test_closing_stops_listening() -> None:
    class Deaf:
        listening = False

        def listen(self, listener):
            self.listening = True
            return lambda: setattr(self, "listening", False)

    store = Deaf()
    Views(store).close()
    assert not store.listening
