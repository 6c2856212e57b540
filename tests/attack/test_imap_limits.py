"""Reliability B1, B3, B4, B5, B7: no command, however long, deep or odd, costs more than it is worth or goes astray."""

import asyncio
import itertools
import time

import pytest

from fumibako.faces.imap.list import NAMES_AT_ONCE
from fumibako.proto.imap.names import DELIMITER, MAX_NAME_OCTETS
from fumibako.proto.imap.server import MAX_BAD_AFTER_LOGIN, MAX_BAD_BEFORE_LOGIN, ServerConfig, ServerConnection
from fumibako.proto.reader import Need, ProtocolError
from tests.attack.measure import MIB, measured
from tests.support.imap_session import Client, House

REPLY_S = 2.0       # generous where 0.1 s is the aim: other tests run beside this one
CONFIG = ServerConfig("mail.example.jp", allow_plaintext_login=True)
MESSAGE = "Subject: x\r\n\r\nbody\r\n"


@pytest.fixture
async def client(readers: House) -> Client:
    return await readers.login()


async def answered(client: Client, octets: str) -> tuple[str, bool]:
    """(what the server says, whether it goes on): a connection that is cut off has said BYE."""
    client.take()
    try:
        await client.send(octets)
    except ProtocolError:
        said = client.take()
        assert "* BYE " in said, said
        return said, False
    return client.take(), not client.closed


# B1: literals


# What is sent, how the answer begins, and whether the connection goes on.
BEFORE_LOGIN = [
    ("a LOGIN {4294967295}\r\n", "a BAD [TOOBIG]", True), ("a LOGIN {4294967295+}\r\n", "a BAD [TOOBIG]", False),
    ("a LOGIN {4097}\r\n", "a BAD [TOOBIG]", True), ("a LOGIN {4097+}\r\n", "a BAD [TOOBIG]", False),
    ("a LOGIN {4096}\r\n", "+ ", True), ("a LOGIN {" + "9" * 40 + "}\r\n", "a BAD [TOOBIG]", True),
    ("a LOGIN {" + "9" * 40 + "+}\r\n", "a BAD [TOOBIG]", False), ("a LOGIN {-1}\r\n", "a BAD", True),
    ("a LOGIN {+1}\r\n", "a BAD", True),
    ("a LOGIN {1_0}\r\n", "a BAD", True), ("a LOGIN { 1}\r\n", "a BAD", True), ("a LOGIN {}\r\n", "a BAD", True),
    ("a LOGIN {0x10}\r\n", "a BAD", True), ("a LOGIN {1++}\r\n", "a BAD", True), ("a LOGIN ~{1}\r\n", "+ ", True),
    ("a LOGIN {4096+}\r\n" + "x" * 4096 + " {4090+}\r\n", "a BAD [TOOBIG]", False),
    ("a LOGIN" + " {1+}\r\nx" * 200, "a BAD [TOOBIG]", False), ("a LOGIN" + " {0+}\r\n" * 200, "a BAD [TOOBIG]", False),
    ("a LOGIN" + " {1+}\r\nx" * 1_000_000, "a BAD [TOOBIG]", False),
    ("a NOOP {1000000}\r\n", "a BAD [TOOBIG]", True), ("a APPEND INBOX {1000000}\r\n", "a BAD", True),
    ("a APPEND INBOX {50000000+}\r\n", "a BAD", False),
    ("a APPEND INBOX {4294967295+}\r\n", "a BAD", False), ("a APPEND {5000+}\r\n", "a BAD", False),
    ("{1+}\r\nx\r\n", "* BAD", True), ("a {1+}\r\nx\r\n", "a BAD", True), ("+ {1+}\r\nx\r\n", "* BAD", True),
    ("a LOGIN (" + "(" * 100_000 + "\r\n", "a BAD [TOOBIG]", False), ("a LOGIN " + "(" * 4000 + "\r\n", "a BAD", True),
    ("a AUTHENTICATE PLAIN " + "A" * 100_000 + "\r\n", "a BAD [TOOBIG]", False),
    ("a LOGIN " + "x" * 9000 + "\r\n", "a BAD [TOOBIG]", False),
    ("a LOGIN \"" + "\\\"" * 3000 + "\r\n", "a BAD", True), ("a" * 9000 + "\r\n", None, False),
    ("a ID (" + "\"a\" \"b\" " * 500 + ")\r\n", "a BAD", True),
]


