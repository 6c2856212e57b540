"""SEARCH programs as trees; charsets; depth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.imap import commands as c
from fumibako.proto.imap.parse import parse_command
from fumibako.proto.imap.scanner import CommandError, Context
from fumibako.proto.reader import ProtocolError


def search(octets: bytes, **context) -> c.Search:
    command = parse_command(b"a " + octets, Context(**context))[1]
    assert isinstance(command, c.Search)
    return command


def key(octets: bytes) -> c.SearchKey:
    return search(b"SEARCH " + octets).key


DAY = 8797      # 1-Feb-1994


@pytest.mark.parametrize(("octets", "expected"), [
    (b"ALL", c.All()),
    (b"FLAGGED SINCE 1-Feb-1994 NOT FROM \"Smith\"",
     c.And((c.HasFlag("\\Flagged"), c.DateIs("internal", "since", DAY), c.Not(c.HeaderHas("from", "Smith"))))),
    (b'TEXT "string not in mailbox"', c.TextHas("string not in mailbox", body_only=False)),
    (b"BODY x", c.TextHas("x", body_only=True)),
    (b"unseen", c.HasFlag("\\Seen", present=False)),
    (b"KEYWORD $Junk", c.HasFlag("$Junk")),
    (b"UNKEYWORD $Junk", c.HasFlag("$Junk", present=False)),
    (b"NEW", c.And((c.IsRecent(), c.HasFlag("\\Seen", present=False)))),
    (b"OLD", c.IsRecent(present=False)),
    (b"2,4:7,12:*", c.Numbers(c.SequenceSet(((2, 2), (4, 7), (12, 0))))),
    (b"*:10", c.Numbers(c.SequenceSet(((0, 10),)))),
    (b"UID $", c.Numbers(c.SequenceSet((), saved=True), uid=True)),
    (b"$ SMALLER 4096", c.And((c.Numbers(c.SequenceSet((), saved=True)), c.SizeIs(larger=False, octets=4096)))),
    (b"OR (ANSWERED DELETED) NOT DRAFT",
     c.Or(c.And((c.HasFlag("\\Answered"), c.HasFlag("\\Deleted"))), c.Not(c.HasFlag("\\Draft")))),
    (b"OR ( CC o TEXT o ) ( HEADER Delivered-To \"\" )",
     c.Or(c.And((c.HeaderHas("cc", "o"), c.TextHas("o", body_only=False))), c.HeaderHas("delivered-to", ""))),
    (b"SENTBEFORE \"1-feb-1994\"", c.DateIs("sent", "before", DAY)),
    (b"SAVEDON 01-Feb-1994", c.DateIs("saved", "on", DAY)),
    (b"SAVEDATESUPPORTED", c.SaveDateSupported()),
    (b"YOUNGER 259200", c.Within(younger=True, seconds=259200)),
    (b"OLDER 1", c.Within(younger=False, seconds=1)),
    (b"MODSEQ 620162338", c.ModSeqIs(620162338)),
    (b'MODSEQ "/flags/\\\\draft" all 620162338', c.ModSeqIs(620162338)),
    (b"emailid M6d99ac3275bb4e", c.IdIs("email", "M6d99ac3275bb4e")),
    (b"THREADID T64b478a75b7ea9", c.IdIs("thread", "T64b478a75b7ea9")),
    (b"LARGER 9223372036854775807", c.SizeIs(larger=True, octets=2**63 - 1)),
], ids=lambda value: value[:30] if isinstance(value, bytes) else "")
def test_keys(octets, expected):
    assert key(octets) == expected


def test_return_options():
    assert search(b"SEARCH RETURN (MIN COUNT) FLAGGED") == c.Search(c.HasFlag("\\Flagged"), frozenset({"MIN", "COUNT"}))
    assert search(b"UID SEARCH RETURN () SEEN") == c.Search(c.HasFlag("\\Seen"), frozenset({"ALL"}), uid=True)
    assert search(b"SEARCH SEEN").returns is None


@pytest.mark.parametrize(("charset", "codec"), [
    (b"UTF-8", "utf-8"), (b"ISO-2022-JP", "iso2022_jp"), (b"Shift_JIS", "cp932"), (b'"euc-jp"', "euc_jp"),
])
def test_charsets(charset, codec):
    octets = "請求書".encode(codec)
    parsed = search(b"SEARCH CHARSET %b SUBJECT {%d}\r\n%b" % (charset, len(octets), octets))
    assert parsed.key == c.HeaderHas("subject", "請求書")


def test_utf8_needs_no_charset():
    assert search('SEARCH SUBJECT "請求書"'.encode()).key == c.HeaderHas("subject", "請求書")


def test_unknown_charset_names_the_known():
    with pytest.raises(CommandError) as refused:
        search(b"SEARCH CHARSET KOI8-R TEXT {4}\r\nXXXX")
    assert refused.value.no
    assert refused.value.code == b"BADCHARSET (US-ASCII UTF-8 ISO-2022-JP SHIFT_JIS EUC-JP)"


def test_charset_after_utf8_accept():
    with pytest.raises(CommandError) as refused:
        search(b"SEARCH CHARSET UTF-8 ALL", charset_allowed=False)
    assert not refused.value.no


@pytest.mark.parametrize("octets", [
    b"", b"FOO", b"NOT", b"OR SEEN", b"()", b"(SEEN", b"SEEN)", b"SINCE 32-Jan-2020", b"SINCE 1-Foo-2020",
    b"SINCE 1-Jan-20", b"LARGER x",
    b"SUBJECT", b"HEADER x", b"KEYWORD \\Seen", b"RETURN (FOO) ALL", b"RETURN (ALL)", b"CHARSET UTF-8",
    b"CHARSET", b"UID x", b"1:",
    b"SUBJECT {2}\r\n\xff\xfe", b"CHARSET US-ASCII SUBJECT {3}\r\n\xe3\x81\x82", b"OLDER 0", b"MODSEQ -1", b"EMAILID {1}\r\n\xe9",
    b'MODSEQ "/flags/x" foo 5', b"SAVEDON", b"RECENTLY",
])
def test_refused(octets):
    with pytest.raises(ProtocolError):
        key(octets)


@pytest.mark.parametrize("opening", [b"(", b"NOT ", b"OR ALL "])
def test_depth(opening):
    closing = b")" if opening == b"(" else b""
    key(opening * 50 + b"ALL" + closing * 50)
    with pytest.raises(CommandError) as refused:
        key(opening * 51 + b"ALL" + closing * 51)
    assert refused.value.code == b"LIMIT"


def test_many_keys_side_by_side_are_not_deep():
    assert len(key(b" ".join([b"NOT SEEN"] * 5000)).keys) == 5000


@given(st.text(alphabet=st.characters(exclude_characters="\0\ufffd", exclude_categories=["Cs"]), max_size=50))
def test_any_text_comes_through_a_literal(text):
    """spec/reliability.md B2: what is counted are octets."""
    octets = text.encode()
    parsed = search(b"SEARCH TEXT {%d}\r\n%b SEEN" % (len(octets), octets))
    assert parsed.key == c.And((c.TextHas(text, body_only=False), c.HasFlag("\\Seen")))
