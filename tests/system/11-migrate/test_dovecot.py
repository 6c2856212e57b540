"""Dovecot reads what we export, and we read what Dovecot wrote; both with every message, flag and name."""

from __future__ import annotations

import hashlib
import imaplib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fumibako.proto.imap.names import decode_utf7, encode_utf7
from fumibako.services.migrate.exporting import Exporting
from fumibako.services.migrate.importing import Importing, ImportPlan
from tests.support.corpus import fill, holding
from tests.support.mailhouse import MailHouse, mail_house
from tests.support.server import needs

pytestmark = [pytest.mark.system, pytest.mark.root]
ALICE, BOB = "alice@example.jp", "bob@example.jp"
CONFIGURATION = """
mail_location = maildir:{home}/mail
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/log
ssl = no
mail_uid = nobody
mail_gid = nogroup
first_valid_uid = 1
protocols = imap
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A place that Dovecot's user may enter, as it may not enter pytest's."""
    needs("doveadm")
    with tempfile.TemporaryDirectory(prefix="fumibako-dovecot-", dir="/tmp") as name:
        place = Path(name)
        place.chmod(0o777)
        (place / "dovecot.conf").write_text(CONFIGURATION.format(home=name))
        yield place


@contextmanager
def dovecot(home: Path) -> Iterator[imaplib.IMAP4]:
    """Dovecot's imap on its standard input and output, logged in."""
    for path in (home / "mail", *(home / "mail").rglob("*")):
        shutil.chown(path, "nobody", "nogroup")
    command = f"exec env USER=nobody HOME={home} doveadm -c {home}/dovecot.conf exec imap"
    client = imaplib.IMAP4_stream(command)
    yield client
    client.logout()


def flags_in(line: bytes) -> tuple[str, ...]:
    found = re.search(rb"FLAGS \(([^)]*)\)", line)
    assert found
    return tuple(sorted(flag for flag in found[1].decode().split() if flag != "\\Recent"))


def seen_by(client: imaplib.IMAP4, mailbox: str) -> list[tuple[str, tuple[str, ...], int]]:
    """SHA-256, flags and date of each message."""
    status, _ = client.select(f'"{encode_utf7(mailbox).decode()}"', readonly=True)
    assert status == "OK", mailbox
    _, found = client.fetch("1:*", "(FLAGS INTERNALDATE BODY.PEEK[])")
    pairs = [one for one in found if isinstance(one, tuple)]
    return [(hashlib.sha256(octets).hexdigest(), flags_in(line), date_in(line)) for line, octets in pairs]


def date_in(line: bytes) -> int:
    """Seconds."""
    date = imaplib.Internaldate2tuple(line)
    assert date is not None
    return int(time.mktime(date))


async def test_dovecot_reads_our_export(house: MailHouse, home: Path) -> None:
    await fill(house.store, house.clock, await house.account(ALICE), 320)
    await Exporting(house.store).export(ALICE, home / "mail", "maildir", "", lambda done, total: None)
    ours = await holding(house.store, await house.account(ALICE))
    with dovecot(home) as client:
        _, lines = client.list()
        names = {decode_utf7(line.rpartition(b'"." ')[2].strip(b'"')).replace(".", "/") for line in lines}
        keywords = await house.store.keywords((await house.account(ALICE)).id)
        for name in ("INBOX", "Sent", "送信済み", "仕事/2024年/請求書", "R&D"):
            assert name in names
            mine, theirs = ours.mailboxes[name][1], seen_by(client, name.replace("/", "."))
            assert len(theirs) == len(mine)
            used = {flag for held in mine for flag in held.flags}
            lettered = [keywords[bit] for bit in sorted(keywords) if keywords[bit] in used][:26]    # Maildir has no more letters
            for held, (_, flags, date) in zip(mine, theirs, strict=True):
                assert flags == tuple(flag for flag in held.flags if flag.startswith("\\") or flag in lettered)
                assert date == held.internal_date // 1000
            same = sum(held.sha256 == sha256 for held, (sha256, _, _) in zip(mine, theirs, strict=True))
            assert same >= len(mine) - 8        # bare CR, bare LF and NUL: Dovecot serves those in its own way
        _, subscribed = client.lsub()
    assert len([line for line in subscribed if b"&TtVOiw-" in line]) == 1


async def test_a_maildir_of_dovecots_comes_in(house: MailHouse, home: Path) -> None:
    (home / "mail").mkdir()
    await fill(house.store, house.clock, await house.account(ALICE), 40)
    with dovecot(home) as client:
        for name in ("Work.2024", "日本語", "R&D"):
            assert client.create(f'"{encode_utf7(name).decode()}"')[0] == "OK"
            client.subscribe(f'"{encode_utf7(name).decode()}"')
            for number in range(20):
                flags = ["\\Seen", "\\Flagged \\Draft", "$Forwarded \\Answered", "\\Deleted", ""][number % 5]
                date = f'"{number + 1:02d}-Jan-2020 00:00:00 +0000"'
                message = b"Subject: %d\r\n\r\nFrom x\r\nbody\r\n" % number
                client.append(f'"{encode_utf7(name).decode()}"', f"({flags})", date, message)
        theirs = {name: seen_by(client, name) for name in ("Work.2024", "日本語", "R&D")}
    report = await Importing(house.store, house.clock).import_(BOB, ImportPlan(home / "mail"), lambda done, total: None)
    ours = await holding(house.store, await house.account(BOB))

    assert (report.complete, report.imported) == (True, 60)
    for name, seen in theirs.items():
        mine = ours.mailboxes[name.replace(".", "/")][1]
        assert [(one.sha256, one.flags) for one in mine] == [(sha256, flags) for sha256, flags, _ in seen]
        assert [one.internal_date for one in mine] == [1_577_836_800_000 + 86_400_000 * number for number in range(20)]
        assert name.replace(".", "/") in ours.subscriptions


@pytest.fixture
async def house(tmp_path: Path):
    async with mail_house(tmp_path / "data") as opened:
        yield opened
