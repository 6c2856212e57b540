"""Maildir: names and letters there and back; any octets make a name that a mailbox can have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.message.maildir import (
    format_directory,
    format_flags,
    format_keywords,
    format_subscriptions,
    is_mailbox_name,
    mailbox_name,
    parse_flags,
    parse_keywords,
    parse_subscriptions,
    parse_uid_list,
)


@given(st.lists(st.binary(max_size=300), max_size=40))
def test_any_octets_make_a_name(levels: list[bytes]) -> None:
    name = mailbox_name(levels)
    assert is_mailbox_name(name)
    assert not {".", ".."} & set(name.split("/"))


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="./"), min_size=1, max_size=30))
def test_a_name_comes_back(level: str) -> None:
    name = mailbox_name([level.encode()])
    directory = format_directory(f"Work/{name}")
    assert len(directory) <= 200
    if "_" not in directory[-13:] and "." not in name:
        assert mailbox_name([one.encode() for one in directory[1:].split(".")]) == f"Work/{name}"


@pytest.mark.parametrize(("mailbox", "directory"), [
    ("INBOX", ""), ("Work/2024", ".Work.2024"), ("日本語", ".&ZeVnLIqe-"), ("R&D", ".R&-D"), ("a.b", ".a_b"), ("..", ".__"),
])
def test_directories(mailbox: str, directory: str) -> None:
    assert format_directory(mailbox) == directory


def test_names_that_would_be_the_same_are_told_apart() -> None:
    assert format_directory("a.b", {".a_b"}) not in ("", ".a_b")
    long = [format_directory("件名" * 60 + end) for end in "ab"]
    assert len({*long}) == 2
    assert all(len(name) <= 200 for name in long)


def test_flags_and_keywords() -> None:
    letters = format_flags(("\\Seen", "\\Flagged", "work", "none"), ("home", "work"))
    assert letters == "FSb"
    assert parse_flags(f"1.host:2,{letters}").flags == ("\\Flagged", "\\Seen")
    assert parse_flags(f"1.host:2,{letters}").keywords == (1,)
    assert parse_flags("1.host") == parse_flags("1.host:2,")
    assert parse_keywords(format_keywords(["home", "work"])) == {0: "home", 1: "work"}
    assert parse_keywords(b"99 far\nx y\n1 a b\n\xff\n2 ok\n") == {2: "ok"}


def test_small_files() -> None:
    names = ["INBOX", "日本語/2024", "a"]
    assert parse_subscriptions(format_subscriptions(names)) == names
    assert parse_subscriptions(b"INBOX\nWork.2024\n") == ["INBOX", "Work/2024"]
    assert parse_uid_list(b"3 V1 N9\n4 W3 :1.a:2,S\n5 :2.b\nnonsense\n") == {"1.a": 4, "2.b": 5}
    assert parse_uid_list(b"1 1 2\n1 a\n") == {}
