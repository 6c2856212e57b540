"""Reliability B14: only QUIT deletes. Wherever a session breaks off, the maildrop is whole, and free for the next one."""

import asyncio

import pytest

from fumibako.model.ops import Expunge
from fumibako.proto.pop3.server import ERRORS_MAX
from fumibako.services.mailboxes import StoreUnavailable
from tests.attack.wire import Wire, conversing
from tests.support.mailhouse import MailHouse

DORA, PASSWORD = "dora@example.jp", "secret words"
COUNT = 3


@pytest.fixture
async def drop(house: MailHouse) -> MailHouse:
    """dora's maildrop with three messages, the last a big one."""
    await house.with_password(DORA, PASSWORD)
    for number in range(COUNT):
        body = b"x" * 70 + b"\r\n"
        await house.receive(DORA, message=b"Subject: %d\r\n\r\n" % number + body * (20_000 if number == COUNT - 1 else 3))
    return house


async def log_in(wire: Wire, count: int = COUNT) -> None:
    await wire.ask(b"USER dora@example.jp")
    assert await wire.ask(b"PASS secret words") == b"+OK %d messages\r\n" % count


async def left(house: MailHouse) -> int:
    """How many messages a new session finds: that it can open the maildrop at all is half the point."""
    async with conversing(house, "pop3", peer="127.0.0.1") as wire:
        await wire.ask(b"USER dora@example.jp")
        answer = await wire.ask(b"PASS secret words")
        assert answer.startswith(b"+OK "), answer
        assert (await wire.ask(b"QUIT")).startswith(b"+OK")
    assert len(await house.mailbox(DORA)) == int(answer.split()[1])
    return int(answer.split()[1])


async def test_errors_in_a_row_end_a_session(drop: MailHouse) -> None:
    """A good command in between starts the count again: a client may say something that we don't know, now and then."""
    async with conversing(drop, "pop3", peer="127.0.0.1") as wire:
        await log_in(wire)
        for _ in range(3):
            await wire.stream.write(b"JUNK\r\n" * ERRORS_MAX)
            assert (await wire.ask(b"NOOP", b"+OK\r\n")).count(b"-ERR") == ERRORS_MAX
        await wire.stream.write(b"JUNK\r\n" * 200)
        said = await wire.rest()
        assert said.count(b"-ERR") == ERRORS_MAX + 2 and said.endswith(b"-ERR Too many errors\r\n")
    assert await left(drop) == COUNT


STATES = {
    "connected": [], "named": [b"USER dora@example.jp"], "refused": [b"USER dora@example.jp", b"PASS wrong"],
    "in SASL": [b"AUTH PLAIN"], "logged in": [b"USER dora@example.jp", b"PASS secret words"],
    "read": [b"USER dora@example.jp", b"PASS secret words", b"RETR 1"],
    "marked": [b"USER dora@example.jp", b"PASS secret words", b"DELE 1", b"DELE 2", b"DELE 3"],
    "read and marked": [b"USER dora@example.jp", b"PASS secret words", b"RETR 1", b"DELE 1", b"TOP 2 1"],
    "unmarked": [b"USER dora@example.jp", b"PASS secret words", b"DELE 1", b"RSET"],
}


@pytest.mark.parametrize("state", STATES)
async def test_a_connection_that_breaks_deletes_nothing(drop: MailHouse, state: str) -> None:
    for end in (b"", b"QUI", b"QUIT", b"QUIT\r"):
        async with conversing(drop, "pop3", peer="127.0.0.1") as wire:
            for line in STATES[state]:
                await wire.ask(line)
            await wire.stream.write(end)
            wire.stream.abort()
        assert await left(drop) == COUNT, end


async def test_a_connection_that_breaks_in_the_middle_of_a_message(drop: MailHouse) -> None:
    """Marks set before and behind the message on its way go with the session."""
    async with conversing(drop, "pop3", peer="127.0.0.1") as wire:
        await log_in(wire)
        await wire.ask(b"DELE 1")
        await wire.stream.write(b"RETR 3\r\nDELE 2\r\nDELE 3\r\n")
        await wire.until(b"+OK 1")
        wire.stream.abort()
    assert await left(drop) == COUNT


