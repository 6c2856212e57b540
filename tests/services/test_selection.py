r"""A selected mailbox: sequence sets, \Recent, flags that others overtake, operations cut into pieces."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.model.mailbox import Mailbox
from fumibako.model.ops import Copied, Expunge, Expunged, FlagMode, Move, SetFlags
from fumibako.model.view import View
from fumibako.proto.imap.commands import STAR, SequenceSet
from fumibako.services.selection import Selection
from fumibako.services.views import LiveView, Tracker
from tests.support.imap_session import House

MAILBOX = Mailbox(1, 1, "INBOX", 1, 1, 1, 0, 0, 0, 0)
numbers = st.one_of(st.just(STAR), st.integers(1, 30))


def selection_of(uids: list[int], store: object = None) -> Selection:
    view = View(array("I", uids), array("Q", [0] * len(uids)), array("Q", [1] * len(uids)),
                uid_validity=1, uid_next=max(uids, default=0) + 1, highest_modseq=1)
    live = LiveView(view)
    tracker = Tracker(live, lambda: None)
    live.trackers.add(tracker)
    return Selection(store, MAILBOX, tracker, read_only=False, wants_recent=True)


@given(st.lists(st.integers(1, 30), unique=True, max_size=12).map(sorted), st.lists(st.tuples(numbers, numbers), max_size=4))
def test_uid_sets_name_what_they_name_one_by_one(uids: list[int], ranges: list[tuple[int, int]]) -> None:
    last = max(uids, default=0)
    named = set()
    for span in ranges:
        low, high = sorted(last if number == STAR else number for number in span)
        named.update(uid for uid in uids if low <= uid <= high)
    positions = selection_of(uids).positions(SequenceSet(tuple(ranges)), uid=True)
    assert [uids[at] for at in positions] == sorted(named)


@given(st.integers(0, 12), st.lists(st.tuples(numbers, numbers), max_size=4))
def test_sequence_sets(count: int, ranges: list[tuple[int, int]]) -> None:
    selection = selection_of(list(range(1, count + 1)))
    sets = SequenceSet(tuple(ranges))
    if any(number > count and not (count == 0 and STAR in span) for span in ranges for number in span):
        with pytest.raises(ValueError, match=r"\d+"):
            selection.positions(sets, uid=False)
        return
    named = set()
    for span in ranges:
        low, high = sorted(count if number == STAR else number for number in span)
        named.update(range(low, high + 1) if count else ())
    assert [at + 1 for at in selection.positions(sets, uid=False)] == sorted(named)


def test_a_set_of_everything_many_times_is_linear() -> None:
    selection = selection_of(list(range(1, 1001)))
    assert len(selection.positions(SequenceSet(((1, STAR),) * 10_000), uid=True)) == 1000


class Recorder:
    """A store that does nothing and remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    async def commit(self, operation):
        self.told.append(operation)
        match operation:
            case Move():
                first = 100 + sum(len(told.uids) for told in self.told[:-1])
                return Copied(7, operation.uids, tuple(range(first, first + len(operation.uids))), 9)
            case Expunge():
                return Expunged(operation.uids, 9)
        raise AssertionError(operation)


async def test_moves_and_expunges_are_cut() -> None:
    store = Recorder()
    uids = list(range(1, 4502))
    selection = selection_of(uids, store)
    moved = await selection.move(uids, MAILBOX)
    assert [len(told.uids) for told in store.told] == [*9 * [500], 1]
    assert moved.source_uids == tuple(uids) and moved.target_uids == tuple(range(100, 4601))
    store.told.clear()
    await selection.expunge(uids)
    assert [len(told.uids) for told in store.told] == [*9 * [500], 1]
    assert (await selection.move([], MAILBOX)).source_uids == ()


@pytest.fixture
async def house(tmp_path: Path):
    house = await House.build(tmp_path / "data")
    client = await house.login()
    await client.append("INBOX", "Subject: x\r\n\r\n")
    yield house
    await house.close()


async def test_a_change_by_others_on_top_of_ours_stays_news(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    visit = await house.mailboxes.visit(await house.account(), lambda: None)
    selection = await visit.select("INBOX", read_only=False)
    commit = house.store.commit

    async def overtaken(operation):
        done = await commit(operation)
        if isinstance(operation, SetFlags) and operation.flags == ("\\Seen",):
            await commit(SetFlags(operation.account_id, operation.mailbox_id, operation.uids, FlagMode.ADD, ("\\Flagged",)))
        return done

    monkeypatch.setattr(house.store, "commit", overtaken)
    outcome = await selection.set_flags([1], FlagMode.ADD, ("\\Seen",))
    assert outcome.changed.keys() == {1}
    assert (await selection.news(expunge=True)).changed == (1,)
    await selection.set_flags([1], FlagMode.ADD, ("\\Draft",))
    assert (await selection.news(expunge=True)).changed == ()


async def test_recent_belongs_to_one_session(house: House) -> None:
    visit = await house.mailboxes.visit(await house.account(), lambda: None)
    looking = await visit.select("INBOX", read_only=True)
    first = await visit.select("INBOX", read_only=False)
    second = await visit.select("INBOX", read_only=False)
    assert [one.recent_count for one in (looking, first, second)] == [1, 1, 0]
    visit.unselect(first)
    again = await visit.select("INBOX", read_only=False, before=first)
    assert again.recent_count == 1 and again.is_recent(1)
