"""Responses as the RFCs show them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.imap import format as f
from fumibako.proto.imap.scanner import Context, Scanner


@pytest.mark.parametrize(("octets", "formatted"), [
    (b"", b'""'), (b"abc", b'"abc"'), (b'a"b\\c', b'"a\\"b\\\\c"'), (b"a\r\nb", b"{4}\r\na\r\nb"),
    (b"\xe3\x81\x82", b"{3}\r\n\xe3\x81\x82"),
    (b"x" * 1001, b"{1001}\r\n" + b"x" * 1001),
])
def test_strings(octets, formatted):
    assert f.format_string(octets) == formatted
    assert f.format_nstring(octets) == formatted


def test_utf8_strings():
    assert f.format_string("あ".encode(), utf8=True) == '"あ"'.encode()
    assert f.format_string(b"\xff", utf8=True) == b"{1}\r\n\xff"
    assert f.format_nstring(None) == b"NIL"


def test_binary():
    assert f.format_binary(b"a\0b") == b"~{3}\r\na\0b"
    assert f.format_binary(b"ab") == b"{2}\r\nab"


@given(st.binary(max_size=50).filter(lambda octets: b"\0" not in octets), st.booleans())
def test_strings_are_read_back(octets, utf8):
    scanner = Scanner(f.format_string(octets, utf8=utf8), Context())
    assert scanner.string() == octets
    scanner.end()


def test_mailboxes():
    assert f.format_mailbox("INBOX", utf8=False) == b'"INBOX"'
    assert f.format_mailbox("日本語", utf8=False) == b'"&ZeVnLIqe-"'
    assert f.format_mailbox("日本語", utf8=True) == '"日本語"'.encode()


def test_list():
    assert f.format_list("foo", ["\\Subscribed", "\\HasChildren"], utf8=True) == b'LIST (\\Subscribed \\HasChildren) "/" "foo"'
    assert f.format_list("foo", [], utf8=False, command=b"LSUB") == b'LSUB () "/" "foo"'
    assert f.format_list("Foo", ["\\NonExistent"], utf8=True, child_info=["SUBSCRIBED"]) == (
        b'LIST (\\NonExistent) "/" "Foo" ("CHILDINFO" ("SUBSCRIBED"))')
    assert f.format_list("new", [], utf8=True, old_name="old") == b'LIST () "/" "new" ("OLDNAME" ("old"))'


def test_status():
    assert f.format_status("blurdybloop", {"MESSAGES": 231, "UIDNEXT": 44292}, utf8=True) == (
        b'STATUS "blurdybloop" (MESSAGES 231 UIDNEXT 44292)')
    assert f.format_status("foo", {"MAILBOXID": "F2212ea87"}, utf8=True) == b'STATUS "foo" (MAILBOXID (F2212ea87))'


def test_search():
    assert f.format_search([2, 84, 882]) == b"SEARCH 2 84 882"
    assert f.format_search([]) == b"SEARCH"
    assert f.format_search([2, 5], 917162500) == b"SEARCH 2 5 (MODSEQ 917162500)"


def test_esearch():
    assert f.format_esearch(b"A282", [2, 10, 11], ["MIN", "COUNT"], uid=False) == b'ESEARCH (TAG "A282") MIN 2 COUNT 3'
    assert f.format_esearch(b"A285", [1, 2, 4, 5], ["ALL"], uid=True) == b'ESEARCH (TAG "A285") UID ALL 1:2,4:5'
    assert f.format_esearch(b"A", [], ["MIN", "MAX", "ALL", "COUNT"], uid=False, modseq=5) == b'ESEARCH (TAG "A") COUNT 0'
    assert f.format_esearch(b"A", [], ["MIN"], uid=False) == b'ESEARCH (TAG "A")'
    assert f.format_esearch(b"a", [3, 9], ["MIN", "MAX",
    "SAVE"], uid=True, modseq=7) == b'ESEARCH (TAG "a") UID MIN 3 MAX 9 MODSEQ 7'


def test_namespace_quota_id():
    assert f.format_namespace() == b'NAMESPACE (("" "/")) NIL NIL'
    assert f.format_namespace(None) == b"NAMESPACE NIL NIL NIL"
    assert f.format_quota("", [("STORAGE", 10, 512)]) == b'QUOTA "" (STORAGE 10 512)'
    assert f.format_quota("", []) == b'QUOTA "" ()'
    assert f.format_quota_root("INBOX", [""], utf8=False) == b'QUOTAROOT "INBOX" ""'
    assert f.format_id({}) == b"ID NIL"
    assert f.format_id({"name": "Fumibako", "os": None}) == b'ID ("name" "Fumibako" "os" NIL)'


def test_messages_and_codes():
    assert f.format_fetch(12, [b"FLAGS (\\Seen)", b"UID 4"]) == b"12 FETCH (FLAGS (\\Seen) UID 4)"
    assert f.format_flags(["\\Seen", "$Junk"]) == b"(\\Seen $Junk)"
    assert f.format_vanished([41, 43, 44, 45]) == b"VANISHED 41,43:45"
    assert f.format_vanished([300, 301], earlier=True) == b"VANISHED (EARLIER) 300:301"
    assert f.code_append_uid(38505, [3955]) == b"APPENDUID 38505 3955"
    assert f.code_copy_uid(38505, [(304, 3956), (319, 3957), (320, 3958)]) == b"COPYUID 38505 304,319:320 3956:3958"
    assert f.code_modified([7, 9]) == b"MODIFIED 7,9"
    assert f.code_permanent_flags(["\\Seen"], more=True) == b"PERMANENTFLAGS (\\Seen \\*)"
