"""SELECT and the mailboxes themselves."""

from __future__ import annotations

import pytest

from tests.support.imap_session import Client, House

MESSAGE = "Subject: x\r\n\r\nbody\r\n"


async def test_a_failed_select_leaves_nothing_selected(client: Client) -> None:
    await client.run("SELECT INBOX")
    reply = await client.run("SELECT missing")
    assert (reply.status, reply.code) == ("NO", "NONEXISTENT")
    assert (await client.run("FETCH 1 FLAGS")).status == "BAD"


async def test_examine_changes_nothing(client: Client) -> None:
    await client.append("INBOX", MESSAGE)
    reply = await client.run("EXAMINE INBOX")
    assert reply.code == "READ-ONLY" and "* OK [PERMANENTFLAGS ()] Limited" in reply.untagged
    assert "* 1 RECENT" in reply.untagged
    assert (await client.run("STORE 1 +FLAGS (\\Seen)")).status == "NO"
    assert (await client.run("EXPUNGE")).status == "NO"
    await client.run("FETCH 1 BODY[]")
    assert "* 1 FETCH (FLAGS (\\Recent))" in (await client.run("FETCH 1 FLAGS")).untagged
    assert "* 1 RECENT" in (await client.run("SELECT INBOX")).untagged      # EXAMINE took nothing


@pytest.mark.parametrize("name", ["送信済みアイテム", "Sent Items", "INBOX.Sent", "INBOX/Sent", "INBOX.送信済み"])
async def test_other_names_of_sent(client: Client, name: str) -> None:
    await client.run("ENABLE UTF8=ACCEPT")
    wire = f'"{name}"'.encode().decode("latin-1")
    sent = (await client.run("SELECT Sent")).untagged[0]
    reply = await client.run(f"CREATE {wire}")
    assert reply.ok and reply.code in sent
    assert (await client.run(f"SELECT {wire}")).untagged[0] == sent
    assert (await client.append(wire, MESSAGE)).ok
    assert "MESSAGES 1" in (await client.run("STATUS Sent (MESSAGES)")).untagged[-1]
    assert len([line for line in (await client.run('LIST "" *')).untagged if "\\Sent" in line]) == 1


async def test_a_mailbox_of_that_name_wins(client: Client) -> None:
    assert (await client.run("DELETE Sent")).ok
    assert (await client.run('CREATE "Sent Items"')).ok
    assert (await client.run('CREATE "Sent"')).ok
    assert (await client.append('"Sent Items"', MESSAGE)).ok
    assert "MESSAGES 0" in (await client.run("STATUS Sent (MESSAGES)")).untagged[0]


async def test_names_of_roles_are_not_deleted_by_another_name(client: Client) -> None:
    assert (await client.run("DELETE Spam")).code == "NONEXISTENT"
    assert (await client.run("DELETE INBOX")).code == "CANNOT"
    assert (await client.run("CREATE inbox")).code == "ALREADYEXISTS"
    assert (await client.run("RENAME Junk Trash")).code == "ALREADYEXISTS"


async def test_special_use_at_creation(client: Client) -> None:
    assert (await client.run("CREATE Everything (USE (\\All))")).code == "USEATTR"
    await client.run("DELETE Archive")
    assert (await client.run("CREATE 2024 (USE (\\Archive))")).ok
    assert '* LIST (\\HasNoChildren \\Archive) "/" "2024"' in (await client.run('LIST "" 2024')).untagged


async def test_a_renamed_selected_mailbox_stays_selected(house: House, client: Client) -> None:
    await client.append("Archive", MESSAGE)
    await client.run("SELECT Archive")
    other = await house.login()
    assert (await other.run("RENAME Archive Old")).ok
    assert (await client.run("FETCH 1 UID")).untagged == ["* 1 FETCH (UID 1)"]


async def test_a_deleted_selected_mailbox_ends_the_session(house: House, client: Client) -> None:
    await client.run("SELECT Archive")
    other = await house.login()
    assert (await other.run("DELETE Archive")).ok
    reply = await client.run("NOOP")
    assert reply.untagged[-1].startswith("* BYE ") and client.closed


async def test_close_expunges_and_unselect_does_not(client: Client) -> None:
    for _ in range(2):
        await client.append("INBOX", MESSAGE, "(\\Deleted) ")
    await client.run("SELECT INBOX")
    assert (await client.run("UNSELECT")).untagged == []
    assert "MESSAGES 2" in (await client.run("STATUS INBOX (MESSAGES)")).untagged[0]
    await client.run("SELECT INBOX")
    assert (await client.run("CLOSE")).untagged == []
    reply = await client.run("STATUS INBOX (MESSAGES SIZE DELETED)")
    assert reply.untagged == ['* STATUS "INBOX" (MESSAGES 0 SIZE 0 DELETED 0)']


async def test_status(client: Client) -> None:
    await client.append("INBOX", MESSAGE, "(\\Deleted) ")
    await client.append("INBOX", MESSAGE, "(\\Seen) ")
    items = "MESSAGES UNSEEN DELETED SIZE RECENT UIDNEXT DELETED-STORAGE"
    size = len(MESSAGE)
    assert (await client.run(f"STATUS INBOX ({items})")).untagged == [
        f'* STATUS "INBOX" (MESSAGES 2 UNSEEN 1 DELETED 1 SIZE {2 * size} RECENT 2 UIDNEXT 3 DELETED-STORAGE {size})'
    ]


async def test_rev2_tells_neither_recent_nor_unseen(client: Client) -> None:
    await client.append("INBOX", MESSAGE)
    await client.run("ENABLE IMAP4rev2")
    lines = (await client.run("SELECT INBOX")).untagged
    assert not any("RECENT" in line or "UNSEEN" in line for line in lines)
    assert '* LIST () "/" "INBOX"' in lines
    assert "* OK [CLOSED] Previous mailbox closed" in (await client.run("SELECT Sent")).untagged
    assert (await client.run("FETCH 1 FLAGS")).status == "BAD"


async def test_subscriptions_outlive_their_mailbox(client: Client) -> None:
    assert (await client.run("CREATE a/b")).ok
    assert (await client.run("SUBSCRIBE a/b")).ok
    assert (await client.run("DELETE a/b")).ok
    assert (await client.run('LSUB "" a*')).untagged == ['* LSUB (\\Noselect) "/" "a/b"']
    assert (await client.run('LIST (SUBSCRIBED) "" a*')).untagged == [
        '* LIST (\\NonExistent \\HasNoChildren \\Subscribed) "/" "a/b"'
    ]
    assert (await client.run("UNSUBSCRIBE a/b")).ok
    assert (await client.run('LSUB "" a*')).untagged == []


async def test_qresync_is_not_offered(client: Client) -> None:
    await client.run("SELECT INBOX")
    assert (await client.run("SELECT Archive (QRESYNC (1 2))")).status == "BAD"
    assert (await client.run("UID FETCH 1:* FLAGS (CHANGEDSINCE 1 VANISHED)")).status == "BAD"
    assert (await client.run("CHECK")).ok       # INBOX is still selected
