"""The grammar of paths: RFC 5321 §4.1.2, the carriers' legacy forms, and the tricks of open-relay tests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.smtp.path import NonAsciiPath, PathError, format_path, parse_path, quoted_form, split_path

GOOD = {
    b"<>": "",
    b"<a@b.example>": "a@b.example",
    b"<Postmaster>": "Postmaster",
    b"<POSTMASTER>": "POSTMASTER",
    b"<postmaster@b.example>": "postmaster@b.example",
    b"<A.B+tag@B.Example>": "A.B+tag@B.Example",
    b"<@relay.example,@two.example:a@b.example>": "a@b.example",
    b'<"a b"@b.example>': '"a b"@b.example',
    b'<"a>b"@b.example>': '"a>b"@b.example',
    b'<"a\\"b"@b.example>': '"a\\"b"@b.example',
    b'<"a@b"@c.example>': '"a@b"@c.example',
    b"<a..b@docomo.ne.jp>": "a..b@docomo.ne.jp",
    b"<abc.@docomo.ne.jp>": "abc.@docomo.ne.jp",
    b"<.abc@ezweb.ne.jp>": ".abc@ezweb.ne.jp",
    b"<-abc@docomo.ne.jp>": "-abc@docomo.ne.jp",
    b"<a%b@c.example>": "a%b@c.example",  # relaying by % and ! is policy's to refuse
    b"<c!a@b.example>": "c!a@b.example",
    b"<a@[192.0.2.1]>": "a@[192.0.2.1]",
    b"<a@[IPv6:2001:db8::1]>": "a@[IPv6:2001:db8::1]",
    b"<a@xn--r8jz45g.example>": "a@xn--r8jz45g.example",
    b"<a@localhost>": "a@localhost",
    b"<" + b"a" * 255 + b"@b.example>": "a" * 255 + "@b.example",
}
BAD = [
    b"",
    b"<",
    b"a@b.example",
    b"<a>",
    b"<a@>",
    b"<@b.example>",
    b"<a@b@c.example>",
    b"< a@b.example>",
    b"<a b@c.example>",
    b'<""@b.example>',
    b'<"a"b@c.example>',
    b'<"a@b.example>',
    b"<a@-b.example>",
    b"<a@b-.example>",
    b"<a@b..example>",
    b"<a@.example>",
    b"<a@b.example.>",
    b"<a@b_c.example>",
    b"<a@[192.0.2.256]>",
    b"<a@[192.0.2]>",
    b"<a@[IPv6:192.0.2.1]>",
    b"<a@[IPv6:fe80::1%eth0]>",
    b"<a@[x:1]>",
    b"<a@[]>",
    b"<@us.example:>",
    b"<@us.example:a>",
    b"<@us.example a@b.example>",
    b"<a\r\n@b.example>",
    b"<a\0@b.example>",
    b"<a@b.example\x7f>",
    b"<a@b.example>\n",
    b"<<a@b.example>>",
    b"<a@b.example",
    b"<a,b@c.example>",
    b"<a@b.example,c@d.example>",
    b"<(x)a@b.example>",
    b"<postmaster >",
    b"<" + b"a" * 256 + b"@b.example>",
    b"<a@" + b"b" * 64 + b".example>",
    b"<a@" + b"b." * 128 + b"example>",
    b"<a@b.example>x",
]


@pytest.mark.parametrize(("octets", "mailbox"), GOOD.items())
def test_valid_paths(octets: bytes, mailbox: str) -> None:
    assert parse_path(octets) == mailbox
    assert split_path(octets + b" SIZE=1") == (octets, b" SIZE=1")


@pytest.mark.parametrize("octets", BAD)
def test_refused_paths(octets: bytes) -> None:
    with pytest.raises(PathError):
        parse_path(octets, smtputf8=True)


def test_utf8_needs_smtputf8() -> None:
    octets = "<文子@例え.example>".encode()
    assert parse_path(octets, smtputf8=True) == "文子@例え.example"
    with pytest.raises(NonAsciiPath):
        parse_path(octets)


@pytest.mark.parametrize("octets", [b"<\xff@b.example>", "<a\u2028@b.example>".encode(), "<a@b\u0085.example>".encode()])
def test_broken_utf8_and_line_ends_are_refused(octets: bytes) -> None:
    with pytest.raises(PathError):
        parse_path(octets, smtputf8=True)


@pytest.mark.parametrize("mailbox", [m for m in GOOD.values() if "@" in m])
def test_formatting_is_the_inverse(mailbox: str) -> None:
    assert parse_path(format_path(mailbox)) == mailbox


@pytest.mark.parametrize(
    "mailbox", ["a@b.example>\r\nRCPT TO:<c@d.example", "a b@c.example", "a@b.example> SIZE=1", "\ud800@b.example"]
)
def test_nothing_else_can_be_formatted(mailbox: str) -> None:
    with pytest.raises(PathError):
        format_path(mailbox)


def test_quoted_form_of_legacy_local_parts() -> None:
    assert quoted_form("a..b@docomo.ne.jp") == '"a..b"@docomo.ne.jp'
    assert quoted_form("abc.@docomo.ne.jp") == '"abc."@docomo.ne.jp'
    assert quoted_form("a.b@c.example") == "a.b@c.example"
    assert quoted_form('"a..b"@c.example') == '"a..b"@c.example'
    assert quoted_form("Postmaster") == "Postmaster"


@given(st.binary(max_size=60) | st.text('<>@a."\\[]: \r\n\0あ', max_size=20).map(str.encode), st.booleans())
def test_any_octets_give_a_mailbox_or_path_error(octets: bytes, smtputf8: bool) -> None:
    try:
        mailbox = parse_path(octets, smtputf8=smtputf8)
    except PathError:
        return
    assert not mailbox or mailbox.lower() == "postmaster" or parse_path(format_path(mailbox), smtputf8=True) == mailbox
    assert "\r" not in mailbox and "\n" not in mailbox and "\0" not in mailbox
