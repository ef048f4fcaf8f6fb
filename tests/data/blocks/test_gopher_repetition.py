"""Gopher's rules of repetition: each planted repeat has its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.data.blocks.driving import PROSE, one, reason

SENTENCES = PROSE["en"].split(". ")
FAULTS = {
    "paragraphs repeat": "\n\n".join(["Short one."] * 5 + SENTENCES[:4]),
    "characters in repeated paragraphs": "\n\n".join([*SENTENCES, SENTENCES[0], SENTENCES[2]]),
    "lines repeat": "\n".join([PROSE["en"], *["Again."] * 4]),
    "characters in repeated lines": "\n".join([*SENTENCES, SENTENCES[0], SENTENCES[2]]),
    "one 2-gram too frequent": " ".join(f"{word} harbour storm" for word in PROSE["en"].split()),
    "5-grams repeat": PROSE["en"] + " " + PROSE["en"][:150],
}


@pytest.mark.parametrize("expected", FAULTS)
def test_a_planted_repeat_has_its_reason(expected: str, tmp_path: Path) -> None:
    assert reason(one("gopher_repetition", FAULTS[expected], tmp_path)) == expected


@pytest.mark.parametrize(
    "text", ["Two words.", "A short paragraph of a book, in which no word comes again.", "\u4e00\u4e8c"]
)
def test_a_short_text_in_which_nothing_comes_again_stays(text: str, tmp_path: Path) -> None:
    assert reason(one("gopher_repetition", text, tmp_path)) is None
    assert reason(one("gopher_repetition", f"{text} {text}", tmp_path)) is not None


def test_an_n_gram_of_ones_own_can_be_asked_for(tmp_path: Path) -> None:
    found = one("gopher_repetition", PROSE["en"], tmp_path, top_n_grams=[(2, 0.01)])
    assert reason(found) == "one 2-gram too frequent"


def test_the_order_of_n_grams_changes_nothing(tmp_path: Path) -> None:
    text = "A far boat lay by the far boat of a friend."  # no four words come twice, two do
    for top in ([(2, 0.2), (4, 0.16)], [(4, 0.16), (2, 0.2)]):
        assert reason(one("gopher_repetition", text, tmp_path, top_n_grams=top)) == "one 2-gram too frequent"
    found = one("gopher_repetition", text, tmp_path, top_n_grams=[(4, 0.16)], dup_n_grams=[(2, 0.1)])
    assert reason(found) == "2-grams repeat"


def test_the_blanks_that_the_filter_counts_between_characters_are_not_in_chinese_text(tmp_path: Path) -> None:
    """A pair of characters that makes up 16% of a text: 24% with a blank in each, as the filter counts."""
    text = PROSE["zh"].replace("\u3002", "\u6e14\u6c11\u3002") + "\u6e14\u6c11" * 2
    pair = text.count("\u6e14\u6c11") * 2 / len(text)
    assert 0.134 < pair < 0.2
    kept: dict[str, Any] = {"top_n_grams": [(2, 0.2)], "dup_n_grams": []}
    assert reason(one("gopher_repetition", text, tmp_path, language="zh", **kept)) is None
    assert reason(one("gopher_repetition", text, tmp_path, language="en", **kept)) == "one 2-gram too frequent"
