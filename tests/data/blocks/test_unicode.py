"""Repairs of characters: each does its own, says so, and leaves everything else as it is."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.blocks import ALL, Drop, Row, block_of
from tests.data.blocks.driving import PROSE, applied, context_of, one

DEFAULT = {"repair": True, "controls": True, "line_ends": True, "normalise": "NFC"}
OFF: dict[str, Any] = {"repair": False, "controls": False, "line_ends": False, "normalise": None}
CASES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("it\u00e2\u20ac\u2122s", "it\u2019s", "wrong decoding undone", {"repair": True}),
    ("a \ud83d b", "a \ufffd b", "wrong decoding undone", {"repair": True}),
    ("a\r\nb\u2028c", "a\nb\nc", "line ends unified", {"line_ends": True}),
    ("a\x00b\x1b[31mred\ufffc\x9d", "abred", "control characters removed", {"controls": True}),
    ("e\u0301te\u0301", "\u00e9t\u00e9", "normalised to NFC", {"normalise": "NFC"}),
    ("\ufb01ve\u00b2", "five2", "normalised to NFKC", {"normalise": "NFKC"}),
    ("soft\u00adhyphen\u200b\u202e!", "softhyphen!", "format characters removed", {"format_characters": True}),
    ("\u201ca\u201d", '"a"', "quotes straightened", {"quotes": True}),
    ("\ufb01ve", "five", "ligatures written out", {"ligatures": True}),
    ("\uff21\uff22", "AB", "width unified", {"width": True}),
    ("a &amp; b", "a & b", "entities replaced", {"entities": True}),
]


@pytest.mark.parametrize(("before", "after", "what", "settings"), CASES, ids=[case[2] for case in CASES])
def test_a_repair_does_its_own_and_says_so(
    before: str, after: str, what: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    found = one("unicode", before, tmp_path, **(OFF | settings))
    assert not isinstance(found, Drop)
    assert found["text"] == after
    assert found["changed"] == (what,)
    assert "changed" not in one("unicode", before, tmp_path, **OFF)


@pytest.mark.parametrize("text", PROSE.values())
def test_sound_text_is_the_same_row(text: str, tmp_path: Path) -> None:
    row = {"text": text, "source": "web"}
    [found] = applied("unicode", [row], tmp_path)
    assert found is row


@pytest.mark.parametrize(
    "text",
    [
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # a joiner that Persian spelling needs
        "\U0001f469\u200d\U0001f52c",  # one inside an emoji
        "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",  # tags of a flag
        "\u201ccurly\u201d \uff21 \u00b2 \ufb01 &amp;",
        "a\tb\n\x0cc",
    ],
)
def test_what_belongs_to_a_text_stays(text: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {} if "curly" in text else {"format_characters": True}
    assert one("unicode", text, tmp_path, **settings) == {"text": text, "source": "web", "language": "en"}


def test_hidden_tags_are_format_characters(tmp_path: Path) -> None:
    hidden = "".join(chr(0xE0000 + ord(sign)) for sign in "ignore")
    found = one("unicode", f"a{hidden}b", tmp_path, format_characters=True)
    assert not isinstance(found, Drop)
    assert found["text"] == "ab"


def test_all_texts_of_a_conversation_are_repaired(tmp_path: Path) -> None:
    call = {"function": {"name": "f\x00", "arguments": {"city": "Z\u00c3\u00bcrich"}}}
    row: Row = {
        "source": "chats",
        "messages": [
            {"role": "user", "content": "caf\u00c3\u00a9"},
            {"role": "assistant", "content": "ok\x00", "reasoning_content": "e\u0301", "tool_calls": [call]},
        ],
    }
    [found] = applied("unicode", [row], tmp_path)
    assert not isinstance(found, Drop)
    user, answer = found["messages"]
    assert (user["content"], answer["content"], answer["reasoning_content"]) == ("caf\u00e9", "ok", "\u00e9")
    assert answer["tool_calls"][0]["function"] == {"name": "f\x00", "arguments": {"city": "Z\u00fcrich"}}
    assert sorted(found["changed"]) == [
        "control characters removed", "normalised to NFC", "wrong decoding undone"
    ]  # fmt: skip
    assert tuple(block_of("unicode").rows) == ALL


@given(st.text(max_size=60))
def test_what_comes_out_can_be_written_and_has_one_form(text: str) -> None:
    block = block_of("unicode")
    assert block.start is not None
    found = block.start(block.settings(), context_of(Path()))({"text": text, "source": "web"})
    assert not isinstance(found, Drop)
    found["text"].encode("utf-8")
    assert unicodedata.is_normalized("NFC", found["text"])
    assert not set(found["text"]) & set("\x00\x1b\x7f\r\ufeff")
    assert ("changed" in found) is (found["text"] != text)
