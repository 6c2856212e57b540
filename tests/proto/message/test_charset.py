"""Every row of spec/japanese-mail.md §1: what Python's codecs get wrong, mislabelled mail, sending."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.message.charset import (
    cut_text,
    decode_as,
    decode_euc,
    decode_jis,
    decode_labelled,
    decode_text,
    encode_jis,
    html_charset,
    is_utf8,
    replace_for_jis,
    wide_decoder,
)

JIS = [
    (b"\x1b$B\x2d\x21\x2d\x6a\x1b(B", "①㈱"),  # NEC row 13
    (b"\x1b$B\x7c\x62\x79\x75\x1b(B", "髙﨑"),  # IBM extensions
    (b"\x1b$B|bFb\x1b(B", "髙内"),
    (b"\x1b(I6E\x1b(B", "ｶﾅ"),  # half-width kana: CP50221
    (b"\x0e6E\x0f", "ｶﾅ"),  # CP50222
    (b"\xb6\xc5", "ｶﾅ"),  # bare 8-bit
    (b"\x1b(I\xb6\xc5\x1b(B", "ｶﾅ"),
    (b"\x1b$@F|K\\\x1b(J", "日本"),  # JIS78
    (b"\x1b$BF|K\\", "日本"),  # missing final escape
    (b"\x1b(Ja\\b\x1b(B", "a\\b"),  # JIS X 0201 Roman stays ASCII
    (b"\x1b$BF|K\\\r\nabc", "日本\r\nabc"),  # a line end is ASCII again
    (b"\x1b$(D\x30\x21\x1b(B", "丂"),  # JIS X 0212
    (b"\x1b$(?\x21\x21\x1b(B", "\ue000"),  # user area
    (b"\x1b$B\x75\x41\x1b(B", "〓"),  # carrier emoji
    (b'\x1b$B!A!B!]!q!r"L\x1b(B', "～∥－￠￡￢"),  # the six cells Windows reads differently
    (b"\x1b$BF|K\\\x1b", "日本\ufffd"),
    (b"\x1b$BF", "F"),
]


@pytest.mark.parametrize(("octets", "text"), JIS)
def test_jis(octets: bytes, text: str) -> None:
    assert decode_jis(octets) == text


def test_jis_agrees_with_the_codec_where_that_works() -> None:
    kanji = "".join(chr(code) for code in range(0x4E00, 0x9FA6) if encode_jis(chr(code)) is not None)
    assert len(kanji) > 6000
    assert decode_jis(kanji.encode("iso2022_jp")) == kanji


MISLABELLED = [
    ("日本".encode("iso2022_jp"), "us-ascii", "日本", "iso-2022-jp"),
    ("日本".encode("iso2022_jp"), "utf-8", "日本", "iso-2022-jp"),
    ("日本".encode("iso2022_jp"), None, "日本", "iso-2022-jp"),
    (b"plain", "iso-2022-jp", "plain", "iso-2022-jp"),
    (b"plain", "shift_jis", "plain", "us-ascii"),
    ("ほげ".encode(), "iso-2022-jp", "ほげ", "utf-8"),
    ("ほげ".encode(), "Shift_JIS", "ほげ", "utf-8"),
    ("ほげ".encode(), "iso-8859-1", "ほげ", "utf-8"),
    ("\ufeffほげ".encode(), "UTF-8N", "ほげ", "utf-8"),
    ("日本語のメールです".encode("cp932"), "us-ascii", "日本語のメールです", "shift_jis"),
    ("日本語のメールです".encode("euc_jp"), None, "日本語のメールです", "euc-jp"),
    ("㈱テスト①".encode("cp932"), "Shift_JIS", "㈱テスト①", "shift_jis"),
    ("㈱テスト".encode("cp932"), "x-sjis", "㈱テスト", "shift_jis"),
    ("㈱テスト".encode("cp932"), "windows-31j", "㈱テスト", "shift_jis"),
    ("ご請求".encode("cp932"), "utf-8", "ご請求", "shift_jis"),
    ("ご請求".encode("euc_jp"), "shift_jis", "ご請求", "euc-jp"),
    ("café au lait today only".encode("latin1"), "iso-8859-1", "café au lait today only", "windows-1252"),
    ("“quoted” and some more text".encode("cp1252"), "iso-8859-1", "“quoted” and some more text", "windows-1252"),
    ("日本語".encode("utf-7"), "utf-7", "日本語", "utf-7"),
    ("简体中文".encode("gb18030"), "GB2312", "简体中文", "gb2312"),
    ("한국어".encode("cp949"), "ks_c_5601-1987", "한국어", "ks_c_5601-1987"),
    ("привет".encode("koi8-r"), "koi8-r", "привет", "koi8-r"),
    (b"abc", "unicode_escape", "abc", "us-ascii"),
    (b"abc", "zip", "abc", "us-ascii"),
    (b"abc", "x" * 100, "abc", "us-ascii"),
    (b"abc", "\x00", "abc", "us-ascii"),
]


@pytest.mark.parametrize(("octets", "label", "text", "charset"), MISLABELLED)
def test_mislabelled(octets: bytes, label: str | None, text: str, charset: str) -> None:
    assert decode_labelled(octets, label) == (text, charset)


@pytest.mark.parametrize("label", ["cp50220", "cp50221", "CP50222", "iso-2022-jp-ms", "csISO2022JP", "iso-2022-jp-ext"])
def test_aliases_python_lacks(label: str) -> None:
    assert decode_text(b"\x1b$B\x2d\x21\x1b(B", label) == "①"


WORDS = "会議のご案内 御見積書 請求書の件 お世話になっております 山田太郎 東京都 テスト ㈱髙﨑商店 第①回 ご確認ください。".split()


@pytest.mark.parametrize("word", WORDS)
def test_short_phrases_are_told_apart_without_a_label(word: str) -> None:
    assert decode_text(word.encode("cp932")) == word
    assert decode_text(word.encode()) == word


def test_euc_extensions() -> None:
    assert decode_euc(b"\xad\xa1\xad\xea \xfc\xe2 \x8e\xb6\x8e\xc5 \x8f\xb0\xa1") == "①㈱ 髙 ｶﾅ 丂"
    assert decode_euc(b"\xa1\xc1") == "～"
    assert decode_euc(b"a\xffb\xa1") == "a\ufffdb\ufffd"


def test_a_person_may_choose_the_charset() -> None:
    octets = "ｶﾅ".encode("euc_jp")
    assert decode_as(octets, "EUC-JP") == "ｶﾅ"
    assert decode_as(b"\x1b$BF|\x1b(B", "iso-2022-jp") == "日"
    assert decode_as(b"abc", "no-such-charset") == "abc"


@pytest.mark.parametrize(
    ("document", "charset"),
    [
        (b'<html><META charset="Shift_JIS">', "shift_jis"),
        (b'<meta http-equiv="Content-Type" content="text/html; charset=euc-jp">', "euc-jp"),
        (b"<p>charset=x</p>", None),
        (b" " * 2000 + b"<meta charset=utf-8>", None),
    ],
)
def test_html_charset(document: bytes, charset: str | None) -> None:
    assert html_charset(document) == charset


@pytest.mark.parametrize("char", ["①", "㈱", "髙", "😀", "𠮷", "ｶ"])
def test_what_does_not_fit_iso_2022_jp(char: str) -> None:
    assert encode_jis(char) is None
    assert encode_jis(replace_for_jis(char)) is not None


def test_replacements() -> None:
    assert replace_for_jis("①㈱髙﨑ｶﾞﾊﾟｱﾞ😀") == "(1)(株)高崎ガパア゛〓"
    assert encode_jis("～日") == b"\x1b$B!AF|\x1b(B"
    assert encode_jis("日") == b"\x1b$BF|\x1b(B"


@given(st.binary(max_size=200), st.sampled_from([None, "iso-2022-jp", "shift_jis", "euc-jp", "utf-8", "latin1", "utf-16", "x"]))
def test_any_octets_decode(octets: bytes, label: str | None) -> None:
    decode_text(octets, label).encode("utf-8", "surrogatepass")
    decode_as(octets, label or "")
    assert is_utf8(octets) == (octets.decode("utf-8", "replace").encode() == octets)


@given(st.text(st.characters(codec="iso2022_jp", exclude_categories=["Cc"])))
def test_jis_round_trip(text: str) -> None:
    octets = encode_jis(text)
    assert octets is not None
    expected = text.translate(str.maketrans("〜‖−¢£¬¥‾", "～∥－￠￡￢\\~"))
    assert decode_jis(octets) == expected


def test_long_mislabelled_text_is_linear() -> None:
    """A megabyte of text, no worse than a generous bound: the score looks at a sample only."""
    octets = "日本語のメールです。\r\n".encode("cp932") * 50_000
    start = time.process_time()
    assert decode_text(octets, "utf-8").startswith("日本語")
    assert time.process_time() - start < 2


@pytest.mark.parametrize("octets", [b"\xff" * (1 << 20), "御見積書".encode() * (1 << 17) + b"\xe5"])
def test_what_a_codec_refuses_costs_no_more_than_its_octets(octets: bytes) -> None:
    """Each refusal had the rest decoded from its beginning: minutes for a megabyte."""
    begun = time.process_time()
    for label in ("euc-jp", "utf-8", None):
        assert len(decode_text(octets, label)) > len(octets) // 4
    assert time.process_time() - begun < 20


@pytest.mark.parametrize(("octets", "kept"), [
    (b"abc def<b>ghi", b"abc def<b>"), (b"abcdefghi j", b"abcdefghi "), (b"a bcdefghij", b"a bcdefghij"),
    (b"", b""), (b"x", b"x"),
    ("見積書".encode(), "見積".encode()), ("見積書".encode()[:-1], "見積".encode()), ("見積書xyz".encode(), "見積書xyz".encode()),
    (b"\x1b$BF|K\\\x1b(Bab cd\x1b$BF|K\\\x1b(B\x1b$B F|", b"\x1b$BF|K\\\x1b(Bab cd\x1b$BF|K\\\x1b(B"),
    (b"\x1b$BF|K\\F|K\\F|", b"\x1b$BF|K\\F|K\\F|"),
])
def test_where_text_is_cut(octets: bytes, kept: bytes) -> None:
    assert octets[: cut_text(octets)] == kept


@given(st.binary())
def test_a_cut_goes_on(octets: bytes) -> None:
    assert len(octets) // 2 <= cut_text(octets) <= len(octets)


def test_wide_charsets_are_decoded_as_they_come() -> None:
    for label in ("utf-16", "UTF-16BE", "utf-32", "utf_16"):
        decoder = wide_decoder(label)
        if decoder is not None:
            octets = "見積書𠮷".encode(label)
            assert "".join(decoder.decode(octets[at : at + 1]) for at in range(len(octets))) == "見積書𠮷"
    for label in ("", "utf-8", "utf-16x", "utf-16\0", "utf-16é", "utf-32 "):
        assert wide_decoder(label) is None