@pytest.mark.parametrize(("octets", "begin", "stays"), BEFORE_LOGIN, ids=range(len(BEFORE_LOGIN)))
async def test_before_login(readers: House, octets: str, begin: str | None, stays: bool) -> None:
    """4 KiB a literal and 8 KiB a command are all a stranger gets."""
    client = readers.connect()
    client.take()
    begun = time.process_time()
    with measured() as memory:
        said, goes_on = await answered(client, octets)
    assert time.process_time() - begun < REPLY_S
    assert memory.peak_octets < 2 * MIB + 2 * len(octets)       # the text is there once as text, once as octets
    assert goes_on is stays, said
    assert begin is None or said.startswith(begin), said
    if stays and not said.startswith("+"):
        assert (await client.run("NOOP")).ok


AFTER_LOGIN = [
    ("a SELECT {102401}\r\n", "a BAD [TOOBIG]", True), ("a SELECT {102401+}\r\n", "a BAD [TOOBIG]", False),
    ("a SELECT {102400}\r\n", "+ ", True),
    ("a SELECT {4294967295}\r\n", "a BAD [TOOBIG]", True), ("a SELECT {4294967295+}\r\n", "a BAD [TOOBIG]", False),
    ("a SEARCH" + " TEXT {100000+}\r\n" + ("x" * 100_000 + " TEXT {100000+}\r\n") * 12, "a BAD [TOOBIG]", False),
    ("a SEARCH TEXT x" + " TEXT {1+}\r\nx" * 1100 + "\r\n", "a BAD [TOOBIG]", False),
    ("a SEARCH" + " TEXT {1+}\r\nx" * 1_000_000, "a BAD [TOOBIG]", False),
    ("a SEARCH " + "x" * 70_000 + "\r\n", "a BAD [TOOBIG]", False), ("a APPEND INBOX {52428801}\r\n", "a NO [TOOBIG]", True),
    ("a APPEND INBOX {52428801+}\r\n", "a BAD [TOOBIG]", False),
    ("a APPEND INBOX {99999999999999999999+}\r\n", "a BAD [TOOBIG]", False),
    ("a APPEND INBOX {52428800}\r\n", "+ ", True), ("a APPEND {102401+}\r\n", "a BAD [TOOBIG]", False),
    ("a STORE 1 +FLAGS (" + "x " * 40_000 + "\r\n", "a BAD [TOOBIG]", False),
    ("a FETCH 1 " + "(" * 60_000 + "\r\n", "a BAD", True),
    ("a LIST " + "(" * 60_000 + "\r\n", "a BAD", True), ("a ENABLE" + " X" * 30_000 + "\r\n", "* ENABLED", True),
    ("a STATUS INBOX (" + "MESSAGES " * 7_000 + "X)\r\n", "a BAD", True),
    ("a SELECT INBOX (QRESYNC (1 1 " + "1," * 30_000 + "1))\r\n", "a BAD", True),
    ("a COPY " + "1," * 30_000 + "1 INBOX\r\n", "a BAD", True),
]


@pytest.mark.parametrize(("octets", "begin", "stays"), AFTER_LOGIN, ids=range(len(AFTER_LOGIN)))
async def test_after_login(client: Client, octets: str, begin: str, stays: bool) -> None:
    """100 KiB a literal, 1 MiB and 1,000 literals a command; an APPEND's message is measured before it is asked for."""
    begun = time.process_time()
    with measured() as memory:
        said, goes_on = await answered(client, octets)
    assert time.process_time() - begun < REPLY_S
    assert memory.peak_octets < 4 * MIB + 2 * len(octets)
    assert goes_on is stays, said
    assert said.startswith(begin), said
    if stays and not said.startswith("+"):
        assert (await client.run("NOOP")).ok
    assert await client.session._talk.visit.quota() is not None


def test_literals_that_come_are_not_kept_beyond_their_measure() -> None:
    """A stranger who says a little at a time, for ever: the core holds no more than a command."""
    for octets in (b"a LOGIN {4096+}\r\n" + b"x" * 4096 + b" ", b"a NOOP \r\n", b"{9+}\r\n123456789", b'a LOGIN "', b"\0" * 100,
                   b"\r" * 100):
        core = ServerConnection(CONFIG)
        with measured() as memory:
            try:
                for _ in range(2_000):
                    core.receive_data(octets)
                    while not isinstance(core.next_event(), Need):
                        core.complete("OK", "done")
                    core.data_to_send()
            except ProtocolError:
                assert b"* BYE " in core.data_to_send()
        assert memory.peak_octets < MIB, octets


