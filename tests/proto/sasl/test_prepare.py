"""OpaqueString: RFC 8265."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.sasl.prepare import prepare_password


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("correct horse battery staple", "correct horse battery staple"),
        ("Correct Horse", "Correct Horse"),
        ("ハ\u309aスワード", "パスワード"),  # composed and decomposed are one
        ("a\u3000b\u1680c", "a b c"),
        ("πßå", "πßå"),
    ],
)
def test_examples(password: str, prepared: str) -> None:
    assert prepare_password(password) == prepared


@pytest.mark.parametrize("password", ["", "my cat is a \tby", "a\0b", "\ud800"])
def test_refused(password: str) -> None:
    with pytest.raises(ValueError, match=r"OpaqueString|encode"):
        prepare_password(password)


@given(st.text(max_size=12))
def test_idempotent(password: str) -> None:
    try:
        prepared = prepare_password(password)
    except ValueError:
        return
    assert prepare_password(prepared) == prepared
