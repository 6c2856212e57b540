"""A backup: one moment, only what changed, whole or not at all."""

import errno
import os
from pathlib import Path

import apsw
import pytest

from fumibako.model.ops import AddAccount
from fumibako.store.backup import claim
from fumibako.store.disk import DiskIO
from fumibako.store.manifest import BackupFault, Fault, find_backup, read_manifest, verify
from fumibako.store.sqlite.database import open_reader
from fumibako.store.sqlite.engine import Engine
from fumibako.store.sqlite.snapshot import Snapshots
from tests.contract.building import NOW_MS, PASSWORD
from tests.store.backing import back_up
from tests.store.disks import FailingDisk
from tests.store.sqlite.test_engine import BOB, delivery, opened


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return opened(tmp_path / "data")


def reopened(engine: Engine) -> Engine:
    """After a restart every segment is sealed."""
    engine.close()
    return Engine(engine.directory, now_ms=NOW_MS)


def names(backup: Path) -> set[str]:
    return {str(path.relative_to(backup)) for path in backup.rglob("*") if path.is_file()}


def test_a_backup_names_every_file_of_it(engine: Engine, tmp_path: Path) -> None:
    engine.execute([delivery(1), delivery(2, BOB)], NOW_MS)
    (tmp_path / "toml").write_bytes(b"[server]\n")
    written = back_up(engine, tmp_path / "b", config={"fumibako.toml": tmp_path / "toml"}, verify=True)
    assert find_backup(tmp_path / "b") == written.path == find_backup(written.path)
    manifest = read_manifest(written.path)
    assert {file.path for file in manifest.files} | {"manifest.json"} == names(written.path) == {
        "manifest.json", "control.db", "queue.db", "shard-001/mail.db", "shard-001/seg/0000000001.seg", "config/fumibako.toml"}
    assert (manifest.accounts, manifest.messages, manifest.hostname) == (2, 2, "mail.example.jp")
    assert manifest.octets == sum((written.path / file.path).stat().st_size for file in manifest.files)
    assert {path.stat().st_mode & 0o777 for path in written.path.rglob("*")} == {0o600, 0o700}
    segment = written.path / "shard-001/seg/0000000001.seg"
    assert segment.stat().st_size < 2_000 and segment.stat().st_nlink == 1      # cut behind the last record: it still grows
    engine.close()


def test_the_second_backup_takes_only_what_is_new(engine: Engine, tmp_path: Path) -> None:
    engine.execute([delivery(1)], NOW_MS)
    engine = reopened(engine)
    first = back_up(engine, tmp_path / "b", 1)
    engine.execute([delivery(2)], NOW_MS)
    engine = reopened(engine)
    second = back_up(engine, tmp_path / "b", 2)
    assert second.new_files == 2 < first.new_files       # mail.db and the new segment
    assert len(second.manifest.files) == 5
    one, two = (backup.path / "shard-001/seg/0000000001.seg" for backup in (first, second))
    assert os.path.samefile(one, two) and os.path.samefile(two, engine.directory / "shard-001/seg/0000000001.seg")
    verify(second.path, second.manifest, DiskIO())
    third = back_up(engine, tmp_path / "b", 3)
    assert (third.new_files, third.new_octets) == (0, 0)
    engine.close()


def test_a_segment_of_another_life_under_the_same_number_is_not_taken_for_this_one(engine: Engine, tmp_path: Path) -> None:
    engine.execute([delivery(1)], NOW_MS)
    engine = reopened(engine)
    back_up(engine, tmp_path / "b", 1)
    engine.close()
    other = opened(tmp_path / "other")
    other.execute([delivery(7)], NOW_MS)        # as long as the first one
    other = reopened(other)
    second = back_up(other, tmp_path / "b", 2)
    assert os.path.samefile(second.path / "shard-001/seg/0000000001.seg", other.directory / "shard-001/seg/0000000001.seg")
    verify(second.path, second.manifest, DiskIO())
    other.close()


def test_where_names_cannot_be_shared_files_are_copied(engine: Engine, tmp_path: Path) -> None:
    engine.execute([delivery(1)], NOW_MS)
    engine = reopened(engine)
    disk = FailingDisk()
    disk.fail, disk.code = "link", errno.EXDEV
    written = back_up(engine, tmp_path / "b", disk=disk, verify=True)
    assert (written.path / "shard-001/seg/0000000001.seg").stat().st_nlink == 1
    engine.close()


