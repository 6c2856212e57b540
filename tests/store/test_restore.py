"""A restore: everything is there again, and no number is given twice."""

import errno
import json
import os
from pathlib import Path

import pytest

from fumibako.model.ops import AddAccount, AddDomain, Deliver, Delivered, FlagMode, SetFlags
from fumibako.model.ops import CreateMailbox as Create
from fumibako.store.check import check
from fumibako.store.disk import DiskIO
from fumibako.store.manifest import BackupFault, Fault
from fumibako.store.restore import MARK, is_half_restored, restore
from fumibako.store.sqlite.database import open_writer
from fumibako.store.sqlite.engine import Engine, create
from fumibako.store.sqlite.epoch import COUNTS, LAST_UID, UIDS
from fumibako.store.sqlite.reader import Reader
from tests.contract.building import NOW_MS, PASSWORD
from tests.contract.test_queue import mail
from tests.crash.test_failpoints import told_by_child
from tests.store.backing import back_up
from tests.store.disks import FailingDisk
from tests.store.sqlite.test_engine import ALICE, BOB, delivery, opened

LATER_MS = NOW_MS + 3_600_000
POINTS = ("restore-marked", "restore-emptied", "restore-copied", "restore-counted", "restore-complete")


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return opened(tmp_path / "data")


def fresh(directory: Path) -> Path:
    create(directory, NOW_MS)
    (directory / "fumibako.toml").write_text("# mine\n")
    return directory


def brought_back(directory: Path, source: Path, now_ms: int = LATER_MS, disk: DiskIO | None = None) -> None:
    restore(directory, source, now_ms, lambda done, total: None, disk)


def refusal(directory: Path, source: Path) -> Fault:
    with pytest.raises(BackupFault) as refused:
        brought_back(directory, source)
    return refused.value.fault


def uid_of(engine: Engine, operation: Deliver) -> int:
    (result, _), = engine.execute([operation], LATER_MS)
    assert isinstance(result, Delivered)
    return result.placed[0].uid


def test_everything_is_there_again_and_above(engine: Engine, tmp_path: Path) -> None:
    large = b"Subject: large\r\n\r\n" + b"y" * 70_000
    engine.execute([delivery(1, ALICE, BOB), delivery(2, octets=large), mail(9), SetFlags(ALICE, 1, (1,), FlagMode.ADD, ("$X",))],
                   NOW_MS)
    back_up(engine, tmp_path / "b")
    lost = [uid_of(engine, delivery(number)) for number in (3, 4, 5)]
    (made, _), = engine.execute([AddAccount("late@example.jp", PASSWORD)], LATER_MS)
    old = Reader(engine.directory)
    lost_serial = old.domains()[0].modseq
    lost_modseq, old_boxes = old.modseq(ALICE), {box.name: box for box in old.mailboxes(ALICE)}
    target = fresh(tmp_path / "new")
    brought_back(target, tmp_path / "b")
    assert (target / "fumibako.toml").read_text() == "# mine\n" and not is_half_restored(target)
    assert check(target).findings == ()

    new = Reader(target)
    assert [one.address for one in new.accounts()] == ["alice@example.jp", "bob@example.jp"]
    assert new.read(ALICE, 2, 0, 99_999) == b"P: 1\r\n" + large
    assert new.keywords(ALICE) == {5: "$X"} and len(new.queue_items()) == 1
    view, box = new.view(ALICE, 1), new.mailboxes(ALICE)[0]
    assert view is not None and list(view.uids) == [1, 2] and list(view.flags) == [32, 0]
    assert box.uid_next >= 3 + UIDS and box.uid_validity == old_boxes["INBOX"].uid_validity
    # RFC 7162 §3.1.4: whoever knows a modseq of the lost time is told of every message.
    assert min(view.modseqs) > lost_modseq and box.highest_modseq == new.modseq(ALICE) == max(view.modseqs)
    assert new.changes(ALICE, lost_modseq) is None and new.vanished(ALICE, box.id, lost_modseq) is None
    assert new.changes(ALICE, new.modseq(ALICE)) == []
    # RFC 1982 §3.2: the zone's serial rises, and by less than half the numbers.
    assert 0 < (new.domains()[0].modseq - lost_serial) % 2**32 < 2**31
    new.close()
    old.close()

    restored = Engine(target, now_ms=LATER_MS)
    uid = uid_of(restored, delivery(6))
    assert uid > max(lost) + UIDS - 1
    (again, _), = restored.execute([AddAccount("other@example.jp", PASSWORD)], LATER_MS)
    assert again.account.id > made.account.id + COUNTS - 1      # type: ignore[union-attr]
    (box_made, _), = restored.execute([Create(ALICE, "New")], LATER_MS)
    assert box_made.uid_validity > max(one.uid_validity for one in old_boxes.values())      # type: ignore[union-attr]
    (queued, _), = restored.execute([mail(10)], LATER_MS)
    assert queued.queue_id > COUNTS     # type: ignore[union-attr]
    assert uid_of(restored, delivery(1)) == 1       # its key is known still: a hand-over that is repeated changes nothing
    restored.close()
    engine.close()
    assert check(target).findings == ()


