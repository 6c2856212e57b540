"""Every row of spec/japanese-mail.md §3, RFC 2231's examples, safe file names, and writing both forms."""

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.message.params import (
    attachment_name,
    format_attachment,
    format_parameters,
    join_continuations,
    parameter_text,
    parse_parameters,
    safe_file_name,
)

DISPOSITIONS = [
    (b"attachment; filename*=utf-8''%E6%97%A5%E6%9C%AC.pdf", "日本.pdf"),  # (a)
    (b"attachment; filename*0*=utf-8''%E6%97;\r\n filename*1*=%A5%E6%9C%AC;\r\n filename*2=.pdf", "日本.pdf"),
    (b"attachment; filename*=iso-2022-jp''%1B%24BF%7CK%5C%1B%28B.pdf", "日本.pdf"),
    (b'attachment; filename="=?ISO-2022-JP?B?GyRCRnxLXBsoQi5wZGY=?="', "日本.pdf"),  # (b)
    (b"attachment; filename==?ISO-2022-JP?B?GyRCRnxLXBsoQi5wZGY=?=", "日本.pdf"),  # (d)
    (b"attachment; filename = =?UTF-8?B?5pel5pys?= =?UTF-8?B?LnBkZg==?=; size=3", "日本.pdf"),
    (b'attachment; filename="' + "日本表.pdf".encode("cp932") + b'"', "日本表.pdf"),  # (e): 表 ends in a backslash octet
    (b'attachment; filename="' + "日本.pdf".encode("iso2022_jp") + b'"', "日本.pdf"),
    (b'attachment; filename="' + "日本.pdf".encode() + b'"', "日本.pdf"),
    (b"attachment; filename=" + "日本.pdf".encode(), "日本.pdf"),
    (b'attachment; filename="=?UTF-8?B?5pel?=\r\n =?UTF-8?B?5pysLnBkZg==?="', "日本.pdf"),  # (g)
    (b"attachment; filename*=%E6%97%A5.pdf", "日.pdf"),  # (h) no charset
    (b"attachment; filename*1*=%A5.pdf; filename*0*=UTF-8''%E6%97", "日.pdf"),  # (h) wrong order
    (b"attachment; filename*1*=utf-8''%E6%97; filename*2*=%A5.pdf", "日.pdf"),  # counted from 1
    (b"attachment; filename=fallback.pdf; filename*=utf-8''%E6%97%A5.pdf", "日.pdf"),
    (b"attachment; filename*0=a; filename*1=b.pdf; filename*=utf-8''x", "ab.pdf"),  # segments come first
    (b"attachment; filename=two words.pdf", "two words.pdf"),
    (b'attachment; filename="a\\"b.pdf"', "a_b.pdf"),
    (b'attachment; FileName="x.pdf"', "x.pdf"),
    (b'attachment; filename="unterminated.pdf', "unterminated.pdf"),
    (b"attachment", None),
    (b'attachment; filename=""', None),
]


@pytest.mark.parametrize(("value", "name"), DISPOSITIONS)
def test_file_names(value: bytes, name: str | None) -> None:
    head, parameters = parse_parameters(value)
    assert head == b"attachment"
    assert attachment_name(parameters, (), None) == name


def test_read_order() -> None:
    disposition = ((b"filename", b"d.pdf"),)
    content_type = ((b"name", b"=?UTF-8?B?5pel?="),)
    assert attachment_name(disposition, content_type, b"text") == "d.pdf"
    assert attachment_name((), content_type, b"text") == "日"  # (f) only name=
    assert attachment_name((), (), b"=?UTF-8?B?5pel?=") == "日"
    assert attachment_name((), (), None) is None


