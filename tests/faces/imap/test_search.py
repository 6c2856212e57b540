"""SEARCH: every key once, the forms of its answer, and "$"."""

from __future__ import annotations

import base64
from contextlib import AsyncExitStack

import pytest

from fumibako.services.pace import Pace
from fumibako.services.search import SEARCH_S
from fumibako.services.search_places import WAITING
from tests.support.imap_session import Client, House


def mail(subject: str, body: str, extra: str = "", date: str = "Thu, 14 Feb 2008 23:30:00 -0800") -> str:
    people = "From: Ann <ann@example.org>\r\nTo: Bob <bob@example.org>\r\n"
    return f"Date: {date}\r\n{people}Subject: {subject}\r\n{extra}\r\n{body}\r\n"


def latin(text: str) -> str:
    return text.encode().decode("latin-1")


ENCODED = base64.b64encode("見積書".encode()).decode()
JIS = base64.b64encode("本日は晴天なり".encode("iso2022_jp")).decode()
ATTACHED = (
    "Subject: parts\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ncover\r\n--b\r\n"
    "Content-Type: application/pdf; name=\"=?utf-8?B?6KaL56mN?=.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    + base64.b64encode(b"needle").decode() + "\r\n--b--\r\n"
)
MESSAGES = (
    (mail("plain ABC", "the quick brown fox"), "(\\Seen) "),
    (mail(f"=?utf-8?B?{ENCODED}?=", "second", "Cc: carol@example.org\r\nX-Tag: Zebra\r\n"),
     '(\\Flagged $Work) " 1-Feb-2020 12:00:00 +0000" '),
    (mail("jis", JIS, "Content-Type: text/plain; charset=iso-2022-jp\r\nContent-Transfer-Encoding: base64\r\n"), "(\\Deleted) "),
    (mail("html", "<p>gr<b>een</b> &amp; blue</p>" + "x" * 500, "Content-Type: text/html\r\n",
          "Mon, 1 Jan 2024 00:00:00 +0000"), ""),
    (ATTACHED, ""),
)


@pytest.fixture
async def client(client: Client) -> Client:
    for message, options in MESSAGES:
        assert (await client.append("INBOX", message, options)).ok
    await client.run("SELECT INBOX")
    return client


@pytest.mark.parametrize(("key", "expected"), [
    ("ALL", "1 2 3 4 5"), ("SEEN", "1"), ("UNSEEN", "2 3 4 5"), ("FLAGGED", "2"), ("DELETED", "3"), ("UNDELETED", "1 2 4 5"),
    ("KEYWORD $work", "2"), ("UNKEYWORD $Work", "1 3 4 5"), ("KEYWORD $None", ""), ("UNKEYWORD $None", "1 2 3 4 5"),
    ("NEW", "2 3 4 5"), ("RECENT", "1 2 3 4 5"), ("OLD", ""),
    ("2:3", "2 3"), ("*", "5"), ("UID 4:*", "4 5"), ("NOT 2:4", "1 5"),
    ("LARGER 500", "4"), ("SMALLER 500", "1 2 3 5"),
    ("ON 1-Feb-2020", "2"), ("BEFORE 2-Feb-2020", "2"), ("SINCE 2-Feb-2020", "1 3 4 5"),
    ("SENTON 14-Feb-2008", "1 2 3"), ("SENTBEFORE 15-Feb-2008", "1 2 3"), ("SENTSINCE 1-Jan-2024", "4"),
    ("SAVEDSINCE 1-Jan-2025", "1 2 3 4 5"), ("SAVEDBEFORE 1-Jan-2025", ""), ("SAVEDATESUPPORTED", "1 2 3 4 5"),
    ("OLDER 3600", "2"), ("YOUNGER 3600", "1 3 4 5"),
    ("SUBJECT abc", "1"), ("FROM ANN@", "1 2 3 4"), ("TO bob", "1 2 3 4"), ("CC carol", "2"), ("BCC x", ""),
    ("HEADER X-Tag zebra", "2"), ('HEADER X-Tag ""', "2"), ('HEADER Cc ""', "2"),
    (f"CHARSET UTF-8 SUBJECT {latin('{9+}')}\r\n{latin('見積書')}", "2"),
    (f"SUBJECT {{9+}}\r\n{latin('見積書')}", "2"),
    (f"BODY {{6+}}\r\n{latin('晴天')}", "3"),
    ('BODY "QUICK brown"', "1"), ('BODY "green & blue"', "4"), ("BODY needle", ""), ("BODY ann", ""), ("TEXT ann", "1 2 3 4"),
    (f"BODY {{6+}}\r\n{latin('見積')}", "5"),
    ("OR SEEN FLAGGED", "1 2"), ("NOT (OR SEEN FLAGGED)", "3 4 5"), ("UNSEEN SUBJECT html", "4"), ("MODSEQ 1", "1 2 3 4 5"),
    ("EMAILID M00", ""), ("THREADID T0", ""),
])
async def test_keys(client: Client, key: str, expected: str) -> None:
    reply = await client.run(f"SEARCH {key}")
    assert reply.ok, reply
    found = next(line for line in reply.untagged if line.startswith("* SEARCH"))
    assert found.removeprefix("* SEARCH").partition(" (MODSEQ")[0].strip() == expected