def test_the_same_backup_again_after_a_life(engine: Engine, tmp_path: Path) -> None:
    engine.execute([delivery(1)], NOW_MS)
    back_up(engine, tmp_path / "b")
    engine.close()
    first, second = fresh(tmp_path / "first"), fresh(tmp_path / "second")
    brought_back(first, tmp_path / "b", NOW_MS + 3_600_000)
    life = Engine(first, now_ms=NOW_MS + 3_600_000)
    life.execute([delivery(number) for number in range(10, 300)], NOW_MS + 3_600_000)
    last = life.uid_next(ALICE, 1)
    life.close()
    brought_back(second, tmp_path / "b", NOW_MS + 7_200_000)
    again = Engine(second, now_ms=NOW_MS)
    assert again.uid_next(ALICE, 1) > last
    again.close()


def test_a_backup_of_what_was_restored_can_be_restored(engine: Engine, tmp_path: Path) -> None:
    engine.execute([delivery(1, ALICE, BOB)], NOW_MS)
    back_up(engine, tmp_path / "b", 1)
    engine.close()
    brought_back(fresh(tmp_path / "one"), tmp_path / "b")
    one = Engine(tmp_path / "one", now_ms=LATER_MS)
    one.execute([delivery(2)], LATER_MS)
    back_up(one, tmp_path / "b", 2, at_ms=LATER_MS)
    uid_next = one.uid_next(ALICE, 1)
    one.close()
    brought_back(fresh(tmp_path / "two"), tmp_path / "b", LATER_MS + 5_000)
    assert check(tmp_path / "two").findings == ()
    two = Engine(tmp_path / "two", now_ms=LATER_MS)
    assert two.uid_next(ALICE, 1) >= uid_next + UIDS
    two.close()


def test_a_mailbox_without_room_above_begins_anew(engine: Engine, tmp_path: Path) -> None:
    engine.execute([delivery(1), delivery(2), delivery(3)], NOW_MS)
    engine.close()
    database = open_writer(tmp_path / "data/shard-001/mail.db")
    database.run("UPDATE entry SET uid = uid + ? WHERE mailbox_id = 1 AND uid > 1", LAST_UID)
    database.run("UPDATE mailbox SET uid_next = ? WHERE id = 1", LAST_UID + 4)
    database.run("INSERT INTO pop3_uidl VALUES(1, 1, ?, 'kept')", LAST_UID + 2)
    database.close()
    engine = Engine(tmp_path / "data", now_ms=NOW_MS)
    back_up(engine, tmp_path / "b")
    engine.close()
    brought_back(fresh(tmp_path / "new"), tmp_path / "b")
    reader, before = Reader(tmp_path / "new"), Reader(tmp_path / "data")
    view = reader.view(ALICE, 1)
    assert view is not None and list(view.uids) == [1, 2, 3] and view.uid_next == 4
    assert view.uid_validity > max(box.uid_validity for box in before.mailboxes(ALICE))
    assert reader.unique_ids(ALICE, 1) == {2: "kept"}
    reader.close()
    before.close()
    assert check(tmp_path / "new").findings == ()


def test_what_is_refused_is_left_alone(engine: Engine, tmp_path: Path) -> None:
    engine.execute([delivery(1)], NOW_MS)
    written = back_up(engine, tmp_path / "b")
    assert refusal(engine.directory, tmp_path / "b") is Fault.IN_USE
    engine.close()
    assert refusal(engine.directory, tmp_path / "b") is Fault.NOT_EMPTY
    (tmp_path / "nothing").mkdir()
    assert refusal(tmp_path / "nothing", tmp_path / "b") is Fault.NOT_MADE
    target = fresh(tmp_path / "new")
    assert refusal(target, tmp_path / "nothing") is Fault.NO_BACKUP
    manifest = written.path / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(json.dumps(json.loads(whole) | {"format": 2, "files": "of another kind"}).encode())
    assert refusal(target, tmp_path / "b") is Fault.NEWER
    for damaged in (whole[:-30], whole.replace(b'"control.db"', b'"../control.db"'), whole.replace(b'"queue.db"', b'"other"')):
        manifest.write_bytes(damaged)
        assert refusal(target, tmp_path / "b") is Fault.DAMAGED
    manifest.write_bytes(whole)
    segment = written.path / "shard-001/seg/0000000001.seg"
    octets = segment.read_bytes()
    for damage in (octets[:300] + b"!" + octets[301:], octets[:-1], None):
        segment.unlink()
        if damage is not None:
            segment.write_bytes(damage)
        assert refusal(target, tmp_path / "b") is Fault.DAMAGED
        assert not is_half_restored(target)
        segment.write_bytes(octets)
    brought_back(target, tmp_path / "b")


