"""Every row of spec/japanese-mail.md §2, RFC 2047 §8's examples, and writing."""

import email.header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.message.words import decode_words, encode_words

JIS_DAY = b"=?ISO-2022-JP?B?GyRCRnxLXBsoQg==?="  # 日本
ROWS = [
    (b"=?ISO-2022-JP?B?GyRCRnw=?=\r\n =?ISO-2022-JP?B?S1wbKEI=?=", "日本"),  # split inside an escape pair
    (JIS_DAY + b" " + JIS_DAY, "日本日本"),
    (b"=?UTF-8?B?5pel5g==?= =?UTF-8?B?nKw=?=", "日本"),  # split inside a character
    (b"=?UTF-8?Q?=E6=97?= =?utf-8?Q?=A5?=", "日"),
    (b"=?ISO-2022-JP?B?GyRCLSEbKEI=?=", "①"),
    (JIS_DAY + b"test" + JIS_DAY, "日本test日本"),  # no space between word and text
    (b'"' + JIS_DAY + b'.pdf"', '"日本.pdf"'),  # inside quotes
    (b"=?utf-8?B?5pel5pys?=", "日本"),
    (b"=?iso-2022-jp?B?GyRCRnxLXBsoQg?=", "日本"),  # missing padding
    (b"=?utf-8?Q?=E6=97=A5 =E6=9C=AC?=", "日 本"),  # spaces in a word
    (b"=?utf-8?Q?a_b=5F?=", "a b_"),
    (b"\x1b$BF|K\\\x1b(B", "日本"),  # raw JIS
    ("日本語の件名".encode("cp932"), "日本語の件名"),  # raw Shift_JIS
    ("日本語の件名".encode(), "日本語の件名"),  # raw UTF-8
    ("日本".encode() + b" " + JIS_DAY, "日本 日本"),
    (b"=?iso-2022-jp?b?GyRCRnxLXBsoQg==?=", "日本"),  # lower case
    (b"=?ISO-2022-JP*ja?B?GyRCRnxLXBsoQg==?=", "日本"),  # language suffix
    (b"=?UTF-8?B?" + b"5pel" * 100 + b"?=", "日" * 100),  # far over 75 characters
    (JIS_DAY + b"\t" + JIS_DAY, "日本日本"),
    (b"Re: " + JIS_DAY + b" (2)", "Re: 日本 (2)"),
    (b"=?x-unknown?B?44Gv?=", "は"),
    (b"=?ISO-2022-JP?B?" + "は".encode().hex().encode() + b"?=", None),  # junk decodes to something
    (b"=?UTF-8?X?abc?=", "=?UTF-8?X?abc?="),
    (b"=?UTF-8?B?!!!?=", ""),
    (b"plain", "plain"),
    (b"", ""),
]


@pytest.mark.parametrize(("value", "text"), ROWS)
def test_rows(value: bytes, text: str | None) -> None:
    assert text is None or decode_words(value) == text
    decode_words(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"(=?ISO-8859-1?Q?a?=)", "(a)"),
        (b"(=?ISO-8859-1?Q?a?= b)", "(a b)"),
        (b"(=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=)", "(ab)"),
        (b"(=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?=)", "(ab)"),
        (b"(=?ISO-8859-1?Q?a?=\r\n    =?ISO-8859-1?Q?b?=)", "(ab)"),
        (b"(=?ISO-8859-1?Q?a_b?=)", "(a b)"),
        (b"(=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=)", "(a b)"),
        (b"=?ISO-8859-1?Q?Andr=E9?= Pirard <PIRARD@vm1.ulg.ac.be>", "André Pirard <PIRARD@vm1.ulg.ac.be>"),
        (
            b"=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?=\r\n =?ISO-8859-2?B?dSB1bmRlcnN0YW5kIHRoZSBleGFtcGxlLg==?=",
            "If you can read this you understand the example.",
        ),
    ],
)
def test_rfc_2047_section_8(value: bytes, text: str) -> None:
    assert decode_words(value) == text


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\x00"), min_size=1)


@given(TEXT)
def test_round_trip_and_lengths(text: str) -> None:
    octets = encode_words(text, always=True)
    assert all(len(word) <= 75 for word in octets.split(b" "))
    assert decode_words(octets) == text.removeprefix("\ufeff")
    for word in octets.split(b" "):  # every word stands alone: whole characters
        assert "\ufffd" not in decode_words(word) or "\ufffd" in text


@given(st.text(st.characters(codec="iso2022_jp", exclude_categories=["Cc"], exclude_characters="¥‾〜‖−¢£¬"), min_size=1))
def test_iso_2022_jp_words(text: str) -> None:
    octets = encode_words(text, "iso-2022-jp", always=True)
    assert octets.startswith(b"=?ISO-2022-JP?B?")
    assert all(len(word) <= 75 for word in octets.split(b" "))
    assert decode_words(octets) == text


def test_plain_and_fallback() -> None:
    assert encode_words("Hello, world") == b"Hello, world"
    assert encode_words("a =?utf-8?b?eA==?=").startswith(b"=?UTF-8?B?")
    assert encode_words("①", "iso-2022-jp").startswith(b"=?UTF-8?B?")
    for bad in ("a\rb", "a\nb", "a\x00b"):
        with pytest.raises(ValueError, match="header text"):
            encode_words(bad)


@given(TEXT)
def test_the_standard_library_reads_what_we_write(text: str) -> None:
    octets = encode_words(text, always=True).decode("ascii")
    assert str(email.header.make_header(email.header.decode_header(octets))) == text


@given(st.binary(max_size=300))
def test_any_octets_decode(value: bytes) -> None:
    assert isinstance(decode_words(value), str)