async def test_bad_commands_before_login_end_the_connection(readers: House) -> None:
    client = readers.connect()
    client.take()
    said, goes_on = await answered(client, "a NONSENSE\r\n" * 200)
    assert not goes_on and said.count("a BAD") == MAX_BAD_BEFORE_LOGIN


async def test_bad_commands_after_login_end_the_connection_when_nothing_good_comes_between(client: Client) -> None:
    client.take()
    for _ in range(3):
        said, goes_on = await answered(client, "a NONSENSE\r\n" * (MAX_BAD_AFTER_LOGIN - 1) + "b NOOP\r\n")
        assert goes_on and said.count("a BAD") == MAX_BAD_AFTER_LOGIN - 1 and "b OK" in said
    said, goes_on = await answered(client, "a NONSENSE\r\n" * 200)
    assert not goes_on and said.count("a BAD") == MAX_BAD_AFTER_LOGIN and "* BYE Too many bad commands" in said


# B3: sets


SETS = [
    "1:4294967295", "4294967295:1", "1:*", "*:1", "*", "*:*", "4294967295:*", ",".join(["1:4294967295"] * 4000),
    ",".join(["*"] * 9_999), ",".join(f"{number}:{number + 5}" for number in range(1, 7000, 2)), ",".join(["1:*,*:1"] * 3000),
]
BAD_SETS = ["0", "0:1", "1:0", "4294967296", "1:4294967296", "01", "", ",", "1,", ",1", "1,,2", ":", "1:", ":1", "1:2:3",
"-1", "+1", "1_0", "**",
            "1:*:*", "$1", "1 2", "１", ",".join(["1"] * 10_001), "9" * 5000, "1:" + "9" * 30_000]


async def test_sets_cost_what_they_match(client: Client) -> None:
    for _ in range(3):
        assert (await client.append("INBOX", MESSAGE)).ok
    await client.run("SELECT INBOX")
    for numbers in SETS:
        for command in ("UID FETCH {} (FLAGS)", "UID SEARCH UID {}", "UID STORE {} +FLAGS.SILENT (\\Seen)", "UID COPY {} Trash"):
            begun = time.process_time()
            with measured() as memory:
                reply = await client.run(command.format(numbers))
            assert reply.ok, (command, numbers[:50])
            assert len(reply.untagged) <= 6
            assert time.process_time() - begun < REPLY_S and memory.peak_octets < 8 * MIB, (command, numbers[:50])
    assert (await client.run("STATUS INBOX (MESSAGES)")).untagged == ['* STATUS "INBOX" (MESSAGES 3)']


async def test_sets_that_are_none(client: Client) -> None:
    assert (await client.append("INBOX", MESSAGE)).ok
    await client.run("SELECT INBOX")
    for numbers in BAD_SETS:
        for command in ("UID FETCH {} (FLAGS)", "FETCH {} (FLAGS)", "UID STORE {} +FLAGS (\\Deleted)", "UID EXPUNGE {}",
        "UID MOVE {} Trash"):
            assert (await client.run(command.format(numbers.encode().decode("latin-1")))).status == "BAD", (command, numbers[:50])
        assert (await client.run("NOOP")).ok
    for numbers in ("2", "1:2", "2:1", "4294967295"):
        assert (await client.run(f"STORE {numbers} +FLAGS (\\Deleted)")).status == "BAD", numbers
    assert (await client.run("FETCH 1 (FLAGS)")).untagged == ["* 1 FETCH (FLAGS (\\Recent))"]


# B4: patterns and searches


def names_of_worst(count: int) -> list[str]:
    return ["a" * 200 + f"{number:03}" for number in range(count)]


PATTERNS = ["%*" * 4000, "*a" * 3500, "%a" * 3500 + "b",
"*%a*%a*" * 1000, "a" * 7000, "*" * 8000, "(a+)+" * 500, "%/" * 3000, "*INBOX" * 1000]


