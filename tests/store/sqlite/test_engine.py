"""The writer: batches, durability, faults, recovery; and the counts that speed rests on."""

import errno
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fumibako.model.account import AccountStatus
from fumibako.model.change import Change
from fumibako.model.ids import AccountId
from fumibako.model.ops import (
    AddAccount,
    AddDomain,
    Append,
    Appended,
    Body,
    Counted,
    Deliver,
    Delivered,
    DrainOutbox,
    Enqueue,
    LocalRecipient,
    OpenAccount,
    Outgoing,
    Refusal,
    Refused,
    SetFlags,
    Threading,
)
from fumibako.store.base import INLINE_OCTETS, StoreUnavailable
from fumibako.store.check import check
from fumibako.store.disk import DiskIO
from fumibako.store.segment import HEADER_OCTETS, segment_numbers
from fumibako.store.sqlite import engine as engine_module
from fumibako.store.sqlite.engine import DirectoryInUse, Engine, EngineFailed, create
from fumibako.store.sqlite.reader import Reader
from fumibako.store.sqlite.unit import add_blob, pack
from tests.contract.building import MESSAGE, NOW_MS, PASSWORD, body, trace
from tests.contract.test_queue import mail
from tests.store.disks import CountingDisk, FailingDisk

ALICE, BOB = AccountId(1), AccountId(2)


def opened(directory: Path, disk: DiskIO | None = None) -> Engine:
    """An engine with the accounts 1 and 2."""
    engine = Engine(directory, disk, NOW_MS)
    accounts = [AddAccount(f"{name}@example.jp", PASSWORD) for name in ("alice", "bob")]
    engine.execute([AddDomain("example.jp"), *accounts, OpenAccount(ALICE), OpenAccount(BOB)], NOW_MS)
    return engine


@pytest.fixture
def disk() -> FailingDisk:
    return FailingDisk()


@pytest.fixture
def engine(tmp_path: Path, disk: FailingDisk) -> Iterator[Engine]:
    engine = opened(tmp_path / "data", disk)
    yield engine
    engine.close()


def delivery(number: int, *accounts: AccountId, octets: bytes = MESSAGE, quota: int = 0) -> Deliver:
    recipients = tuple(LocalRecipient(one, f"{one}@x", b"P: 1\r\n", quota_limit_octets=quota) for one in accounts or (ALICE,))
    return Deliver(trace(number), body(octets), b"c" * 700, recipients, NOW_MS, Threading(number, (number + 1000,), 1))


def spooled(engine: Engine, name: str, octets: bytes) -> Body:
    (engine.directory / "spool" / name).write_bytes(bytes(HEADER_OCTETS) + octets)
    whole = body(octets)
    return Body(whole.size_octets, whole.sha256, whole.crc32, spool=name)


def total(engine: Engine) -> int:
    reader = Reader(engine.directory)
    found = sum(box.total for account in (ALICE, BOB) for box in reader.mailboxes(account))
    reader.close()
    return found


def test_only_one_holds_the_directory(engine: Engine) -> None:
    with pytest.raises(DirectoryInUse, match="in use"):
        Engine(engine.directory)


def test_create_is_idempotent_and_private(tmp_path: Path) -> None:
    create(tmp_path / "data", NOW_MS)
    create(tmp_path / "data", NOW_MS)
    found = [path for path in (tmp_path / "data").rglob("*")] + [tmp_path / "data"]
    assert {path.name for path in found} >= {"control.db", "queue.db", "queue", "spool", "shard-001", "mail.db", "seg"}
    assert {path.stat().st_mode & 0o777 for path in found} == {0o700, 0o600}


