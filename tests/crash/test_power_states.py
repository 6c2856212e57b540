"""The states that a log allows, on a log of four writes: what was flushed is in all of them, of the rest any part."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.power_log import DISCARD, FLUSH, RECORD, WRITE
from tests.crash.power_states import PAGE, SECTOR, Builder, DiskLog, State, all_states

A, B, C = (bytes([value]) * PAGE for value in b"abc")
ACK = 2 * (RECORD.size + PAGE) + RECORD.size + RECORD.size + PAGE     # behind the third write


@pytest.fixture
def log(tmp_path: Path) -> Iterator[DiskLog]:
    """Writes a and b, a flush, c over a, zeros over b, a flush."""
    def write(page: int, octets: bytes) -> bytes:
        return RECORD.pack(WRITE, page * PAGE, len(octets)) + octets

    flush = RECORD.pack(FLUSH, 0, 0)
    octets = write(0, A) + write(1, B) + flush + write(0, C) + RECORD.pack(DISCARD, PAGE, PAGE) + flush
    (tmp_path / "log").write_bytes(octets)
    found = DiskLog(tmp_path / "log", len(octets))
    yield found
    found.close()


def image(log: DiskLog, tmp_path: Path, state: State) -> tuple[bytes, bytes]:
    (tmp_path / "blank").write_bytes(bytes(2 * PAGE))
    builder = Builder(log, tmp_path / "blank", tmp_path / "image")
    builder.build(state)
    octets = (tmp_path / "image").read_bytes()
    return octets[:PAGE], octets[PAGE:]


def test_the_worst_case_holds_what_was_flushed_and_nothing_else(log: DiskLog, tmp_path: Path) -> None:
    worst = [state for state in all_states(log, 0, [ACK], 0, random.Random(1)) if state.kind == "worst"]
    assert [image(log, tmp_path, state) for state in worst] == [(bytes(PAGE), bytes(PAGE)), (A, B), (C, bytes(PAGE))]


def test_the_worst_case_answers_for_every_reply_before_the_next_flush(log: DiskLog) -> None:
    worst = {state.epoch: state for state in all_states(log, 0, [ACK], 0, random.Random(1)) if state.kind == "worst"}
    assert worst[1].written < ACK <= worst[1].cut
    assert worst[0].cut < ACK


def test_at_a_reply_only_what_was_written_by_then_may_be_kept(log: DiskLog, tmp_path: Path) -> None:
    pages = {image(log, tmp_path, state) for seed in range(30) for state in all_states(log, ACK, [ACK], 3, random.Random(seed))
             if state.at == "ack" and state.kind != "torn"}
    assert pages == {(A, B), (C, B)}


def test_a_torn_write_ends_at_a_sector(log: DiskLog, tmp_path: Path) -> None:
    torn = [image(log, tmp_path, state)[0] for seed in range(30) for state in all_states(log, ACK, [ACK], 0, random.Random(seed))
            if state.at == "ack" and state.kind == "torn"]
    lengths = {octets.count(b"c") for octets in torn}
    assert len(lengths) > 3
    assert all(length % SECTOR == 0 and length < PAGE for length in lengths)
    assert all(octets == (C[:octets.count(b"c")] + A)[:PAGE] for octets in torn)
