"""IDLE and the news of other sessions."""

from __future__ import annotations

from fumibako.net.stream import Stream
from tests.support.imap_session import Client, House

MESSAGE = "Subject: x\r\n\r\nbody\r\n"


async def idling(house: House) -> Client:
    client = await house.login()
    await client.run("SELECT INBOX")
    await client.send("i IDLE\r\n")
    assert client.take().startswith("+ ")
    return client


async def test_idle_tells_arrivals_flags_and_expunges(house: House, client: Client) -> None:
    sleeper = await idling(house)
    await client.append("INBOX", MESSAGE)
    assert await sleeper.pushed() == ["* 1 EXISTS", "* 1 RECENT"]
    await client.run("SELECT INBOX")
    await client.run("STORE 1 +FLAGS (\\Seen)")
    assert await sleeper.pushed() == ["* 1 FETCH (FLAGS (\\Recent \\Seen))"]
    await client.run("STORE 1 +FLAGS (\\Deleted)")
    await client.run("EXPUNGE")
    assert await sleeper.pushed() == ["* 1 EXPUNGE", "* 0 RECENT"]
    await sleeper.send("DONE\r\n")
    assert sleeper.take() == "i OK IDLE completed\r\n"


async def test_only_one_session_calls_a_message_recent(house: House, client: Client) -> None:
    await client.run("SELECT INBOX")
    sleeper = await idling(house)
    await client.append("INBOX", MESSAGE)       # the appender's own session is told first
    assert await sleeper.pushed() == ["* 1 EXISTS"]
    assert (await client.run("FETCH 1 FLAGS")).untagged == ["* 1 FETCH (FLAGS (\\Recent))"]


async def test_idle_ends_only_with_done(house: House) -> None:
    sleeper = await idling(house)
    await sleeper.send("x NOOP\r\n")
    assert sleeper.take().startswith("i BAD ")


async def test_a_session_that_does_not_idle_is_told_with_its_next_command(house: House, client: Client) -> None:
    await client.run("SELECT INBOX")
    other = await house.login()
    await other.append("INBOX", MESSAGE)
    assert client.take() == ""
    assert (await client.run("CAPABILITY")).untagged[1:] == ["* 1 EXISTS", "* 1 RECENT"]


async def test_a_uid_command_reaches_what_has_just_arrived(house: House, client: Client) -> None:
    await client.run("SELECT INBOX")
    other = await house.login()
    await other.append("INBOX", MESSAGE)
    assert (await client.run("UID FETCH 1:* UID")).untagged == ["* 1 EXISTS", "* 1 RECENT", "* 1 FETCH (UID 1)"]


async def test_rev2_tells_the_uid_with_flags(house: House, client: Client) -> None:
    await client.append("INBOX", MESSAGE)
    await client.run("ENABLE IMAP4rev2")
    await client.run("SELECT INBOX")
    other = await house.login()
    await other.run("SELECT INBOX")
    await other.run("STORE 1 +FLAGS (\\Seen)")
    assert (await client.run("NOOP")).untagged == ["* 1 FETCH (UID 1 FLAGS (\\Seen))"]


def test_a_session_needs_of_a_stream_what_a_stream_has() -> None:
    assert all(hasattr(Stream(), name) for name in ("write", "peer", "tls"))
