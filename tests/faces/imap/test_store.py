"""STORE, COPY, MOVE, EXPUNGE."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.imap_session import Client, House

MESSAGE = "Subject: x\r\n\r\nbody\r\n"


@pytest.fixture
async def client(client: Client) -> Client:
    for _ in range(4):
        await client.append("INBOX", MESSAGE)
    await client.run("SELECT INBOX")
    await client.run("SELECT Trash")
    await client.run("SELECT INBOX")        # nothing is \\Recent any more
    return client


def modseq_of(line: str) -> int:
    found = re.search(r"MODSEQ \((\d+)\)", line)
    assert found
    return int(found[1])


async def test_modes(client: Client) -> None:
    assert (await client.run("STORE 1:2 +FLAGS (\\Seen $A)")).untagged[-2:] == [
        "* 1 FETCH (FLAGS (\\Seen $A))", "* 2 FETCH (FLAGS (\\Seen $A))"]
    assert (await client.run("UID STORE 2 -FLAGS (\\Seen)")).untagged == ["* 2 FETCH (UID 2 FLAGS ($A))"]
    assert (await client.run("STORE 2 FLAGS (\\Flagged)")).untagged == ["* 2 FETCH (FLAGS (\\Flagged))"]
    assert (await client.run("STORE 2 FLAGS.SILENT ()")).untagged == []
    assert (await client.run("FETCH 2 FLAGS")).untagged == ["* 2 FETCH (FLAGS ())"]
    assert (await client.run("STORE 2 +FLAGS (\\Recent)")).status != "OK"
    assert (await client.run("STORE 9 +FLAGS (\\Seen)")).status == "BAD"


async def test_unchanged_since(house: House, client: Client) -> None:
    known = modseq_of((await client.run("FETCH 1 MODSEQ")).untagged[-1])
    other = await house.login()
    await other.run("SELECT INBOX")
    await other.run("STORE 2 +FLAGS (\\Answered)")
    await client.run("NOOP")
    highest = max(modseq_of(line) for line in (await client.run("FETCH 1,3:4 MODSEQ")).untagged)
    assert known <= highest
    reply = await client.run(f"STORE 1:4 (UNCHANGEDSINCE {highest}) +FLAGS.SILENT (\\Seen)")
    assert reply.ok and reply.code == "MODIFIED 2"
    assert {line.split(" ")[1] for line in reply.untagged if "MODSEQ" in line} == {"1", "2", "3", "4"}
    assert "\\Seen" not in (await client.run("FETCH 2 FLAGS")).untagged[0]
    assert (await client.run(f"UID STORE 2 (UNCHANGEDSINCE {highest}) +FLAGS (\\Seen)")).code == "MODIFIED 2"


async def test_others_hear_of_flags_and_the_silent_one_does_not(house: House, client: Client) -> None:
    other = await house.login()
    await other.run("SELECT INBOX")
    assert (await client.run("STORE 3 +FLAGS.SILENT (\\Seen)")).untagged == []
    assert (await client.run("NOOP")).untagged == []
    assert (await other.run("NOOP")).untagged == ["* 3 FETCH (FLAGS (\\Seen))"]
    await other.run("STORE 3 +FLAGS.SILENT (\\Flagged)")
    # Overtaken: the client is told what it did not do itself.
    assert (await client.run("STORE 1 +FLAGS.SILENT (\\Draft)")).untagged == ["* 3 FETCH (FLAGS (\\Flagged \\Seen))"]


async def test_the_last_keyword(client: Client) -> None:
    words = " ".join(f"k{number}" for number in range(58))
    reply = await client.run(f"STORE 1 +FLAGS ({words})")
    assert reply.ok
    assert any("PERMANENTFLAGS" in line and "\\*" not in line for line in reply.untagged)
    assert (await client.run("STORE 1 +FLAGS (onemore)")).code == "LIMIT"


async def test_copy(client: Client) -> None:
    await client.run("STORE 2 +FLAGS (\\Deleted $Work)")
    reply = await client.run("COPY 2:3 Archive")
    assert re.fullmatch(r"COPYUID \d+ 2:3 1:2", reply.code)
    assert (await client.run("UID COPY 77 Archive")).code == ""
    assert (await client.run("COPY 1 missing")).code == "TRYCREATE"
    await client.run("SELECT Archive")
    assert (await client.run("FETCH 1:* FLAGS")).untagged == [
        "* 1 FETCH (FLAGS (\\Deleted \\Recent $Work))", "* 2 FETCH (FLAGS (\\Recent))"]


async def test_move(client: Client) -> None:
    reply = await client.run("UID MOVE 1,3 Archive")
    assert re.fullmatch(r"\* OK \[COPYUID \d+ 1,3 1:2\] Moved", reply.untagged[0])
    assert reply.untagged[1:] == ["* 1 EXPUNGE", "* 2 EXPUNGE"] and reply.ok
    assert (await client.run("UID FETCH 1:* UID")).untagged == ["* 1 FETCH (UID 2)", "* 2 FETCH (UID 4)"]
    assert (await client.run("MOVE 1 missing")).code == "TRYCREATE"
    assert (await client.run("UID MOVE 99 Archive")).untagged == []


async def test_expunge(client: Client) -> None:
    await client.run("STORE 1,3:4 +FLAGS.SILENT (\\Deleted)")
    assert (await client.run("UID EXPUNGE 3")).untagged == ["* 3 EXPUNGE"]
    reply = await client.run("EXPUNGE")
    assert reply.untagged == ["* 1 EXPUNGE", "* 2 EXPUNGE"]
    assert (await client.run("FETCH 1:* UID")).untagged == ["* 1 FETCH (UID 2)"]


async def test_expunge_tells_its_modseq_with_condstore(client: Client) -> None:
    await client.run("ENABLE CONDSTORE")
    await client.run("STORE 1 +FLAGS.SILENT (\\Deleted)")
    assert (await client.run("EXPUNGE")).code.startswith("HIGHESTMODSEQ ")


async def test_many_messages_are_cut_into_operations(house: House, client: Client) -> None:
    size = len(MESSAGE)
    for _ in range(9):
        await client.run("APPEND Archive" + f" {{{size}+}}\r\n{MESSAGE}" * 500)
    await client.run("SELECT Archive")
    assert (await client.run("STORE 1:* +FLAGS.SILENT (\\Deleted)")).ok
    seen: list[int] = []
    stop = house.store.listen(lambda change: seen.extend(len(part.uids) for part in change.vanished))
    reply = await client.run("EXPUNGE")
    stop()
    assert reply.untagged.count("* 1 EXPUNGE") == 4500 and seen == 9 * [500]


async def test_over_quota(tmp_path: Path) -> None:
    house = await House.build(tmp_path / "small", quota_limit_octets=50)
    client = await house.login()
    assert (await client.append("INBOX", MESSAGE)).ok
    await client.run("SELECT INBOX")
    assert (await client.run("COPY 1 Archive")).ok
    assert (await client.run("COPY 1 Archive")).code == "OVERQUOTA"
    assert (await client.run("MOVE 1 Archive")).ok
    await house.close()
