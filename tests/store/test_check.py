"""`check` finds what is wrong and, asked to, mends what is derived."""

from pathlib import Path

import msgspec
import pytest

from fumibako.model.ids import QueueId
from fumibako.model.ops import AddDomain, ChangeQueue, Copy, Counted, DomainMade, Expunge, Lease, Leased, OpenAccount, QueueAction
from fumibako.model.queue import RecipientState
from fumibako.proto.message.cache import Remaking, pack_index
from fumibako.proto.message.index import Indexer
from fumibako.store.check import check
from fumibako.store.sqlite.database import open_reader, open_writer
from fumibako.store.sqlite.engine import DirectoryDamaged, DirectoryInUse, Engine
from fumibako.store.sqlite.reader import Reader
from tests.contract.building import MESSAGE, NOW_MS
from tests.contract.test_queue import mail
from tests.store.sqlite.test_engine import ALICE, BOB, delivery, opened


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    engine = opened(tmp_path / "data")
    engine.execute([delivery(1, ALICE, BOB), delivery(2), mail(3), Copy(ALICE, 1, (1,), 6), OpenAccount(BOB)], NOW_MS)
    engine.execute([Expunge(ALICE, 1, (2,), only_deleted=False)], NOW_MS)
    engine.close()
    return tmp_path / "data"


def spoil(directory: Path, name: str, *statements: str) -> None:
    database = open_writer(directory / name)
    for sql in statements:
        database.run(sql)
    database.close()


def rows(directory: Path, sql: str) -> list[tuple]:
    database = open_reader(directory / "shard-001" / "mail.db")
    found = database.rows(sql)
    database.close()
    return found


def tree(directory: Path) -> dict[str, bytes]:
    files = [path for path in directory.rglob("*") if path.is_file() and path.suffix not in (".db-shm", ".db-wal")]
    return {str(path): path.read_bytes() for path in files}


def test_a_sound_directory(directory: Path) -> None:
    report = check(directory)
    assert report.findings == () and report.sound and report.messages == 3 and report.octets > 0


@pytest.mark.parametrize(("kind", "sql"), [
    *[("mailbox counters", f"UPDATE mailbox SET {column} = {column} {change} WHERE account_id = 1 AND name = 'INBOX'")
      for column in ("total", "unseen", "deleted", "size_octets") for change in ("+ 1", "- 1")],
    *[("quota", f"UPDATE account SET {column} = {column} {change} WHERE id = 1")
      for column in ("used_octets", "messages") for change in ("+ 1", "- 1")],
    ("uid_next", "UPDATE mailbox SET uid_next = 1 WHERE total > 0"),
    ("uid_next", "UPDATE mailbox SET uid_next = uid_next - 1 WHERE account_id = 2 AND name = 'INBOX'"),
    ("highest_modseq", "UPDATE mailbox SET highest_modseq = highest_modseq - 1 WHERE account_id = 1 AND name = 'INBOX'"),
    ("highest_modseq", "UPDATE mailbox SET highest_modseq = 0 WHERE total > 0"),
    ("modseq", "UPDATE account SET modseq = 0"),
    ("modseq", "UPDATE account SET modseq = modseq - 1 WHERE id = 1"),
    ("next_email_id", "UPDATE account SET next_email_id = next_email_id - 1 WHERE id = 2"),
    ("next_mailbox_id", "UPDATE account SET next_mailbox_id = 2"),
    ("uid_validity", "UPDATE account SET uid_validity = uid_validity - 1"),
    ("blob references", "UPDATE blob SET refs = 0"),
    ("entry counts", "UPDATE email SET entries = 7"),
    ("entry counts", "UPDATE email SET purge_after_ms = 0"),
    ("blob references", "UPDATE blob SET refs = refs + 1"),
    ("caches without blob", "INSERT INTO email_cache VALUES(77, x'00')"),
    ("segments in use about to go", "UPDATE segment SET replaced_ms = 5, sealed = 1"),
    ("sequences", "UPDATE sqlite_sequence SET seq = 0 WHERE name = 'segment'"),
    ("sequences", "DELETE FROM sqlite_sequence WHERE name = 'segment'"),
])
def test_derived_values_are_mended(directory: Path, kind: str, sql: str) -> None:
    spoil(directory, "shard-001/mail.db", sql)
    before = tree(directory)
    report = check(directory)
    finding, = report.findings
    assert (finding.kind, finding.place, finding.repaired) == (kind, "shard-001/mail.db", False)
    assert not report.sound and tree(directory) == before
    mended = check(directory, repair=True, now_ms=NOW_MS)
    assert mended.sound and [finding.kind for finding in mended.findings] == [kind]
    assert check(directory).findings == ()


