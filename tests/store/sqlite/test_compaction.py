"""How a segment ends: what still lives in it moves on, unchanged; its file goes later, and not while somebody reads it."""

import logging
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fumibako.model.ids import AccountId, Uid
from fumibako.model.ops import AddHold, Append, Appended, Expunge, RemoveAccount, RemoveHold
from fumibako.store.check import check
from fumibako.store.sqlite import compaction
from fumibako.store.sqlite.compaction import PIECE_OCTETS, REPLACED_MS
from fumibako.store.sqlite.engine import Engine
from fumibako.store.sqlite.mail import RECOVERABLE_MS
from fumibako.store.sqlite.reader import Reader
from tests.contract.building import NOW_MS, body, trace
from tests.store.disks import CountingDisk, FailingDisk
from tests.store.sqlite.test_engine import ALICE, BOB, delivery, opened, spooled

LATER_MS = NOW_MS + RECOVERABLE_MS
SEGMENTS = Path("shard-001", "seg")
DELIVERED = 40


def octets_of(number: int, size: int = 4_000) -> bytes:
    return random.Random(number).randbytes(size)


def expunge(engine: Engine, *uids: int, account: AccountId = ALICE) -> None:
    engine.execute([Expunge(account, 1, tuple(map(Uid, uids)), only_deleted=False)], NOW_MS)


def filled(directory: Path, count: int = DELIVERED, size: int = 4_000) -> None:
    """One segment; uid and email id of message n are n."""
    engine = opened(directory)
    engine.execute([delivery(number, octets=octets_of(number, size)) for number in range(1, count + 1)], NOW_MS)
    engine.close()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    filled(tmp_path / "data")
    yield tmp_path / "data"
    assert check(tmp_path / "data").findings == ()


def segments(directory: Path) -> list[int]:
    return sorted(int(name.partition(".")[0]) for name in os.listdir(directory / SEGMENTS))


def housekeep(engine: Engine, now_ms: int, *, pinned: bool = False) -> int:
    """Until nothing is left to do; how many pieces it took."""
    pieces = 0
    while engine.housekeep(now_ms, pinned=pinned):
        pieces += 1
        assert pieces < 1_000
    return pieces


def held(directory: Path, numbers: range | list[int], size: int = 4_000) -> bool:
    """Every one of these messages reads as it was delivered."""
    reader = Reader(directory)
    try:
        return all(reader.read(ALICE, number, 0, 1 << 20) == b"P: 1\r\n" + octets_of(number, size) for number in numbers)
    finally:
        reader.close()


