"""Who has his turn at the writer."""

from __future__ import annotations

import pytest

from fumibako.model.frames import Command
from fumibako.model.ids import AccountId, MailboxId, Uid
from fumibako.model.ops import Expunge, FlagMode, Ping, SetFlags
from fumibako.store.base import PIECE_UIDS
from fumibako.store.turns import BATCH, LONG_ROWS, Turns

INBOX = MailboxId(1)


def bulk(account: int, rows: int = PIECE_UIDS) -> Expunge:
    return Expunge(AccountId(account), INBOX, tuple(map(Uid, range(1, rows + 1))))


def flag(account: int, rows: int = 1) -> SetFlags:
    return SetFlags(AccountId(account), INBOX, tuple(map(Uid, range(1, rows + 1))), FlagMode.ADD, ("\\Seen",))


@pytest.fixture
def turns() -> Turns[Command]:
    return Turns(lambda waiting: waiting)


def test_what_is_short_overtakes_bulk_work_and_does_not_share_its_commit(turns: Turns[Command]) -> None:
    for waiting in (bulk(1), bulk(2), flag(3), bulk(4), flag(5)):
        turns.add(waiting)
    assert turns.take() == [flag(3), flag(5)]
    assert turns.take() == [bulk(1)]
    turns.add(flag(6))      # it came while a piece was under way: the pieces of the others wait for it
    assert turns.take() == [flag(6)]
    assert [turns.take(), turns.take(), turns.take()] == [[bulk(2)], [bulk(4)], []]
    assert len(turns) == 0


def test_bulk_work_goes_on_however_much_else_comes(turns: Turns[Command]) -> None:
    turns.add(bulk(1))
    turns.add(bulk(2))
    taken = []
    for number in range(4):
        for _ in range(BATCH + 1):
            turns.add(flag(number))
        taken.append(turns.take())
    assert [len(batch) for batch in taken] == [BATCH, 1, BATCH, 1]
    assert taken[1::2] == [[bulk(1)], [bulk(2)]]
    assert len(turns) == 2 * BATCH + 4


def test_small_pieces_share_a_commit_of_bounded_length(turns: Turns[Command]) -> None:
    small, whole = LONG_ROWS + 1, PIECE_UIDS // (LONG_ROWS + 1)
    for account in range(whole + 1):
        turns.add(bulk(account, small))
    turns.add(bulk(99, 50 * PIECE_UIDS))        # COPY and the like are never cut
    assert [len(turns.take()) for _ in range(4)] == [whole, 1, 1, 0]


def test_a_flag_of_a_few_messages_is_short(turns: Turns[Command]) -> None:
    turns.add(bulk(1))
    turns.add(flag(2, LONG_ROWS))
    assert turns.take() == [flag(2, LONG_ROWS)]


def test_only_what_is_wanted_is_taken_in_order(turns: Turns[Command]) -> None:
    for waiting in (flag(1), Ping(), bulk(2), flag(3), Ping()):
        turns.add(waiting)
    assert turns.take_short(lambda waiting: isinstance(waiting, Ping)) == [Ping(), Ping()]
    assert turns.take() == [flag(1), flag(3)]
    assert turns.take() == [bulk(2)]