def test_a_database_of_a_newer_program_is_refused(engine: Engine, tmp_path: Path) -> None:
    engine.close()
    database = open_writer(tmp_path / "data/shard-001/mail.db")
    real = database.row("PRAGMA user_version")[0]
    engine = Engine(tmp_path / "data", now_ms=NOW_MS)
    database.run("PRAGMA user_version = 99")
    back_up(engine, tmp_path / "b")
    database.run(f"PRAGMA user_version = {real}")
    database.close()
    engine.close()
    assert refusal(fresh(tmp_path / "new"), tmp_path / "b") is Fault.NEWER


@pytest.mark.parametrize("point", POINTS)
def test_a_restore_that_dies_is_finished_by_the_next(point: str, engine: Engine, tmp_path: Path) -> None:
    engine.execute([delivery(1, ALICE, BOB), mail(9)], NOW_MS)
    back_up(engine, tmp_path / "b")
    engine.close()
    target = fresh(tmp_path / "new")
    _, died = told_by_child(lambda tell: brought_back(target, tmp_path / "b"), f"{point}:1")
    assert died and is_half_restored(target)
    brought_back(target, tmp_path / "b")
    assert not (target / MARK).exists() and check(target).findings == ()
    restored = Engine(target, now_ms=LATER_MS)
    assert restored.uid_next(ALICE, 1) < 2 + 2 * UIDS      # the counters jumped once
    restored.close()


@pytest.mark.parametrize("point", ["backup-database:1", "backup-database:3", "backup-segment:1", "backup-complete:1"])
def test_a_backup_that_dies_is_none_and_the_next_is_one(point: str, engine: Engine, tmp_path: Path) -> None:
    engine.execute([delivery(1)], NOW_MS)
    good = back_up(engine, tmp_path / "b", 1)
    _, died = told_by_child(lambda tell: back_up(engine, tmp_path / "b", 2), point)
    assert died and os.readlink(tmp_path / "b" / "latest") == good.path.name
    back_up(engine, tmp_path / "b", 3)
    assert not list((tmp_path / "b").glob(".unfinished*"))
    engine.close()
    brought_back(fresh(tmp_path / "new"), tmp_path / "b")
    assert check(tmp_path / "new").findings == ()


def test_a_full_disk_says_so_and_the_next_finishes(engine: Engine, tmp_path: Path) -> None:
    engine.execute([delivery(1)], NOW_MS)
    back_up(engine, tmp_path / "b")
    engine.close()
    target, disk = fresh(tmp_path / "new"), FailingDisk()
    disk.fail, disk.code = "pwrite", errno.ENOSPC
    with pytest.raises(OSError, match="pwrite"):
        brought_back(target, tmp_path / "b", disk=disk)
    assert is_half_restored(target)
    brought_back(target, tmp_path / "b")
    assert check(target).findings == ()


def test_a_restored_file_is_no_second_name_of_the_backups(engine: Engine, tmp_path: Path) -> None:
    engine.execute([delivery(1)], NOW_MS)
    engine.close()
    engine = Engine(engine.directory, now_ms=NOW_MS)
    written = back_up(engine, tmp_path / "b")
    engine.close()
    brought_back(fresh(tmp_path / "new"), tmp_path / "b")
    place = "shard-001/seg/0000000001.seg"
    assert not os.path.samefile(written.path / place, tmp_path / "new" / place)


def test_an_account_first_used_in_the_lost_time_does_not_begin_again_with_its_numbers(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "data", now_ms=NOW_MS)
    engine.execute([AddDomain("example.jp"), AddAccount("alice@example.jp", PASSWORD)], NOW_MS)
    back_up(engine, tmp_path / "b")
    engine.execute([delivery(1)], LATER_MS)
    lost = Reader(engine.directory)
    brought_back(fresh(tmp_path / "new"), tmp_path / "b")
    found = Reader(tmp_path / "new")
    before, after = lost.mailboxes(ALICE), found.mailboxes(ALICE)
    assert [box.name for box in before] == [box.name for box in after] and found.subscriptions(ALICE) == lost.subscriptions(ALICE)
    assert min(box.id for box in after) > max(box.id for box in before)
    assert min(box.uid_validity for box in after) > max(box.uid_validity for box in before)
    assert found.modseq(ALICE) > lost.modseq(ALICE) and found.changes(ALICE, lost.modseq(ALICE)) is None
    lost.close()
    found.close()
    engine.close()
    assert check(tmp_path / "new").findings == ()