@pytest.mark.parametrize(("name", "kind", "sql"), [
    ("control.db", "unknown status", "UPDATE principal SET status = 'activd' WHERE id = 1"),
    ("control.db", "unknown kind", "UPDATE principal SET kind = 'accoun4' WHERE id = 1"),
    ("shard-001/mail.db", "entries without message", "DELETE FROM email WHERE account_id = 2"),
    ("shard-001/mail.db", "entries without mailbox", "UPDATE entry SET mailbox_id = 77 WHERE account_id = 2"),
    ("shard-001/mail.db", "same EMAILID twice", "UPDATE email SET guid = x'00'"),
    ("shard-001/mail.db", "two blobs in one place", "UPDATE blob SET offset = 0"),
    ("shard-001/mail.db", "blobs without segment", "DELETE FROM segment"),
    ("queue.db", "blobs without segment", "DELETE FROM segment"),
    ("queue.db", "messages without recipient", "DELETE FROM q_recipient"),
    ("queue.db", "recipients without message", "DELETE FROM q_message"),
    ("control.db", "accounts without domain", "DELETE FROM domain"),
    ("queue.db", "sequences of no table", "UPDATE sqlite_sequence SET name = name || 'x'"),
    ("shard-001/mail.db", "damaged changes", "UPDATE change SET modseq = modseq + 1000 WHERE modseq = 1"),
    ("shard-001/mail.db", "damaged changes", "UPDATE change SET data = x'00' WHERE modseq = 1"),
    ("shard-001/mail.db", "altered schema", "CREATE INDEX extra ON email(guid)"),
    ("control.db", "altered schema", "ALTER TABLE secret RENAME COLUMN value TO valuf"),
    ("control.db", "holds of nobody", "INSERT INTO hold VALUES(77, '', 'x@example.jp', 1)"),
])
def test_what_cannot_be_derived_is_reported(directory: Path, name: str, kind: str, sql: str) -> None:
    spoil(directory, name, sql)
    assert kind in {finding.kind for finding in check(directory).findings if finding.place == name}
    assert not check(directory, repair=True, now_ms=NOW_MS).sound


@pytest.mark.parametrize(("kind", "sql"), [
    ("unknown counters", "UPDATE counter SET name = 'modqeq' WHERE name = 'modseq'"),
    ("modseq of the directory", "DELETE FROM counter WHERE name = 'modseq'"),
    ("modseq of the directory", "UPDATE counter SET value = 1 WHERE name = 'modseq'"),
])
def test_the_counter_of_the_directory_is_made_anew_above_all_it_gave(directory: Path, kind: str, sql: str) -> None:
    spoil(directory, "control.db", sql)
    assert kind in {finding.kind for finding in check(directory).findings}
    assert check(directory, repair=True, now_ms=NOW_MS).sound and check(directory).findings == ()
    engine = Engine(directory)
    (made, _), = engine.execute([AddDomain("later.example")], NOW_MS)
    assert isinstance(made, DomainMade) and made.domain.modseq > 1 << 20
    engine.close()


def test_a_recipient_in_an_unknown_state_waits_for_the_administrator(directory: Path) -> None:
    spoil(directory, "queue.db", "UPDATE q_recipient SET state = 'qeeued'")
    assert [finding.kind for finding in check(directory).findings] == ["unknown state"]
    engine = Engine(directory)      # what can't be read is seen, and nothing else stops
    (seen, *_), *_ = (item.recipients for item in Reader(directory).queue_items())
    assert seen.state is RecipientState.POISON
    engine.close()
    assert check(directory, repair=True, now_ms=NOW_MS).sound and check(directory).findings == ()
    (seen, *_), *_ = (item.recipients for item in Reader(directory).queue_items())
    assert seen.state is RecipientState.POISON


@pytest.mark.parametrize("damage", [
    "UPDATE q_message SET envelope = x'c1' WHERE id = 1", "UPDATE q_recipient SET last = x'c1' WHERE message_id = 1",
    "UPDATE q_recipient SET forward_path = CAST(x'ff40' AS TEXT) WHERE message_id = 1"])
