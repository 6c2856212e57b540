"""Mail of other programs, friendly and hostile, comes in without leaving its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fumibako.model.ops import AddAccount
from fumibako.services.admin import AdminError
from fumibako.services.migrate.importing import Importing, ImportPlan, ImportReport
from tests.support.corpus import holding
from tests.support.mailhouse import NO_PASSWORD, MailHouse

BOB = "bob@example.jp"
MAIL = b"Subject: one\n\nbody\n"


async def imported(house: MailHouse, path: Path, kind: str = "") -> ImportReport:
    return await Importing(house.store, house.clock).import_(BOB, ImportPlan(path, kind), lambda done, total: None)


async def filled(house: MailHouse) -> dict[str, list[tuple[str, ...]]]:
    """name -> flags of each message, of mailboxes that hold any."""
    held = await holding(house.store, await house.account(BOB))
    return {name: [one.flags for one in messages] for name, (_, messages) in held.mailboxes.items() if messages}


def put(root: Path, place: str, name: str, octets: bytes = MAIL, at_s: int = 1_000_000_000) -> None:
    directory = root / place
    for part in ("cur", "new", "tmp"):
        (directory.parent / part).mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(octets)
    os.utime(directory / name, (at_s, at_s))


async def test_a_maildir_of_two_layouts(house: MailHouse, tmp_path: Path) -> None:
    put(tmp_path, "cur", "2.M1P1.host:2,RS")
    put(tmp_path, "new", "1.M1P1.host")
    put(tmp_path, ".Sub.Folder/cur", "1.a:2,Fa")
    (tmp_path / ".Sub.Folder" / "dovecot-keywords").write_text("0 $Forwarded\n1 bad(word\nx y\n")
    put(tmp_path, ".&ZeVnLIqe-/cur", "1.a:2,")
    put(tmp_path, "fs/below/cur", "1.a:2,T")
    (tmp_path / "subscriptions").write_bytes(b"V\t2\n\nSub\tFolder\n")

    report = await imported(house, tmp_path)
    assert (report.kind, report.imported, report.complete) == ("maildir", 5, True)
    assert await filled(house) == {"INBOX": [(), ("\\Answered", "\\Seen")], "Sub/Folder": [("$Forwarded", "\\Flagged")],
                                   "日本語": [()], "fs/below": [("\\Deleted",)]}
    assert "Sub/Folder" in (await holding(house.store, await house.account(BOB))).subscriptions
    assert await house.mailbox(BOB) == [MAIL.replace(b"\n", b"\r\n")] * 2


async def test_the_order_is_that_of_dovecots_uids(house: MailHouse, tmp_path: Path) -> None:
    for number, name in ((3, "1.a"), (1, "2.b"), (2, "3.c")):
        put(tmp_path, "cur", f"{name}:2,", b"Subject: %d\n\n" % number)
    (tmp_path / "dovecot-uidlist").write_text("3 V1 N4 Gabc\n1 :2.b\n2 W20 :3.c:2,\n3 :1.a\n")
    await imported(house, tmp_path)
    assert await house.mailbox(BOB) == [b"Subject: %d\r\n\r\n" % number for number in (1, 2, 3)]


async def test_nothing_outside_is_read(house: MailHouse, tmp_path: Path) -> None:
    secret, root = tmp_path / "secret", tmp_path / "Maildir"
    put(secret, "cur", "1.secret:2,", b"Subject: secret\n\n")
    put(root, "cur", "1.a:2,")
    (root / "cur" / "2.link:2,").symlink_to(secret / "cur" / "1.secret:2,")
    (root / ".Linked").symlink_to(secret)
    (root / ".Half").mkdir()
    (root / ".Half" / "cur").symlink_to(secret / "cur")
    os.mkfifo(root / "cur" / "3.pipe:2,")
    (root / "dovecot-keywords").symlink_to("/etc/passwd")

    report = await imported(house, root)
    assert (report.imported, await filled(house)) == (1, {"INBOX": [()]})
    assert sorted(report.skipped) == ["cur/2.link:2,", "cur/3.pipe:2,"]


@pytest.mark.parametrize(("directory", "mailbox"), [
    ("...cur-ious", "cur-ious"), (".a\nb", "a_b"), (".&notutf7", "&notutf7"), (".caf\udce9", "café"), (". ", "_"), (".\x7f", "_"),
    (".INBOX.Sent", "INBOX/Sent"), (".inbox", "INBOX"), (".&AC8-etc", "&AC8-etc"), (".&AAA-", "_"), (".x..y", "x/y"),
])
async def test_hostile_names(house: MailHouse, tmp_path: Path, directory: str, mailbox: str) -> None:
    put(tmp_path, f"{directory}/cur", "1.a:2,")
    report = await imported(house, tmp_path)
    assert report.complete
    assert list(await filled(house)) == [mailbox]


async def test_deep_and_long_names(house: MailHouse, tmp_path: Path) -> None:
    put(tmp_path, "." + ".".join("abcdef" for _ in range(35)) + "/cur", "1.a:2,")
    put(tmp_path, "/".join(["日本" * 35] * 6) + "/cur", "1.a:2,")
    report = await imported(house, tmp_path)
    assert (report.complete, report.imported) == (True, 2)
    assert all(len(name.encode()) <= 1000 for name in await filled(house))


@pytest.mark.parametrize("file", ["../secret", "/etc/passwd", "cur/../../secret", "cur", "", "link"])
async def test_a_manifest_names_nothing_outside(house: MailHouse, tmp_path: Path, file: str) -> None:
    root = tmp_path / "out"
    put(root, "cur", "1.a:2,")
    (tmp_path / "secret").write_bytes(MAIL)
    (root / "link").symlink_to("../secret")
    (root / "fumibako.json").write_text(
        '{"format": "fumibako-export", "version": 1, "account": "a@b", "store": "maildir", "whole": true, "subscriptions": [], '
        '"mailboxes": [\n{"name": "INBOX", "special_use": "", "uid_validity": 1, "uid_next": 2, "path": "", "messages": [\n'
        f'{{"file": "{file}", "uid": 1, "flags": [], "internal_date": 1, "saved_at": 1, "size_octets": 19, "sha256": "'
        + "0" * 64 + '"}\n]}\n]}\n')
    report = await imported(house, root)
    assert (report.imported, report.damaged, report.complete) == (0, 1, False)


MBOX = (b"From a@b Thu Nov 24 18:22:48 1986\nSubject: one\nStatus: RO\nX-Status: AF\nX-Keywords: work  \n\n>From x\n>>From y\n"
        b"From here no date\n\nFrom no date either\n\nFrom c@d  Thu Nov 24 18:22:49 1986 +0100\nSubject: two\n"
        b"X-Mozilla-Status: 0001\n\nend without line end")


async def test_an_mbox_file(house: MailHouse, tmp_path: Path) -> None:
    (tmp_path / "mbox").write_bytes(MBOX)
    report = await imported(house, tmp_path / "mbox")
    assert (report.kind, report.imported) == ("mbox", 2)
    assert await filled(house) == {"INBOX": [("\\Answered", "\\Flagged", "\\Seen", "work"), ("\\Seen",)]}
    one, two = await house.mailbox(BOB)
    assert one == b"Subject: one\r\n\r\nFrom x\r\n>From y\r\nFrom here no date\r\n\r\nFrom no date either\r\n"
    assert two == b"Subject: two\r\nX-Mozilla-Status: 0001\r\n\r\nend without line end"
    dates = [one.internal_date for one in (await holding(house.store, await house.account(BOB))).mailboxes["INBOX"][1]]
    assert dates == [533240568000, 533240569000 - 3_600_000]


async def test_a_directory_of_mbox_files(house: MailHouse, tmp_path: Path) -> None:
    (tmp_path / "Work.sbd").mkdir()
    (tmp_path / "Work.sbd" / "2024").write_bytes(MBOX)
    (tmp_path / "Inbox").write_bytes(MBOX)
    (tmp_path / "Inbox.msf").write_bytes(b"// not mail")
    assert (await imported(house, tmp_path)).imported == 4
    assert sorted(await filled(house)) == ["INBOX", "Work/2024"]


async def test_what_is_no_mail_is_refused(house: MailHouse, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_bytes(b"hello\n")
    for path in (tmp_path, tmp_path / "letter.txt", tmp_path / "nowhere"):
        with pytest.raises(AdminError):
            await imported(house, path)


async def test_keywords_beyond_what_an_account_has_room_for(house: MailHouse, tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path, f".b{number}/cur", "1.a:2,abcdefghijklmnopqrstuvwxyz")
        lines = "".join(f"{at} k{number}-{at}\n" for at in range(26))
        (tmp_path / f".b{number}" / "dovecot-keywords").write_text(lines)
    report = await imported(house, tmp_path)
    assert (report.complete, report.imported, report.keywords_left_out) == (True, 3, 3 * 26 - 58)


async def test_the_quota_ends_it_in_words(house: MailHouse, tmp_path: Path) -> None:
    await house.store.commit(AddAccount("small@example.jp", NO_PASSWORD, 1000))
    for number in range(3):
        put(tmp_path, "cur", f"{number}.a:2,", MAIL + b"x" * 500)
    plan = ImportPlan(tmp_path)
    report = await Importing(house.store, house.clock).import_("small@example.jp", plan, lambda done, total: None)
    assert (report.imported, report.complete) == (0, False)
    assert "quota" in report.stopped

