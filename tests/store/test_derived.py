"""Whatever is derived can be deleted: it is made again, and no client sees a difference, octet by octet.

Caches are made again when they are asked for, counters and sizes by `check --repair`, views at SELECT.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fumibako.store.check import check
from fumibako.store.local import LocalStore
from fumibako.store.sqlite.database import open_reader, open_writer
from tests.contract.building import NOW_MS
from tests.support.clock import FakeClock
from tests.support.imap_session import House

MAIL_DB = Path("shard-001") / "mail.db"
MULTIPART = ('From: =?utf-8?B?6KaL5pys?= <taro@example.net>\r\n'
             'To: alice@example.jp, "B, C" <b@example.com>\r\nCc: team: x@y.example;\r\n'
             "Subject: =?iso-2022-jp?B?GyRCRnxLXBsoQg==?= two\r\nDate: Mon, 2 Jun 2025 10:00:00 +0900\r\n"
             "Message-ID: <2@example.net>\r\n"
             "In-Reply-To: <1@example.net>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=q\r\n\r\n"
             "--q\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nhello\r\n--q\r\nContent-Type: image/png; name=\"a.png\"\r\n"
             "Content-Disposition: attachment; filename*=utf-8''%E6%A1%88.png\r\n"
             "Content-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--q\r\n"
             "Content-Type: message/rfc822\r\n\r\nFrom: z@z.example\r\nSubject: inner\r\n\r\ninside\r\n--q--\r\n")
MAILBOXES = ("INBOX", "Archive")
QUESTIONS = [
    *(f"{prefix}FETCH 1:* ({what})" for prefix in ("", "UID ") for what in (
        "ENVELOPE", "BODYSTRUCTURE", "BODY", "FLAGS", "RFC822.SIZE", "INTERNALDATE", "FLAGS MODSEQ", "EMAILID THREADID",
        "BODY.PEEK[HEADER.FIELDS (SUBJECT)]", "BODY.PEEK[1]", "BODY.PEEK[2.MIME]", "PREVIEW")),
    *(f"{prefix}SEARCH {what}" for prefix in ("", "UID ") for what in (
        "ALL", "UNSEEN", "DELETED", "SUBJECT two", "FROM example.net", "LARGER 200", "SMALLER 200", "KEYWORD $work",
        "SENTSINCE 1-Jan-2025", "BODY inside", 'HEADER Message-ID "<2@example.net>"', "NOT SEEN")),
]
ABOUT_ALL = [
    *(f"STATUS {name} (MESSAGES UIDNEXT UIDVALIDITY UNSEEN DELETED SIZE HIGHESTMODSEQ)" for name in MAILBOXES),
    "GETQUOTA \"\"", "GETQUOTAROOT INBOX", 'LIST "" *', 'LSUB "" *',
]
_WRONG = "UPDATE mailbox SET total = 0, unseen = 5, deleted = 9, size_octets = 1"
_REFS = "UPDATE blob SET refs = 9"
DELETIONS = {
    "caches": ("DELETE FROM email_cache",),
    "caches of another version": ("UPDATE email_cache SET data = x'ff00'",),
    "mailbox counters": (_WRONG,),
    "quota": ("UPDATE account SET used_octets = 0, messages = 0",),
    "sizes": ("UPDATE email SET size_octets = 1",),
    "references": (_REFS, "UPDATE email SET entries = 9"),
    "all at once": ("DELETE FROM email_cache", _WRONG, _REFS, "UPDATE email SET size_octets = 1, entries = 9",
                    "UPDATE account SET used_octets = 0, messages = 0"),
}


async def fill(house: House) -> None:
    client = await house.login()
    for number in range(1, 8):
        plain = f"Subject: plain {number}\r\nMessage-ID: <{number}@x>\r\n\r\n{'x' * number * 60}\r\n"
        message = MULTIPART if number % 3 == 2 else plain
        flags = {1: "(\\Seen) ", 3: "(\\Flagged $work) ", 4: "(\\Deleted) "}.get(number, "")
        assert (await client.append("INBOX", message, flags)).ok
    for command in ("SELECT INBOX",
                    "COPY 2:3 Archive", "MOVE 6 Archive", "STORE 7 +FLAGS (\\Answered)", "UID EXPUNGE 4", "CLOSE"):
        await client.run(command)
    await client.leave()


async def answers(directory: Path) -> dict[str, list[str]]:
    """Question -> every line of its answer."""
    clock = FakeClock()
    house = House(LocalStore(directory, clock.now_ms), clock)
    try:
        client = await house.login()
        found = {question: _lines(await client.run(question)) for question in ABOUT_ALL}
        for name in MAILBOXES:
            found[f"EXAMINE {name}"] = _lines(await client.run(f"EXAMINE {name}"))
            found |= {f"{name} {question}": _lines(await client.run(question)) for question in QUESTIONS}
        await client.leave()
        return found
    finally:
        await house.close()


def _lines(reply: object) -> list[str]:
    lines = repr(reply).split("\n")
    return [*lines[:-1], lines[-1].partition(" ")[2]]       # without the tag


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("derived")


@pytest.fixture
async def filled(place: Path) -> Path:
    directory = place / "data"
    if not directory.exists():
        house = await House.build(directory, quota_limit_octets=10_000_000)
        await fill(house)
        await house.close()
    return directory


@pytest.mark.parametrize("what", DELETIONS)
async def test_it_is_made_again_octet_by_octet(filled: Path, tmp_path: Path, what: str) -> None:
    before = await answers(shutil.copytree(filled, tmp_path / "before"))
    directory = shutil.copytree(filled, tmp_path / "after")
    database = open_writer(directory / MAIL_DB)
    for sql in DELETIONS[what]:
        database.run(sql)
    database.close()
    if not what.startswith("caches"):
        assert check(directory).findings
        assert check(directory, repair=True, now_ms=NOW_MS).sound and not check(directory).findings
    assert await answers(directory) == before


async def test_the_questions_are_answered(filled: Path, tmp_path: Path) -> None:
    found = await answers(shutil.copytree(filled, tmp_path / "data"))
    refused = [question for question, lines in found.items() if not lines[-1].startswith("OK")]
    assert len(found) >= 30 and not refused
    text = "\n".join(line for lines in found.values() for line in lines)
    expected = ('"mixed"', "envelope", "rfc822.size", "storage", "highestmodseq", "$work")
    assert [one for one in expected if one not in text.lower()] == []


async def test_caches_come_back_when_they_are_asked_for(filled: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(filled, tmp_path / "data")
    await answers(directory)
    database = open_writer(directory / MAIL_DB)
    cached = database.rows("SELECT blob_id, data FROM email_cache ORDER BY 1")
    database.run("DELETE FROM email_cache")
    database.close()
    await answers(directory)
    database = open_reader(directory / MAIL_DB)
    again = database.rows("SELECT blob_id, data FROM email_cache ORDER BY 1")
    database.close()
    assert again and set(again) <= set(cached)
