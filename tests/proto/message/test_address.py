"""Address lists: RFC 5322 §A, Japanese violations, broken lists, bounds."""

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.message.address import GROUP_END, Address, format_mailbox, parse_addresses
from fumibako.proto.message.words import decode_words


def one(mailbox: bytes, host: bytes, name: bytes | None = None, route: bytes | None = None) -> Address:
    return Address(name, route, mailbox, host)


def group(name: bytes) -> Address:
    return Address(None, None, name, None)


AB = one(b"a", b"b")
LISTS = [
    # RFC 5322 §A.1.2, §A.1.3, §A.5, §A.6.1
    (b'"Joe Q. Public" <john.q.public@example.com>', [one(b"john.q.public", b"example.com", b"Joe Q. Public")]),
    (
        b"Mary Smith <mary@x.test>, jdoe@example.org, Who? <one@y.test>",
        [one(b"mary", b"x.test", b"Mary Smith"), one(b"jdoe", b"example.org"), one(b"one", b"y.test", b"Who?")],
    ),
    (
        b'<boss@nil.test>, "Giant; \\"Big\\" Box" <sysservices@example.net>',
        [one(b"boss", b"nil.test"), one(b"sysservices", b"example.net", b'Giant; "Big" Box')],
    ),
    (
        b"A Group:Ed Jones <c@a.test>,joe@where.test,John <jdoe@one.test>;",
        [
            group(b"A Group"),
            one(b"c", b"a.test", b"Ed Jones"),
            one(b"joe", b"where.test"),
            one(b"jdoe", b"one.test", b"John"),
            GROUP_END,
        ],
    ),
    (b"Undisclosed recipients:;", [group(b"Undisclosed recipients"), GROUP_END]),
    (b"Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>", [one(b"pete", b"silly.test", b"Pete")]),
    (
        b"A Group(Some people)\r\n     :Chris Jones <c@(Chris's host.)public.example>,\r\n         joe@example.org,\r\n"
        b"  John <jdoe@one.test> (my dear friend); (the end of the group)",
        [
            group(b"A Group"),
            one(b"c", b"public.example", b"Chris Jones"),
            one(b"joe", b"example.org"),
            one(b"jdoe", b"one.test", b"John"),
            GROUP_END,
        ],
    ),
    (b"Joe Q. Public <john.q.public@example.com>", [one(b"john.q.public", b"example.com", b"Joe Q. Public")]),
    (
        b"Mary Smith <@node.test:mary@example.net>, , jdoe@test  . example",
        [one(b"mary", b"example.net", b"Mary Smith", b"@node.test"), one(b"jdoe", b"test.example")],
    ),
    (b"<@r1,@r2:u@h>", [one(b"u", b"h", route=b"@r1,@r2")]),
    (b"John Doe <jdoe@machine(comment).  example>", [one(b"jdoe", b"machine.example", b"John Doe")]),
    (b"a@b (Alice (x))", [one(b"a", b"b", b"Alice (x)")]),
    (b'"a b"@c', [one(b"a b", b"c")]),
    (b"x@[192.0.2.1], y@[IPv6:::1]", [one(b"x", b"[192.0.2.1]"), one(b"y", b"[IPv6:::1]")]),
    # Japanese
    (
        b"a..b@docomo.ne.jp, .abc@ezweb.ne.jp, abc.@docomo.ne.jp, -x@docomo.ne.jp",
        [one(b"a..b", b"docomo.ne.jp"), one(b".abc", b"ezweb.ne.jp"), one(b"abc.", b"docomo.ne.jp"), one(b"-x", b"docomo.ne.jp")],
    ),
    ("（株）山田，太郎＠<y@z>, a@b".encode(), [one(b"y", b"z", "（株）山田，太郎＠".encode()), AB]),
    (b"=?utf-8?Q?a,b?= <y@z>", [one(b"y", b"z", b"=?utf-8?Q?a,b?=")]),
    (b'\x1b$B;3ED@,"\x1b(B <y@z>, a@b', [one(b"y", b"z", b'\x1b$B;3ED@,"\x1b(B'), AB]),
    (b"y@z (\x1b$B;3ED\x1b(B), a@b", [one(b"y", b"z", b"\x1b$B;3ED\x1b(B"), AB]),
    ("ソ表ァ <y@z>, a@b".encode("cp932"), [one(b"y", b"z", "ソ表ァ".encode("cp932")), AB]),
    ('"表" <y@z>, a@b'.encode("cp932"), [one(b"y", b"z", "表".encode("cp932")), AB]),
    ("あ@日本.jp".encode(), [one("あ".encode(), "日本.jp".encode())]),
    # broken
    (b"", []),
    (b" ,, ;", []),
    (b"<>", []),
    (b"a@b; y@z", [AB, one(b"y", b"z")]),
    (b"<a@b", [AB]),
    (b"a@b>", [AB]),
    (b'"Alice <a@b>, y@z', [one(b"a", b"b", b"Alice"), one(b"y", b"z")]),
    (b"Alice (sales <a@b>, y@z", [one(b"a", b"b", b"Alice sales"), one(b"y", b"z")]),
    (b"Alice a@b", [one(b"a", b"b", b"Alice")]),
    (b"Alice <a@b> junk, y@z", [one(b"a", b"b", b"Alice"), one(b"y", b"z")]),
    (b"postmaster", [one(b"postmaster", b"")]),
    (b"Alice <alice>", [one(b"alice", b"", b"Alice")]),
    (b"a@b@c", [one(b"a@b", b"c")]),
    (b"list: a@b", [group(b"list"), AB, GROUP_END]),
    (b"alice@example.org)bob@example.com", [one(b"alice@example.orgbob", b"example.com")]),  # never alice@example.org
]


