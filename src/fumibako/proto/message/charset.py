"""Octets of mail text to str, whatever the label says, and str to ISO-2022-JP.

Specification: RFC 2045 §5.2 (charset default), RFC 2046 §4.1.2; ISO-2022-JP with the extensions mail really carries
    (CP50220, CP50221, CP50222, JIS X 0212, the user area of ISO-2022-JP-MS), Windows' Shift_JIS, eucJP-ms.
Contract: the order of decision is: JIS escapes, ASCII, valid UTF-8, the label, the best score. The octets themselves
    are never changed, so a reader may ask again with another label (`decode_as`).
Failure: never raises; what has no character becomes U+FFFD, an old carrier emoji becomes 〓.
"""

import codecs
import re
import struct
from functools import cache
from itertools import product

# For grammars: octets of raw text that look like specials but are halves of characters.
RAW_JIS = rb"\x1b\$\(?[@BD?][^\x1b\r\n]*+(?:\x1b\([BJHI])?|\x1b\([BJHI]"
RAW_SHIFT_JIS = RAW_JIS + rb"|[\x81-\x9f\xe0-\xfc][\x40-\x7e\x80-\xfc]"

_NAMES = {
    "iso-2022-jp": "iso-2022-jp iso2022jp iso-2022-jp-ms iso-2022-jp-1 iso-2022-jp-2 iso-2022-jp-3 iso-2022-jp-ext"
    " iso-2022-jp-2004 csiso2022jp jis cp50220 cp50221 cp50222 x-windows-iso2022jp x-iso2022jp-cp932",
    "shift_jis": "shift_jis shift-jis sjis x-sjis ms_kanji csshiftjis windows-31j cp932 ms932 x-ms-cp932 sjis-win",
    "euc-jp": "euc-jp eucjp x-euc-jp x-euc eucjp-ms eucjp-win cp51932 ujis cseucpkdfmtjapanese",
    "utf-8": "utf-8 utf8 utf-8n unicode-1-1-utf-8",
    "western": "iso-8859-1 iso8859-1 latin1 latin-1 windows-1252 cp1252",
    "": "us-ascii ascii ansi_x3.4-1968 7bit 8bit unknown unknown-8bit x-unknown default none",
}
_FAMILY = {name: family for family, names in _NAMES.items() for name in names.split()}
# Labels that name less than what their senders write.
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "ks_c_5601-1987": "cp949", "euc-kr": "cp949", "iso-8859-9": "cp1254"}
_LABEL = re.compile(r"[a-z0-9][a-z0-9._:+-]{0,39}")
# Text codecs of Python that are not character sets.
_NOT_CHARSETS = frozenset({"unicode-escape", "raw-unicode-escape", "idna", "punycode", "undefined", "mbcs", "oem", "utf-8-sig"})

_ESCAPES = {
    b"$@": "kanji", b"$B": "kanji", b"$(@": "kanji", b"$(B": "kanji", b"$(D": "hojo", b"$(?": "user",
    b"(B": "ascii", b"(J": "ascii", b"(H": "ascii", b"(I": "kana",
}  # fmt: skip
_JIS_TOKEN = re.compile(rb"\x1b(\$[@B]|\$\([@BD?]|\([BJHI])|([\x0e\x0f])|([\r\n]+)|(\x1b)|[^\x1b\x0e\x0f\r\n]+")
_PAIRS = re.compile(rb"(?:[\x21-\x7e]{2})+|[\x00-\xff]")
_JIS_ESCAPE = re.compile(rb"\x1b(?:\$[@B]|\$\([@BD?]|\([BJHI])")
_META_CHARSET = re.compile(rb"<meta\b[^>]{0,200}?\bcharset\s*=\s*[\"']?\s*([A-Za-z0-9._:-]{1,40})", re.IGNORECASE)

# cp932 and the older tables disagree on six cells; Windows mailers mean cp932's.
_AS_CP932 = str.maketrans("〜‖−¢£¬", "～∥－￠￡￢")
_FROM_CP932 = str.maketrans("～∥－￠￡￢", "〜‖−¢£¬")
_BAD = re.compile("[\ufffd\x80-\x9f\xa0\uf8f0-\uf8f3]")  # cp932 decodes 0x80, 0xA0, 0xFD-0xFF to these
_HALF_KANA = re.compile("[\uff61-\uff9f]")
_KANA = re.compile("[\u3040-\u30ff]")
_SAMPLE_OCTETS = 4096


