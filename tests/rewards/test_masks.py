"""The rewards of RL pre-training against their definitions: what is a mask, what is earned, and what is dropped."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from common.rewards.masks import (
    boxed,
    count_words,
    is_valid,
    leading,
    mask_reward,
    masked,
    prediction_reward,
    random_span,
    tells_apart,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("so it is \\boxed{an enzyme}.", "an enzyme"),
        ("\\boxed{one} or rather \\boxed{ two }", "two"),
        ("\\boxed{f(x) = {x}}", "f(x) = {x}"),
        ("\\boxed{cut off", None),
        ("\\boxed{{a}", None),
        ("\\boxed{}", ""),
        ("\\mask{an enzyme}", None),
        ("an enzyme", None),
    ],
)
def test_the_last_closed_box_is_the_answer(text: str, found: str | None) -> None:
    assert boxed(text, "boxed") == found


@pytest.mark.parametrize(
    ("text", "span", "found"),
    [
        ("QT prolongation. It works", "a b", "QT prolongation"),
        (" chiefly, for bacterial", "one two three", "chiefly, for bacterial"),
        ("well-known", "a b", "well-known"),
        ("...", "a", ""),
        ("", "a", ""),
    ],
)
def test_a_model_without_boxes_is_read_by_its_first_words(text: str, span: str, found: str) -> None:
    assert leading(text, span) == found


@pytest.mark.parametrize(
    ("span", "valid"), [("the cat", True), ("The Cat", False), ("", False), (None, False), ("the cat sat on the", True)]
)
def test_a_mask_is_copied_from_its_paragraph(span: str | None, valid: bool) -> None:
    assert is_valid(span, "the cat sat on the mat", 8) is valid


def test_a_mask_occurs_fewer_times_than_the_limit() -> None:
    assert is_valid("ab", "ab " * 7, 8)
    assert not is_valid("ab", "ab " * 8, 8)
    assert not is_valid("a", "banana", 3)


def test_every_occurrence_is_hidden() -> None:
    assert masked("the cat and the dog", "the") == "[mask] cat and [mask] dog"


@pytest.mark.parametrize(
    ("prediction", "reward"),
    [("QT prolongation", 1.0), (" QT\n prolongation ", 1.0), ("qt prolongation", 0.0), ("QT", 0.0), (None, 0.0)],
)
def test_a_prediction_is_exact_or_earns_nothing(prediction: str | None, reward: float) -> None:
    assert prediction_reward(prediction, "QT prolongation") == reward


def test_a_mask_earns_what_the_paper_says() -> None:
    """r_gen = 1 - (1/G) sum 1[x_i = x], and 0 where no prediction is right; over all outcomes of eight predictions."""
    for outcomes in np.ndindex(*(2,) * 8):
        accuracy = np.mean(np.asarray(outcomes, dtype=np.float64))
        expected = 0.0 if accuracy == 0 else 1.0 - accuracy
        assert mask_reward([float(one) for one in outcomes]) == pytest.approx(expected, abs=1e-12)
        assert tells_apart([float(one) for one in outcomes]) == (0 < accuracy < 1)
    assert mask_reward([]) == 0.0  # of no valid mask
    assert not tells_apart([])


def test_random_spans_are_runs_of_words_of_every_length_and_place() -> None:
    text = "One drug, well-known, acts by inhibiting it."
    spans = Counter(random_span(text, random.Random(number), 3, 8) for number in range(4000))
    assert None not in spans
    assert all(str(span) in text and 1 <= count_words(str(span)) <= 3 for span in spans)
    assert len(spans) == 7 + 6 + 5  # runs of one, two and three of seven words
    assert spans["One drug, well-known"] == pytest.approx(4000 / 3 / 5, rel=0.25)
    assert spans["it"] == pytest.approx(4000 / 3 / 7, rel=0.25)


def test_a_text_whose_spans_occur_too_often_has_no_random_mask() -> None:
    assert random_span("no no no no", random.Random(0), 1, 3) is None
    assert random_span("...", random.Random(0), 3, 8) is None
