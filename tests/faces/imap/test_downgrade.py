"""RFC 6858 in IMAP: a client that has not enabled UTF-8 gets a surrogate, whole and consistent in itself."""

from __future__ import annotations

import re

import pytest

from tests.support.imap_session import Client

UTF8 = (
    "From: 花子 <花子@example.jp>\r\nSubject: 報告\r\nX-Note: 秘密\r\nMessage-ID: <1@example.jp>\r\n"
    "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    "--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n本文\r\n"
    "--b\r\nContent-Type: text/plain; name=表.txt\r\nContent-Disposition: attachment; filename=表.txt\r\n\r\nfile\r\n"
    "--b\r\nContent-Type: message/global\r\n\r\nSubject: 内\r\nX-Note: 秘密\r\n\r\n中身\r\n--b--\r\n"
).encode().decode("latin-1")
HEADER = (
    "From: =?UTF-8?B?6Iqx5a2Q?= <invalid@internationalized-address.invalid>\r\nSubject: =?UTF-8?B?5aCx5ZGK?=\r\n"
    "Message-ID: <1@example.jp>\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
)
FILE_HEADER = "Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\n"
INNER = "Subject: =?UTF-8?B?5YaF?=\r\n\r\n" + "中身".encode().decode("latin-1")
BODY = "本文".encode().decode("latin-1")
WHOLE = (
    f"{HEADER}--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{BODY}\r\n"
    f"--b\r\n{FILE_HEADER}file\r\n--b\r\nContent-Type: message/global\r\n\r\n{INNER}\r\n--b--\r\n"
)


@pytest.fixture
async def client(client: Client) -> Client:
    for message in ("Subject: plain\r\n\r\nbody\r\n", UTF8):
        assert (await client.append("INBOX", message)).ok
    await client.run("SELECT INBOX")
    return client


async def fetched(client: Client, item: str, *, told: str = "DOWNGRADED 2") -> str:
    """The one value FETCH 2 gives, a literal without its length."""
    reply = await client.run(f"FETCH 2 {item}")
    assert (reply.ok, reply.code) == (True, told)
    value = re.sub(r"\A\* 2 FETCH \(\S+(?: \(.*?\)\])? (.*)\)\Z", r"\1", reply.untagged[0], flags=re.DOTALL)
    return re.sub(r"\A~?\{\d+\}\r\n", "", value)


@pytest.mark.parametrize(("section", "content"), [
    ("BODY.PEEK[]", WHOLE), ("BODY.PEEK[]<0.9999>", WHOLE), ("BODY.PEEK[HEADER]", HEADER), ("RFC822.HEADER", HEADER),
    ("BODY.PEEK[TEXT]", WHOLE.removeprefix(HEADER)), ("BODY.PEEK[1]", BODY), ("BODY.PEEK[2.MIME]", FILE_HEADER),
    ("BODY.PEEK[2]", "file"), ("BINARY.PEEK[2]", "file"), ("BODY.PEEK[3]", INNER),
    ("BODY.PEEK[3.HEADER]", "Subject: =?UTF-8?B?5YaF?=\r\n\r\n"), ("BODY.PEEK[3.TEXT]", "中身".encode().decode("latin-1")),
    ("BODY.PEEK[HEADER.FIELDS (Subject X-Note)]", "Subject: =?UTF-8?B?5aCx5ZGK?=\r\n\r\n"),
    ("RFC822.SIZE", str(len(WHOLE))), ("BINARY.SIZE[]", str(len(WHOLE))),
])
async def test_every_section_is_of_the_surrogate(client: Client, section: str, content: str) -> None:
    assert await fetched(client, section) == content


async def test_pieces_make_the_whole(client: Client) -> None:
    pieces = [await fetched(client, f"BODY.PEEK[]<{at}.7>") for at in range(0, len(WHOLE), 7)]
    assert "".join(pieces) == WHOLE


async def test_structures_are_of_the_surrogate(client: Client) -> None:
    """They are what a server would say of the surrogate, had it been stored."""
    assert (await client.append("INBOX", WHOLE)).ok
    for item in ("ENVELOPE", "BODY", "BODYSTRUCTURE", "RFC822.SIZE"):
        surrogate = await fetched(client, item)
        assert surrogate.isascii()
        stored = await client.run(f"FETCH 3 {item}")
        assert (stored.code, stored.untagged) == ("", [f"* 3 FETCH ({item} {surrogate})"])


@pytest.mark.parametrize("enabled", ["UTF8=ACCEPT", "IMAP4rev2"])
async def test_who_has_enabled_utf8_gets_the_message(client: Client, enabled: str) -> None:
    await client.run("CLOSE")
    assert (await client.run(f"ENABLE {enabled}")).ok
    await client.run("SELECT INBOX")
    assert await fetched(client, "BODY.PEEK[]", told="") == UTF8
    assert await fetched(client, "RFC822.SIZE", told="") == str(len(UTF8))


async def test_only_what_needs_it_is_downgraded(client: Client) -> None:
    """FLAGS come of no surrogate; a list of both kinds keeps its order, and setting \\Seen is told as ever."""
    assert (await client.run("FETCH 1:2 FLAGS")).code == ""
    reply = await client.run("FETCH 1:* (UID RFC822.SIZE BODY[HEADER.FIELDS (Subject)])")
    assert reply.code == "DOWNGRADED 2"
    shown = [line.partition(" BODY")[0] for line in reply.untagged]
    seen = "FLAGS (\\Recent \\Seen)"
    assert shown == [f"* 1 FETCH ({seen} UID 1 RFC822.SIZE 24", f"* 2 FETCH ({seen} UID 2 RFC822.SIZE {len(WHOLE)}"]


@pytest.mark.parametrize("charset", ["cp932", "euc-jp", "utf-8"])
async def test_raw_octets_of_old_mail_stay_as_they_are(client: Client, charset: str) -> None:
    """What Japanese programs have always sent without encoding: no address is international, so nothing is changed or lost."""
    old = (
        "From: 花子 <hanako@example.jp>\r\nSubject: 報告\r\nX-Note: 秘密\r\nContent-Type: text/plain; name=表.txt\r\n"
        "Content-Disposition: attachment; filename=表.txt\r\n\r\n本文\r\n"
    ).encode(charset).decode("latin-1")
    assert (await client.append("INBOX", old)).ok
    reply = await client.run("FETCH 3 (RFC822.SIZE BODY.PEEK[])")
    assert (reply.code, reply.untagged) == ("", [f"* 3 FETCH (RFC822.SIZE {len(old)} BODY[] {{{len(old)}}}\r\n{old})"])
    structure = (await client.run("FETCH 3 BODYSTRUCTURE")).untagged[0]
    assert "表.txt".encode(charset).decode("latin-1") in structure