def decode_text(octets: bytes, label: str | None = None) -> str:
    """The text of `octets`; `label` is the charset parameter or None."""
    return decode_labelled(octets, label)[0]


def decode_labelled(octets: bytes, label: str | None = None) -> tuple[str, str]:
    """(text, charset that was really used). The charset is a canonical lower-case name."""
    name = (label or "").strip(" \t\"';").lower()
    family = _FAMILY.get(name)
    if family is None and name and (text := _decode_foreign(octets, name)) is not None:
        return text, name
    family = family or ""
    seven_bit = octets.isascii()
    if _is_jis(octets, family, seven_bit):
        return decode_jis(octets), "iso-2022-jp"
    if seven_bit:
        return octets.decode("ascii"), "us-ascii"
    try:  # 8-bit octets that happen to be valid UTF-8 are UTF-8 under any label
        return octets.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError:
        pass
    if family == "western" and sum(octets.translate(_HIGH_BIT)) * 4 < len(octets):
        return octets.decode("cp1252", "replace"), "windows-1252"
    return _decode_by_score(octets, family)


def decode_as(octets: bytes, charset: str) -> str:
    """The text of `octets` in exactly `charset`, as a person asked for it; unknown names fall back to `decode_text`."""
    family = _FAMILY.get(charset.lower())
    if family in _DECODERS:
        return _DECODERS[family](octets)
    if family == "iso-2022-jp":
        return decode_jis(octets)
    return decode_text(octets, charset)


def is_utf8(octets: bytes) -> bool:
    """Whether `octets` are valid UTF-8 (ASCII is)."""
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def wide_decoder(label: str) -> codecs.IncrementalDecoder | None:
    """A decoder that takes its octets as they come, for charsets in which every octet may be part of a character: UTF-16
    and UTF-32; None for all others."""
    label = label.lower()
    if not (label.startswith(("utf-16", "utf-32", "utf16", "utf32")) and _LABEL.fullmatch(label)):
        return None
    try:
        return codecs.getincrementaldecoder(label)("replace")
    except LookupError:
        return None


def cut_text(octets: bytes) -> int:
    """Where text without line ends may be cut, in its later half where that can be, with least harm under any label:
    where JIS returns to ASCII, else behind a space or ">", which are half of no character, else between characters of UTF-8.
    """
    half = len(octets) // 2
    if b"\x1b" in octets:
        escape = max(octets.rfind(b"\x1b(B", half), octets.rfind(b"\x1b(J", half))
        return escape + 3 if escape >= 0 else len(octets)
    if end := max(octets.rfind(b" ", half), octets.rfind(b">", half)) + 1:
        return end
    leads = [at for at in range(max(half, len(octets) - 4), len(octets)) if octets[at] >= 0xC0]
    return leads[-1] if leads and not octets[-1:].isascii() else len(octets)


def html_charset(octets: bytes) -> str | None:
    """The charset an HTML document names in a `<meta>` near its start, lower case, or None."""
    match = _META_CHARSET.search(octets, 0, 1024)
    return match[1].decode("ascii").lower() if match else None


def _is_jis(octets: bytes, family: str, seven_bit: bool) -> bool:
    """JIS escapes show through any label; under UTF-8 only an escape to a kanji set counts (terminals use ESC `(B`)."""
    if family == "iso-2022-jp" and seven_bit:
        return True
    if b"\x1b" not in octets:
        return False
    return bool(_JIS_ESCAPE.search(octets)) and (family != "utf-8" or b"\x1b$" in octets)


def _decode_foreign(octets: bytes, name: str) -> str | None:
    """Strict decoding under a label outside the Japanese, Western and Unicode families."""
    if not _LABEL.fullmatch(name):
        return None
    try:
        codec = codecs.lookup(_WIDER.get(name, name))
        return None if codec.name in _NOT_CHARSETS else octets.decode(codec.name)
    except (LookupError, ValueError):  # includes UnicodeDecodeError
        return None


