"""Search: cheap keys first, work in slices."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fumibako.proto.imap.commands import All, And, HasFlag, HeaderHas, Not, Numbers, Or, SequenceSet, SizeIs, TextHas
from fumibako.services.search import Search, cost_of
from fumibako.services.selection import Selection
from tests.support.imap_session import House


@pytest.mark.parametrize(("key", "cost"), [
    (All(), 0), (And((HasFlag("\\Seen"), TextHas("x", True))), 3), (Or(SizeIs(True, 1), All()), 1),
    (Not(HeaderHas("to", "x")), 2), (And(()), 0),
])
def test_costs(key, cost: int) -> None:
    assert cost_of(key) == cost


@pytest.fixture
async def house(tmp_path: Path):
    house = await House.build(tmp_path / "data")
    yield house
    await house.close()


async def searching(house: House, count: int) -> tuple[Search, Selection]:
    visit = await house.mailboxes.visit(await house.account(), lambda: None)
    appending = visit.append(await visit.find("INBOX"))
    for number in range(count):
        appending.begin(("\\Seen",) if number % 2 else (), 0)
        appending.write(b"Subject: number %d\r\n\r\nbody %d\r\n" % (number, number))
        await appending.end()
    await appending.commit()
    selection = await visit.select("INBOX", read_only=True)
    return Search(selection, visit.messages, house.clock, visit.keywords), selection


async def test_octets_are_read_only_of_what_cheaper_keys_left(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    search, _ = await searching(house, 10)
    reads, read = [], house.store.read

    async def counted(account_id, email_id, start, end):
        reads.append(email_id)
        return await read(account_id, email_id, start, end)

    monkeypatch.setattr(house.store, "read", counted)
    key = And((TextHas("body 4", True), Not(HasFlag("\\Seen")), Numbers(SequenceSet(((3, 6),)))))
    assert await search.run(key) == [4]
    assert set(reads) == {3, 5}


async def test_the_event_loop_runs_between_slices(house: House) -> None:
    search, _ = await searching(house, 1100)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        counting = group.create_task(count_turns())
        assert len(await search.run(HeaderHas("subject", "number"))) == 1100
        counting.cancel()
    assert turns >= 3


async def test_a_sequence_number_that_is_not_there(house: House) -> None:
    search, _ = await searching(house, 2)
    with pytest.raises(ValueError, match="7"):
        await search.run(Numbers(SequenceSet(((7, 7),))))
    assert await search.run(Numbers(SequenceSet(((7, 7),)), uid=True)) == []


async def test_a_word_broken_over_two_lines_is_found(house: House) -> None:
    visit = await house.mailboxes.visit(await house.account(), lambda: None)
    appending = visit.append(await visit.find("INBOX"))
    appending.begin((), 0)
    appending.write("Content-Type: text/plain; charset=utf-8\r\n\r\n御見\r\n積書を\r\n".encode())
    filler = "あいうえお" * 12 + "\r\n"
    appending.write((filler * 3000 + "終わりの言葉\r\n").encode())
    await appending.end()
    await appending.commit()
    selection = await visit.select("INBOX", read_only=True)
    for needle, found in (("見積書", [0]), ("終わりの言葉", [0]), ("無い言葉", [])):
        assert await Search(selection, visit.messages, house.clock, {}).run(TextHas(needle, True)) == found
