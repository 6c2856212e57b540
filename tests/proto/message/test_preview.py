"""The first words of a message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.message.preview import PREVIEW_CHARACTERS, PREVIEW_OCTETS, html_text, preview
from tests.proto.message.messages import MULTIPART, index_of

PAGE = b"""<html><head><title>t</title><style>p{}</style></head><!-- > c --><body><script>if (a < b) x()</script>
<p>Hello&amp; <b>world</b>&#x65e5;</p> 1 < 2 <img src=x></body>"""


def test_html() -> None:
    assert preview(PAGE, "", None, is_html=True) == "Hello& world 日 1 < 2"
    assert html_text("a<!-- never closed") == "a "
    assert html_text("a<style>x") == "a "
    assert html_text("<p") == " "


@pytest.mark.parametrize(
    ("sample", "encoding", "charset", "text"),
    [
        (b"a\r\n\r\n  b\tc", "7bit", None, "a b c"),
        (b"44GT44KT44Gr44Gh44Gv", "base64", "utf-8", "こんにちは"),
        (b"44GT44KT44Gr44Gh44G", "base64", "utf-8", "こんにち"),  # the sample ends within a character
        (b"=E3=81=93\r\n=E3", "quoted-printable", "utf-8", "こ"),
        (b"\x1b$B$3\x1b(B", "7bit", "iso-2022-jp", "こ"),
        ("こ".encode("cp932"), "8bit", "shift_jis", "こ"),
        ("　全角　".encode(), "8bit", None, "全角"),
        (b"", "", None, ""),
    ],
)
def test_plain(sample: bytes, encoding: str, charset: str | None, text: str) -> None:
    assert preview(sample, encoding, charset, is_html=False) == text


def test_which_part_is_shown() -> None:
    html = b"--b\r\nContent-Type: text/html\r\n\r\n<i>second</i>\r\n"
    attached = b"--b\r\nContent-Disposition: attachment\r\n\r\nattached\r\n"
    plain = b"--b\r\n\r\nfirst\r\n"
    assert index_of(MULTIPART + attached + html + plain).preview == "first"
    assert index_of(MULTIPART + attached + html + b"--b\r\n\r\n\r\n").preview == "second"
    assert index_of(MULTIPART + attached).preview == ""


@given(st.binary(max_size=3000), st.booleans(), st.sampled_from(["", "base64", "quoted-printable"]))
def test_any_sample_is_short_enough(sample: bytes, is_html: bool, encoding: str) -> None:
    text = preview(sample, encoding, None, is_html)
    assert len(text) <= PREVIEW_CHARACTERS and len(text.encode()) <= PREVIEW_OCTETS
    assert "\n" not in text
