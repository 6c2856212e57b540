"""Texts in the language asked for."""

import asyncio

import pytest

from fumibako.services.texts import N_, _, language_in_use, text, use_language


def test_both_languages() -> None:
    msgid = N_("Your mail could not be delivered")
    assert text("en", msgid) == msgid
    assert text("ja", msgid) == "メールをお届けできませんでした"


def test_values_are_filled_after_translation() -> None:
    assert text("ja", "The mailbox of {address} is full.", address="a@b") == "a@b のメールボックスがいっぱいです。"
    assert text("en", "100 %") == "100 %"


def test_an_unknown_text_stays_as_it_is() -> None:
    assert text("ja", "no such text {x}", x=1) == "no such text 1"
    assert text("ja", "") == ""


async def test_the_language_in_use_is_a_tasks_own() -> None:
    async def japanese() -> str:
        use_language("ja")
        return _("Your mail has been delivered")

    assert await asyncio.create_task(japanese()) == "お送りになったメールを配送しました"
    assert language_in_use() == "en"
    assert _("Your mail has been delivered") == "Your mail has been delivered"


def test_only_our_languages() -> None:
    with pytest.raises(ValueError, match="not a language of ours"):
        use_language("fr")
