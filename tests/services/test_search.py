"""Search: cheap keys first, work in slices."""

from __future__ import annotations

import asyncio
import base64
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fumibako.proto.imap.commands import STAR, All, And, HasFlag, HeaderHas, Not, Numbers, Or, SequenceSet, SizeIs, TextHas
from fumibako.services import message_text
from fumibako.services.message_access import MessageAccess
from fumibako.services.message_text import LUMP_OCTETS, PIECE_CHARACTERS
from fumibako.services.pace import TURN_UNITS, Pace, TookTooLong
from fumibako.services.search import SEARCH_S, Search, cost_of
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


# What a search may cost the others


async def stored(house: House, *messages: bytes) -> tuple[Search, Selection]:
    visit = await house.mailboxes.visit(await house.account(), lambda: None)
    appending = visit.append(await visit.find("INBOX"))
    for message in messages:
        appending.begin((), 0)
        for start in range(0, len(message), 1 << 16):
            appending.write(message[start : start + (1 << 16)])
        await appending.end()
    await appending.commit()
    selection = await visit.select("INBOX", read_only=True)
    return Search(selection, visit.messages, house.clock, {}), selection


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """[characters normalised since the others had their turn, the most there ever were]."""
    counts, fold = [0, 0], message_text.fold_text

    def counted(text: str) -> str:
        counts[0] += len(text)
        counts[1] = max(counts)
        return fold(text)

    monkeypatch.setattr(message_text, "fold_text", counted)
    return counts


async def beside(held: list[int], work: Awaitable[object]) -> tuple[object, int]:
    """The work's result, and how many turns the others had meanwhile."""
    turns = 0

    async def neighbour() -> None:
        nonlocal turns
        while True:
            turns, held[0] = turns + 1, 0
            await asyncio.sleep(0)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        task = group.create_task(neighbour())
        result = await work
        task.cancel()
    return result, turns


def text_part(octets: bytes, charset: str) -> bytes:
    encoded = base64.encodebytes(octets).replace(b"\n", b"\r\n")
    return (f"Content-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: base64\r\n\r\n".encode() + encoded)


MIB = 1 << 20
LONG = {
    "lines": text_part(b"the quick brown fox jumps\r\n" * (MIB // 27), "us-ascii"),
    "one line": text_part(b"x" * MIB, "us-ascii"),
    "Japanese, one line, cut in a character": text_part("御見積書".encode() * (MIB // 12) + b"\xe5", "utf-8"),
    "EUC that is none": text_part(b"\xff" * (MIB // 4), "euc-jp"),
    "combining characters": text_part(("a" + "\u0300\u0316" * (MIB // 16)).encode(), "utf-8"),
    "UTF-16": text_part(("御見積書" * (MIB // 8)).encode("utf-16"), "utf-16"),
    "a header": b"".join(b"X-%d: " % number + b"y" * 60 + b"\r\n" for number in range(3000)) + b"\r\n",
    "a field": b"Subject: " + b" =?utf-8?B?zIDMlsyAzJbMgMyWzIDMlsyAzJbMgMyWzIDMlsyAzJbMgMyW?=\r\n" * 3000 + b"\r\n",
}


@pytest.mark.parametrize("name", LONG)
async def test_a_long_message_holds_up_nobody(house: House, held: list[int], name: str) -> None:
    """A part without line ends was normalised as a whole, with quadratic work in what is no valid UTF-8 or all accents."""
    search, _ = await stored(house, LONG[name], b"Subject: needle\r\n\r\n")
    found, turns = await beside(held, search.run(TextHas("needle", False)))
    assert found == [1]
    assert held[1] <= TURN_UNITS + 2 * PIECE_CHARACTERS
    assert turns >= 5
    found, _ = await beside(held, search.run(Or(HeaderHas("subject", "needle"), HeaderHas("x-1", "needle"))))
    assert found == [1] and held[1] <= TURN_UNITS + 2 * PIECE_CHARACTERS


@pytest.mark.parametrize(("charset", "encoding", "unit", "word"), [
    ("utf-8", "utf-8", "御見積", "終章"), ("iso-2022-jp", "iso2022_jp", "御見積a", "終章"),
    ("shift_jis", "cp932", "御見積", "終章"), ("euc-jp", "euc_jp", "御見積", "終章"),
    ("utf-16", "utf-16", "御見積", "終章"), ("utf-16be", "utf-16-be", "御見積", "終章"),
    ("gb2312", "gb2312", "日本中 ", "国家"),
])
async def test_a_word_is_found_wherever_a_long_line_is_cut(
    house: House, charset: str, encoding: str, unit: str, word: str,
) -> None:
    """A charset of which we know nothing needs a space now and then, JIS a return to ASCII."""
    count = 2 * LUMP_OCTETS // len(unit.encode(encoding))
    for shift in range(4):
        text = "a" * shift + unit * (count // 3) + word + unit * count + word + unit * 10
        search, _ = await stored(house, text_part(text.encode(encoding), charset))
        found = await search.run(TextHas(word, True))
        assert found == list(range(len(found))) and len(found) == shift + 1, (charset, shift)


async def test_thousands_of_keys_hold_up_nobody(house: House, held: list[int]) -> None:
    """As many as a command has room for; what a sequence set costs does not grow with the mailbox."""
    _, selection = await searching(house, 300)
    messages = MessageAccess(house.store, selection.mailbox.account_id)
    everything = SequenceSet(((1, STAR),))
    programs: list[tuple[Callable[[], object], int, int]] = [
        (lambda: HasFlag("\\Seen", present=False), 2000, 150), (lambda: Numbers(everything, uid=True), 2000, 300),
        (lambda: Numbers(everything), 2000, 300), (All, 2000, 300), (lambda: SizeIs(True, 1), 200, 300),
        (lambda: HeaderHas("subject", "number"), 200, 300),
    ]
    for make, keys, count in programs:
        key = And(tuple(make() for _ in range(keys)))
        tracemalloc.start()
        found, turns = await beside(held, Search(selection, messages, house.clock, {}).run(key))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(found) == count
        assert turns >= keys * count * (10 if keys == 200 else 1) // TURN_UNITS
        assert peak < 4 * MIB, key.keys[0]


async def test_a_search_has_an_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    search, _ = await searching(house, 5)
    spend = Pace.spend

    async def slow(self: Pace, units: int) -> None:
        house.clock.advance(SEARCH_S / 4)
        await spend(self, TURN_UNITS)

    monkeypatch.setattr(Pace, "spend", slow)
    with pytest.raises(TookTooLong):
        await search.run(TextHas("number", False))
