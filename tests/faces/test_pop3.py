"""POP3 over a real store: what RFC 1939 says of the maildrop, and what a dropped connection must not do."""

from __future__ import annotations

from pathlib import Path

import pytest

from fumibako.faces.pop3 import Pop3Services, Session
from fumibako.model.ops import Refusal, SetPassword
from fumibako.proto.pop3.server import ServerConfig
from fumibako.proto.reader import Need
from fumibako.services.mailboxes import StoreRefused
from fumibako.services.maildrop import Maildrop
from tests.support.imap_session import PASSWORD, House, MemoryStream

ONE = "Subject: one\r\nFrom: a@example.jp\r\n\r\nfirst line\r\n.dot\r\nthird line\r\n"
TWO = "Subject: two\r\n\r\nbody\r\n"


class PopClient:
    """Lines in, lines out."""

    def __init__(self, session: Session) -> None:
        self.session = session

    async def pump(self, text: str = "") -> list[str]:
        core = self.session.core
        core.receive_data(text.encode())
        while not self.session.closed and (event := core.next_event()) is not Need.BYTES:
            assert event is not Need.REPLY, "an event was left unanswered"
            await self.session.on_event(event)
        stream = self.session._stream
        sent = bytes(stream.sent) + core.data_to_send()
        stream.sent.clear()
        lines = sent.decode().split("\r\n")
        assert lines.pop() == ""
        return lines

    async def run(self, command: str) -> list[str]:
        return await self.pump(f"{command}\r\n")

    async def drop(self) -> None:
        """The connection breaks off."""
        await self.session.on_end()


@pytest.fixture
async def house(tmp_path: Path):
    house = await House.build(tmp_path / "data")
    client = await house.login()
    for message in (ONE, TWO):
        assert (await client.append("INBOX", message)).ok
    await client.leave()
    yield house
    await house.close()


async def connect(house: House, **config: object) -> PopClient:
    settings = ServerConfig(**{"auth_without_tls": True, "auth_mechanisms": ("PLAIN",), **config})
    client = PopClient(Session(settings, MemoryStream(), Pop3Services(house.mailboxes, house.services.login)))
    assert (await client.pump())[0].startswith("+OK")
    return client


async def login(house: House) -> PopClient:
    client = await connect(house)
    assert (await client.pump("USER alice@example.jp\r\nPASS secret\r\n"))[-1] == "+OK 2 messages"
    return client


async def test_listing(house: House) -> None:
    client = await login(house)
    assert await client.run("STAT") == [f"+OK 2 {len(ONE) + len(TWO)}"]
    assert await client.run("LIST") == ["+OK", f"1 {len(ONE)}", f"2 {len(TWO)}", "."]
    assert await client.run("LIST 2") == [f"+OK 2 {len(TWO)}"]
    assert (await client.run("LIST 3"))[0].startswith("-ERR")
    unique_ids = (await client.run("UIDL"))[1:-1]
    validity = unique_ids[0].split(" ")[1].partition(".")[0]
    assert unique_ids == [f"1 {validity}.1", f"2 {validity}.2"]


async def test_utf8_is_sent_to_who_asked_for_it(house: House) -> None:
    """RFC 6856 §2.1: nothing but ASCII in a header to others; RFC 6858 §4: TOP counts lines of the surrogate."""
    message = "From: 花子 <花子@example.jp>\r\nSubject: 報告\r\nX-Note: 秘密\r\n\r\n本文\r\n二行目\r\n"
    client = await house.login()
    assert (await client.append("INBOX", message.encode().decode("latin-1"))).ok
    await client.leave()
    able = await connect(house)
    assert "UTF8" in await able.run("CAPA")
    await able.pump("UTF8\r\nUSER alice@example.jp\r\nPASS secret\r\n")
    assert (await able.run("RETR 3"))[1:] == [*message.split("\r\n")[:-1], "."]
    assert await able.run("UTF8") == ["-ERR Command not valid in this state"]
    await able.run("QUIT")
    plain = await connect(house)
    await plain.pump("USER alice@example.jp\r\nPASS secret\r\n")
    header = ["From: =?UTF-8?B?6Iqx5a2Q?= <invalid@internationalized-address.invalid>", "Subject: =?UTF-8?B?5aCx5ZGK?=", ""]
    assert (await plain.run("RETR 3"))[1:] == [*header, "本文", "二行目", "."]
    assert (await plain.run("TOP 3 1"))[1:] == [*header, "本文", "."]
    assert (await plain.run("LIST 3"))[0] == f"+OK 3 {len(message.encode())}"


