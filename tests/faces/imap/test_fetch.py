"""FETCH: every item, partial and binary forms, and what setting \\Seen tells."""

from __future__ import annotations

import base64

import pytest

from fumibako.store.base import Store
from tests.support.imap_session import Client, House

PLAIN = "Date: Mon, 7 Feb 1994 21:52:25 -0800\r\nSubject: =?utf-8?B?6KaL56mN?=\r\nX-A: 1\r\nx-a: 2\r\n\r\nhello body\r\n"
INNER = "Subject: inner\r\n\r\ninner text\r\n"
MIXED = (
    "Subject: mixed\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n"
    "--b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\ncaf=C3=A9=\r\n\r\n"
    "--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    + base64.b64encode(b"a\0b" * 10).decode() + "\r\n"
    f"--b\r\nContent-Type: message/rfc822\r\n\r\n{INNER}\r\n"
    "--b\r\nContent-Transfer-Encoding: x-rot13\r\n\r\nuryyb\r\n--b--\r\n"
)


@pytest.fixture
async def client(client: Client) -> Client:
    for message in (PLAIN, MIXED):
        assert (await client.append("INBOX", message)).ok
    await client.run("SELECT INBOX")
    return client


def literal(label: str, content: str) -> str:
    return f"{label} {{{len(content)}}}\r\n{content}"


@pytest.mark.parametrize(("item", "label", "content"), [
    ("BODY.PEEK[]", "BODY[]", PLAIN),
    ("BODY.PEEK[HEADER]", "BODY[HEADER]", PLAIN.partition("hello")[0]),
    ("BODY.PEEK[TEXT]", "BODY[TEXT]", "hello body\r\n"),
    ("BODY.PEEK[1]", "BODY[1]", "hello body\r\n"),
    ("RFC822.HEADER", "RFC822.HEADER", PLAIN.partition("hello")[0]),
    ("BODY.PEEK[HEADER.FIELDS (x-a)]", "BODY[HEADER.FIELDS (x-a)]", "X-A: 1\r\nx-a: 2\r\n\r\n"),
    ("BODY.PEEK[HEADER.FIELDS.NOT (Date Subject)]", "BODY[HEADER.FIELDS.NOT (Date Subject)]", "X-A: 1\r\nx-a: 2\r\n\r\n"),
    ("BODY.PEEK[TEXT]<6.4>", "BODY[TEXT]<6>", "body"),
    ("BODY.PEEK[TEXT]<99.4>", "BODY[TEXT]<99>", ""),
    ("BODY.PEEK[HEADER.FIELDS (X-A)]<0.6>", "BODY[HEADER.FIELDS (X-A)]<0>", "X-A: 1"),
])
async def test_sections_of_a_plain_message(client: Client, item: str, label: str, content: str) -> None:
    assert (await client.run(f"FETCH 1 {item}")).untagged == [f"* 1 FETCH ({literal(label, content)})"]
    assert (await client.run("FETCH 1 FLAGS")).untagged == ["* 1 FETCH (FLAGS (\\Recent))"]


@pytest.mark.parametrize(("item", "label", "content"), [
    ("BODY.PEEK[1]", "BODY[1]", "caf=C3=A9=\r\n"),
    ("BODY.PEEK[1.MIME]", "BODY[1.MIME]", "Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"),
    ("BODY.PEEK[3]", "BODY[3]", INNER),
    ("BODY.PEEK[3.HEADER]", "BODY[3.HEADER]", "Subject: inner\r\n\r\n"),
    ("BODY.PEEK[3.TEXT]", "BODY[3.TEXT]", "inner text\r\n"),
    ("BODY.PEEK[3.1]", "BODY[3.1]", "inner text\r\n"),
    ("BODY.PEEK[3.HEADER.FIELDS (Subject)]", "BODY[3.HEADER.FIELDS (Subject)]", "Subject: inner\r\n\r\n"),
])
async def test_sections_of_parts(client: Client, item: str, label: str, content: str) -> None:
    assert (await client.run(f"FETCH 2 {item}")).untagged == [f"* 2 FETCH ({literal(label, content)})"]


async def test_a_part_that_is_not_there_is_nil(client: Client) -> None:
    assert (await client.run("FETCH 2 BODY.PEEK[9]")).untagged == ["* 2 FETCH (BODY[9] NIL)"]
    assert (await client.run("FETCH 2 BINARY.PEEK[9]")).untagged == ["* 2 FETCH (BINARY[9] NIL)"]


async def test_binary(client: Client) -> None:
    assert (await client.run("FETCH 2 BINARY.PEEK[1]")).untagged == ["* 2 FETCH (BINARY[1] ~{5}\r\ncafÃ©)"]
    assert (await client.run("FETCH 2 (BINARY.SIZE[2] BINARY.PEEK[2]<1.4>)")).untagged == [
        "* 2 FETCH (BINARY.SIZE[2] 30 BINARY[2]<1> ~{4}\r\n\0ba\0)"
    ]
    reply = await client.run("FETCH 2 BINARY.PEEK[4]")
    assert (reply.status, reply.code) == ("NO", "UNKNOWN-CTE")


async def test_fetching_sets_seen_once(client: Client) -> None:
    await client.run("ENABLE CONDSTORE")
    first = (await client.run("FETCH 1 BODY[TEXT]<0.5>")).untagged[0]
    assert first.startswith("* 1 FETCH (FLAGS (\\Recent \\Seen) MODSEQ (")
    assert first.endswith(literal("BODY[TEXT]<0>", "hello") + ")")
    assert (await client.run("FETCH 1 BODY[TEXT]<0.5>")).untagged == [f"* 1 FETCH ({literal('BODY[TEXT]<0>', 'hello')})"]
    reply = await client.run("UID FETCH 2 (FLAGS RFC822.TEXT)")
    assert reply.untagged[0].startswith("* 2 FETCH (UID 2 FLAGS (\\Recent \\Seen) RFC822.TEXT {")