def test_a_damaged_message_holds_up_nobody_else_s_mail(
    directory: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(directory)
    engine.execute([mail(4)], NOW_MS)
    engine.close()
    spoil(directory, "queue.db", damage)
    assert check(directory).findings and not check(directory, repair=True, now_ms=NOW_MS).sound
    engine = Engine(directory)
    for _ in range(2):
        (leased, _), = engine.execute([Lease(NOW_MS, 60_000, 10)], NOW_MS)
        assert isinstance(leased, Leased) and [item.id for item in leased.items] in ([2], [])
    assert [record.message[:55] for record in caplog.records] == ["message 1 of the queue can't be read and is set aside: "]
    first, second = Reader(directory).queue_items()
    assert {one.state for one in first.recipients} <= {RecipientState.POISON} and second.envelope.reverse_path
    (deleted, _), = engine.execute([ChangeQueue(QueueAction.DELETE, (QueueId(1),), NOW_MS)], NOW_MS)
    assert deleted == Counted(1)
    engine.close()
    assert check(directory).findings == ()


def test_sizes_are_mended_and_what_is_summed_from_them(directory: Path) -> None:
    spoil(directory, "shard-001/mail.db", "UPDATE email SET size_octets = size_octets + 1 WHERE account_id = 1")
    spoil(directory, "queue.db", "UPDATE q_message SET size_octets = 1")
    assert {finding.kind for finding in check(directory).findings} == {"message sizes", "mailbox counters", "quota"}
    mended = check(directory, repair=True, now_ms=NOW_MS)
    assert mended.sound and {(finding.kind, finding.place) for finding in mended.findings} == {
        ("message sizes", "shard-001/mail.db"), ("message sizes", "queue.db")}
    assert check(directory).findings == ()


def test_a_counter_that_fell_behind_gives_no_number_twice(directory: Path) -> None:
    """Alice's second message is expunged: what its UID and modseq were is known to her clients, not to the rows."""
    names = "uid_next", "highest_modseq"
    before = rows(directory, f"SELECT {', '.join(names)} FROM mailbox WHERE account_id = 1 AND id = 1")
    spoil(directory, "shard-001/mail.db", "UPDATE mailbox SET uid_next = 1 WHERE account_id = 1 AND id = 1",
          "UPDATE account SET modseq = 1, next_email_id = 1 WHERE id = 1")
    check(directory, repair=True, now_ms=NOW_MS)
    after = rows(directory, "SELECT uid_next, highest_modseq FROM mailbox WHERE account_id = 1 AND id = 1")
    assert after[0][0] > before[0][0] and after[0][1] == before[0][1]
    [(modseq, next_email)] = rows(directory, "SELECT modseq, next_email_id FROM account WHERE id = 1")
    assert modseq > before[0][1] and next_email > 2
    spoil(directory, "shard-001/mail.db", "UPDATE entry SET uid = 4294967290 WHERE account_id = 2",
          "UPDATE mailbox SET uid_next = 1 WHERE account_id = 2 AND id = 1")
    check(directory, repair=True, now_ms=NOW_MS)
    assert rows(directory, "SELECT uid_next FROM mailbox WHERE account_id = 2 AND id = 1") == [(4294967295,)]
    assert check(directory).findings == ()


def test_damaged_octets_are_named(directory: Path) -> None:
    segment = directory / "shard-001" / "seg" / "0000000001.seg"
    octets = bytearray(segment.read_bytes())
    octets[octets.index(b"Hello.")] ^= 1
    segment.write_bytes(octets)
    finding, = check(directory).findings
    assert (finding.kind, finding.count) == ("damaged bodies", 1) and "not those" in finding.examples[0]


def test_missing_and_orphaned_segments(directory: Path) -> None:
    seg = directory / "shard-001" / "seg"
    (seg / "0000000001.seg").rename(seg / "0000000009.seg")
    assert [finding.kind for finding in check(directory).findings] == ["damaged bodies", "missing segments", "orphaned segments"]
    check(directory, repair=True, now_ms=NOW_MS)
    assert (directory / "orphaned" / "shard-001-seg-0000000009.seg").exists()


def test_an_unreadable_database_is_a_finding(directory: Path) -> None:
    (directory / "queue.db").write_bytes(b"not a database" * 1000)
    for suffix in ("-wal", "-shm"):
        (directory / f"queue.db{suffix}").unlink(missing_ok=True)
    assert [(finding.kind, finding.place) for finding in check(directory).findings] == [("unreadable database", "queue.db")]


def test_repair_needs_the_lock_and_looking_does_not(directory: Path) -> None:
    engine = Engine(directory, now_ms=NOW_MS)
    assert check(directory).sound
    with pytest.raises(DirectoryInUse):
        check(directory, repair=True)
    engine.close()


@pytest.mark.parametrize("name", ["control.db", "queue.db", "shard-001/mail.db"])
@pytest.mark.parametrize("empty", [False, True])
def test_a_database_that_is_gone_is_named_and_not_made_anew(directory: Path, name: str, empty: bool) -> None:
    """An empty one in its place would look to every client like mail that was deleted."""
    (directory / name).unlink()
    if empty:
        (directory / name).touch()
    for repair in (False, True):
        assert ("unreadable database", name) in {(one.kind, one.place) for one in check(directory, repair=repair).findings}
    with pytest.raises(DirectoryDamaged, match=f"{name} is missing or empty: restore it from a backup"):
        Engine(directory, now_ms=NOW_MS)
    assert (directory / name).exists() == empty


@pytest.mark.parametrize("name", ["control.db", "queue.db", "shard-001/mail.db"])
def test_pages_that_cannot_be_read_stop_neither_check_nor_repair(directory: Path, name: str) -> None:
    """The header and the schema are whole, everything behind them isn't."""
    octets = (directory / name).read_bytes()
    (directory / name).write_bytes(octets[:4096] + b"\xff" * (len(octets) - 4096))
    for repair in (False, True):
        report = check(directory, repair=repair, now_ms=NOW_MS)
        assert name in {one.place for one in report.findings} and not report.sound
    with pytest.raises(DirectoryDamaged, match=r"cannot be opened: .*fumibako check names what is damaged"):
        Engine(directory, now_ms=NOW_MS)


def test_shards_are_looked_at_without_the_rows_that_name_them(directory: Path) -> None:
    (directory / "control.db").write_bytes(b"not a database" * 1000)
    assert check(directory).messages == 3


def test_a_wrong_size_of_a_blob_does_not_become_the_message_s(directory: Path) -> None:
    """A message is read by the size of its own row, which is right; a repair once made it as wrong as the blob's."""
    before = rows(directory, "SELECT account_id, id, size_octets FROM email")
    spoil(directory, "shard-001/mail.db", "UPDATE blob SET size_octets = size_octets + 1")
    report = check(directory, repair=True, now_ms=NOW_MS)
    assert {finding.kind for finding in report.findings if not finding.repaired} == {"damaged bodies", "message sizes"}
    assert rows(directory, "SELECT account_id, id, size_octets FROM email") == before


@pytest.mark.parametrize("repair", [False, True])
def test_what_is_left_in_the_spool_is_no_damage_and_not_said_to_be_repaired(directory: Path, repair: bool) -> None:
    (directory / "spool" / "left").write_bytes(b"half a body")
    report = check(directory, repair=repair, now_ms=NOW_MS)
    assert (report.findings, report.sound, report.unfinished) == ((), True, 1)
    assert (directory / "spool" / "left").read_bytes() == b"half a body"


def test_ids_go_on_behind_those_that_were_given(directory: Path) -> None:
    """The name of the counter is a bit away from its own: SQLite would begin behind the largest id that is left."""
    spoil(directory, "shard-001/mail.db", "UPDATE sqlite_sequence SET name = 'segmenu', seq = 77")
    assert {one.kind for one in check(directory).findings} == {"sequences of no table", "sequences"}
    assert check(directory, repair=True, now_ms=NOW_MS).sound
    assert rows(directory, "SELECT * FROM sqlite_sequence") == [("segment", 77)] and check(directory).findings == ()


def test_a_cache_that_says_another_thing_than_the_message_is_made_anew(directory: Path) -> None:
    """Whatever bit of it turned over: it can be told from the octets."""
    def checked(**options: object) -> tuple[object, ...]:
        return check(directory, remaking=Remaking, now_ms=NOW_MS, **options).findings

    indexer = Indexer()
    indexer.feed(MESSAGE)
    right = pack_index(indexer.close())
    spoil(directory, "shard-001/mail.db", f"UPDATE email_cache SET data = x'{right.hex()}'")
    assert checked() == ()
    older = msgspec.msgpack.encode([*msgspec.msgpack.decode(right)[:10], msgspec.Raw(msgspec.msgpack.encode(
        msgspec.msgpack.decode(right)[10]))])
    spoil(directory, "shard-001/mail.db", f"UPDATE email_cache SET data = x'{older.hex()}'")
    assert checked() == ()      # of before there was a note on ASCII
    for at in range(len(right)):
        wrong = right[:at] + bytes([right[at] ^ 1]) + right[at + 1 :]
        spoil(directory, "shard-001/mail.db", f"UPDATE email_cache SET data = x'{wrong.hex()}' WHERE blob_id = 4294967296")
        (found,) = checked()
        assert (found.kind, found.count, found.repaired) == ("damaged caches", 1, False), at
    (found,) = checked(repair=True)
    assert (found.kind, found.repaired) == ("damaged caches", True)
    assert checked() == () and len(rows(directory, "SELECT 1 FROM email_cache")) == 1