def test_more_than_half_dead_is_compacted_and_half_is_not(directory: Path) -> None:
    engine = Engine(directory, now_ms=NOW_MS)
    expunge(engine, *range(1, DELIVERED // 2 + 1))
    housekeep(engine, LATER_MS)
    assert segments(directory) == [1]
    expunge(engine, DELIVERED)
    housekeep(engine, LATER_MS)
    assert segments(directory) == [1, 2]
    kept = range(DELIVERED // 2 + 1, DELIVERED)
    assert held(directory, kept)
    assert engine._shards[1].database.row("SELECT count(*) FROM blob WHERE segment_id = 1") == (0,)
    assert engine._shards[1].database.row("SELECT count(*) FROM blob WHERE id >> 32 = 1") == (len(kept),)      # ids stay
    engine.close()
    assert check(directory).findings == ()
    engine = Engine(directory, now_ms=NOW_MS)       # seals, and cuts behind what moved there
    housekeep(engine, LATER_MS + REPLACED_MS)
    assert segments(directory) == [2] and held(directory, kept)
    assert (directory / SEGMENTS / "0000000002.seg").stat().st_size == len(kept) * (128 + 4_000)
    engine.close()


def test_a_replaced_file_stays_for_an_hour_and_while_a_backup_reads(directory: Path) -> None:
    engine = Engine(directory, now_ms=NOW_MS)
    expunge(engine, *range(2, DELIVERED + 1))
    housekeep(engine, LATER_MS, pinned=True)        # copying goes on meanwhile
    assert engine._shards[1].database.rows("SELECT id, replaced_ms FROM segment") == [(1, LATER_MS), (2, 0)]
    housekeep(engine, LATER_MS + REPLACED_MS - 1)
    housekeep(engine, LATER_MS + 10 * REPLACED_MS, pinned=True)
    assert segments(directory) == [1, 2]
    housekeep(engine, LATER_MS + REPLACED_MS)
    assert segments(directory) == [2] and held(directory, [1])
    engine.close()


def overtake(engine: Engine, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Before the reader's first look into a file all compaction is done; the segment it meant to look into."""
    real, overtaken = reader._shard(ALICE)[1].read, list[int]()

    def overtaking(number: int, offset: int, start: int, end: int) -> bytes:
        if not overtaken:
            overtaken.append(number)
            housekeep(engine, LATER_MS)
            housekeep(engine, LATER_MS + REPLACED_MS)
        return real(number, offset, start, end)

    monkeypatch.setattr(reader._shard(ALICE)[1], "read", overtaking)
    return overtaken


def test_who_holds_an_old_place_looks_it_up_once_more(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row is read, then the message moves and the old file goes, then the file is opened."""
    engine, reader = Engine(directory, now_ms=NOW_MS), Reader(directory)
    expunge(engine, *range(2, DELIVERED + 1))
    overtaken = overtake(engine, reader, monkeypatch)
    assert reader.read(ALICE, 1, 6, 4_006) == octets_of(1)
    assert overtaken == [1] and segments(directory) == [2]
    reader.close()
    engine.close()


def test_so_does_who_reads_many_at_once(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, reader = Engine(directory, now_ms=NOW_MS), Reader(directory)
    expunge(engine, *range(3, DELIVERED + 1))
    overtaken = overtake(engine, reader, monkeypatch)
    assert reader.read_many(ALICE, [(1, 6, 4_006), (2, 6, 4_006)]) == [octets_of(1), octets_of(2)]
    assert overtaken == [1]
    reader.close()
    engine.close()


def test_an_open_file_is_read_to_the_end(directory: Path) -> None:
    engine, reader = Engine(directory, now_ms=NOW_MS), Reader(directory)
    expunge(engine, *range(2, DELIVERED + 1))
    segment = reader._shard(ALICE)[1]
    assert reader.read(ALICE, 1, 6, 4_006) == octets_of(1)
    housekeep(engine, LATER_MS)
    housekeep(engine, LATER_MS + REPLACED_MS)
    assert segment.read(1, 0, 0, 4_000) == octets_of(1) and segments(directory) == [2]
    reader.close()
    engine.close()


@pytest.mark.parametrize("damage", ["body", "header", "lost"])
def test_a_damaged_segment_is_left_alone_and_named(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "data"
    filled(directory)
    path = directory / SEGMENTS / "0000000001.seg"
    octets = bytearray(path.read_bytes())
    octets[(128 + 4_000) + (200 if damage == "body" else 20)] ^= 1      # of message 2
    path.write_bytes(octets)
    engine = Engine(directory, now_ms=NOW_MS)
    expunge(engine, *range(4, DELIVERED + 1))
    if damage == "lost":
        path.unlink()
    with caplog.at_level(logging.ERROR):
        housekeep(engine, LATER_MS)
        housekeep(engine, LATER_MS)
    # A file that is not there has nothing to copy: that is for `check` to say.
    assert ["segment 1 of shard-001" in record.getMessage() for record in caplog.records] == [True] * (damage != "lost")
    assert engine._shards[1].database.row("SELECT count(*) FROM blob WHERE segment_id = 1") == (3,)
    engine.close()
    assert "damaged bodies" in {finding.kind for finding in check(directory).findings}
    if damage != "lost":
        assert held(directory, [1, 3])
        engine = Engine(directory, now_ms=NOW_MS)
        expunge(engine, 1, 2, 3)        # once nothing lives in it, it goes as any other
        housekeep(engine, LATER_MS)
        housekeep(engine, LATER_MS + REPLACED_MS)
        assert segments(directory) == []
        engine.close()


def test_pieces_are_small_and_the_work_goes_on_after_a_restart(tmp_path: Path) -> None:
    directory, count, size = tmp_path / "data", 90, 200_000
    filled(directory, count, size)
    disk = CountingDisk()
    engine = Engine(directory, disk, NOW_MS)
    kept = list(range(1, count + 1))[::3]
    expunge(engine, *(number for number in range(1, count + 1) if number not in kept))
    assert engine.housekeep(LATER_MS)
    disk.counts.clear()
    assert engine.housekeep(LATER_MS)
    assert PIECE_OCTETS <= disk.counts["segment octets"] < 3 * PIECE_OCTETS + size      # zero-filling ahead included
    assert (disk.counts["segment sync"], disk.counts["database sync"]) == (1, 1)
    engine.close()
    assert check(directory).findings == () and held(directory, kept, size)
    engine = Engine(directory, now_ms=NOW_MS)
    housekeep(engine, LATER_MS)
    housekeep(engine, LATER_MS + REPLACED_MS)
    assert 1 not in segments(directory) and held(directory, kept, size)
    engine.close()
    assert check(directory).findings == ()


def test_moved_records_move_again(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    filled(directory)
    for round_ in range(3):
        engine = Engine(directory, now_ms=NOW_MS)
        expunge(engine, *range(4 * round_ + 1, 4 * round_ + 4))
        if not round_:
            expunge(engine, *range(13, DELIVERED + 1))
        housekeep(engine, LATER_MS)
        housekeep(engine, LATER_MS + REPLACED_MS)
        engine.close()
        assert check(directory).findings == ()
        assert held(directory, [number for number in range(1, 13) if number > 4 * round_ + 3 or number % 4 == 0])
    assert len(segments(directory)) == 1


def test_nothing_is_copied_on_a_disk_that_is_nearly_full(directory: Path) -> None:
    disk = FailingDisk()
    engine = Engine(directory, disk, NOW_MS)
    expunge(engine, *range(2, DELIVERED + 1))
    disk.free = 1_000
    housekeep(engine, LATER_MS)
    assert segments(directory) == [1]
    disk.free = -1
    housekeep(engine, LATER_MS)     # those behind the first had their turn
    housekeep(engine, LATER_MS)
    assert segments(directory) == [1, 2]
    engine.close()


def test_many_segments_are_looked_at_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "_SEGMENTS", 2)
    engine = opened(tmp_path / "data")
    for number in range(1, 8):
        large = spooled(engine, f"body-{number}", octets_of(number, 300_000))
        engine.execute([Append(ALICE, 1, trace(number), (Appended(large, b"", (), NOW_MS),))], NOW_MS)
    expunge(engine, 1, 3, 7)
    for _ in range(6):
        engine.housekeep(LATER_MS)
    assert engine._shards[1].database.rows("SELECT id FROM segment WHERE replaced_ms > 0") == [(1,), (3,), (7,)]
    for _ in range(6):
        engine.housekeep(LATER_MS + REPLACED_MS)
    assert segments(tmp_path / "data") == [2, 4, 5, 6]
    engine.close()
    assert check(tmp_path / "data").findings == ()


def test_a_hold_keeps_what_was_expunged_and_a_removed_account(directory: Path) -> None:
    engine = Engine(directory, now_ms=NOW_MS)
    engine.execute([delivery(100, BOB, octets=octets_of(100))], NOW_MS)
    engine.execute([AddHold("alice@example.jp", "case 7"), AddHold("bob@example.jp")], NOW_MS)
    expunge(engine, *range(1, DELIVERED + 1))
    engine.execute([RemoveAccount("bob@example.jp")], NOW_MS)
    housekeep(engine, NOW_MS)
    housekeep(engine, LATER_MS + 100 * RECOVERABLE_MS)
    emails = "SELECT count(*) FROM email WHERE account_id = ?"
    assert [engine._shards[1].database.row(emails, one)[0] for one in (ALICE, BOB)] == [DELIVERED, 1]
    assert held(directory, range(1, DELIVERED + 1))
    engine.execute([RemoveHold("alice@example.jp"), RemoveHold("bob@example.jp")], NOW_MS)
    housekeep(engine, LATER_MS)
    assert [engine._shards[1].database.row(emails, one)[0] for one in (ALICE, BOB)] == [0, 0]
    engine.close()


def disk_octets(directory: Path) -> int:
    """What bodies take: du of seg/ and spool/."""
    paths = [path for place in (SEGMENTS, Path("spool"), Path("queue")) for path in (directory / place).iterdir()]
    return sum(path.stat().st_blocks * 512 for path in paths)


@pytest.mark.parametrize("keep", [0, 1, 2], ids=["none kept", "a third kept", "half kept"])
def test_the_disk_returns_to_its_baseline(tmp_path: Path, keep: int) -> None:
    """Mail of all sizes arrives and is expunged; what was kept is there, octet by octet."""
    engine, chance, sizes = opened(tmp_path / "data"), random.Random(7), {}
    segments = engine._shards[1].segments
    assert segments is not None
    segments.limit_octets = limit = 1 << 20
    baseline = disk_octets(tmp_path / "data")
    for number in range(1, 401):
        sizes[number] = size = chance.choice((300, 2_000, 9_000, 40_000, 120_000, 300_000))
        octets = octets_of(number, size)
        content = spooled(engine, f"body-{number}", octets) if size > 256 * 1024 else body(octets)
        engine.execute([Append(ALICE, 1, trace(number), (Appended(content, b"", (), NOW_MS),))], NOW_MS)
    full = disk_octets(tmp_path / "data")
    kept = {0: [], 1: [number for number in sizes if number % 3 == 0], 2: [number for number in sizes if number > 200]}[keep]
    expunge(engine, *(number for number in sizes if number not in kept))
    for now_ms in (NOW_MS, LATER_MS, LATER_MS + REPLACED_MS, LATER_MS + 2 * REPLACED_MS):
        housekeep(engine, now_ms)
    needed = baseline + sum(sizes[number] + 4_096 for number in kept)
    after = disk_octets(tmp_path / "data")
    # Up to half of a segment may be dead before it is worth the copying, and one is being filled.
    assert after <= needed + sum(sizes[number] for number in kept if sizes[number] < 256 * 1024) + limit + 8_192
    assert after < full * (0.1, 0.55, 0.65)[keep]
    reader = Reader(tmp_path / "data")
    assert all(reader.read(ALICE, number, 0, 1 << 20) == octets_of(number, sizes[number]) for number in kept)
    reader.close()
    engine.close()
    assert check(tmp_path / "data").findings == ()
