"""Three hundred names that want to be paths, wherever a name comes from (reliability.md, check 40): none leaves its place."""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path

import pytest

from fumibako.model.account import Account
from fumibako.model.ops import CreateMailbox, OpenAccount
from fumibako.services.appending import Appending
from fumibako.services.migrate.exporting import Exporting
from fumibako.services.migrate.found import open_inside
from fumibako.services.migrate.importing import Importing, ImportPlan
from fumibako.store.base import StoreRefused
from fumibako.store.manifest import BackupFault, read_manifest
from tests.support.mailhouse import MailHouse

ALICE, BOB = "alice@example.jp", "bob@example.jp"
MESSAGE = b"Subject: one\r\n\r\nbody\r\n"
UP = ("", "../", "../../", "../../../", "./../", "a/../../", "..//../", "../" * 40, "/", "/../", "//", "~/", "~root/", "./",
      ".../", ". ./", ".. /")
ENDS = ("canary", "etc/passwd", "etc/cron.d/x", "canary\0.mbox", "canary:2,S", "-rf", "canary\n", "canary/", "\\canary", "CON",
        "data/control.db", "cur", "new", "tmp", ".mbox", "unfinished", ".unfinished", "fumibako.json")
NAMES = [up + end for up, end in itertools.product(UP, ENDS)]


def _everything(place: Path) -> dict[str, bytes | None]:
    """What stands in a directory; None for a directory."""
    return {str(path.relative_to(place)): path.read_bytes() if path.is_file() else None for path in sorted(place.rglob("*"))}


def _names(data: Path) -> set[str]:
    """Of the files of a data directory, but for segments, which are only numbers."""
    return {name for name in _everything(data) if not re.fullmatch(r"shard-001/seg/\d{10}\.seg", name)}


@pytest.fixture
def around(tmp_path: Path) -> Path:
    """A place with something in it that must stay as it is."""
    place = tmp_path / "around"
    for name in ("etc", "etc/cron.d", "a"):
        (place / name).mkdir(parents=True, exist_ok=True)
    for name in ("canary", "etc/passwd"):
        (place / name).write_text("mine")
    return place


async def _filled(house: MailHouse) -> tuple[Account, int]:
    """A mailbox of each name that the store takes, with a message; how many those are."""
    account = await house.account(ALICE)
    await house.store.commit(OpenAccount(account.id))
    taken = 0
    for name in NAMES:
        try:
            await house.store.commit(CreateMailbox(account.id, name))
        except StoreRefused:
            continue
        taken += 1
    for mailbox in await house.store.mailboxes(account.id):
        appending = Appending(house.store, house.clock, account, mailbox)
        appending.begin((), None)
        appending.write(MESSAGE)
        await appending.end()
        await appending.commit()
    return account, taken


def test_there_are_three_hundred() -> None:
    assert len(set(NAMES)) >= 300


@pytest.mark.parametrize("store", ["maildir", "mbox"])
async def test_mailboxes_are_exported_into_one_place(house: MailHouse, tmp_path: Path, around: Path, store: str) -> None:
    account, taken = await _filled(house)
    assert taken >= 150
    before, data = _everything(around), _names(tmp_path / "data")
    report = await Exporting(house.store).export(ALICE, around / "a" / "out", store, "", lambda done, total: None)
    assert report.messages == len(await house.store.mailboxes(account.id))
    after = _everything(around)
    assert {name: octets for name, octets in after.items() if not name.startswith("a/out")} == before
    assert not any(path.is_symlink() for path in around.rglob("*"))
    assert _names(tmp_path / "data") == data

    came = await Importing(house.store, house.clock).import_(BOB, ImportPlan(around / "a" / "out"), lambda done, total: None)
    assert (came.complete, came.imported) == (True, report.messages)
    assert {one.name for one in await house.store.mailboxes((await house.account(BOB)).id)} == {
        one.name for one in await house.store.mailboxes(account.id)}


async def test_directories_and_files_are_imported_from_one_place(house: MailHouse, tmp_path: Path, around: Path) -> None:
    """As far as a file system can hold them; beside them links that lead away."""
    root = around / "a" / "Maildir"
    made = 0
    for number, name in enumerate(NAMES):
        flat = name.replace("/", ".").replace("\0", "_")[:200]
        place = root / f".{flat}" / "cur"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.x:2,{flat[:20]}").write_bytes(MESSAGE)
        os.symlink(around / "canary", place / f"link{number}")
        made += 1
    os.symlink(around, root / ".away")
    before, data = _everything(around), _names(tmp_path / "data")
    report = await Importing(house.store, house.clock).import_(BOB, ImportPlan(root), lambda done, total: None)
    assert report.imported == made
    assert _everything(around) == before and _names(tmp_path / "data") == data
    for octets in await house.mailbox(BOB):
        assert b"mine" not in octets


def test_a_file_that_a_manifest_names_is_inside(around: Path) -> None:
    """What is opened is a plain file below the directory, or nothing."""
    root, opened = around / "a", 0
    (root / "canary").write_text("inside")
    for name in NAMES:
        try:
            with open_inside(root, name) as file:
                opened += 1
                assert file.read() == b"inside", name
        except OSError:
            continue
    assert opened == 1


def test_a_backup_that_names_such_files_is_refused(tmp_path: Path) -> None:
    """A restore writes where the manifest says."""
    whole = {"format": 1, "id": "x", "program": "0", "hostname": "h", "time": "t", "at_ms": 1, "accounts": 0, "messages": 0,
             "octets": 0}
    escaping = [name for name in NAMES if not (tmp_path / name.replace("\0", "")).resolve().is_relative_to(tmp_path)]
    assert len(escaping) >= 100
    for name in escaping:
        files = [{"path": name, "size_octets": 0, "sha256": "0" * 64}]
        (tmp_path / "manifest.json").write_text(json.dumps({**whole, "files": files}))
        with pytest.raises(BackupFault):
            read_manifest(tmp_path)
