"""An account goes out as Maildir or mbox and comes in again as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fumibako.proto.message.manifest import FILE_NAME
from fumibako.services.admin import AdminError
from fumibako.services.migrate.exporting import Exporting
from fumibako.services.migrate.importing import Importing, ImportPlan
from fumibako.services.migrate.reading import open_source
from tests.support.corpus import fill, holding
from tests.support.mailhouse import MailHouse

ALICE, BOB = "alice@example.jp", "bob@example.jp"


def quiet(done: int, total: int) -> None:
    assert 0 < done <= total


async def exported(house: MailHouse, path: Path, store: str = "maildir", count: int = 320) -> None:
    await fill(house.store, house.clock, await house.account(ALICE), count)
    report = await Exporting(house.store).export(ALICE, path, store, "", quiet)
    assert not report.unreadable


@pytest.mark.parametrize("store", ["maildir", "mbox"])
async def test_the_account_comes_back_as_it_was(house: MailHouse, tmp_path: Path, store: str) -> None:
    await exported(house, tmp_path / "out", store)
    report = await Importing(house.store, house.clock).import_(BOB, ImportPlan(tmp_path / "out"), quiet)

    assert (report.complete, report.kind, report.imported, report.skipped) == (True, store, report.found, [])
    assert await holding(house.store, await house.account(BOB)) == await holding(house.store, await house.account(ALICE))
    left = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert not left & {".unfinished", "fumibako.json.new"}
    assert store == "mbox" or not (tmp_path / "out" / "unfinished").exists()


@pytest.mark.parametrize("store", ["maildir", "mbox"])
async def test_without_the_manifest_it_is_mail_like_any_other(house: MailHouse, tmp_path: Path, store: str) -> None:
    await exported(house, tmp_path / "out", store)
    (tmp_path / "out" / FILE_NAME).unlink()
    report = await Importing(house.store, house.clock).import_(BOB, ImportPlan(tmp_path / "out"), quiet)
    theirs = await holding(house.store, await house.account(ALICE))
    ours = await holding(house.store, await house.account(BOB))

    assert (report.complete, report.imported) == (True, report.found)
    assert len(ours.mailboxes["INBOX"][1]) == len(theirs.mailboxes["INBOX"][1])
    same = sum(a.sha256 == b.sha256 for a, b in zip(ours.mailboxes["INBOX"][1], theirs.mailboxes["INBOX"][1], strict=True))
    assert same >= 300      # all but the odd ones


async def test_again_and_after_an_interruption_nothing_is_doubled(house: MailHouse, tmp_path: Path) -> None:
    await exported(house, tmp_path / "out")
    importing, plan = Importing(house.store, house.clock), ImportPlan(tmp_path / "out", merge=True)

    def plug(done: int, total: int) -> None:
        if done == 250:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await importing.import_(BOB, plan, plug)
    with pytest.raises(AdminError, match="--merge"):
        await importing.import_(BOB, ImportPlan(tmp_path / "out"), quiet)
    first = await importing.import_(BOB, plan, quiet)
    second = await importing.import_(BOB, plan, quiet)

    assert 0 < first.present < first.found == first.present + first.imported
    assert (second.present, second.imported) == (second.found, 0)
    theirs, ours = await holding(house.store, await house.account(ALICE)), await holding(house.store, await house.account(BOB))
    for name, (_, messages) in theirs.mailboxes.items():
        assert ours.mailboxes[name][1] == messages, name


async def test_into_a_mailbox_of_its_own(house: MailHouse, tmp_path: Path) -> None:
    await exported(house, tmp_path / "out", count=40)
    await house.receive(BOB)
    for _ in range(2):
        await Importing(house.store, house.clock).import_(BOB, ImportPlan(tmp_path / "out", into="Old/box"), quiet)
    theirs, ours = await holding(house.store, await house.account(ALICE)), await holding(house.store, await house.account(BOB))

    assert len(ours.mailboxes["INBOX"][1]) == 1
    assert ours.mailboxes["Old/box/INBOX"][1] == theirs.mailboxes["INBOX"][1]
    assert ours.mailboxes["Old/box/仕事/2024年/請求書"][1] == theirs.mailboxes["仕事/2024年/請求書"][1]


async def test_a_place_that_is_in_use_is_refused(house: MailHouse, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    for path, says in ((tmp_path / "out", "not empty"), (tmp_path / "out" / "mine", "no directory"),
                       (tmp_path / "no" / "such", "there is no directory")):
        with pytest.raises(AdminError, match=says):
            await Exporting(house.store).export(ALICE, path, "maildir", "", quiet)
    assert os.listdir(tmp_path / "out") == ["mine"]


async def test_an_export_that_was_broken_off_is_named(house: MailHouse, tmp_path: Path) -> None:
    """A kill leaves whole mailboxes and no manifest: they must not be taken for everything."""
    await fill(house.store, house.clock, await house.account(ALICE), 10)
    await Exporting(house.store).export(ALICE, tmp_path / "out", "maildir", "", quiet)
    (tmp_path / "out" / FILE_NAME).rename(tmp_path / "out" / f"{FILE_NAME}.new")
    with pytest.raises(AdminError, match="broken off; empty that directory"):
        await Exporting(house.store).export(ALICE, tmp_path / "out", "maildir", "", quiet)
    with pytest.raises(AdminError, match="broken off and is not whole"):
        open_source(tmp_path / "out", "")
    assert open_source(tmp_path / "out", "maildir").total > 0


async def test_one_mailbox(house: MailHouse, tmp_path: Path) -> None:
    await fill(house.store, house.clock, await house.account(ALICE), 40)
    report = await Exporting(house.store).export(ALICE, tmp_path / "out", "mbox", "a.b", quiet)
    assert (report.mailboxes, report.messages) == (1, 30)
    assert sorted(os.listdir(tmp_path / "out")) == ["a.b.mbox", FILE_NAME]
    with pytest.raises(AdminError, match="no mailbox"):
        await Exporting(house.store).export(ALICE, tmp_path / "other", "mbox", "nowhere", quiet)


async def test_a_full_disk_leaves_nothing_half_named(
    house: MailHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(house.store, house.clock, await house.account(ALICE), 40)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fumibako.services.migrate.writing.os.utime", full)
    with pytest.raises(AdminError, match="No space left"):
        await Exporting(house.store).export(ALICE, tmp_path / "out", "maildir", "", quiet)
    assert os.listdir(tmp_path / "out") == []


async def test_too_big_and_too_much(house: MailHouse, tmp_path: Path) -> None:
    await exported(house, tmp_path / "out", count=40)
    await house.set("limits.message_size", "900K")
    report = await Importing(house.store, house.clock).import_(BOB, ImportPlan(tmp_path / "out"), quiet)
    assert not report.complete
    assert report.too_big > 0
    assert report.imported == report.found - report.too_big


@pytest.mark.parametrize(("line", "damage"), [(1, b"{"), (3, b"nonsense\n"), (3, b'{"file": "x"},\n'), (2, b""), (3, None)])
async def test_a_damaged_manifest_names_its_line(house: MailHouse, tmp_path: Path, line: int, damage: bytes | None) -> None:
    await exported(house, tmp_path / "out", count=40)
    manifest = tmp_path / "out" / FILE_NAME
    lines = manifest.read_bytes().split(b"\n")
    lines[line - 1 :] = [damage.strip(), *lines[line:]] if damage is not None else lines[line - 1 : line]
    manifest.write_bytes(b"\n".join(lines))
    with pytest.raises(AdminError, match=r"line \d+"):
        await Importing(house.store, house.clock).import_(BOB, ImportPlan(tmp_path / "out"), quiet)
    assert all(not row.total for row in await house.store.mailboxes((await house.account(BOB)).id))


async def test_a_message_that_was_changed_is_left_out(house: MailHouse, tmp_path: Path) -> None:
    await exported(house, tmp_path / "out", count=40)
    for path in sorted((tmp_path / "out" / "cur").iterdir())[:2]:
        path.write_bytes(b"something else")
    report = await Importing(house.store, house.clock).import_(BOB, ImportPlan(tmp_path / "out"), quiet)
    assert (report.damaged, report.imported) == (2, report.found - 2)
