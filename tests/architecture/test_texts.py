"""Every user text has its Japanese, with the same fields, lines and commands, in one spelling."""

import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

from tests.architecture.source import ROOT, no_faults
from tools import texts

PLACEHOLDER = re.compile(r"\{[^{}]*\}|%\([a-z_]+\)[sd]|%[sd]")
COMMAND = re.compile(r"\bfumibako(?: [a-z]+)+|--[a-z]+(?:-[a-z]+)*|\[[a-z0-9_]+\]")
SHORT_VOWEL = re.compile(r"(?:サーバ|ユーザ|フォルダ|ヘッダ|プロバイダ|ディレクトリ|リゾルバ)(?!ー)")


def translated() -> Iterator[tuple[str, str]]:
    """Yields each text that has a Japanese, with it."""
    return ((text, japanese) for text, japanese in texts.translations().items() if japanese)


def fields(text: str) -> set[str]:
    """Returns the names that `str.format` fills; ValueError where it can't read the text."""
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def layout(text: str) -> tuple[int, int, int]:
    """Returns what a translation must not move: spaces in front, spaces at the end, line ends."""
    return len(text) - len(text.lstrip()), len(text) - len(text.rstrip()), text.count("\n")


def test_catalogue_holds_exactly_the_texts_of_the_code() -> None:
    no_faults(sorted(texts.translations().keys() ^ texts.texts()), "run `make docs`, then translate the new texts")


def test_every_text_is_translated() -> None:
    no_faults(text for text, japanese in texts.translations().items() if not japanese)


def test_translations_keep_the_placeholders() -> None:
    no_faults(a for a, b in translated() if sorted(PLACEHOLDER.findall(a)) != sorted(PLACEHOLDER.findall(b)))


def test_translations_fill_the_same_fields() -> None:
    no_faults(a for a, b in translated() if fields(a) != fields(b))


def test_translations_keep_the_layout() -> None:
    no_faults(a for a, b in translated() if layout(a) != layout(b))


def test_translations_keep_commands_and_sections() -> None:
    no_faults(a for a, b in translated() if sorted(COMMAND.findall(a)) != sorted(COMMAND.findall(b)))


def test_long_vowels_are_written() -> None:
    no_faults(f"{a}: {found}" for a, b in translated() for found in SHORT_VOWEL.findall(b))


@pytest.mark.parametrize("page", ["README.ja.md", "docs/glossary.md"])
def test_long_vowels_are_written_on(page: str) -> None:
    no_faults(f"{page}: {found}" for found in SHORT_VOWEL.findall(Path(ROOT, page).read_text(encoding="utf-8")))


@pytest.mark.parametrize(("text", "found"), [("{name} of {n:d}", 2), ("%(name)s", 1), ("100 %", 0)])
def test_placeholders_are_seen(text: str, found: int) -> None:
    assert len(PLACEHOLDER.findall(text)) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [("{name} of {n:d}, {name}", {"name", "n"}), ("{{no}} {a.b}", {"a.b"}), ("none", set())],
)
def test_fields_are_seen(text: str, found: set[str]) -> None:
    assert fields(text) == found


@pytest.mark.parametrize("text", ["a {name", "a name}", "{"])
def test_a_broken_field_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected '}'|Single '[{}]'"):
        fields(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see: fumibako policy list", ["fumibako policy list"]),
        ("use --password-stdin in [listen]", ["--password-stdin", "[listen]"]),
    ],
)
def test_commands_are_seen(text: str, found: list[str]) -> None:
    assert COMMAND.findall(text) == found


def test_layout_is_seen() -> None:
    assert layout("    a\nb ") == (4, 1, 1)


def test_a_short_vowel_is_seen() -> None:
    assert SHORT_VOWEL.findall("メールサーバ、サーバー、ユーザ名") == ["サーバ", "ユーザ"]