async def test_ids(client: Client) -> None:
    line = (await client.run("FETCH 3 (EMAILID THREADID)")).untagged[0]
    email_id, thread_id = line.partition("EMAILID (")[2].partition(")")[0], line.partition("THREADID (")[2].partition(")")[0]
    assert (await client.run(f"SEARCH EMAILID {email_id}")).untagged == ["* SEARCH 3"]
    assert "3" in (await client.run(f"SEARCH THREADID {thread_id}")).untagged[0].split(" ")


async def test_a_halfwidth_word_finds_its_full_form(client: Client) -> None:
    text = base64.b64encode("テストです".encode()).decode()
    await client.append("INBOX", mail(f"=?utf-8?B?{text}?=", "x"))
    needle = latin("ﾃｽﾄ")
    assert (await client.run(f"SEARCH SUBJECT {{{len(needle)}+}}\r\n{needle}")).untagged == ["* SEARCH 6"]


async def test_esearch_forms(client: Client) -> None:
    reply = await client.run("SEARCH RETURN (MIN MAX COUNT) UNSEEN", tag="a")
    assert reply.untagged == ['* ESEARCH (TAG "a") MIN 2 MAX 5 COUNT 4']
    assert (await client.run("UID SEARCH RETURN () ALL", tag="b")).untagged == ['* ESEARCH (TAG "b") UID ALL 1:5']
    assert (await client.run("SEARCH RETURN (COUNT) KEYWORD none", tag="c")).untagged == ['* ESEARCH (TAG "c") COUNT 0']
    reply = await client.run("SEARCH RETURN (MIN) MODSEQ 1", tag="d")
    assert reply.untagged[-1].startswith('* ESEARCH (TAG "d") MIN 1 MODSEQ ')
    await client.run("ENABLE IMAP4rev2")
    assert (await client.run("SEARCH SEEN", tag="e")).untagged == ['* ESEARCH (TAG "e") ALL 1']


async def test_the_saved_result_survives_expunges(house: House, client: Client) -> None:
    assert (await client.run("SEARCH RETURN (SAVE) UNSEEN")).untagged == []
    assert (await client.run("FETCH $ UID")).untagged == [f"* {n} FETCH (UID {n})" for n in (2, 3, 4, 5)]
    await client.run("EXPUNGE")     # message 3
    assert (await client.run("FETCH $ UID")).untagged == ["* 2 FETCH (UID 2)", "* 3 FETCH (UID 4)", "* 4 FETCH (UID 5)"]
    assert (await client.run("SEARCH $ FLAGGED")).untagged == ["* SEARCH 2"]
    assert (await client.run("SEARCH RETURN (SAVE MIN) ALL", tag="m")).untagged == ['* ESEARCH (TAG "m") MIN 1']
    assert (await client.run("UID FETCH $ UID")).untagged == ["* 1 FETCH (UID 1)"]
    await client.run("UNSELECT")
    await client.run("SELECT INBOX")
    assert (await client.run("FETCH $ UID")).untagged == []


async def test_an_unknown_charset_is_refused(client: Client) -> None:
    reply = await client.run("SEARCH CHARSET KOI8-R SUBJECT x")
    assert reply.status == "NO" and reply.code.startswith("BADCHARSET")


async def test_a_search_that_takes_too_long(house: House, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9051 §7.1: LIMIT; §6.4.4.1: "$" is empty then; the session goes on, and others were served meanwhile."""
    other = await house.login()
    assert (await client.run("SEARCH RETURN (SAVE) ALL")).ok
    turn, served = Pace.turn, []

    async def slow(self: Pace) -> None:
        house.clock.advance(1)
        served.append((await other.run("NOOP")).ok)
        await turn(self)

    with monkeypatch.context() as patched:
        patched.setattr(Pace, "turn", slow)
        patched.setattr(Pace, "spend", lambda self, units: self.turn())
        reply = await client.run("SEARCH RETURN (SAVE) " + "BODY x " * 100)
    assert (reply.status, reply.code, reply.untagged) == ("NO", "LIMIT", [])
    assert served == [True] * int(SEARCH_S)
    assert (await client.run("FETCH $ (UID)")).untagged == []
    assert (await client.run("SEARCH BODY fox")).untagged == ["* SEARCH 1"]


async def test_an_account_whose_searches_wait_already_is_told_so(house: House, client: Client) -> None:
    """RFC 9051 §7.1 LIMIT; what needs flags alone, as programs ask all the time, never waits."""
    alice, turns = await house.account(), house.mailboxes.searches
    async with AsyncExitStack() as others:
        await others.enter_async_context(turns.turn(alice.id))
        turns._present[alice.id] += WAITING
        reply = await client.run("SEARCH BODY fox")
        assert (reply.status, reply.code) == ("NO", "LIMIT") and "try again" in reply.completion
        assert (await client.run("SEARCH SEEN")).untagged == ["* SEARCH 1"]
        turns._present[alice.id] -= WAITING
    assert (await client.run("SEARCH BODY fox")).untagged == ["* SEARCH 1"]
