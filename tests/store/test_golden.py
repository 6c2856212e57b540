"""Data directories of every release open, are sound, and hold what they held; a newer one is refused in plain words."""

import json
import tarfile
from pathlib import Path

import apsw
import pytest

import fumibako
from fumibako.model.ops import AccountMade, AddAccount, Counted, Deliver, Delivered, DrainOutbox, LocalRecipient
from fumibako.store.check import check
from fumibako.store.schema import SchemaError, steps
from fumibako.store.sqlite import engine as engine_module
from fumibako.store.sqlite.engine import Engine
from fumibako.store.sqlite.reader import Reader
from tests.contract.building import NOW_MS, PASSWORD, body, trace
from tests.crash.dying import told_by_child
from tools.golden import GOLDEN, picture_of

ARCHIVES = sorted(GOLDEN.glob("*.tar.gz"))


def unpacked(archive: Path, place: Path) -> Path:
    with tarfile.open(archive) as tar:
        # Debian 12's Python 3.11.2 has no filters yet; the archives are our own.
        tar.extractall(place, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return place / "data"


def is_outdated(directory: Path) -> bool:
    database = apsw.Connection(str(directory / "control.db"))
    try:
        return database.pragma("user_version") < steps("control")[-1][0]
    finally:
        database.close()


def test_there_is_one_of_every_release() -> None:
    assert f"{fumibako.__version__}.tar.gz" in {archive.name for archive in ARCHIVES}
    assert sum(path.stat().st_size for path in GOLDEN.iterdir()) <= 5_000_000
    assert all(archive.stat().st_size <= 500_000 for archive in ARCHIVES)


def test_the_newest_has_something_of_everything(tmp_path: Path) -> None:
    directory = unpacked(GOLDEN / f"{fumibako.__version__}.tar.gz", tmp_path)
    database = apsw.Connection(str(directory / "shard-001" / "mail.db"))
    assert database.execute("SELECT count(*) FROM blob WHERE segment_id <> id >> 32").get > 0, "nothing was compacted"
    database.close()
    engine = Engine(directory, now_ms=NOW_MS)
    assert engine.execute([DrainOutbox()], NOW_MS)[0][0] == Counted(1)
    engine.close()
    reader = Reader(directory)
    accounts = reader.accounts()
    assert {one.shard for one in accounts} == {1, 2} and len(reader.holds()) == 2
    assert {one.shard for one in accounts if reader.recoverable(one.id)} == {1, 2}
    reader.close()


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda archive: archive.name)
async def test_it_holds_what_it_held(archive: Path, tmp_path: Path) -> None:
    directory = unpacked(archive, tmp_path)
    told = json.loads(archive.with_name(archive.name.removesuffix(".tar.gz") + ".json").read_text("utf-8"))
    found = json.loads(json.dumps(await picture_of(directory)))
    assert found.keys() >= told.keys()      # later versions have more to tell
    for key, value in told.items():
        assert found[key] == value, key
    report = check(directory)
    assert not report.findings and report.messages > 10


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda archive: archive.name)
async def test_it_grows_a_second_shard(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = unpacked(archive, tmp_path)
    before = await picture_of(directory)
    monkeypatch.setattr(engine_module, "SHARD_ACCOUNTS", 1)
    engine = Engine(directory, now_ms=NOW_MS)
    (made, _), = engine.execute([AddAccount("new@example.jp", PASSWORD)], NOW_MS)
    assert isinstance(made, AccountMade) and made.account.shard == 1 + max(one["shard"] for one in before["accounts"])
    recipient = LocalRecipient(made.account.id, "new@example.jp", b"")
    (delivered, _), = engine.execute([Deliver(trace(900), body(), b"", (recipient,), NOW_MS)], NOW_MS)
    assert isinstance(delivered, Delivered)
    engine.close()
    after = await picture_of(directory)
    assert len(after["mail"].pop("new@example.jp")["messages"]["INBOX"]) == 1
    assert after["mail"] == before["mail"] and after["queue"] == before["queue"]
    assert not check(directory).findings


def test_it_is_sound_before_it_is_migrated(tmp_path: Path) -> None:
    """Who looks before the first start of a new version must not be told of damage."""
    directory = unpacked(ARCHIVES[0], tmp_path)
    assert check(directory).findings == ()
    assert check(directory, repair=True, now_ms=1).findings == () and check(directory).findings == ()


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda archive: archive.name)
@pytest.mark.parametrize("visit", range(1, 7))
async def test_a_migration_that_was_killed_goes_on_at_the_next_start(archive: Path, tmp_path: Path, visit: int) -> None:
    directory = unpacked(archive, tmp_path)
    told = json.loads(archive.with_name(archive.name.removesuffix(".tar.gz") + ".json").read_text("utf-8"))
    outdated = is_outdated(directory)
    _, died = told_by_child(lambda _: Engine(directory).close(), f"mid-migration:{visit}")
    assert died or visit > 1 or not outdated
    found = json.loads(json.dumps(await picture_of(directory)))
    assert {key: found[key] for key in told} == told and not check(directory).findings


@pytest.mark.parametrize("name", ["control.db", "queue.db", "shard-001/mail.db"])
def test_a_newer_one_is_refused_in_plain_words(tmp_path: Path, name: str) -> None:
    directory = unpacked(ARCHIVES[-1], tmp_path)
    database = apsw.Connection(str(directory / name))
    database.execute("PRAGMA user_version = 999")
    database.close()
    with pytest.raises(SchemaError, match=r"written by a newer Fumibako .*install the newer version again or restore a backup"):
        Engine(directory)
