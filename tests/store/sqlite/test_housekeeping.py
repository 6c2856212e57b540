"""What is purged, trimmed and unlinked, and when not."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fumibako.model.ids import AccountId
from fumibako.model.ops import AddAccount, Copy, Expunge, RemoveAccount, Settle
from fumibako.model.queue import OutcomeKind
from fumibako.store.check import check
from fumibako.store.sqlite.compaction import REPLACED_MS
from fumibako.store.sqlite.engine import Engine
from fumibako.store.sqlite.housekeeping import CHANGES_MS, KEYS_MS, SPOOL_MS
from fumibako.store.sqlite.mail import RECOVERABLE_MS
from fumibako.store.sqlite.reader import Reader
from fumibako.store.sqlite.unit import add_blob, release_blob
from tests.contract.building import NOW_MS, PASSWORD, body, trace
from tests.contract.test_queue import mail, outcome
from tests.store.sqlite.test_engine import ALICE, BOB, delivery, opened, spooled


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = opened(tmp_path / "data")
    yield engine
    engine.close()
    assert check(tmp_path / "data").findings == ()


@pytest.fixture
def reader(engine: Engine) -> Iterator[Reader]:
    reader = Reader(engine.directory)
    yield reader
    reader.close()


def reopened(engine: Engine) -> Engine:
    """The same directory after a restart, which seals its segments."""
    engine.close()
    return Engine(engine.directory, now_ms=NOW_MS)


def tidy(engine: Engine, now_ms: int) -> int:
    """Until nothing is left to do; how many pieces it took."""
    pieces = 0
    while engine.housekeep(now_ms):
        pieces += 1
    return pieces


def segments(engine: Engine, place: str = "shard-001/seg") -> list[str]:
    return sorted(os.listdir(engine.directory / place))


def test_an_expunged_message_stays_for_a_while(engine: Engine, reader: Reader) -> None:
    engine.execute([delivery(1, ALICE, BOB), Copy(ALICE, 1, (1,), 6), Expunge(ALICE, 1, (1,), only_deleted=False)], NOW_MS)
    engine.housekeep(NOW_MS + RECOVERABLE_MS)
    assert reader.read(ALICE, 1, 0, 3) == b"P: "         # a copy holds it
    engine.execute([Expunge(ALICE, 6, (1,), only_deleted=False)], NOW_MS)
    engine.housekeep(NOW_MS + RECOVERABLE_MS - 1)
    assert reader.read(ALICE, 1, 0, 3) == b"P: "
    engine.housekeep(NOW_MS + RECOVERABLE_MS)
    engine.housekeep(NOW_MS + RECOVERABLE_MS)
    with pytest.raises(FileNotFoundError):
        reader.read(ALICE, 1, 0, 3)
    assert reader.read(BOB, 1, 6, 9) == b"Sub" and reader.caches(BOB, [1])


def test_a_dead_segment_is_unlinked(tmp_path: Path) -> None:
    engine = opened(tmp_path / "data")
    engine.execute([delivery(1), Expunge(ALICE, 1, (1,), only_deleted=False)], NOW_MS)
    engine = reopened(engine)
    engine.housekeep(NOW_MS)
    assert segments(engine) == ["0000000001.seg"]
    assert tidy(engine, NOW_MS + RECOVERABLE_MS) == 2      # purged, marked
    gone_ms = NOW_MS + RECOVERABLE_MS + REPLACED_MS
    assert not engine.housekeep(gone_ms - 1)
    assert not engine.housekeep(gone_ms, pinned=True)
    assert segments(engine) == ["0000000001.seg"]
    assert engine.housekeep(gone_ms)
    assert segments(engine) == []
    engine.execute([delivery(2)], NOW_MS)
    assert segments(engine) == ["0000000002.seg"]       # numbers don't come back
    engine.close()
    assert check(tmp_path / "data").findings == ()


def test_a_finished_queue_item_frees_its_segment(engine: Engine) -> None:
    octets = b"x" * 300_000
    large = spooled(engine, "one", octets)
    operation = mail(1)
    engine.execute([operation.__class__(operation.trace_id, operation.envelope, b"", large, NOW_MS)], NOW_MS)
    assert len(segments(engine, "queue")) == 1
    engine.execute([Settle(1, (outcome(1, OutcomeKind.DELIVERED),))], NOW_MS)
    engine.housekeep(NOW_MS)
    engine.housekeep(NOW_MS + REPLACED_MS)
    assert segments(engine, "queue") == []


def test_old_changes_and_keys_are_forgotten(engine: Engine, reader: Reader) -> None:
    engine.execute([delivery(1), Expunge(ALICE, 1, (1,), only_deleted=False)], NOW_MS)
    engine.execute([delivery(2)], NOW_MS + CHANGES_MS)
    engine.housekeep(NOW_MS + CHANGES_MS + 1)
    assert reader.changes(ALICE, 1) is None and reader.vanished(ALICE, 1, 2) is None
    assert [change.modseq for change in reader.changes(ALICE, 3) or []] == [4]
    engine.housekeep(NOW_MS + KEYS_MS + 1)
    (result, _), = engine.execute([delivery(1)], NOW_MS)
    assert not result.placed[0].duplicate       # type: ignore[union-attr]


def test_a_removed_account_is_purged_later(engine: Engine, reader: Reader) -> None:
    engine.execute([delivery(1, ALICE, BOB), RemoveAccount("alice@example.jp")], NOW_MS)
    engine.housekeep(NOW_MS)
    engine.housekeep(NOW_MS)
    engine.housekeep(NOW_MS + RECOVERABLE_MS - 1)
    assert reader.mailboxes(ALICE)
    tidy(engine, NOW_MS + RECOVERABLE_MS)
    assert reader.mailboxes(ALICE) == [] and reader.mailboxes(BOB)[0].total == 1
    (made, _), = engine.execute([AddAccount("alice@example.jp", PASSWORD)], NOW_MS)
    assert made.account.id == AccountId(3)      # type: ignore[union-attr]


def test_forgotten_spool_files_go(engine: Engine) -> None:
    path = engine.directory / "spool" / "left"
    path.write_bytes(b"x")
    written_ms = path.stat().st_mtime_ns // 1_000_000
    engine.housekeep(written_ms + SPOOL_MS)
    assert path.exists()
    engine.housekeep(written_ms + SPOOL_MS + 1)
    assert not path.exists() and body().size_octets


def test_an_id_of_a_blob_never_comes_back(tmp_path: Path) -> None:
    seen: set[int] = set()
    for _ in range(3):
        with_mail = Engine(tmp_path, now_ms=NOW_MS)
        unit = with_mail._queue
        unit.database.run("BEGIN")
        seen.add(blob := add_blob(unit, body(), trace(1), (), 0))
        assert unit.segments is not None
        for number, own in unit.segments.unregistered:
            unit.database.run("INSERT INTO segment VALUES(?, ?, 0, ?, 0)", number, int(own), NOW_MS)
        unit.segments.flush()
        assert release_blob(unit.database, blob)
        unit.database.run("COMMIT")
        unit.segments.keep()
        with_mail.housekeep(NOW_MS)
        with_mail.close()
    assert len(seen) == 3
