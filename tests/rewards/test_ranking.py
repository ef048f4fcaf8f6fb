"""How rewards rank pairs: shares, margins and calibration of numbers whose answers are known."""

from __future__ import annotations

import math
import random

import pytest

from common.errors import DataError
from common.rewards.ranking import ranking_facts


def test_shares_and_margin_of_a_few_pairs() -> None:
    facts = ranking_facts([2.0, 1.0, 0.0, 1.0], [1.0, 2.0, 0.0, -1.0], [3, 3, 0, -2])
    assert facts["ranking_accuracy"]["score"] == 0.5  # two of four: equal rewards rank nothing
    assert facts["margin"] == 0.5
    assert facts["longer_chosen"] == round(2 / 3, 4)  # of the three pairs of unequal length
    assert facts["longer_preferred"] == round(1 / 3, 4)
    assert facts["reward_mean"] == 0.75


def test_a_model_that_is_as_sure_as_it_is_right_has_no_calibration_error() -> None:
    rng = random.Random(0)
    margins = [rng.uniform(0, 4) for _ in range(20_000)]
    signs = [1 if rng.random() < 1 / (1 + math.exp(-m)) else -1 for m in margins]
    chosen = [m * sign for m, sign in zip(margins, signs, strict=True)]
    honest = ranking_facts(chosen, [0.0] * len(chosen), [0] * len(chosen))
    boastful = ranking_facts([9 * m for m in chosen], [0.0] * len(chosen), [0] * len(chosen))
    assert honest["calibration_error"] < 0.015
    assert boastful["calibration_error"] > 0.1
    assert honest["ranking_accuracy"] == boastful["ranking_accuracy"]


def test_huge_margins_and_equal_lengths_are_no_accident() -> None:
    facts = ranking_facts([1e9], [-1e9], [0])
    assert facts["longer_preferred"] is None
    assert facts["calibration"] == [{"sure": 1.0, "right": 1.0, "n": 1}]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ([1.0, 1.0], "gives all held-out answers the same reward"),
        ([math.nan, 1.0], "held-out answer is nan; expected finite numbers"),
    ],
)
def test_rewards_that_tell_nothing(chosen: list[float], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        ranking_facts(chosen, [1.0, 1.0], [0, 0])


@pytest.mark.parametrize(("chosen", "rejected"), [([], []), ([1.0], [])])
def test_sides_that_do_not_fit(chosen: list[float], rejected: list[float]) -> None:
    with pytest.raises(ValueError, match="expected equally many"):
        ranking_facts(chosen, rejected, [])
