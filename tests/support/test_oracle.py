"""The oracle is asked about answers that break a rule."""

import pytest

from fumibako.proto.imap.client import Data, Untagged
from tests.support.oracle import Believer, BrokenRule, Truth


def fetch(number: int, uid: int, modseq: int = 1, *flags: str) -> Untagged:
    items: list[Data] = ["UID", uid, "FLAGS", list(flags), "MODSEQ", [modseq]]
    return Untagged("FETCH", number, [items])


def exists(number: int) -> Untagged:
    return Untagged("EXISTS", number)


def expunge(number: int) -> Untagged:
    return Untagged("EXPUNGE", number)


BEFORE = [exists(3), fetch(1, 10, 5), fetch(2, 11, 5), fetch(3, 12, 5)]


def test_an_honest_server() -> None:
    believer = Believer(Truth())
    believer.hear("NOOP", BEFORE)
    believer.hear("NOOP", [expunge(2), exists(3), fetch(3, 13, 9, "\\Seen"), fetch(2, 12, 8)])
    assert believer.uids == [10, 12, 13] and believer.flags[13] == {"\\Seen"}
    assert believer.hear("SEARCH", [Untagged("SEARCH", None, [1, 3])]) == [1, 3]


@pytest.mark.parametrize(("command", "responses", "said"), [
    ("NOOP", [exists(2)], "EXISTS 2 after 3"),
    ("FETCH", [expunge(1)], "EXPUNGE in answer to FETCH"),
    ("NOOP", [expunge(4)], "EXPUNGE 4 of 3"),
    ("NOOP", [fetch(4, 20)], "FETCH 4 of 3"),
    ("NOOP", [fetch(2, 12, 9)], "was uid 11 and is uid 12"),
    ("NOOP", [expunge(1), exists(3), fetch(3, 10, 9)], "uid 10 came back"),
    ("NOOP", [exists(4), fetch(4, 9, 9)], "out of order"),
    ("NOOP", [fetch(1, 10, 4)], "modseq of uid 10 went from 5 to 4"),
    ("NOOP", [fetch(1, 10, 5, "\\Seen")], "uid 10 at modseq 5"),
])
def test_a_server_that_breaks_a_rule(command: str, responses: list[Untagged], said: str) -> None:
    believer = Believer(Truth())
    believer.hear("NOOP", BEFORE)
    with pytest.raises(BrokenRule, match=said):
        believer.hear(command, responses)