def _decode_by_score(octets: bytes, family: str) -> tuple[str, str]:
    """The label's family if it decodes without a flaw, else the most Japanese-looking of three readings."""
    if family in _DECODERS and not _BAD.search(text := _DECODERS[family](octets)):
        return text, family
    sample = octets
    if len(octets) > _SAMPLE_OCTETS:
        sample = octets[: octets.rfind(b"\n", 0, _SAMPLE_OCTETS) + 1 or 4 * _SAMPLE_OCTETS]
    if sample.isascii():
        sample = octets
    best = min(_DECODERS, key=lambda name: (_score(_DECODERS[name](sample)), name != family))
    return _DECODERS[best](octets), best


def _score(text: str) -> int:
    """Lower is better: kana are likely, half-width kana rare, replacement and C1 characters a sign of error."""
    bad, half, kana = (len(pattern.findall(text)) for pattern in (_BAD, _HALF_KANA, _KANA))
    return 20 * bad + 2 * half - kana


def decode_jis(octets: bytes) -> str:
    """ISO-2022-JP as mailers write it. JIS X 0201 Roman reads as ASCII, so a yen sign stays the backslash it was meant
    as; a line end returns to ASCII; half-width kana by ESC ( I, SO/SI or bare 8-bit octets are all read."""
    out: list[str] = []
    mode, shifted = "ascii", False
    for token in _JIS_TOKEN.finditer(octets):
        escape, shift, line_end, stray = token.groups()
        if escape:
            mode, shifted = _ESCAPES[escape], False
        elif shift:
            shifted = shift == b"\x0e"
        elif line_end:
            mode, shifted = "ascii", False
            out.append(line_end.decode("ascii"))
        elif stray:
            out.append("\ufffd")
        else:
            out.append(_decode_run(token[0], "shifted" if shifted and mode == "ascii" else mode))
    return "".join(out)


def _decode_run(run: bytes, mode: str) -> str:
    """One run without escapes or line ends, in one designated set."""
    if mode in _SINGLE:
        if mode == "ascii" and run.isascii():
            return run.decode("ascii")
        return "".join(map(_SINGLE[mode].__getitem__, run))
    table = _pair_table(mode)
    out: list[str] = []
    for match in _PAIRS.finditer(run):
        piece = match[0]
        if len(piece) == 1:
            out.append(piece.decode("ascii", "replace"))
        else:
            out.extend(map(table.__getitem__, struct.unpack(f">{len(piece) // 2}H", piece)))
    return "".join(out)


def _kana_table(first: int, last: int, start: int) -> list[str]:
    """256 characters: ASCII, but octets first..last are half-width kana counted from `start`."""
    return [
        chr(0xFF61 + octet - start) if first <= octet <= last else chr(octet) if octet < 0x80 else "\ufffd"
        for octet in range(256)
    ]


_SINGLE = {"ascii": _kana_table(0xA1, 0xDF, 0xA1), "shifted": _kana_table(0x21, 0x5F, 0x21)}
_SINGLE["kana"] = _SINGLE["shifted"][:0xA1] + _SINGLE["ascii"][0xA1:]
_HIGH_BIT = bytes(octet >= 0x80 for octet in range(256))


@cache
def _pair_table(mode: str) -> dict[int, str]:
    """The 94 by 94 cells of a set, keyed by the two octets as one number."""
    cell = {"kanji": _kanji_cell, "hojo": _hojo_cell, "user": _user_cell}[mode]
    return {row << 8 | column: cell(row, column) for row, column in product(range(0x21, 0x7F), repeat=2)}


def _kanji_cell(row: int, column: int) -> str:
    """JIS X 0208 with NEC row 13 and the IBM extensions, through Shift_JIS as Windows reads it."""
    high = ((row - 0x21) >> 1) + 0x81
    low = column + (0x1F if column <= 0x5F else 0x20) if row & 1 else column + 0x7E
    text = bytes((high + 0x40 if high > 0x9F else high, low)).decode("cp932", "replace")
    if "\ufffd" in text:  # rows from 0x75 carried the emoji of mobile carriers
        return "〓" if row >= 0x75 else "\ufffd"
    return text


def _hojo_cell(row: int, column: int) -> str:
    """JIS X 0212."""
    return bytes((0x8F, row | 0x80, column | 0x80)).decode("euc_jp", "replace")[0]


