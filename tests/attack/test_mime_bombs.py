"""Reliability B10: whatever a message is shaped like, it is delivered and fetched octet by octet, or refused with a code."""

import time

import pytest

from fumibako.proto.reader import ProtocolError
from tests.attack.measure import MIB, measured
from tests.proto.message.messages import bombs
from tests.support.imap_session import Client, House
from tests.support.mailhouse import MailHouse

SIZE = 80_000
SHAPES = dict(bombs(SIZE))
HEADER_OVER_LIMIT = ["endless header", "one endless field", "endless field name", "nested comments", "words"]
FETCHES = [
    "BODYSTRUCTURE", "BODY", "ENVELOPE", "RFC822.SIZE", "PREVIEW", "BODY.PEEK[]<7.9>", "BODY.PEEK[HEADER]", "BODY.PEEK[TEXT]",
    "BODY.PEEK[1]", "BODY.PEEK[1.1.1]", "BODY.PEEK[1.MIME]", "BODY.PEEK[HEADER.FIELDS (To Subject X-A)]", "BINARY.PEEK[1]",
]
PARSE_S = 10.0      # generous: other tests run beside this one, and memory is being traced


def test_there_are_enough_shapes() -> None:
    assert len(SHAPES) >= 25


def literal_of(response: str) -> str:
    """What the one literal of a FETCH response holds."""
    head, _, rest = response.partition("}\r\n")
    return rest[: int(head.rpartition("{")[2])]


async def fetched(client: Client, octets: bytes) -> None:
    """Everything a client may ask about the newest message: an answer each, and the octets as they were."""
    for item in FETCHES:
        reply = await client.run(f"FETCH * ({item})")
        assert reply.status in ("OK", "NO"), item
        assert reply.ok == (len(reply.untagged) == 1), (item, reply.completion)
        assert reply.ok or item.startswith("BINARY"), (item, reply.completion)
    [response] = (await client.run("FETCH * BODY.PEEK[]")).untagged
    assert literal_of(response).encode("latin-1").endswith(octets)


@pytest.mark.parametrize("name", SHAPES)
async def test_a_shape_through_append_and_fetch(readers: House, name: str) -> None:
    """APPEND takes what SMTP would not, so every shape comes to the parser and to FETCH."""
    bomb = SHAPES[name]
    client = await readers.login()
    await client.run("SELECT INBOX")
    begun = time.process_time()
    with measured() as memory:
        assert (await client.append("INBOX", bomb.decode("latin-1"))).ok
    assert time.process_time() - begun < PARSE_S
    assert memory.peak_octets < 6 * len(bomb) + 20 * MIB        # the text of the test's client is as long twice over
    begun = time.process_time()
    await fetched(client, bomb)
    assert time.process_time() - begun < PARSE_S
    assert (await client.run("SEARCH OR TEXT needle SUBJECT needle")).ok
    assert (await client.run("COPY * Trash")).ok


async def test_shapes_through_smtp(house: MailHouse) -> None:
    """Each is accepted whole or refused with its code, and the connection goes on."""
    accepted = []
    for name, bomb in SHAPES.items():
        message = bomb.replace(b"\n", b"\r\n").replace(b"\r\r\n", b"\r\n")
        message += b"" if message.endswith(b"\r\n") else b"\r\n"
        async with house.connected() as client:
            await client.ask("EHLO c")
            reply = (await client.mail("alice@example.jp", message=message))[-1]
            assert reply[:9] in ("250 2.0.0", "552 5.3.4", "554 5.6.0"), (name, reply)
            assert (await client.ask("NOOP")).startswith("250"), name
        if reply.startswith("250"):
            accepted.append(message)
    stored = await house.mailbox("alice@example.jp")
    assert len(stored) == len(accepted) > 30
    for message, octets in zip(accepted, stored, strict=True):
        assert octets.endswith(message)
    assert await house.queued() == []


async def test_headers_beyond_the_limit(house: MailHouse) -> None:
    """Refused to the sender's face, not kept, and not told by a notice later."""
    big = dict(bombs(300_000))
    async with house.connected() as client:
        await client.ask("EHLO c")
        for name in HEADER_OVER_LIMIT:
            message = big[name].replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") + b"\r\n"
            reply = (await client.mail("alice@example.jp", message=message))[-1]
            assert reply == "552 5.3.4 header section too large", name
    assert await house.mailbox("alice@example.jp") == []
    assert await house.queued() == []


async def test_a_search_through_thousands_of_parts(readers: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts cost no look at the disk each: a piece of the message is read once."""
    client = await readers.login()
    await client.run("SELECT INBOX")
    bomb = SHAPES["parts without end"] + b"needle"
    assert (await client.append("INBOX", bomb.decode("latin-1"))).ok
    reads, read = [], readers.store.read

    async def counted(*where: int) -> bytes:
        reads.append(where)
        return await read(*where)

    monkeypatch.setattr(readers.store, "read", counted)
    assert (await client.run("SEARCH BODY needle")).untagged == ["* SEARCH 1"]
    assert (await client.run("SEARCH TEXT haystack")).untagged == ["* SEARCH"]
    assert len(reads) <= 2 * (len(bomb) // 65536 + 3)


async def test_a_bomb_holds_up_nobody_else(readers: House) -> None:
    """The newest of many bombs is found at once, and a plain message among them."""
    client = await readers.login()
    await client.run("SELECT INBOX")
    for bomb in list(SHAPES.values())[:12]:
        assert (await client.append("INBOX", bomb.decode("latin-1"))).ok
    assert (await client.append("INBOX", "Subject: plain\r\n\r\nneedle\r\n")).ok
    begun = time.process_time()
    reply = await client.run("FETCH 1:* (FLAGS ENVELOPE BODYSTRUCTURE RFC822.SIZE)")
    assert reply.ok and len(reply.untagged) == 13
    assert (await client.run("SEARCH BODY needle")).untagged == ["* SEARCH 13"]
    assert time.process_time() - begun < PARSE_S


SECTIONS = [
    ".".join(["1"] * 100), ".".join(["1"] * 10_000), ".".join(["4294967295"] * 1000), "1." * 200 + "MIME", "1." * 20_000 + "TEXT",
    "1.HEADER.FIELDS (" + "X-A " * 6_000 + "X-B)", "HEADER.FIELDS (" + " ".join(f"X{number}" for number in range(4_000)) + ")",
]


@pytest.mark.parametrize("section", SECTIONS, ids=range(len(SECTIONS)))
async def test_sections_without_end(readers: House, section: str) -> None:
    """A path far below the deepest part names nothing; a line that is too long ends the connection."""
    client = await readers.login()
    await client.run("SELECT INBOX")
    assert (await client.append("INBOX", SHAPES["deep multiparts"].decode("latin-1"))).ok
    client.take()
    begun = time.process_time()
    for count in (1, 5):
        try:
            await client.send("a FETCH 1 (" + " ".join([f"BODY.PEEK[{section}]"] * count) + ")\r\n")
            said = client.take()
            assert said.count("a OK") + said.count("a BAD") + said.count("a NO") == 1
        except ProtocolError:
            assert "* BYE [TOOBIG]" in client.take() and count * len(section) > 60_000
    assert time.process_time() - begun < PARSE_S