async def test_patterns_of_the_worst_kind(client: Client) -> None:
    """A matcher that goes back is done for: *a*a*a... against aaa..., in one pattern and in a hundred."""
    for name in names_of_worst(40):
        assert (await client.run(f"CREATE {name}")).ok
    for pattern in PATTERNS:
        for command in (f'LIST "" "{pattern}"', f'LSUB "" "{pattern}"'):
            begun = time.process_time()
            reply = await client.run(command)
            assert reply.ok, command[:60]
            assert time.process_time() - begun < REPLY_S, command[:60]
    begun = time.process_time()
    reply = await client.run('LIST "" (' + " ".join(f'"{"*a%a" * 15}{number}"' for number in range(100)) + ")")
    assert reply.ok and time.process_time() - begun < REPLY_S
    assert (await client.run('LIST "" (' + " ".join(["a"] * 101) + ")")).status == "BAD"
    assert (await client.run('LIST "" "' + "x" * 8001 + '"')).status == "BAD"


async def test_a_hundred_long_patterns_hold_up_nobody(client: Client) -> None:
    """All patterns of a command together are no longer than one may be; between names, others get their turn."""
    for name in names_of_worst(150):
        assert (await client.run(f"CREATE {name}")).ok
    literals = " ".join(f"{{8000+}}\r\n{'*a' * 4000}" for _ in range(100))
    reply = await client.run(f'LIST "" ({literals})')
    assert (reply.status, reply.code) == ("NO", "LIMIT")
    turns, stopped = 0, asyncio.Event()

    async def neighbour() -> None:
        nonlocal turns
        while not stopped.is_set():
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(neighbour())
        begun = time.process_time()
        reply = await client.run(f'LIST "" "{"*a" * 3990}"')
        stopped.set()
    assert reply.ok and time.process_time() - begun < REPLY_S
    assert turns >= 150 // NAMES_AT_ONCE


SEARCHES = [
    ("(" * 49 + "ALL" + ")" * 49, "OK"), ("(" * 52 + "ALL" + ")" * 52, "NO"), ("(" * 20_000 + "ALL" + ")" * 20_000, "NO"),
    ("NOT " * 40 + "ALL", "OK"), ("NOT " * 15_000 + "ALL", "NO"), ("OR ALL " * 40 + "ALL", "OK"),
    ("OR ALL " * 9_000 + "ALL", "NO"),
    ("OR " * 20_000, "NO"), ("(" * 30_000, "NO"), ("ALL " * 15_000 + "ALL", "OK"),
    ("NOT (OR ALL (NOT ALL)) " * 2_500 + "ALL", "OK"),
    ("TEXT x " * 2_000 + "ALL", "OK"), ("HEADER X y " * 2_000 + "ALL", "OK"), ("UID 1:* " * 7_000 + "ALL", "OK"),
    ("TEXT \"" + "(a+)+" * 5_000 + "\"", "OK"), ("BODY " + "a" * 60_000, "OK"), ("KEYWORD " + "k" * 60_000, "OK"),
    ("SUBJECT \"" + "%" * 50_000 + "\"", "OK"),
]


@pytest.mark.parametrize(("program", "status"), SEARCHES, ids=range(len(SEARCHES)))
async def test_searches_of_the_worst_kind(client: Client, program: str, status: str) -> None:
    """No recursion without bound, no pattern language, no work beyond the octets of the command times the messages."""
    for _ in range(3):
        assert (await client.append("INBOX", MESSAGE)).ok
    await client.run("SELECT INBOX")
    begun = time.process_time()
    with measured() as memory:
        reply = await client.run(f"SEARCH {program}")
    assert (reply.status, reply.code) == (status, "LIMIT" if status == "NO" else ""), reply.completion
    assert time.process_time() - begun < 3 * REPLY_S and memory.peak_octets < 32 * MIB
    assert (await client.run("NOOP")).ok


# B5: order


async def test_pipelined_commands_are_done_in_their_order(readers: House, client: Client) -> None:
    """STORE, EXPUNGE, STORE again by number: each sees what the one before it left, in one segment or octet by octet."""
    for way in ("whole", "octets"):
        await client.run("SELECT INBOX")
        for number in range(4):
            assert (await client.append("INBOX", f"Subject: {number}\r\n\r\n")).ok
        commands = ("a STORE 2 +FLAGS.SILENT (\\Deleted)\r\nb EXPUNGE\r\nc STORE 2 +FLAGS.SILENT (\\Deleted)\r\nd EXPUNGE\r\n"
                    "e FETCH 1:* (BODY.PEEK[HEADER.FIELDS (Subject)])\r\nf STORE 1:2 +FLAGS.SILENT (\\Deleted)\r\ng EXPUNGE\r\n")
        client.take()
        for piece in [commands] if way == "whole" else list(commands):
            await client.send(piece)
        said = [line for line in client.responses() if not line.startswith("* FLAGS") and "PERMANENTFLAGS" not in line]
        shown = [line.rpartition("Subject: ")[2].strip("\r\n)") for line in said if "Subject: " in line]
        assert shown == ["0", "3"], said
        expunged = [line for line in said if line.endswith("EXPUNGE")]
        assert expunged == ["* 2 EXPUNGE", "* 2 EXPUNGE", "* 1 EXPUNGE", "* 1 EXPUNGE"]
        tagged = [line[0] for line in said if not line.startswith("*")]
        assert tagged == list("abcdefg")


