"""The judge is judged: every fault there is, made once, is called by its name."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.ledger import (
    Entry,
    Fault,
    Found,
    Ledger,
    MailboxHistory,
    MailboxState,
    Verdicts,
    compare,
    letter_in,
    make_letter,
    read_ledger,
)

ACKED = Entry("1", "data", ("a", "b"), "sum", "250")
UNANSWERED = replace(ACKED, code="")
WHOLE = [Found("1", "a", "sum"), Found("1", "b", "sum")]


@pytest.mark.parametrize(("entry", "found", "faults"), [
    (ACKED, WHOLE, []),
    (UNANSWERED, WHOLE, []),
    (UNANSWERED, [], []),
    (ACKED, [], [Fault.LOST]),
    (ACKED, WHOLE[:1], [Fault.LOST]),
    (UNANSWERED, WHOLE[:1], [Fault.PARTIAL]),
    (ACKED, [*WHOLE, WHOLE[0]], [Fault.DUPLICATE]),
    (ACKED, [WHOLE[0], Found("1", "b", "other")], [Fault.CORRUPT]),
    (ACKED, [*WHOLE, Found("1", "c", "sum")], [Fault.PHANTOM]),
    (ACKED, [*WHOLE, Found("2", "a", "sum")], [Fault.PHANTOM]),
    (ACKED, [*WHOLE, Found("", "a", ""), Found("", "a", ""), Found("", "s", "")], [Fault.PHANTOM] * 3),
    (replace(ACKED, code="451"), WHOLE, []),
])
def test_deliveries(entry: Entry, found: list[Found], faults: list[Fault]) -> None:
    assert [fault for fault, _ in compare([entry], found).faults] == faults


NOW = MailboxState(7, 4, 20, {1: ("x", frozenset(), 10), 3: ("y", frozenset(), 20)})


@pytest.mark.parametrize(("later", "faults"), [
    (NOW, []),
    (replace(NOW, messages={}), []),
    (replace(NOW, uid_validity=8), [Fault.UID_VALIDITY]),
    (replace(NOW, uid_next=3), [Fault.UID_NEXT]),
    (replace(NOW, messages={4: ("z", frozenset(), 5)}), [Fault.UID_NEXT]),
    (replace(NOW, highest_modseq=19, messages={}), [Fault.MODSEQ]),
    (replace(NOW, messages={1: ("other", frozenset(), 10)}), [Fault.UID_REUSED]),
])
def test_a_mailbox_over_time(later: MailboxState, faults: list[Fault]) -> None:
    history, verdicts = MailboxHistory(), Verdicts()
    history.observe("m", NOW, verdicts)
    assert verdicts.faults == []
    history.observe("m", later, verdicts)
    assert [fault for fault, _ in verdicts.faults] == faults


def test_a_letter_is_known_again_behind_what_the_server_adds() -> None:
    letter = make_letter("r1-7", 5_000, random.Random(1))
    assert letter_in(b"Return-Path: <>\r\nReceived: from x\r\n by y\r\n" + letter.octets) == ("r1-7", letter.sha256)
    assert letter_in(letter.octets[:-1]) != ("r1-7", letter.sha256)
    assert letter_in(b"Subject: none\r\n\r\n") == ("", "")
    assert letter_in(b"Subject: a notice\r\n\r\n--part\r\n\r\n" + letter.octets) == ("", "")
    assert b"\r\n." in letter.octets and abs(len(letter.octets) - 5_000) < 300


def test_the_file_says_what_was_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.attempt(Entry("1", "data", ("a", "b"), "sum"))
    ledger.ack("1", "250", "ok | fine")
    ledger.attempt(Entry("2", "append", ("c",), ""))
    ledger.close()
    assert read_ledger(tmp_path / "ledger") == ledger.entries
    with (tmp_path / "ledger").open("a") as file:
        file.write("ack|2|0.1|OK")      # cut short: no line end
    assert read_ledger(tmp_path / "ledger")["2"].code == ""