async def test_items_from_rows_and_index(client: Client) -> None:
    line = (await client.run("FETCH 1 (EMAILID THREADID SAVEDATE PREVIEW UID)")).untagged[0]
    assert 'PREVIEW "hello body' in line and line.endswith("UID 1)")
    email_id = line.partition("EMAILID (")[2].partition(")")[0]
    assert email_id.startswith("M") and len(email_id) == 33
    await client.run("COPY 1 Archive")
    await client.run("SELECT Archive")
    assert email_id in (await client.run("FETCH 1 EMAILID")).untagged[0]


async def test_macros_and_structure(client: Client) -> None:
    full = (await client.run("FETCH 1 FULL")).untagged[0]
    assert 'BODY ("text" "plain"' in full and "ENVELOPE (" in full and "RFC822.SIZE" in full
    structure = (await client.run("FETCH 2 BODYSTRUCTURE")).untagged[0]
    assert '"mixed"' in structure and '"rfc822"' in structure


async def test_changed_since(client: Client) -> None:
    before = (await client.run("FETCH 1:2 MODSEQ")).untagged
    assert before[0].startswith("* OK [HIGHESTMODSEQ ")
    highest = before[0].partition("HIGHESTMODSEQ ")[2].partition("]")[0]
    await client.run("STORE 2 +FLAGS.SILENT (\\Flagged)")
    changed = (await client.run(f"UID FETCH 1:* (FLAGS) (CHANGEDSINCE {highest})")).untagged
    assert len(changed) == 1 and changed[0].startswith("* 2 FETCH (UID 2 FLAGS (\\Flagged \\Recent) MODSEQ (")


@pytest.mark.parametrize(("numbers", "uid", "status", "found"), [
    ("1:*", False, "OK", 2), ("*", False, "OK", 1), ("2:1", False, "OK", 2), ("3", False, "BAD", 0), ("1,3", False, "BAD", 0),
    ("7:9", True, "OK", 0), ("99:*", True, "OK", 1), ("1:4294967295", True, "OK", 2), ("1,1,1:2", True, "OK", 2),
])
async def test_numbers(client: Client, numbers: str, uid: bool, status: str, found: int) -> None:
    reply = await client.run(f"{'UID ' if uid else ''}FETCH {numbers} FLAGS")
    assert (reply.status, len(reply.untagged)) == (status, found)


async def test_an_empty_mailbox_has_no_last_message(client: Client) -> None:
    await client.run("SELECT Trash")
    assert (await client.run("FETCH 1:* FLAGS")).ok
    assert (await client.run("FETCH 1 FLAGS")).status == "BAD"


async def test_memory_stays_bounded(house: House, client: Client) -> None:
    big = "Subject: big\r\n\r\n" + ("x" * 70 + "\r\n") * 20_000
    await client.append("INBOX", big)
    writes = client.session._talk.stream.writes
    writes.clear()
    reply = await client.run("FETCH 3 BODY.PEEK[]")
    assert len(reply.untagged[0]) > len(big)
    assert max(writes) <= 66_000


async def test_a_message_that_others_expunged(house: House, client: Client) -> None:
    other = await house.login()
    await other.run("SELECT INBOX")
    await other.run("STORE 1 +FLAGS (\\Deleted)")
    await other.run("EXPUNGE")
    reply = await client.run("FETCH 1:2 RFC822.SIZE")
    assert (reply.status, reply.code) == ("NO", "EXPUNGEISSUED")
    assert reply.untagged[0] == f"* 2 FETCH (RFC822.SIZE {len(MIXED)})"     # its number holds until it is told
    assert not any("EXPUNGE" in line for line in reply.untagged)
    assert "* 1 EXPUNGE" in (await client.run("NOOP")).untagged


async def test_a_damaged_blob_is_one_messages_matter(house: House, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    read: object = type(house.store).read

    async def damaged(store: Store, account_id: int, email_id: int, start: int, end: int) -> bytes:
        if email_id == 1:
            raise OSError("CRC")
        return await read(store, account_id, email_id, start, end)

    async def damaged_many(store: Store, account_id: int, wanted: list[tuple[int, int, int]]) -> list[bytes | None]:
        return [None if one[0] == 1 else await read(store, account_id, *one) for one in wanted]

    monkeypatch.setattr(type(house.store), "read", damaged)
    monkeypatch.setattr(type(house.store), "read_many", damaged_many)
    reply = await client.run("FETCH 1:2 BODY.PEEK[HEADER.FIELDS (Subject)]")
    assert (reply.status, reply.code) == ("NO", "CORRUPTION")
    assert len(reply.untagged) == 1 and reply.untagged[0].startswith("* 2 FETCH (BODY[HEADER.FIELDS (Subject)] {")


async def test_an_index_of_another_version_is_made_anew(house: House, client: Client) -> None:
    account = await house.account()
    before = (await client.run("FETCH 2 (ENVELOPE BODYSTRUCTURE)")).untagged
    await house.store.put_cache(account.id, 2, b"\xc0")
    assert (await client.run("FETCH 2 (ENVELOPE BODYSTRUCTURE)")).untagged == before
    assert (await house.store.caches(account.id, [2]))[2] != b"\xc0"
