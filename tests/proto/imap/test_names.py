"""Mailbox names: modified UTF-7 both ways, what is refused, and the LIST wildcards."""

import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.imap.names import decode_utf7, encode_utf7, format_name, match_pattern, parse_name
from fumibako.proto.reader import ProtocolError

# spec/japanese-mail.md §6, RFC 3501 §5.1.3
TABLE = [
    ("受信トレイ", b"&U9dP4TDIMOwwpA-"), ("下書き", b"&Tgtm+DBN-"), ("送信済みアイテム", b"&kAFP4W4IMH8wojCkMMYw4A-"),
    ("送信済みメール", b"&kAFP4W4IMH8w4TD8MOs-"), ("送信済み", b"&kAFP4W4IMH8-"), ("迷惑メール", b"&j,dg0TDhMPww6w-"),
    ("ゴミ箱", b"&MLQw33ux-"), ("ごみ箱", b"&MFQwf3ux-"), ("削除済みアイテム", b"&UkqWZG4IMH8wojCkMMYw4A-"),
    ("アーカイブ", b"&MKIw,DCrMKQw1g-"), ("送信済みトレイ", b"&kAFP4W4IMH8wyDDsMKQ-"),
    ("~peter/mail/台北/日本語", b"~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
    ("R&D", b"R&-D"), ("&", b"&-"), ("", b""), ("😀", b"&2D3eAA-"), ("営業／東京", b"&VbZpbf8PZ3FOrA-"),
]


@pytest.mark.parametrize(("name", "octets"), TABLE)
def test_table(name, octets):
    assert encode_utf7(name) == octets
    assert decode_utf7(octets) == name


@pytest.mark.parametrize("octets", [
    b"&", b"a&b", b"&ZeVnLIqe", b"&ZeVnLIqe ", b"&AGE-", b"&AC4ALgAv-", b"&U,BTFw-&ZeVnLIqe-", b"&U,BTFx-", b"&2D0-", b"&3gA-",
    b"&ZQ-", b"&ZeVnLIqe=-", b"&U/BTFw-", "日本語".encode(), b"\xff", b"a\tb", b"a\x7fb", b"&AAA-",
    b"&IKg-" b"x" * 1000, b"&AAoADQ-",
])
def test_refused_as_utf7(octets):
    with pytest.raises(ProtocolError):
        parse_name(octets, utf8=False)


@pytest.mark.parametrize("octets", [
    b"\xff", b"\xc0\xae\xc0\xae/", b"\xed\xa0\x80", b"a\0b", b"a\r\nb", b"\x7f", "\u2028".encode(), "\x85".encode(), b"x" * 1001,
])
def test_refused_as_utf8(octets):
    with pytest.raises(ProtocolError):
        parse_name(octets, utf8=True)


def test_inbox_in_any_case_and_only_inbox():
    assert parse_name(b"iNbOx", utf8=False) == "INBOX"
    assert parse_name("ınbox".encode(), utf8=True) == "ınbox"       # upper() would make it INBOX
    assert parse_name(b"inbox/x", utf8=False) == "inbox/x"


def test_names_are_nfc():
    assert parse_name("か\u3099".encode(), utf8=True) == "が"
    assert parse_name(encode_utf7("か\u3099"), utf8=False) == "が"


NAMES = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=40).map(
    lambda text: unicodedata.normalize("NFC", text)).filter(lambda name: name.upper() != "INBOX")


@given(NAMES, st.booleans())
def test_round_trip(name, utf8):
    assert parse_name(format_name(name, utf8=utf8), utf8=utf8) == name


@given(st.binary(max_size=40) | st.text(alphabet="&-ZeVnLIqe,+A/a", max_size=30).map(str.encode))
def test_one_spelling_a_name(octets):
    try:
        name = decode_utf7(octets)
    except ProtocolError:
        return
    assert encode_utf7(name) == octets


@pytest.mark.parametrize(("pattern", "name", "matches"), [
    ("*", "", True), ("*", "a/b", True), ("%", "a", True), ("%", "a/b", False), ("%/%", "a/b", True), ("a*", "abc", True),
    ("a*", "ba", False), ("", "", True), ("", "a", False), ("foo", "foo", True), ("foo", "foo/bar", False),
    ("foo/%", "foo/bar/x", False),
    ("foo/*", "foo/bar/x", True), ("*x%", "a/x/b", False), ("%*", "a/b", True), ("*2", "foo2/bar2", True),
    ("inb%", "INBOX", True),
    ("inbox", "INBOX", True), ("inbox/x", "INBOX/x", False), ("受信*", "受信トレイ", True), ("a.c", "abc", False),
    ("%b", "a/b", False),
])
def test_match(pattern, name, matches):
    assert match_pattern(pattern, name) is matches


@given(st.text(alphabet="ab/*%", max_size=12), st.text(alphabet="ab/", max_size=12))
def test_match_is_what_a_regular_expression_says(pattern, name):
    expression = "".join({"*": ".*", "%": "[^/]*"}.get(letter, re.escape(letter)) for letter in pattern)
    assert match_pattern(pattern, name) == bool(re.fullmatch(expression, name, re.DOTALL))


def test_matching_is_linear():
    """spec/reliability.md B4; process time, generous for a busy machine."""
    started = time.process_time()
    for pattern in ("%*" * 5000, "a%" * 5000, "*a" * 5000 + "b"):
        match_pattern(pattern, "a" * 1000)
    assert time.process_time() - started < 1
