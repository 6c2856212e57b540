"""A backup is read as it is, also one that an older program wrote, and nothing of it is changed."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import apsw
import msgspec
import pytest

from fumibako.net.offload import Offload
from fumibako.store.manifest import FORMAT, MANIFEST, BackedUp, BackupFault, Fault, Manifest, format_manifest
from fumibako.store.past import PastStore
from tests.contract.building import NOW_MS
from tests.store.test_golden import ARCHIVES, unpacked
from tools.golden import account_picture


def as_backup(directory: Path, place: Path) -> Path:
    """The databases and segments of a data directory that nobody has open, as that release's `backup` wrote them."""
    for database in (directory / "control.db", *directory.glob("shard-*/mail.db")):
        connection = apsw.Connection(str(database))
        connection.execute("PRAGMA journal_mode = DELETE")      # merges its log; a backup has none
        connection.close()
    kept = [directory / "control.db", *directory.glob("shard-*/mail.db"), *directory.glob("shard-*/seg/*.seg")]
    for path in kept:
        target = place / path.relative_to(directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    files = tuple(BackedUp(str(path.relative_to(directory)), path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
                  for path in kept)
    manifest = Manifest(FORMAT, "0", "0.0.1", "mail.example.jp", "", NOW_MS, 0, 0, sum(one.size_octets for one in files), files)
    (place / MANIFEST).write_bytes(format_manifest(manifest))
    return place


def contents(place: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda archive: archive.name)
async def test_every_version_s_backup_is_read(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = as_backup(unpacked(archive, tmp_path), tmp_path / "backup")
    told = json.loads(archive.with_name(archive.name.removesuffix(".tar.gz") + ".json").read_text("utf-8"))
    before = contents(backup)
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "copies"))
    offload = Offload()
    past = PastStore(backup, offload.run)
    try:
        seen = {one.address: await account_picture(past, one) for one in await past.accounts()}
        assert json.loads(json.dumps(msgspec.to_builtins(seen, str_keys=True))) == told["mail"]
    finally:
        await past.close()
        offload.close()
    assert contents(backup) == before and not list((tmp_path / "copies").iterdir())


@pytest.mark.parametrize("kind", ["newer", "damaged"])
def test_one_that_can_not_be_read_leaves_nothing_behind(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = as_backup(unpacked(ARCHIVES[0], tmp_path), tmp_path / "backup")
    database = backup / "shard-001" / "mail.db"
    if kind == "newer":
        connection = apsw.Connection(str(database))
        connection.execute("PRAGMA user_version = 999")
        connection.close()
    else:
        database.write_bytes(database.read_bytes()[:-1] + b"?")
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "copies"))
    with pytest.raises(BackupFault) as caught:
        PastStore(backup, Offload().run)
    assert caught.value.fault is (Fault.NEWER if kind == "newer" else Fault.DAMAGED)
    assert not list((tmp_path / "copies").iterdir())
