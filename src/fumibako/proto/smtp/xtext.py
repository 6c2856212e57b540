"""xtext, the encoding of text in the parameters of MAIL and RCPT.

Specification: RFC 3461 §4 (xtext); RFC 6533 §3 (utf-8-addr-xtext, utf-8-addr-unitext).
Contract: decode_xtext(encode_xtext(text)) == text for text without control characters.
Failure: ValueError.
"""

import re

# xchar = "!" to "~" but "+" and "="; hexchar = "+" and two upper case hexadecimal digits; UTF-8 as RFC 6533 §3 has it.
_XTEXT = re.compile(rb"(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e\x80-\xff]|\+[0-9A-F]{2})*")
_HEXCHAR = re.compile(rb"\+([0-9A-F]{2})")
_TO_ESCAPE = re.compile(rb"[^\x21-\x2a\x2c-\x3c\x3e-\x7e\x80-\xff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def decode_xtext(octets: bytes) -> str:
    """`a+2Bb` -> "a+b".  Control characters, NUL first of all, are refused even when encoded."""
    if not _XTEXT.fullmatch(octets):
        raise ValueError("not xtext")
    text = _HEXCHAR.sub(lambda found: bytes([int(found[1], 16)]), octets).decode("utf-8")
    if _CONTROL.search(text):
        raise ValueError("control character in xtext")
    return text


def encode_xtext(text: str) -> bytes:
    """"a+b" -> `a+2Bb`; non-ASCII characters stay UTF-8, which only SMTPUTF8 allows."""
    if _CONTROL.search(text):
        raise ValueError("control character in xtext")
    return _TO_ESCAPE.sub(lambda found: b"+%02X" % found[0][0], text.encode("utf-8"))


def encode_ascii_address(text: str) -> str:
    """"a\u3042" -> "a\\x{3042}": an address in ORCPT for a peer without SMTPUTF8 (utf-8-addr-xtext)."""
    return "".join(c if c.isascii() else f"\\x{{{ord(c):X}}}" for c in text)
