"""Domain names, text forms, and the reverse tree."""

import dns.rdata
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.dns.records import InvalidDomain, ascii_domain, format_txt, is_within, parent_domain, reverse_domain


@pytest.mark.parametrize(("domain", "expected"), [
    ("Example.JP", "example.jp"),
    ("example.jp.", "example.jp"),
    (".", "."),
    ("_dmarc.Example.jp", "_dmarc.example.jp"),
    ("例え.jp", "xn--r8jz45g.jp"),
    ("メール。例え。JP。", "xn--4dkua4c.xn--r8jz45g.jp"),
    ("ＭＡＩＬ.例え.jp", "mail.xn--r8jz45g.jp"),
    ("_imaps._tcp.例え.jp", "_imaps._tcp.xn--r8jz45g.jp"),
])
def test_ascii_domain(domain, expected):
    assert ascii_domain(domain) == expected


@pytest.mark.parametrize(
    "domain", ["", "..", "a..b", ".a", "a b", "a\nb", "a\x7f", "x" * 64, "ab." * 90, "あ" * 60, "\u2028.jp", "あ" * 2000])
def test_not_a_domain(domain):
    with pytest.raises(InvalidDomain):
        ascii_domain(domain)


@given(st.text(max_size=80))
def test_any_text_is_a_domain_or_refused(text):
    try:
        name = ascii_domain(text)
    except InvalidDomain:
        return
    assert name.isascii() and len(name) <= 253 and ascii_domain(name) == name


@given(st.text(max_size=700))
def test_txt_round_trip(text):
    rdata = dns.rdata.from_text("IN", "TXT", format_txt(text))
    assert b"".join(rdata.strings) == text.encode()
    assert all(len(piece) <= 255 for piece in rdata.strings)


def test_relations():
    assert parent_domain("mail.example.jp") == "example.jp" and parent_domain("jp") == "."
    assert is_within("mail.example.jp", "example.jp") and is_within("example.jp", "example.jp") and is_within("x", ".")
    assert not is_within("notexample.jp", "example.jp") and not is_within("jp", "example.jp")
    assert reverse_domain("192.0.2.1") == "1.2.0.192.in-addr.arpa"
    assert reverse_domain("2001:db8::1").endswith(".8.b.d.0.1.0.0.2.ip6.arpa")