async def test_pipelined_stores_end_in_the_last_word(client: Client) -> None:
    await client.run("SELECT INBOX")
    assert (await client.append("INBOX", MESSAGE)).ok
    for flags in itertools.permutations(["FLAGS (\\Seen)", "-FLAGS (\\Seen)", "+FLAGS (\\Flagged)", "FLAGS ()"]):
        client.take()
        await client.send("".join(f"t{number} STORE 1 {one}\r\n" for number, one in enumerate(flags)))
        assert [line[:5] for line in client.responses() if line.startswith("t")] == [f"t{number} OK"[:5] for number in range(4)]
        expected: set[str] = set()
        for one in flags:
            named = set(one.partition("(")[2].rstrip(")").split())
            expected = expected | named if one[0] == "+" else expected - named if one[0] == "-" else named
        [shown] = (await client.run("FETCH 1 (FLAGS)")).untagged
        assert set(shown.partition("(FLAGS (")[2].rstrip(")").split()) - {"\\Recent"} == expected, flags


async def test_an_expunge_by_another_session_moves_no_number_under_way(readers: House, client: Client) -> None:
    """RFC 9051 §7.5.1: while a client may be using numbers, none of them changes its meaning."""
    other = await readers.login()
    for number in range(3):
        assert (await client.append("INBOX", f"Subject: {number}\r\n\r\n")).ok
    await client.run("SELECT INBOX")
    await other.run("SELECT INBOX")
    await other.run("STORE 1 +FLAGS.SILENT (\\Deleted)")
    assert (await other.run("EXPUNGE")).ok
    client.take()
    await client.send("a FETCH 2 (BODY.PEEK[HEADER])\r\nb STORE 3 +FLAGS.SILENT (\\Flagged)\r\nc FETCH 3 (BODY.PEEK[HEADER])\r\n")
    said = "\n".join(client.responses())
    assert "Subject: 1" in said and "Subject: 2" in said and " EXPUNGE\n" not in said
    assert "* 1 EXPUNGE" in (await client.run("NOOP")).untagged
    [shown] = (await client.run("FETCH 2 (FLAGS BODY.PEEK[HEADER])")).untagged
    assert "\\Flagged" in shown and "Subject: 2" in shown


# B7: mailbox names


def quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


# Names as they stand on the wire. OK: they are just names, kept and told as they are.
NAMES = [
    *[(name, "OK") for name in (
        "..", ".", "...", "../x", "../../etc/passwd", "/etc/passwd"[1:], "a/../b", "a/./b", "%2e%2e", "..%2f..", "C:\\x",
        "\\\\host\\x", "~", "~root", "#x",
        "$HOME", "`id`", "a;b", "a|b", "a&-b", "&AOk-", "&ZeVnLIqe-", "CON", "nul.txt", "mail.db", "x.db-wal", "-rf", "--",
        "'", "''; DROP TABLE mailbox;--",
        'a"b', "a b", " a", "a ", "inbox2", "INBOX.x", "x" * 1000, "/".join("x" * 32), "&2Dzc5A-", "&MEI-", "\\Noselect",
        "{1}", "(a)", "[a]", "NIL")],
    # No names: controls, bad modified UTF-7, too long, too deep, empty levels, more than one way to write it.
    *[(name, "BAD") for name in (
        "a\x01b", "a\x7fb", "\x1b[2J", "a\tb", "&AAA-", "&AAo-", "&AA0ACg-", "&AIU-", "&ICg-", "&ICk-", "&", "&x", "&AC4-",
        "&AC4ALgAv-", "&AGE-", "&AOk",
        "&A-", "&AOk-&AOk-", "&2Dw-", "&3OQ-", "&2DzYPA-", "&AOk=-", "&AO k-", "&!!!-", "&AOkA-", "&,,,,-", "\xc3\xa9",
        "\xff", "\xc0\xae\xc0\xae", "\xed\xa0\x80",
        "x" * 1001, "&" + "AOkA6QDp" * 400 + "-")],
    *[(name, "NO") for name in ("/".join("x" * 33), "/".join(["x"] * 400), "/", "//", "a//b", "/a", "a//", "///", "", "INBOX",
    "inbox", "iNbOx", "INBOX/")],
]