def test_a_batch_answers_in_order_and_refuses_one_by_one(engine: Engine) -> None:
    batch = [delivery(1), OpenAccount(AccountId(99)), delivery(2, quota=5), delivery(3, BOB), AddDomain("example.jp")]
    results = [result for result, _ in engine.execute(batch, NOW_MS)]
    assert [result.refusal if isinstance(result, Refused) else type(result) for result in results] == [
        Delivered, Refusal.NO_SUCH_ACCOUNT, Refusal.OVER_QUOTA, Delivered, Refusal.EXISTS]
    assert total(engine) == 2
    segment, = (engine.directory / "shard-001" / "seg").iterdir()
    assert segment.read_bytes().rstrip(b"\0").count(MESSAGE) == 2       # what was refused left no record


def test_notices_are_those_of_the_operation(engine: Engine) -> None:
    outcomes = engine.execute([delivery(1, ALICE, BOB), delivery(2, BOB)], NOW_MS)
    assert [[change.account_id for change in notices if isinstance(change, Change)] for _, notices in outcomes] == [[1, 2], [2]]


def test_a_bug_hurts_only_its_operation(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    real = engine_module._EXECUTORS[SetFlags]

    def broken(*arguments: object) -> object:
        real(*arguments)        # type: ignore[arg-type]
        raise ZeroDivisionError("a bug")
    monkeypatch.setitem(engine_module._EXECUTORS, SetFlags, broken)
    from fumibako.model.ops import FlagMode
    outcomes = engine.execute([delivery(1), SetFlags(ALICE, 1, (1,), FlagMode.ADD, ("\\Seen",)), delivery(2)], NOW_MS)
    assert isinstance(outcomes[1][0], StoreUnavailable)
    reader = Reader(engine.directory)
    view = reader.view(ALICE, 1)
    assert view is not None and list(view.flags) == [0, 0]
    reader.close()


def test_recipients_of_two_shards_are_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "SHARD_ACCOUNTS", 2)
    (made, _), = engine.execute([AddAccount("carol@example.jp", PASSWORD)], NOW_MS)
    assert made.account.shard == 2      # type: ignore[union-attr]
    (result, _), = engine.execute([delivery(1, ALICE, AccountId(3))], NOW_MS)
    assert isinstance(result, Refused) and result.refusal is Refusal.NOT_ALLOWED
    engine.execute([delivery(2, AccountId(3))], NOW_MS)
    reader = Reader(engine.directory)
    assert reader.read(AccountId(3), 1, 0, 99) == b"P: 1\r\n" + MESSAGE
    reader.close()
    assert check(engine.directory).findings == ()


def test_a_shard_is_full_by_its_size_too(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "SHARD_OCTETS", 1)
    made = [engine.execute([AddAccount(f"{name}@example.jp", PASSWORD)], NOW_MS)[0][0] for name in ("carol", "dave")]
    assert [one.account.shard for one in made] == [2, 3]        # type: ignore[union-attr]
    assert check(engine.directory).findings == ()


# -- counts --


def test_fsyncs_of_a_batch(tmp_path: Path) -> None:
    """One for the segment and one for the WAL, whether one message or 64 are delivered; none besides."""
    disk = CountingDisk()
    engine = opened(tmp_path / "data", disk)
    engine.execute([delivery(1)], NOW_MS)       # the first makes the segment's file
    for first, size in ((100, 1), (200, 64)):
        disk.counts.clear()
        engine.execute([delivery(first + place) for place in range(size)], NOW_MS)
        assert (disk.counts["segment sync"], disk.counts["database sync"], disk.counts["directory sync"]) == (1, 1, 0)
        assert disk.counts["write"] <= 2        # the records in one piece, and zeros ahead now and then
    disk.counts.clear()
    engine.execute([mail(500), mail(501), delivery(502)], NOW_MS)
    assert disk.counts["database sync"] == 2
    engine.close()