async def test_quit_deletes_what_is_marked_and_no_more(drop: MailHouse) -> None:
    async with conversing(drop, "pop3", peer="127.0.0.1") as wire:
        await log_in(wire)
        for line in (b"DELE 1", b"RSET", b"DELE 2"):
            assert (await wire.ask(line)).startswith(b"+OK"), line
        for line in (b"DELE 2", b"RETR 2", b"LIST 2", b"UIDL 2", b"TOP 2 1", b"DELE 0", b"DELE 4", b"DELE 4294967297", b"DELE -1",
                     b"DELE 1_0", b"DELE 1 2", b"DELE"):
            assert (await wire.ask(line)).startswith(b"-ERR"), line
        for line, begin in ((b"STAT", b"+OK 2 "), (b"QUIT", b"+OK")):
            assert (await wire.ask(line)).startswith(begin), line
        assert await wire.rest() == b""
    assert await left(drop) == COUNT - 1


async def test_a_client_that_quits_and_leaves_at_once(drop: MailHouse) -> None:
    """QUIT was said, so it holds or it does not, as a whole: one operation for all that is marked."""
    async with conversing(drop, "pop3", peer="127.0.0.1") as wire:
        await log_in(wire)
        await wire.stream.write(b"DELE 1\r\nDELE 2\r\nQUIT\r\n")
        wire.stream.abort()
    assert await left(drop) in (COUNT, COUNT - 2)


async def test_quit_before_login_deletes_nothing(drop: MailHouse) -> None:
    async with conversing(drop, "pop3", peer="127.0.0.1") as wire:
        assert (await wire.ask(b"DELE 1")).startswith(b"-ERR")
        assert (await wire.ask(b"QUIT")).startswith(b"+OK")
    assert await left(drop) == COUNT


async def test_the_store_goes_away_at_quit(drop: MailHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """No +OK without the commit: nobody knows, so nothing is claimed."""
    commit = drop.store.commit

    async def away(operation: object) -> object:
        if isinstance(operation, Expunge):
            raise StoreUnavailable("gone")
        return await commit(operation)

    monkeypatch.setattr(drop.store, "commit", away)
    async with conversing(drop, "pop3", peer="127.0.0.1") as wire:
        await log_in(wire)
        assert (await wire.ask(b"DELE 1")).startswith(b"+OK")
        await wire.stream.write(b"QUIT\r\n")
        assert b"+OK" not in await wire.rest()
    monkeypatch.undo()
    assert await left(drop) == COUNT


async def test_two_sessions_side_by_side(drop: MailHouse) -> None:
    """The second is kept out until the first is over, and can't log in by trying often."""
    async with conversing(drop, "pop3", peer="127.0.0.1") as first:
        await log_in(first)
        await first.ask(b"DELE 1")
        for _ in range(3):
            async with conversing(drop, "pop3", peer="127.0.0.1") as second:
                await second.ask(b"USER dora@example.jp")
                assert (await second.ask(b"PASS secret words")).startswith(b"-ERR [IN-USE]")
                assert (await second.ask(b"STAT")).startswith(b"-ERR")
        assert (await first.ask(b"STAT")).startswith(b"+OK 2 ")
    assert await left(drop) == COUNT


async def test_sessions_that_race_for_the_maildrop(drop: MailHouse) -> None:
    """Twenty at once: one gets it."""
    answers: list[bytes] = []
    there = asyncio.Event()

    async def one() -> None:
        async with conversing(drop, "pop3", peer="127.0.0.1") as wire:
            await wire.ask(b"USER dora@example.jp")
            answers.append(await wire.ask(b"PASS secret words"))
            if len(answers) == 20:
                there.set()
            await there.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(one())
    assert sorted(answer[:12] for answer in answers) == [b"+OK 3 messag"] + [b"-ERR [IN-USE"] * 19
    assert await left(drop) == COUNT


ODD = [
    b"RETR 1\0", b"RETR\t1", b"USER a\0b", b"TOP 1", b"TOP 1 -1", b"TOP 1 99999999999", b"UIDL x", b"XTND XMIT", b"APOP a b", b"",
    b" ", b"RETR " + b"1" * 500, "RETR １".encode(), b"\xff\xfe", b"LIST 1 1",
]


async def test_odd_lines_are_errors_and_nothing_else(drop: MailHouse) -> None:
    async with conversing(drop, "pop3", peer="127.0.0.1") as wire:
        await log_in(wire)
        for line in ODD:
            assert (await wire.ask(line)).startswith(b"-ERR "), line
        assert (await wire.ask(b"STAT")).startswith(b"+OK 3 ")
    assert await left(drop) == COUNT
