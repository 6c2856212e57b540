"""Texts for people, English in the code, Japanese from the catalogue.

Contract: `_("...")` marks and translates at once into the language in use (`use_language`), `N_("...")` only marks;
    `text(language, msgid, **values)` translates into a given one. Values fill {named} fields after translation.
Failure: a text without its Japanese comes out in English; a test keeps that from happening.
"""

from __future__ import annotations

import gettext
from contextvars import ContextVar
from functools import cache
from importlib.resources import files

LANGUAGES = ("ja", "en")

_in_use: ContextVar[str] = ContextVar("language", default="en")


def use_language(language: str) -> None:
    """For this task and those it starts: "ja" or "en"; ValueError otherwise."""
    if language not in LANGUAGES:
        raise ValueError(f"not a language of ours: {language!r}")
    _in_use.set(language)


def language_in_use() -> str:
    """What `_` translates into: "ja" or "en"."""
    return _in_use.get()


def text(language: str, msgid: str, **values: object) -> str:
    """The text in that language, its {fields} filled."""
    translated = _catalogue(language).gettext(msgid) if msgid else ""
    return translated.format(**values) if values else translated


def _(msgid: str, **values: object) -> str:
    """The text in the language in use."""
    return text(_in_use.get(), msgid, **values)


def N_(msgid: str) -> str:  # the name that gettext tools look for
    """Marks a text that is translated where it is shown."""
    return msgid


@cache
def _catalogue(language: str) -> gettext.NullTranslations:
    if language == "en":
        return gettext.NullTranslations()
    place = files("fumibako").joinpath("locale", language, "LC_MESSAGES", "fumibako.mo")
    if not place.is_file():
        return gettext.NullTranslations()
    with place.open("rb") as file:
        return gettext.GNUTranslations(file)