def test_there_are_enough_names() -> None:
    assert len({name for name, _ in NAMES}) >= 60


@pytest.mark.parametrize("status", ["OK", "BAD", "NO"])
async def test_names_are_only_names(readers: House, client: Client, status: str, tmp_path) -> None:
    """Whatever a mailbox is called, nothing of it reaches the disk as a path, and every command says the same about it."""
    before = sorted(path.name for path in tmp_path.rglob("*"))
    taken = []
    for name, expected in NAMES:
        if expected != status:
            continue
        reply = await client.run(f"CREATE {quoted(name)}")
        if "\r" in name or "\n" in name or "\0" in name:
            continue
        assert reply.status == status, (name, reply.completion)
        if status == "OK":
            taken.append(name)
            for command in ("SELECT", "EXAMINE", "SUBSCRIBE", "UNSUBSCRIBE"):
                assert (await client.run(f"{command} {quoted(name)}")).ok, (command, name)
            assert (await client.run(f"STATUS {quoted(name)} (MESSAGES)")).ok, name
            assert (await client.append(quoted(name), MESSAGE)).ok, name
        elif status == "BAD":
            for command in ("SELECT {}", "DELETE {}", "SUBSCRIBE {}", "RENAME {} y", "RENAME INBOX {}",
            "STATUS {} (MESSAGES)", "COPY 1 {}"):
                assert (await client.run(command.format(quoted(name)))).status == "BAD", (command, name)
            assert (await client.run("NOOP")).ok
        else:
            assert (await client.run(f"RENAME Trash {quoted(name)}")).status == "NO", name
    told = [line for line in (await client.run('LIST "" "*"')).untagged]
    assert len(told) == len(set(told))
    for name in taken:
        assert (await client.run(f"DELETE {quoted(name)}")).ok, name
    await client.run("UNSELECT")
    after = {path.name for path in tmp_path.rglob("*")}
    assert not any(name in after for name, _ in NAMES if len(name) > 3 and name not in before)
    assert not (tmp_path.parent / "x").exists()


async def test_a_name_has_one_spelling(client: Client) -> None:
    """Composed or not, in UTF-8 or modified UTF-7: the same mailbox, never a second one that looks like it."""
    assert (await client.run("CREATE &AOk-")).ok
    assert (await client.run("CREATE e&AwE-")).status == "NO"           # e and a combining acute
    assert (await client.run("ENABLE UTF8=ACCEPT")).ok
    assert (await client.run('CREATE "\xc3\xa9"')).status == "NO"
    assert (await client.run('CREATE "e\xcc\x81"')).status == "NO"
    assert (await client.run('SELECT "e\xcc\x81"')).ok
    assert (await client.run('CREATE "\xc4\xb1nbox"')).ok              # dotless i: no INBOX, but a name
    assert (await client.run('SELECT "\xef\xbc\xa9NBOX"')).status == "NO"
    for bad in ("\xc0\xae", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xff", "a\xc2\x85b", "a\xe2\x80\xa8b"):
        assert (await client.run(f'CREATE "{bad}"')).status == "BAD", bad


async def test_a_thousand_levels(client: Client) -> None:
    """1,000 levels are no name; 32 are, and can be removed again."""
    assert (await client.run("CREATE " + DELIMITER.join(["x"] * 499))).status == "NO"
    assert (await client.run("CREATE " + DELIMITER.join(["x"] * 1_000))).status == "BAD"     # also too long
    deep = DELIMITER.join(["y"] * 32)
    assert (await client.run(f"CREATE {deep}")).ok
    assert (await client.run(f"CREATE {deep}/y")).status == "NO"
    assert (await client.run(f"RENAME y Trash/{deep}")).status == "NO"
    assert len((await client.run('LIST "" "y*"')).untagged) == 32
    assert len(deep) < MAX_NAME_OCTETS