async def test_retrieve_stuffs_dots(house: House) -> None:
    client = await login(house)
    assert await client.run("RETR 1") == [
        f"+OK {len(ONE)} octets", "Subject: one", "From: a@example.jp", "", "first line", "..dot", "third line", ".",
    ]
    assert (await client.run("TOP 1 1"))[1:] == ["Subject: one", "From: a@example.jp", "", "first line", "."]
    assert (await client.run("TOP 2 0"))[1:] == ["Subject: two", "", "."]
    assert (await client.run("RETR 9"))[0].startswith("-ERR")


async def test_a_large_message_leaves_in_pieces(house: House) -> None:
    writer = await house.login()
    line = "x" * 70 + "\r\n"
    assert (await writer.append("INBOX", "Subject: big\r\n\r\n" + line * 10_000)).ok
    await writer.leave()
    client = await connect(house)
    await client.pump("USER alice@example.jp\r\nPASS secret\r\n")
    stream = client.session._stream
    assert len(await client.run("RETR 3")) == 10_004
    assert max(stream.writes) < 100_000


async def test_deletion_only_at_quit(house: House) -> None:
    client = await login(house)
    assert await client.run("DELE 1") == ["+OK"]
    assert (await client.run("RETR 1"))[0].startswith("-ERR")
    assert await client.run("STAT") == [f"+OK 1 {len(TWO)}"]
    assert await client.run("LIST") == ["+OK", f"2 {len(TWO)}", "."]
    await client.drop()
    again = await login(house)      # nothing was deleted, and the lock is free
    await again.pump("DELE 1\r\nDELE 2\r\nRSET\r\nDELE 2\r\n")
    assert (await again.run("QUIT"))[0].startswith("+OK")
    assert again.session.closed
    client = await connect(house)
    assert (await client.pump("USER alice@example.jp\r\nPASS secret\r\n"))[-1] == "+OK 1 messages"
    assert (await client.run("RETR 1"))[1] == "Subject: one"


async def test_a_message_keeps_its_number_and_unique_id(house: House) -> None:
    client = await login(house)
    before = await client.run("UIDL 2")
    imap = await house.login()
    await imap.run("SELECT INBOX")
    await imap.run("STORE 1 +FLAGS.SILENT (\\Deleted)")
    await imap.run("EXPUNGE")
    assert await client.run("UIDL 2") == before
    await client.drop()
    client = await connect(house)
    assert (await client.pump("USER alice@example.jp\r\nPASS secret\r\n"))[-1] == "+OK 1 messages"
    assert (await client.run("UIDL 1"))[0].split(" ")[2] == before[0].split(" ")[2]


async def test_one_session_at_a_time(house: House) -> None:
    first = await login(house)
    second = await connect(house)
    assert (await second.pump("USER alice@example.jp\r\nPASS secret\r\n"))[-1].startswith("-ERR [IN-USE]")
    await first.run("QUIT")
    assert (await second.pump("USER alice@example.jp\r\nPASS secret\r\n"))[-1].startswith("+OK")


async def test_wrong_passwords(house: House) -> None:
    client = await connect(house)
    for _ in range(3):
        assert not client.session.closed
        assert (await client.pump("USER alice@example.jp\r\nPASS wrong\r\n"))[-1].startswith("-ERR [AUTH]")
    assert client.session.closed


async def test_sasl_plain(house: House) -> None:
    client = await connect(house)
    assert await client.run("AUTH PLAIN") == ["+ "]
    assert await client.run("*") == ["-ERR Cancelled"]
    assert (await client.run("AUTH PLAIN AGFsaWNlQGV4YW1wbGUuanAAc2VjcmV0"))[0] == "+OK 2 messages"


async def test_no_password_in_the_clear(house: House) -> None:
    client = await connect(house, auth_without_tls=False, tls_available=True)
    assert (await client.run("USER alice@example.jp"))[0].startswith("-ERR")
    assert "STLS" in await client.run("CAPA")
    assert (await client.run("STLS"))[0].startswith("+OK")
    assert client.session.wants_tls


async def test_a_failed_update_is_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(self: Maildrop, messages: object) -> None:
        raise StoreRefused(Refusal.DISK_FULL)

    monkeypatch.setattr(Maildrop, "update", full)
    client = await login(house)
    await client.run("DELE 1")
    assert (await client.run("QUIT"))[0].startswith("-ERR [SYS/TEMP]")
    assert client.session.closed


async def test_a_damaged_message_is_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await login(house)

    async def damaged(*_: object) -> bytes:
        raise OSError("CRC")

    monkeypatch.setattr(house.store, "read", damaged)
    assert (await client.run("RETR 1"))[0].startswith("-ERR [SYS/PERM]")
    assert (await client.run("NOOP")) == ["+OK"]


async def test_a_new_password_ends_the_session(house: House) -> None:
    client = await login(house)
    await client.run("DELE 1")
    await house.store.commit(SetPassword("alice@example.jp", PASSWORD))
    push = client.session.idle()
    assert push is not None
    await push
    assert client.session.closed
    assert await client.run("QUIT") == []
    await client.drop()
    await login(house)
