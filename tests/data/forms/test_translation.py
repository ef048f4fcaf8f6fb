"""A translation is asked for in the language of the text."""

from __future__ import annotations

from typing import Any

import pytest

from common.data.forms.translation import ASKED, NAMES, TranslationAskedSettings
from tests.data.manifest.shaping import shape

SIDES = {"source": "s", "target": "t"}


def turns(value: dict[str, Any], **settings: Any) -> list[str]:
    row = shape("sft", value, SIDES, form={"translation": settings})
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]
    return [turn["content"] for turn in row["messages"]]


def test_it_is_asked_in_the_language_of_the_source() -> None:
    assert turns({"s": "Hi.", "t": "Jambo."}, languages=["en", "sw"]) == [
        "Translate this text into Kiswahili:\n\nHi.", "Jambo.",
    ]  # fmt: skip
    assert turns({"s": ["Jambo.", "Haya."], "t": ["Hi.", "Well."]}, languages=["sw", "en"]) == [
        "Tafsiri maandishi haya kwa lugha ya English:\n\nJambo.\nHaya.", "Hi.\nWell.",
    ]  # fmt: skip
    assert turns({"s": "你好", "t": "Hallo"}, languages=["zh-hans", "de"])[0] == (
        "请将下面的文字翻译成Deutsch：\n\n你好"  # noqa: RUF001 - the colon of Chinese
    )


def test_an_instruction_of_ones_own_for_any_language() -> None:
    asked = turns({"s": "Hi.", "t": "Imaynalla."}, languages=["en", "qu"], ask="Say it in Quechua {{here}}.")
    assert asked[0] == "Say it in Quechua {here}.\n\nHi."
    asked = turns({"s": "Hi.", "t": "Jambo."}, languages=["en", "sw"], ask="From {source} into {target}:")
    assert asked[0] == "From English into Kiswahili:\n\nHi."
    asked = turns({"s": "Hi.", "t": "Imaynalla."}, languages=["en", "qu"], ask="Into {target}:")
    assert asked[0] == "Into qu:\n\nHi."
    with pytest.raises(ValueError, match=r"may hold \{source\} and \{target\}, and no other braces"):
        TranslationAskedSettings(languages=("en", "qu"), ask="Into {tongue}:")
    with pytest.raises(ValueError, match=r"no instruction is known for 'qu' \(known: de, en, .* ask: …"):
        TranslationAskedSettings(languages=("en", "qu"))


def test_every_instruction_names_the_target_once() -> None:
    assert ASKED.keys() == NAMES.keys()
    for code in ASKED:
        own = TranslationAskedSettings(languages=(code, "sw" if code != "sw" else "en"))
        assert own.instruction.count("Kiswahili" if code != "sw" else "English") == 1
