"""Commands of the RFCs as values; what is no command is refused, in linear time."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.imap import commands as c
from fumibako.proto.imap.commands import STAR, FetchKind, SequenceSet
from fumibako.proto.imap.parse import COMMANDS, UID_COMMANDS, enables_condstore, parse_command
from fumibako.proto.imap.scanner import CommandError, Context
from fumibako.proto.reader import ProtocolError

CONTEXT = Context(mechanisms=frozenset({"PLAIN", "EXTERNAL"}))


def parse(octets: bytes, **context) -> c.Command:
    return parse_command(octets, Context(mechanisms=CONTEXT.mechanisms, **context))[1]


def numbers(*ranges: tuple[int, int]) -> SequenceSet:
    return SequenceSet(ranges)


SAVED = SequenceSet((), saved=True)

# The client's side of the examples in RFC 9051 §6 and of the RFCs that extend it, as they stand there.
EXAMPLES = [
    (b"abcd CAPABILITY", c.Capability()),
    (b"a002 NOOP", c.Noop()),
    (b"A023 LOGOUT", c.Logout()),
    (b"a002 STARTTLS", c.StartTLS()),
    (b"A01 AUTHENTICATE PLAIN", c.Authenticate("PLAIN", None)),
    (b"A01 AUTHENTICATE EXTERNAL =", c.Authenticate("EXTERNAL", b"")),
    (b"A03 AUTHENTICATE PLAIN dGVzdAB0ZXN0AHRlc3Q=", c.Authenticate("PLAIN", b"test\0test\0test")),
    (b"a001 LOGIN SMITH SESAME", c.Login(b"SMITH", b"SESAME")),
    (b'd login "fred" "foo"', c.Login(b"fred", b"foo")),
    (b"A001 LOGIN {11}\r\nFRED FOOBAR {7}\r\nfat man", c.Login(b"FRED FOOBAR", b"fat man")),
    (b"t2 ENABLE CONDSTORE X-GOOD-IDEA", c.Enable(("CONDSTORE", "X-GOOD-IDEA"))),
    (b"babc ENABLE IMAP4rev2", c.Enable(("IMAP4REV2",))),
    (b"A142 SELECT INBOX", c.Select("INBOX", read_only=False)),
    (b"d select inbox", c.Select("INBOX", read_only=False)),
    (b"A932 EXAMINE blurdybloop", c.Select("blurdybloop", read_only=True)),
    (b"A142 SELECT INBOX (CONDSTORE)", c.Select("INBOX", read_only=False, condstore=True)),
    (b"A02 SELECT INBOX (QRESYNC (67890007 20050715194045000 41,43:211,214:541))",
     c.Select("INBOX", False, False, (67890007, 20050715194045000, numbers((41, 41), (43, 211), (214, 541))))),
    (b"A03 SELECT INBOX (QRESYNC (67890007 90060115194045000 41:211,214:541 (1:2 3:4)))",
     c.Select("INBOX", False, False, (67890007, 90060115194045000, numbers((41, 211), (214, 541))))),
    (b"A003 CREATE owatagusiam/", c.Create("owatagusiam")),
    (b"A004 CREATE owatagusiam/blurdybloop", c.Create("owatagusiam/blurdybloop")),
    (b"t2 CREATE MySpecial (USE (\\Drafts \\Sent))", c.Create("MySpecial", ("\\Drafts", "\\Sent"))),
    (b"t3 CREATE Everything (USE (\\all))", c.Create("Everything", ("\\All",))),
    (b"A683 DELETE blurdybloop", c.Delete("blurdybloop")),
    (b"A683 RENAME blurdybloop sarasoop", c.Rename("blurdybloop", "sarasoop")),
    (b"Z433 RENAME INBOX old-mail", c.Rename("INBOX", "old-mail")),
    (b"A002 SUBSCRIBE #news.comp.mail.mime", c.Subscribe("#news.comp.mail.mime", on=True)),
    (b"A002 UNSUBSCRIBE #news.comp.mail.mime", c.Subscribe("#news.comp.mail.mime", on=False)),
    (b'A101 LIST "" ""', c.List("", ("",))),
    (b"A202 LIST ~/Mail/ %", c.List("~/Mail/", ("%",))),
    (b'A02 LIST (SUBSCRIBED) "" "*"', c.List("", ("*",), frozenset({"SUBSCRIBED"}), extended=True)),
    (b'A03 LIST () "" "%" RETURN (CHILDREN)', c.List("", ("%",), returns=frozenset({"CHILDREN"}), extended=True)),
    (b'A05 LIST (REMOTE SUBSCRIBED) "" "*"', c.List("", ("*",), frozenset({"REMOTE", "SUBSCRIBED"}), extended=True)),
    (b'BBB LIST "" ("INBOX" "Drafts" "Sent/%")', c.List("", ("INBOX", "Drafts", "Sent/%"), extended=True)),
    (b'a3.1 LIST "" (% music/rock)', c.List("", ("%", "music/rock"), extended=True)),
    (b'A01 LIST "" % RETURN (STATUS (MESSAGES UNSEEN))',
     c.List("", ("%",), returns=frozenset({"STATUS"}), status_items=("MESSAGES", "UNSEEN"), extended=True)),
    (b'A02 LIST (SUBSCRIBED RECURSIVEMATCH) "" % RETURN (STATUS (MESSAGES) CHILDREN)',
     c.List("", ("%",), frozenset({"SUBSCRIBED", "RECURSIVEMATCH"}), frozenset({"STATUS", "CHILDREN"}), ("MESSAGES",), True)),
    (b'a01 LSUB "" "#news.%"', c.Lsub("", "#news.%")),
    (b"A001 NAMESPACE", c.Namespace()),
    (b"A042 STATUS blurdybloop (UIDNEXT MESSAGES)", c.Status("blurdybloop", ("UIDNEXT", "MESSAGES"))),
    (b"10 status bar (mailboxid)", c.Status("bar", ("MAILBOXID",))),
    (b"A003 APPEND saved-messages (\\Seen) {326}", c.Append("saved-messages", ("\\Seen",), None, 326)),
    (b"A003 APPEND saved-messages (\\Seen) {297+}", c.Append("saved-messages", ("\\Seen",), None, 297)),
    (b'11 append inbox "20-Mar-2018 03:07:37 +1100" {793}', c.Append("INBOX", (), 1521475657000, 793)),
    (b'x APPEND {6}\r\nDrafts (\\Seen $MDNSent) " 7-Feb-1994 22:43:04 -0800" {295}',
     c.Append("Drafts", ("\\Seen", "$MDNSent"), 760689784000, 295)),
    (b"x APPEND INBOX UTF8 (~{12}", c.Append("INBOX", (), None, 12, utf8=True)),
    (b"x APPEND INBOX ~{12+}", c.Append("INBOX", (), None, 12)),
    (b"A002 IDLE", c.Idle()),
    (b'G0001 GETQUOTA "!partition/sda4"', c.GetQuota("!partition/sda4")),
    (b"G0002 GETQUOTAROOT INBOX", c.GetQuotaRoot("INBOX")),
    (b'S0001 SETQUOTA "#user/alice" (STORAGE 510)', c.SetQuota("#user/alice", (("STORAGE", 510),))),
    (b'a023 ID ("name" "sodr" "version" "19.34" "vendor" NIL)', c.Id({"name": "sodr", "version": "19.34", "vendor": None})),
    (b"a042 ID NIL", c.Id({})),
    (b"FXXZ CHECK", c.Check()),
    (b"A341 CLOSE", c.Close()),
    (b"A342 UNSELECT", c.Unselect()),
    (b"A202 EXPUNGE", c.Expunge()),
    (b"A003 UID EXPUNGE 3000:3002", c.Expunge(numbers((3000, 3002)))),
    (b"A003 STORE 2:4 +FLAGS (\\Deleted)", c.Store(numbers((2, 4)), "+", ("\\Deleted",), silent=False)),
    (b"F284 STORE $ +FLAGS.Silent (\\Deleted)", c.Store(SAVED, "+", ("\\Deleted",), silent=True)),
    (b"A330 STORE 7 -FLAGS.SILENT \\Answered \\SEEN", c.Store(numbers((7, 7)), "-", ("\\Answered", "\\Seen"), silent=True)),
    (b"m STORE 42 FLAGS f1 f2 f3", c.Store(numbers((42, 42)), "", ("f1", "f2", "f3"), silent=False)),
    (b"a103 UID STORE 6,4,8 (UNCHANGEDSINCE 12121230045) +FLAGS.SILENT (\\Deleted)",
     c.Store(numbers((6, 6), (4, 4), (8, 8)), "+", ("\\Deleted",), True, True, 12121230045)),
    (b"A003 COPY 2:4 MEETING", c.Copy(numbers((2, 4)), "MEETING")),
    (b"n1 uid copy 1:* oldmail", c.Copy(numbers((1, STAR)), "oldmail", uid=True)),
    (b'E283 COPY $ "Other Messages"', c.Copy(SAVED, "Other Messages")),
    (b"23 move 2 foo", c.Move(numbers((2, 2)), "foo")),
    (b"a UID MOVE 42:69 foo", c.Move(numbers((42, 69)), "foo", uid=True)),
]


@pytest.mark.parametrize(("octets", "command"), EXAMPLES, ids=lambda value: value[:40] if isinstance(value, bytes) else "")
def test_examples(octets, command):
    tag, parsed = parse_command(octets, CONTEXT)
    assert parsed == command
    assert octets.startswith(tag + b" ")


def test_every_verb_has_an_example():
    seen = {octets.split(b" ")[1].upper() for octets, _ in EXAMPLES}
    assert set(COMMANDS) - seen == {b"FETCH", b"SEARCH"}       # these have files of their own
    assert set(UID_COMMANDS) <= set(COMMANDS)


@pytest.mark.parametrize("octets", [
    b"", b" ", b"NOOP", b"a", b"a ", b" a NOOP", b"a+b NOOP", b"a NOOP x", b"a XPIG-LATIN", b"a UID", b"a UID NOOP", b"a\tNOOP",
    b"a LOGIN", b"a LOGIN x", b"a LOGIN x ", b'a LOGIN "x y', b'a LOGIN "x" "\\y"', b"a LOGIN x{1}\r\ny z", b"a LOGIN {3}\r\nab",
    b"a LOGIN {3}\r\na\0b c", b'a LOGIN "\xff" x', b"a LOGIN x y z", b"a AUTHENTICATE", b"a AUTHENTICATE PLAIN *", b"a ENABLE",
    b"a AUTHENTICATE PLAIN dGVz!", b"a AUTHENTICATE PLAIN dGV", b"a ENABLE (x)", b"a ID", b'a ID ("x")', b"a ID (x y)",
    b"a SELECT", b"a SELECT x y", b"a SELECT x (FOO)", b"a SELECT x ()", b"a SELECT %", b"a SELECT &AC8", b"a SELECT &ACY-",
    b'a SELECT "\xe3\x81\x82"', b'a SELECT "a\x07b"', b"a SELECT " + b"x" * 1001, b"a CREATE x (USE \\Sent)", b"a RENAME x",
    b"a STATUS x", b"a STATUS x ()", b"a STATUS x (FOO)", b"a STATUS x (MESSAGES", b"a STATUS x (MESSAGES)(UNSEEN)",
    b'a LIST ""', b'a LIST "" % RETURN', b'a LIST "" % RETURN (FOO)', b'a LIST (RECURSIVEMATCH) "" %', b'a LIST (FOO) "" %',
    b'a LIST (SUBSCRIBED)"" %', b"a APPEND x", b'a APPEND x "text"', b"a APPEND x (\\Seen {3}", b"a APPEND x (\\Recent) {3}",
    b'a APPEND x "17-Jul-1996" {3}', b'a APPEND x "31-Feb-1996 02:44:25 -0700" {3}', b"a APPEND x UTF8 {3}",
    b"a ID ({2}\r\nx NIL)", b'a ID ({1}\r\nx {1}\r\n "y" NIL)',
    b"a GETQUOTA", b'a SETQUOTA "" STORAGE', b'a SETQUOTA "" (STORAGE x)', b"a STORE 1", b"a STORE 1 FLAGS",
    b"a STORE 1 =FLAGS ()",
    b"a STORE 0 FLAGS ()", b"a STORE 1 FLAGS (\\Foo)", b"a STORE 1:4294967296 FLAGS ()",
    b"a STORE 01 FLAGS ()", b"a STORE 1, FLAGS ()",
    b"a STORE $,1 FLAGS ()", b"a STORE 1:2:3 FLAGS ()", b"a STORE 1 (UNCHANGEDSINCE -1) FLAGS ()", b"a COPY 1", b"a MOVE x y",
])
def test_refused(octets):
    with pytest.raises(ProtocolError):
        parse(octets)


def test_unknown_mechanism_is_no_whatever_follows():
    for octets in (b"a AUTHENTICATE KERBEROS_V4", b"a AUTHENTICATE KERBEROS_V4 extra"):
        with pytest.raises(CommandError) as refused:
            parse(octets)
        assert refused.value.no


def test_quirk_extra_spaces():
    assert parse(b"A90 STORE 1  +FLAGS ( \\Seen  \\Draft )") == c.Store(numbers((1, 1)), "+", ("\\Seen", "\\Draft"), silent=False)
    assert parse(b"a NOOP ") == c.Noop()
    assert parse(b"a ENABLE CONDSTORE ") == c.Enable(("CONDSTORE",))


def test_mailbox_names_by_session_state():
    assert parse(b"a SELECT &ZeVnLIqe-") == c.Select("日本語", read_only=False)
    assert parse('a SELECT "日本語"'.encode(), utf8=True) == c.Select("日本語", read_only=False)
    assert parse(b"a SELECT &ZeVnLIqe-", utf8=True) == c.Select("&ZeVnLIqe-", read_only=False)
    assert parse("a SELECT {9}\r\nか\u3099き".encode(), utf8=True) == c.Select("がき", read_only=False)


def test_condstore_enabling_commands():
    enabling = [
        b"a SELECT x (CONDSTORE)", b"a STATUS x (HIGHESTMODSEQ)", b"a FETCH 1 MODSEQ", b"a FETCH 1 FLAGS (CHANGEDSINCE 1)",
        b"a STORE 1 (UNCHANGEDSINCE 1) FLAGS ()", b"a SEARCH NOT OR SEEN (ALL MODSEQ 5)",
    ]
    others = [b"a SELECT x", b"a STATUS x (MESSAGES)", b"a FETCH 1 FLAGS", b"a STORE 1 FLAGS ()",
    b"a SEARCH NOT OR SEEN ALL", b"a NOOP"]
    assert [enables_condstore(parse(octets)) for octets in enabling + others] == [True] * 6 + [False] * 6


PIECES = st.sampled_from([
    b"a ", b"b UID ", b"FETCH ", b"SEARCH ", b"STORE ", b"LIST ", b"APPEND ", b"LOGIN ", b"STATUS ", b"1:*",
    b"$", b" ", b"(", b")",
    b"FLAGS", b"BODY[", b"HEADER.FIELDS", b"]", b"<0.1>", b'"x"', b"{1}\r\nx", b"NOT ", b"OR ", b"INBOX",
    b"&AC-", b"\\Seen", b"\r", b"\0",
    b"CHARSET ", b"UTF-8", b'"1-Jan-2020"', b"RETURN ", b"{3}", b"~{3}", b"UTF8 (", b"%", b"\xff",
])


@given(st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=20).map(b"".join)), st.booleans())
def test_any_octets_give_a_command_or_protocol_error(octets, utf8):
    try:
        tag, command = parse_command(octets, Context(utf8, mechanisms=CONTEXT.mechanisms))
    except ProtocolError as error:
        assert str(error).isascii()
    else:
        assert octets.startswith(tag)
        assert isinstance(command, c.Command)


@pytest.mark.parametrize("shape", [
    lambda n: b"a SEARCH " + b"(" * n, lambda n: b"a SEARCH " + b"NOT " * n, lambda n: b"a SEARCH " + b"OR ALL " * n,
    lambda n: b"a FETCH 1 (" * n, lambda n: b"a FETCH 1 BODY[" + b"1." * n, lambda n: b"a FETCH " + b"1," * n,
    lambda n: b'a LOGIN "' + b"\\" * n, lambda n: b'a LOGIN "' + b'\\"' * n, lambda n: b"a STORE 1 FLAGS (" + b"x " * n,
    lambda n: b"a SELECT " + b"&" * n, lambda n: b"a ENABLE " + b"x " * n, lambda n: b'a ID (' + b'"" "" ' * n,
    lambda n: b"a SEARCH ALL " * 1 + b"ALL " * n, lambda n: b'a LIST "" (' + b"% " * n, lambda n: b"a " + b" " * n,
])
def test_linear(shape):
    """64 KiB, the longest line there is, of anything repeated: far below a second even on a busy machine."""
    octets = shape(65536)[:65536]
    started = time.process_time()
    try:
        parse(octets)
    except ProtocolError:
        pass
    assert time.process_time() - started < 1


def test_fetch_kinds_are_all_reachable():
    octets = (
        b"a FETCH 1 (ENVELOPE FLAGS INTERNALDATE RFC822.SIZE BODY BODYSTRUCTURE UID MODSEQ EMAILID THREADID SAVEDATE PREVIEW"
        b" BODY[] BINARY[] BINARY.SIZE[] RFC822 RFC822.HEADER RFC822.TEXT)"
    )
    command = parse(octets)
    assert isinstance(command, c.Fetch)
    assert {item.kind for item in command.items} == set(FetchKind)