def _user_cell(row: int, column: int) -> str:
    """The user area of ISO-2022-JP-MS: 94 by 94 cells from U+E000."""
    return chr(0xE000 + (row - 0x21) * 94 + column - 0x21)


def decode_euc(octets: bytes) -> str:
    """eucJP-ms: rows 13 and 89 to 92, which Python's codec refuses, are read through cp932."""
    return octets.decode("euc_jp", _EUC_REFUSED).translate(_AS_CP932)


def _on_refused(error: UnicodeError) -> tuple[str, int]:
    """An error handler of the codec, so that it goes on where it was: one pass, however much it refuses."""
    assert isinstance(error, UnicodeDecodeError)
    return _euc_pair(error.object, error.start)


def _euc_pair(octets: bytes, at: int) -> tuple[str, int]:
    """One character the codec refused: (text, where to go on)."""
    pair = octets[at : at + 2]
    if len(pair) == 2 and min(pair) >= 0xA1 and max(pair) <= 0xFE:
        return _pair_table("kanji")[(pair[0] & 0x7F) << 8 | pair[1] & 0x7F], at + 2
    return "\ufffd", at + 1


_EUC_REFUSED = "fumibako-euc"
codecs.register_error(_EUC_REFUSED, _on_refused)


def _decode_utf8(octets: bytes) -> str:
    return octets.decode("utf-8-sig", "replace")


def _decode_cp932(octets: bytes) -> str:
    return octets.decode("cp932", "replace")


_DECODERS = {"shift_jis": _decode_cp932, "euc-jp": decode_euc, "utf-8": _decode_utf8}

# What old systems show for characters outside JIS X 0208.
_REPLACEMENTS: dict[str, str] = {
    **{chr(0x2460 + n): f"({n + 1})" for n in range(20)},
    **{chr(0x2160 + n): text for n, text in enumerate("I II III IV V VI VII VIII IX X".split())},
    "㈱": "(株)", "㈲": "(有)", "㈹": "(代)", "№": "No.", "℡": "TEL", "㏍": "K.K.", "㍻": "平成", "㍼": "昭和", "㋿": "令和",
    "㎜": "mm", "㎝": "cm", "㎞": "km", "㎎": "mg", "㎏": "kg", "㎡": "m2", "㏄": "cc",
    "㍉": "ミリ", "㌔": "キロ", "㌢": "センチ",
    "髙": "高", "﨑": "崎", "𠮷": "吉", "—": "―", "–": "－", "’": "'", "‘": "'", "“": '"', "”": '"',
}  # fmt: skip
_FULL_KANA = (
    "。「」、・ヲァィゥェォャュョッーアイウエオカキクケコサシスセソ"
    "タチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワン゛゜"
)
_VOICED = str.maketrans("カキクケコサシスセソタチツテトハヒフヘホウ", "ガギグゲゴザジズゼゾダヂヅデドバビブベボヴ")
_HALF_VOICED = str.maketrans("ハヒフヘホ", "パピプペポ")
_HALF_RUN = re.compile("([\uff61-\uff9d])([\uff9e\uff9f]?)|([\uff9e\uff9f])")


def encode_jis(text: str) -> bytes | None:
    """`text` in ISO-2022-JP, ending in ASCII, or None if a character does not fit JIS X 0208 (say ①, ㈱, 髙, emoji)."""
    try:
        return text.translate(_FROM_CP932).encode("iso2022_jp")
    except UnicodeEncodeError:
        return None


def replace_for_jis(text: str) -> str:
    """`text` with the usual substitutes for characters outside JIS X 0208; half-width kana become full-width."""
    text = _HALF_RUN.sub(_widen, text)
    text = "".join(_REPLACEMENTS.get(char, char) for char in text)
    return text if encode_jis(text) is not None else "".join(char if encode_jis(char) is not None else "〓" for char in text)


def _widen(match: re.Match[str]) -> str:
    """One half-width kana with its sound mark."""
    if match[3]:
        return _FULL_KANA[ord(match[3]) - 0xFF61]
    base = _FULL_KANA[ord(match[1]) - 0xFF61]
    voiced = base.translate(_VOICED if match[2] == "\uff9e" else _HALF_VOICED) if match[2] else base
    return base + _FULL_KANA[ord(match[2]) - 0xFF61] if match[2] and voiced == base else voiced