def test_statements_and_b_trees_of_a_delivery(engine: Engine) -> None:
    engine.execute([delivery(1)], NOW_MS)
    database = engine._shards[1].database
    statements: list[str] = []
    database.connection.exec_trace = lambda cursor, sql, bindings: statements.append(sql) or True     # type: ignore[func-returns-value]
    engine.execute([delivery(2)], NOW_MS)
    database.connection.exec_trace = None
    assert len(statements) <= 20, "\n".join(statements)
    written = Counter(sql.split()[2 if sql.startswith("INSERT INTO") else 1].partition("(")[0] for sql in statements
                      if sql.startswith(("INSERT INTO", "UPDATE")))
    assert set(written) == {"delivered", "blob", "email_cache", "email", "entry", "mailbox", "account", "change"}
    assert sum(sql.startswith("INSERT OR IGNORE INTO thread_ref") for sql in statements) == 2


def test_octets_of_a_delivery(tmp_path: Path) -> None:
    """A fan-out stores its body once; alone a delivery rewrites a page of each of its tables, in a batch they share them."""
    disk = CountingDisk()
    engine = opened(tmp_path / "data", disk)
    engine.execute([delivery(1, ALICE, BOB)], NOW_MS)

    def cost(batch: list[Deliver]) -> Counter[str]:
        disk.counts.clear()
        assert all(isinstance(result, Delivered) for result, _ in engine.execute(batch, NOW_MS))
        return Counter(disk.counts)

    alone, fan_out = cost([delivery(2)]), cost([delivery(3, ALICE, BOB)])
    assert alone["segment octets"] == fan_out["segment octets"] == HEADER_OCTETS + len(MESSAGE)
    assert alone["database octets"] <= 20 * 4120
    assert cost([delivery(100 + place) for place in range(64)])["database octets"] / 64 <= alone["database octets"] / 8
    engine.close()


# -- faults --


