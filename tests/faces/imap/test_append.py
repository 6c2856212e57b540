"""APPEND: what is announced, refused, and put there."""

from __future__ import annotations

from pathlib import Path

import pytest

from fumibako.model.ops import Refusal
from fumibako.store.base import StoreRefused
from tests.support.imap_session import Client, House

MESSAGE = "Subject: x\r\n\r\nbody\r\n"


async def test_append_uid_flags_and_date(client: Client) -> None:
    await client.run("SELECT INBOX")
    reply = await client.append("INBOX", MESSAGE, '(\\Seen $Work) "17-Jul-1996 02:44:25 -0700" ')
    assert reply.code.startswith("APPENDUID ") and reply.code.endswith(" 1")
    assert reply.untagged[0] == "* 1 EXISTS"
    assert (await client.run("FETCH 1 (FLAGS INTERNALDATE RFC822.SIZE)")).untagged == [
        f'* 1 FETCH (FLAGS (\\Recent \\Seen $Work) INTERNALDATE "17-Jul-1996 09:44:25 +0000" RFC822.SIZE {len(MESSAGE)})'
    ]


async def test_several_messages_are_there_all_at_once(client: Client) -> None:
    await client.run("SELECT INBOX")
    size = len(MESSAGE)
    reply = await client.run(f"APPEND INBOX {{{size}+}}\r\n{MESSAGE} (\\Flagged) {{{size}+}}\r\n{MESSAGE}")
    assert reply.code.endswith(" 1:2") and reply.untagged == ["* 2 EXISTS", "* 2 RECENT"]


async def test_a_refused_append_leaves_nothing(house: House, client: Client) -> None:
    reply = await client.append("nowhere", MESSAGE)
    assert (reply.status, reply.code) == ("NO", "TRYCREATE")
    assert (await client.append("INBOX", MESSAGE, "(\\Bogus) ")).status in ("NO", "BAD")
    size = len(MESSAGE)
    reply = await client.run(f"APPEND INBOX {{{size}+}}\r\n{MESSAGE} (\\Bogus) {{{size}+}}\r\n{MESSAGE}")
    assert reply.status in ("NO", "BAD")
    assert "MESSAGES 0" in (await client.run("STATUS INBOX (MESSAGES)")).untagged[0]
    assert (await client.append("INBOX", MESSAGE)).ok


@pytest.mark.parametrize("plus", ["+", ""])
async def test_bug_a_first_message_that_could_not_be_kept_ended_the_session(client: Client, plus: str,
                                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """MULTIAPPEND: the core went on to the second message after its command had been answered."""
    def full(self: object, octets: bytes) -> None:
        raise StoreRefused(Refusal.DISK_FULL)

    size = len(MESSAGE)
    with monkeypatch.context() as patched:
        patched.setattr("fumibako.store.spool.SpoolWriter.write", full)
        second = f"{MESSAGE}\r\n" if plus else ""      # else the client waits to be asked for it, and is not
        await client.send(f"m APPEND INBOX {{{size}+}}\r\n{MESSAGE} (\\Flagged) {{{size}{plus}}}\r\n{second}")
        assert client.responses() == ["m NO [UNAVAILABLE] The server's disk is full, try again later"]
    assert (await client.append("INBOX", MESSAGE)).ok
    assert "MESSAGES 1" in (await client.run("STATUS INBOX (MESSAGES)")).untagged[0]


async def test_over_quota_is_told_before_the_octets_come(tmp_path: Path) -> None:
    house = await House.build(tmp_path / "small", quota_limit_octets=4096)
    client = await house.login()
    await client.send("a APPEND INBOX {5000}\r\n")
    assert client.take().startswith("a NO [OVERQUOTA] ")
    assert (await client.append("INBOX", MESSAGE)).ok
    assert (await client.run("GETQUOTAROOT INBOX")).untagged[1] == '* QUOTA "" (STORAGE 1 4)'
    await house.close()


async def test_a_message_of_several_pieces(client: Client) -> None:
    message = "Subject: big\r\n\r\n" + ("あ" * 20 + "\r\n").encode().decode("latin-1") * 8000
    assert (await client.append("INBOX", message)).ok
    await client.run("SELECT INBOX")
    reply = await client.run("FETCH 1 BODY.PEEK[]")
    assert reply.untagged == [f"* 1 FETCH (BODY[] {{{len(message)}}}\r\n{message})"]


async def test_a_connection_that_breaks_off_leaves_nothing(house: House, client: Client) -> None:
    await client.send("a APPEND INBOX {700000+}\r\n" + "x" * 500_000)
    await client.leave()
    again = await house.login()
    assert "MESSAGES 0" in (await again.run("STATUS INBOX (MESSAGES)")).untagged[0]
    assert list((house.store.engine.directory / "spool").iterdir()) == []


@pytest.mark.parametrize("mailbox", ["INBOX", "Archive"])
async def test_the_selected_mailbox_tells_it_another_does_not(client: Client, mailbox: str) -> None:
    await client.run("SELECT INBOX")
    reply = await client.append(mailbox, MESSAGE)
    assert reply.untagged == (["* 1 EXISTS", "* 1 RECENT"] if mailbox == "INBOX" else [])