def test_old_backups_go_and_the_others_stay_whole(engine: Engine, tmp_path: Path) -> None:
    engine.execute([delivery(1)], NOW_MS)
    engine = reopened(engine)
    for number in (1, 2, 3):
        written = back_up(engine, tmp_path / "b", number, keep=2)
    left = sorted(path.name for path in (tmp_path / "b").iterdir() if not path.name.startswith("."))
    assert len(left) == 3 and left[-1] == "latest" and len(written.removed) == 1 and written.removed[0] not in left
    for name in left:
        verify(tmp_path / "b" / name, read_manifest(tmp_path / "b" / name), DiskIO())
    engine.close()


def test_a_full_disk_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    engine.execute([delivery(1)], NOW_MS)
    good = back_up(engine, tmp_path / "b", 1)
    disk = FailingDisk()
    disk.fail, disk.code = "pwrite", errno.ENOSPC
    with pytest.raises(OSError, match="pwrite"):
        back_up(engine, tmp_path / "b", 2, disk=disk)
    assert {path.name for path in (tmp_path / "b").iterdir()} == {".lock", "latest", good.path.name}
    engine.close()


def test_what_a_crash_left_is_no_backup_and_goes(engine: Engine, tmp_path: Path) -> None:
    left = tmp_path / "b" / ".unfinished-20260101T000000Z-00000000"
    left.mkdir(parents=True)
    (left / "manifest.json").write_bytes(b"{}")
    with pytest.raises(BackupFault) as refused:
        find_backup(tmp_path / "b")
    assert refused.value.fault is Fault.NO_BACKUP
    back_up(engine, tmp_path / "b")
    assert not left.exists()
    engine.close()


def test_places_that_are_refused(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to(engine.directory)
    for place in (engine.directory, engine.directory / "b", tmp_path / "way" / "b"):
        with pytest.raises(BackupFault) as refused, claim(engine.directory, place, DiskIO()):
            pass
        assert refused.value.fault is Fault.INSIDE
    with claim(engine.directory, tmp_path / "b", DiskIO()), pytest.raises(BackupFault) as refused:
        back_up(engine, tmp_path / "b")
    assert refused.value.fault is Fault.BUSY
    engine.close()


def test_a_copy_under_heavy_commits_is_of_one_moment_and_never_starts_again(
        engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fumibako.store.sqlite.snapshot._STEP_PAGES", 4)
    for start in range(0, 1_000, 100):
        engine.execute([delivery(start + place) for place in range(100)], NOW_MS)
    snapshots = Snapshots(engine.directory, DiskIO())
    snapshots.begin()
    steps: list[int] = []

    def step(octets: int) -> None:
        steps.append(octets)
        engine.execute([delivery(10_000 + len(steps) * 100 + place) for place in range(20)], NOW_MS)
    target = tmp_path / "copy.db"
    target.touch()
    snapshots.shards[1].copy(target, step)
    assert len(steps) > 50 and min(steps) > 0
    assert sum(steps) == target.stat().st_size == snapshots.shards[1].size_octets
    copy = open_reader(target)
    assert copy.row("SELECT count(*) FROM email") == (1_000,)
    assert copy.rows("PRAGMA integrity_check") == [("ok",)]
    copy.close()
    snapshots.close()
    engine.close()


def test_a_new_shard_belongs_to_the_moment(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fumibako.store.sqlite.engine.SHARD_ACCOUNTS", 2)
    snapshots = Snapshots(engine.directory, DiskIO())
    engine.execute([AddAccount("carol@example.jp", PASSWORD)], NOW_MS)
    snapshots.begin()
    assert list(snapshots.shards) == [1, 2]
    snapshots.end()
    snapshots.close()
    assert "shard-002/mail.db" in names(back_up(engine, tmp_path / "b").path)
    engine.close()


def test_a_segment_that_is_too_short_is_no_backup(engine: Engine, tmp_path: Path) -> None:
    engine.execute([delivery(1)], NOW_MS)
    engine = reopened(engine)
    os.truncate(engine.directory / "shard-001/seg/0000000001.seg", 100)
    with pytest.raises(BackupFault) as refused:
        back_up(engine, tmp_path / "b")
    assert refused.value.fault is Fault.DAMAGED
    (engine.directory / "shard-001/seg/0000000001.seg").unlink()
    with pytest.raises(BackupFault) as refused:
        back_up(engine, tmp_path / "b")
    assert refused.value.fault is Fault.GONE
    engine.close()


def test_a_reader_of_a_backup_writes_nothing_there(engine: Engine, tmp_path: Path) -> None:
    written = back_up(engine, tmp_path / "b")
    before = names(written.path)
    database = open_reader(written.path / "control.db")
    assert database.row("SELECT count(*) FROM principal") == (2,)
    assert names(written.path) == before
    with pytest.raises(apsw.ReadOnlyError):
        database.run("DELETE FROM principal")
    database.close()
    engine.close()