def test_a_nearly_full_disk_refuses_bodies_only(engine: Engine, disk: FailingDisk) -> None:
    engine.execute([delivery(1)], NOW_MS)
    disk.free = 63 * 1024 * 1024
    from fumibako.model.ops import FlagMode
    outcomes = engine.execute([delivery(2), mail(3), SetFlags(ALICE, 1, (1,), FlagMode.ADD, ("\\Seen",))], NOW_MS)
    assert [result.refusal if isinstance(result, Refused) else type(result).__name__ for result, _ in outcomes] == [
        Refusal.DISK_FULL, Refusal.DISK_FULL, "FlagsSet"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_fails_the_batch_and_nothing_else(engine: Engine, disk: FailingDisk, code: int) -> None:
    engine.execute([delivery(1)], NOW_MS)
    disk.fail, disk.code = "pwrite", code
    outcomes = engine.execute([delivery(2), AddDomain("still.example"), delivery(3, quota=1)], NOW_MS)
    assert [result.refusal if isinstance(result, Refused) else type(result).__name__ for result, _ in outcomes] == [
        Refusal.DISK_FULL, "DomainMade", Refusal.DISK_FULL]     # what the last one was refused for is undone too
    assert total(engine) == 1
    disk.fail = ""
    (result, notices), = engine.execute([delivery(2)], NOW_MS)
    assert isinstance(result, Delivered) and (result.placed[0].uid, len(notices)) == (2, 1)
    assert check(engine.directory).findings == ()


def test_a_full_database_fails_its_batch(engine: Engine) -> None:
    database = engine._shards[1].database
    pages = database.row("PRAGMA page_count")[0]
    database.run(f"PRAGMA max_page_count = {pages + 2}")
    batch = [delivery(number, octets=b"x" * 4000) for number in range(30)]
    results = [result for result, _ in engine.execute([*batch, AddDomain("other.example")], NOW_MS)]
    assert all(isinstance(result, Refused) and result.refusal is Refusal.DISK_FULL for result in results[:30])
    assert type(results[30]).__name__ == "DomainMade"
    assert total(engine) == 0
    database.run("PRAGMA max_page_count = 100000000")
    assert isinstance(engine.execute([delivery(1)], NOW_MS)[0][0], Delivered)
    assert check(engine.directory).findings == ()


@pytest.mark.parametrize("name", ["fdatasync", "fsync_directory", "pwrite"])
def test_an_error_of_the_disk_is_final(engine: Engine, disk: FailingDisk, name: str) -> None:
    disk.fail = name
    with pytest.raises(EngineFailed):
        engine.execute([delivery(1)], NOW_MS)
    disk.fail = ""
    assert total(engine) == 0


def test_what_was_written_before_a_crash_without_commit_is_cut_off(tmp_path: Path) -> None:
    engine = opened(tmp_path / "data")
    engine.execute([delivery(1)], NOW_MS)
    unit = engine._shards[1]
    unit.database.run("BEGIN IMMEDIATE")
    assert unit.segments is not None
    add_blob(unit, body(b"never answered"), trace(2), (), 1)
    unit.segments.flush()
    engine.close()      # the transaction is gone, as after kill -9
    segment = tmp_path / "data" / "shard-001" / "seg" / "0000000001.seg"
    assert b"never answered" in segment.read_bytes()
    engine = Engine(tmp_path / "data", now_ms=NOW_MS)
    assert segment.stat().st_size == HEADER_OCTETS + len(MESSAGE)
    engine.execute([delivery(3)], NOW_MS)
    assert segment_numbers(DiskIO(), segment.parent) == [1, 2]      # a segment that was cut takes no more records
    assert total(engine) == 2
    engine.close()
    assert check(tmp_path / "data").findings == ()


def test_a_spooled_body_moves_into_the_shard_at_commit(engine: Engine, disk: FailingDisk) -> None:
    octets = b"x" * (INLINE_OCTETS + 1)
    large = spooled(engine, "one", octets)
    recipients = (LocalRecipient(ALICE, "a@x", b"", quota_limit_octets=5),)
    refused = engine.execute([Deliver(trace(1), large, b"", recipients, 0)], NOW_MS)[0][0]
    assert isinstance(refused, Refused)
    assert os.listdir(engine.directory / "spool") == ["one"] and os.listdir(engine.directory / "shard-001" / "seg") == []
    engine.execute([Append(ALICE, 1, trace(2), (Appended(large, b"", (), 0),))], NOW_MS)
    assert os.listdir(engine.directory / "spool") == [] and len(os.listdir(engine.directory / "shard-001" / "seg")) == 1
    missing = engine.execute([Append(ALICE, 1, trace(3), (Appended(large, b"", (), 0),)), delivery(4)], NOW_MS)
    assert isinstance(missing[0][0], StoreUnavailable) and isinstance(missing[1][0], Delivered)
    assert check(engine.directory).findings == ()


def test_a_full_disk_leaves_the_spooled_body(engine: Engine, disk: FailingDisk) -> None:
    large = spooled(engine, "one", b"x" * (INLINE_OCTETS + 1))
    disk.fail, disk.code = "link", errno.ENOSPC
    operation = Append(ALICE, 1, trace(2), (Appended(large, b"", (), 0),))
    assert isinstance(engine.execute([operation], NOW_MS)[0][0], Refused)
    disk.fail = ""
    assert isinstance(engine.execute([operation], NOW_MS)[0][0], Delivered)


def test_segments_roll_over(engine: Engine) -> None:
    segments = engine._shards[1].segments
    assert segments is not None
    segments.limit_octets = 10_000
    for number in range(0, 40, 8):
        engine.execute([delivery(place, octets=b"%04d" % place * 500) for place in range(number, number + 8)], NOW_MS)
    assert len(segment_numbers(DiskIO(), engine.directory / "shard-001" / "seg")) == 10
    reader = Reader(engine.directory)
    assert [reader.read(ALICE, email, 6, 10) for email in (1, 5, 40)] == [b"0000", b"0004", b"0039"]
    reader.close()
    assert check(engine.directory).findings == ()


# -- outbox --


def test_the_outbox_is_moved_exactly_once(engine: Engine) -> None:
    unit = engine._shards[1]
    assert unit.segments is not None
    unit.database.run("BEGIN IMMEDIATE")
    unit.active = True
    blob = add_blob(unit, body(b"redirected"), trace(7), (), 1)
    operation = mail(7)
    assert isinstance(operation, Enqueue)
    for _ in range(2):      # as if a crash came between the queue's commit and the row's deletion
        unit.database.run("INSERT INTO outbox(account_id, trace_id, envelope, prefix, blob_id, created_ms) "
                          "VALUES(1, ?, ?, ?, ?, ?)",
                          trace(7), pack(operation.envelope), b"P", blob, NOW_MS)
    unit.database.run("UPDATE blob SET refs = 2 WHERE id = ?", blob)
    engine._commit_alone(unit, NOW_MS)
    assert [result.count for result, _ in engine.execute([DrainOutbox(1), DrainOutbox()], NOW_MS)] == [1, 1]   # type: ignore[union-attr]
    reader = Reader(engine.directory)
    item, = reader.queue_items()
    assert (item.trace_id, item.prefix, reader.read_queued(item.id, 1, 99)) == (trace(7), b"P", b"redirected")
    assert [one.forward_path for one in item.recipients] == ["x@a.example"]
    reader.close()
    assert check(engine.directory).findings == ()


def test_an_outbox_row_with_a_damaged_envelope_holds_up_nobody(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    for number in (1, 2):
        recipient = LocalRecipient(ALICE, "alice@example.jp", b"")
        engine.execute([Deliver(trace(number), body(), b"", (recipient,), NOW_MS,
                                outgoing=(Outgoing(trace(number), mail(number).envelope, b""),))], NOW_MS)
    engine._shards[1].database.run("UPDATE outbox SET envelope = x'c1' WHERE id = 1")
    assert [engine.execute([DrainOutbox()], NOW_MS)[0][0] for _ in range(2)] == [Counted(1), Counted(0)]
    assert sum("outbox row 1 can't be read" in line for line in caplog.messages) == 1
    reader = Reader(engine.directory)
    assert [item.trace_id for item in reader.queue_items()] == [trace(2)]
    reader.close()
    assert [one.kind for one in check(engine.directory).findings] == ["damaged messages of the outbox"]


def test_an_account_in_an_unknown_status_gets_its_mail_later(engine: Engine) -> None:
    assert engine._control is not None
    engine._control.database.run("UPDATE principal SET status = 'activd' WHERE id = ?", ALICE)
    reader = Reader(engine.directory)
    assert {one.id: one.status for one in reader.accounts()} == {ALICE: AccountStatus.FROZEN, BOB: AccountStatus.ACTIVE}
    reader.close()
    assert [one.kind for one in check(engine.directory).findings] == ["unknown status"]


def test_an_outbox_row_without_its_body_holds_up_nobody(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """It would have ended the process at each start."""
    for number in (1, 2):
        octets = b"%d" % number * INLINE_OCTETS
        outgoing = Outgoing(trace(number), mail(number).envelope, b"")
        recipient = LocalRecipient(ALICE, "alice@example.jp", b"")
        engine.execute([Deliver(trace(number), spooled(engine, f"s{number}", octets), b"", (recipient,), NOW_MS,
                                outgoing=(outgoing,))], NOW_MS)
    (engine.directory / "shard-001" / "seg" / "0000000001.seg").unlink()
    assert [engine.execute([DrainOutbox()], NOW_MS)[0][0] for _ in range(2)] == [Counted(1), Counted(0)]
    assert sum("outbox row 1 can't be read" in line for line in caplog.messages) == 1
    reader = Reader(engine.directory)
    assert [item.trace_id for item in reader.queue_items()] == [trace(2)]
    reader.close()
    assert [one.kind for one in check(engine.directory).findings] == ["damaged bodies", "missing segments"]