@pytest.mark.parametrize(("value", "addresses"), LISTS)
def test_lists(value: bytes, addresses: list[Address]) -> None:
    assert parse_addresses(value) == addresses


@given(
    st.lists(
        st.sampled_from(
            [
                b"<",
                b">",
                b"@",
                b",",
                b";",
                b":",
                b"(",
                b")",
                b'"',
                b"\\",
                b" ",
                b"a",
                b"[",
                b"]",
                b"\x1b$B",
                b"\x1b(B",
                b"\x83",
                b"\x5c",
                b"\r\n ",
                b"=?u?B?x?=",
            ]
        )
    ).map(b"".join)
)
def test_any_octets_parse(value: bytes) -> None:
    found = parse_addresses(value)
    assert all(address.mailbox is not None or address == GROUP_END for address in found)
    depth = 0
    for address in found:  # groups begin and end in turn
        depth += (address.host is None and address.mailbox is not None) - (address == GROUP_END)
        assert depth in (0, 1)
    assert depth == 0


NAME = (
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff"), min_size=1).map(str.strip).filter(bool)
)


@given(NAME)
def test_format_mailbox_round_trip(name: str) -> None:
    octets = format_mailbox(name, "alice@example.jp").encode("ascii")
    (address,) = parse_addresses(octets)
    assert address.host == b"example.jp"
    assert address.name is not None
    assert decode_words(address.name) == name


@given(NAME)
def test_the_standard_library_reads_what_we_write(name: str) -> None:
    octets = format_mailbox(name, "alice@example.jp")
    assert email.utils.parseaddr(octets)[1] == "alice@example.jp"


def test_format_mailbox() -> None:
    assert format_mailbox("", "a@b") == "a@b"
    assert format_mailbox("Alice Smith", "a@b") == "Alice Smith <a@b>"
    assert format_mailbox('A "B", C', "a@b") == '"A \\"B\\", C" <a@b>'
    assert format_mailbox("日本", "a@b", "iso-2022-jp") == "=?ISO-2022-JP?B?GyRCRnxLXBsoQg==?= <a@b>"
    with pytest.raises(ValueError, match="address"):
        format_mailbox("a\r\nBcc: x", "a@b")


@pytest.mark.parametrize(
    "piece", [b'"\\', b"(", b'"\\"', b"a,", b"<@", b"=?", b"<", b"@", b" ", b":", b"a ", b"[x", b"\x1b$B", b"a:", b"a@"]
)
def test_bombs_stay_bounded(piece: bytes) -> None:
    """100 KB of any of these: at most 10,000 entries, and the result never outgrows the header."""
    found = parse_addresses(piece * (100_000 // len(piece)))
    assert len(found) <= 10_001
    assert sum(len(field or b"") for address in found for field in address) <= 200_000
