"""LIST with its options."""

from __future__ import annotations

import pytest

from tests.support.imap_session import Client

MAILBOXES = ("a", "a/b", "a/b/c")


@pytest.fixture
async def client(client: Client) -> Client:
    for name in MAILBOXES:
        await client.run(f"CREATE {name}")
    await client.run("SUBSCRIBE a/b/c")
    return client


@pytest.mark.parametrize(("command", "expected"), [
    ('LIST "" ""', ['(\\Noselect) "/" ""']),
    ('LIST "" a/%', ['(\\HasChildren) "/" "a/b"']),
    ('LIST a/ *', ['(\\HasChildren) "/" "a/b"', '(\\HasNoChildren) "/" "a/b/c"']),
    ('LIST "" inb%', ['(\\HasNoChildren) "/" "INBOX"']),
    ('LIST "" nob%', []),
    ('LIST "" inbox', ['(\\HasNoChildren) "/" "INBOX"']),
    ('LIST "" (a inbox)', ['(\\HasNoChildren) "/" "INBOX"', '(\\HasChildren) "/" "a"']),
    ('LIST (SPECIAL-USE) "" J%', ['(\\HasNoChildren \\Junk) "/" "Junk"']),
    ('LIST (SUBSCRIBED) "" (S* a*)', [
        '(\\HasNoChildren \\Subscribed \\Sent) "/" "Sent"', '(\\HasNoChildren \\Subscribed) "/" "a/b/c"']),
    ('LIST "" S% RETURN (SUBSCRIBED)', ['(\\HasNoChildren \\Subscribed \\Sent) "/" "Sent"']),
    ('LIST (SUBSCRIBED RECURSIVEMATCH) "" a%', ['(\\HasChildren) "/" "a" ("CHILDINFO" ("SUBSCRIBED"))']),
    ('LSUB "" a%', ['(\\Noselect) "/" "a"']),
    ('LSUB "" a*', ['() "/" "a/b/c"']),
])
async def test_list(client: Client, command: str, expected: list[str]) -> None:
    verb = command.partition(" ")[0]
    reply = await client.run(command)
    assert reply.ok
    assert reply.untagged == [f"* {verb} {line}" for line in expected]


async def test_status_comes_along(client: Client) -> None:
    assert (await client.run('LIST "" Trash RETURN (STATUS (MESSAGES UNSEEN))')).untagged == [
        '* LIST (\\HasNoChildren \\Trash) "/" "Trash"', '* STATUS "Trash" (MESSAGES 0 UNSEEN 0)',
    ]


async def test_japanese_names_by_session_state(client: Client) -> None:
    assert (await client.run('CREATE "&VbZpbQ-"')).ok       # 営業
    assert '* LIST (\\HasNoChildren) "/" "&VbZpbQ-"' in (await client.run('LIST "" *')).untagged
    await client.run("ENABLE UTF8=ACCEPT")
    line = '* LIST (\\HasNoChildren) "/" "営業"'.encode().decode("latin-1")
    assert line in (await client.run('LIST "" *')).untagged


async def test_a_parent_that_was_deleted_stays_as_a_name(client: Client) -> None:
    assert (await client.run("DELETE a/b")).ok
    assert (await client.run('LIST "" a/b')).untagged == ['* LIST (\\Noselect \\HasChildren) "/" "a/b"']
    assert (await client.run("SELECT a/b")).code == "NONEXISTENT"