def test_rfc_2231_examples() -> None:
    value = b"message/external-body; access-type=URL;\r\n"
    value += b' URL*0="ftp://";\r\n URL*1="cs.utk.edu/pub/moore/bulk-mailer/bulk-mailer.tar"'
    head, parameters = parse_parameters(value)
    assert head == b"message/external-body"
    assert parameter_text(parameters, b"url") == "ftp://cs.utk.edu/pub/moore/bulk-mailer/bulk-mailer.tar"
    value = b"application/x-stuff\r\n title*0*=us-ascii'en'This%20is%20even%20more%20;\r\n title*1*=%2A%2A%2Afun%2A%2A%2A%20;"
    _, parameters = parse_parameters(value.replace(b"stuff\r\n", b"stuff;\r\n") + b'\r\n title*2="isn\'t it!"')
    assert parameter_text(parameters, b"title") == "This is even more ***fun*** isn't it!"
    _, parameters = parse_parameters(b"application/x-stuff; title*=us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A")
    assert [(item.name, item.value, item.extended) for item in join_continuations(parameters)] == [
        (b"title", b"This is ***fun***", True)
    ]


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        (b"text/plain", (b"text/plain", ())),
        (b" Text/PLAIN ; Charset=UTF-8 ", (b"text/plain", ((b"charset", b"UTF-8"),))),
        (b"text/plain (c); charset=us-ascii (Plain text)", (b"text/plain", ((b"charset", b"us-ascii"),))),
        (b"text/plain;;; a=b;;c=d", (b"text/plain", ((b"a", b"b"), (b"c", b"d")))),
        (b'multipart/mixed; boundary="a;b=c"; x', (b"multipart/mixed", ((b"boundary", b"a;b=c"),))),
        (b"", (b"", ())),
        (b";=;", (b"", ())),
    ],
)
def test_parse(value: bytes, parsed: object) -> None:
    assert parse_parameters(value) == parsed


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ('a/b\\c:d*e?f"g<h>i|j', "a_b_c_d_e_f_g_h_i_j"),
        ("x\u202egpj.exe", "x_gpj.exe"),
        ("con", "_con"),
        ("CON.txt", "_CON.txt"),
        ("lpt1.log", "_lpt1.log"),
        ("console.txt", "console.txt"),
        ("trailing. . ", "trailing"),
        ("..", ""),
        ("a\x00b\r\nc", "a_b__c"),
        ("か\u3099.txt", "が.txt"),
        ("あ" * 100 + ".pdf", "あ" * 83 + ".pdf"),
        ("あ" * 100, "あ" * 85),
        ("", ""),
    ],
)
def test_safe_file_name(name: str, safe: str) -> None:
    assert safe_file_name(name) == safe
    assert len(safe.encode()) <= 255


@given(st.text())
def test_a_safe_name_is_safe_and_stays(name: str) -> None:
    safe = safe_file_name(name)
    assert safe_file_name(safe) == safe
    assert len(safe.encode()) <= 255
    assert not set(safe) & set('/\\:*?"<>|\r\n\x00\u202e')


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"], exclude_characters='/\\:*?"<>|'), min_size=1).filter(
    lambda name: safe_file_name(name) == name
)


@given(NAMES)
def test_both_forms_read_back(name: str) -> None:
    content_type, disposition = format_attachment("application/pdf", name)
    for value, parameter in ((content_type, b"name"), (disposition, b"filename")):
        assert value.isascii()
        _, parameters = parse_parameters(value.encode("ascii"))
        assert parameter_text(parameters, parameter) == name.removeprefix("\ufeff")


@given(NAMES)
def test_the_standard_library_reads_the_disposition(name: str) -> None:
    _, disposition = format_attachment("application/pdf", name)
    message = email.message_from_bytes(
        b"Content-Disposition: " + disposition.encode("ascii") + b"\r\n\r\n", policy=email.policy.compat32
    )
    assert message.get_filename() == name


def test_format_refuses_line_ends() -> None:
    with pytest.raises(ValueError, match="parameter"):
        format_parameters("text/plain", {"name": "a\r\nBcc: x"})


@given(st.binary(max_size=300))
def test_any_octets_parse(value: bytes) -> None:
    _, parameters = parse_parameters(value)
    attachment_name(parameters, parameters, value)
    assert len(parameters) <= 256
