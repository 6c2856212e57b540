"""Messages of our own making, read back by our parser and by the standard library's."""

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.message.address import format_mailbox
from fumibako.proto.message.charset import decode_text
from fumibako.proto.message.compose import attachment_entity, compose, multipart_entity, raw_entity, text_entity
from fumibako.proto.message.transfer import decode_body
from tests.proto.message.messages import index_of

FIELDS = (("From", format_mailbox("山田 太郎", "yamada@example.jp")), ("Subject", "ご請求書 ①"))


def test_text_and_attachment() -> None:
    message = compose(FIELDS, [text_entity("こんにちは\nまた"), attachment_entity("application/pdf", b"%PDF", "請求書①.pdf")])
    parsed = email.message_from_bytes(message, policy=email.policy.default)
    assert parsed["subject"] == "ご請求書 ①"
    assert parsed["from"].addresses[0].display_name == "山田 太郎"
    text, pdf = parsed.iter_parts()
    assert text.get_content() == "こんにちは\r\nまた"
    assert (pdf.get_filename(), pdf.get_content(), pdf.get_content_disposition()) == ("請求書①.pdf", b"%PDF", "attachment")
    assert [part.file_name for part in index_of(message).root.children] == [None, "請求書①.pdf"]
    assert compose(FIELDS, [text_entity("x")]) == compose(FIELDS, [text_entity("x")])


@pytest.mark.parametrize(
    ("text", "charset", "label", "encoding"),
    [
        ("plain", "utf-8", "us-ascii", "7bit"),
        ("日本", "utf-8", "utf-8", "base64"),
        ("日本", "iso-2022-jp", "iso-2022-jp", "7bit"),
        ("①", "iso-2022-jp", "utf-8", "base64"),
        ("x" * 999, "utf-8", "us-ascii", "base64"),
        ("a\x00", "utf-8", "us-ascii", "base64"),
    ],
)
def test_how_text_is_encoded(text: str, charset: str, label: str, encoding: str) -> None:
    entity = text_entity(text, charset=charset)
    assert dict(entity.fields) == {"Content-Type": f"text/plain; charset={label}", "Content-Transfer-Encoding": encoding}
    assert decode_text(decode_body(entity.body, encoding), label) == text


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=4))
def test_multipart_round_trip(bodies: list[bytes]) -> None:
    message = compose(FIELDS, [multipart_entity("mixed", [raw_entity("application/x-y", body) for body in bodies])])
    parts = index_of(message).root.children
    assert [message[part.body_offset : part.end_offset] for part in parts] == bodies


def test_a_boundary_never_stands_in_a_body() -> None:
    first = multipart_entity("mixed", [raw_entity("a/b", b"x")])
    again = multipart_entity("mixed", [raw_entity("a/b", first.body)])
    parts = index_of(compose((), [again])).root.children
    assert len(parts) == 1


def test_injection_is_refused() -> None:
    with pytest.raises(ValueError, match="header"):
        compose((("Subject", "a\r\nBcc: b@c"),), [text_entity("x")])
    with pytest.raises(ValueError, match="header text"):
        attachment_entity("a/b", b"", "a\r\nX: y")
