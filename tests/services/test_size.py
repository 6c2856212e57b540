"""What speed rests on as mail grows, as counts: statements of a SELECT, pieces of a bulk change, rows of unused accounts."""

from __future__ import annotations

import os
import random
from array import array
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from fumibako.model.mailbox import Flag
from fumibako.model.ops import AddAccount, AddDomain, Append, Appended, Expunge, SetFlags
from fumibako.model.view import View
from fumibako.store.sqlite import reader as reader_module
from fumibako.store.sqlite.engine import Engine
from tests.contract.building import NOW_MS, PASSWORD, body
from tests.support.imap_session import House

COUNT = 4_500


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = await House.build(tmp_path / "data")
    yield house
    await house.close()


async def fill(house: House, count: int) -> None:
    account = await house.account()
    one = Appended(body(), b"", (), NOW_MS)
    await house.store.commit(Append(account.id, 1, os.urandom(16), (one,) * count))


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every statement that a reading connection runs."""
    statements: list[str] = []
    with monkeypatch.context() as patch:
        for name in ("rows", "row", "run"):
            real = getattr(reader_module.Database, name)
            patch.setattr(reader_module.Database, name,
                          lambda self, sql, *values, real=real: (statements.append(sql), real(self, sql, *values))[1])
        yield statements


async def test_select_of_a_mailbox_in_use_costs_the_same_whatever_its_size(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await house.login(), await house.login()
    costs = []
    for count in (1, COUNT):
        await fill(house, count)
        assert (await first.run("SELECT INBOX")).ok and (await second.run("SELECT INBOX")).ok
        with counted(monkeypatch) as statements:
            assert (await second.run("SELECT INBOX")).ok
        assert not [sql for sql in statements if "entry" in sql]     # no message is looked at
        costs.append(len(statements))
    assert costs[0] == costs[1] <= 5


async def test_who_selects_its_mailbox_again_reads_no_message_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(house, 10)
    client = await house.login()
    await client.run("SELECT INBOX")
    with counted(monkeypatch) as statements:
        assert (await client.run("SELECT INBOX")).ok
    assert not [sql for sql in statements if "entry" in sql]


async def test_a_view_is_read_by_pieces(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "_VIEW_ROWS", 1_000)
    await fill(house, COUNT)
    with counted(monkeypatch) as statements:
        view = await house.store.view((await house.account()).id, 1)
    assert view is not None and list(view.uids) == list(range(1, COUNT + 1)) and set(view.modseqs) == {view.highest_modseq}
    assert sum("FROM entry" in sql for sql in statements) == 6      # the last one finds nothing


async def test_bulk_changes_are_told_between_their_operations(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer waits for the sum: what a piece did has left before the next operation begins."""
    await fill(house, COUNT)
    client = await house.login()
    await client.run("SELECT INBOX")
    stream, commit = client.session._talk.stream, house.store.commit
    sent: list[tuple[type, int]] = []

    async def watched(operation: object) -> object:
        if isinstance(operation, SetFlags | Expunge):
            assert len(operation.uids) <= 500
            sent.append((type(operation), len(stream.sent)))
        return await commit(operation)      # type: ignore[arg-type]
    monkeypatch.setattr(house.store, "commit", watched)
    stored = await client.run("STORE 1:* +FLAGS (\\Deleted)")
    expunged = await client.run("EXPUNGE")
    assert sum(" FETCH " in line for line in stored.untagged) == COUNT
    assert expunged.untagged.count("* 1 EXPUNGE") == COUNT
    for kind in (SetFlags, Expunge):
        octets = [before for found, before in sent if found is kind]
        assert len(octets) == 3 and octets[0] < octets[1] < octets[2]


async def test_sequence_numbers_hold_from_piece_to_piece(house: House) -> None:
    """Every third message goes, others arrive meanwhile: what the client counts is what is there."""
    await fill(house, COUNT)
    client = await house.login()
    await client.run("SELECT INBOX")
    uids = list(range(1, COUNT + 1, 2))
    await client.run("STORE " + ",".join(map(str, uids)) + " +FLAGS.SILENT (\\Deleted)")
    await fill(house, 3)
    known = list(range(1, COUNT + 1))
    for line in (await client.run("EXPUNGE")).untagged:
        number, _, word = line[2:].partition(" ")
        if word == "EXPUNGE":
            del known[int(number) - 1]
        elif word == "EXISTS":
            known += range(COUNT + 1, COUNT + 1 + int(number) - len(known))
    assert known == [uid for uid in range(1, COUNT + 4) if uid > COUNT or not uid % 2]


def test_an_account_nobody_uses_has_no_rows_in_any_shard(tmp_path: Path) -> None:
    engine = Engine(tmp_path, now_ms=NOW_MS)
    engine.execute([AddDomain("example.jp"), *(AddAccount(f"a{number}@example.jp", PASSWORD) for number in range(100))], NOW_MS)
    engine.close()
    shard = apsw.Connection(f"file:{tmp_path}/shard-001/mail.db?mode=ro", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    tables = [name for (name,) in shard.execute("SELECT name FROM sqlite_schema WHERE type = 'table'") if name != "meta"]
    filled = [name for name in tables if not name.startswith("sqlite_")
              and shard.execute(f"SELECT 1 FROM {name} WHERE 1 LIMIT 1").fetchone() and "account_id" in str(
                  shard.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (name,)).fetchone())]
    assert "account" in tables and not filled
    assert shard.execute("SELECT count(*) FROM account").fetchone() == (0,)
    shard.close()


def test_what_is_found_by_octets_is_what_a_loop_finds() -> None:
    chance = random.Random(7)
    for count in (0, 1, 16_384, 16_385, 40_000):
        flags = array("Q", (chance.choice((Flag.SEEN, Flag.SEEN | Flag.DELETED, 1 << 62 | 1)) for _ in range(count)))
        if count > 20_000:
            flags[20_000] = Flag.DRAFT
        view = View(array("I", range(1, count + 1)), flags, array("Q", [1]) * count, uid_validity=1, uid_next=count + 1,
                    highest_modseq=1)
        assert view.first_without(Flag.SEEN) == next((at for at, word in enumerate(flags) if not word & Flag.SEEN), -1)
        assert list(view.each_with(Flag.DELETED)) == [at for at, word in enumerate(flags) if word & Flag.DELETED]
        expected = 0
        for word in flags:
            expected |= word
        assert view.any_flags() == expected
