"""Intervals and tests against published values and sums done by hand."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest

from common.evaluation.statistics import holm, mcnemar_exact, paired_bootstrap, ratio_of_sums, wilson


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(correct: int, n: int, low: float, high: float) -> None:
    assert wilson(correct, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_without_answers_knows_nothing_and_refuses_impossible_counts() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="correct is 3, expected 0 to n=2"):
        wilson(3, 2)


def answers(both: int, only_a: int, only_b: int, none: int) -> tuple[list[bool], list[bool]]:
    a = [True] * both + [True] * only_a + [False] * only_b + [False] * none
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * none
    return a, b


def test_mcnemar_is_the_binomial_tail_over_discordant_pairs() -> None:
    for lost, gained in product(range(8), range(8)):
        n, few = lost + gained, min(lost, gained)
        expected = min(1.0, 2 * sum(comb(n, k) for k in range(few + 1)) / 2**n)
        assert mcnemar_exact(*answers(5, lost, gained, 3)) == pytest.approx(expected)


def test_mcnemar_ignores_pairs_that_agree_and_the_order_of_the_models() -> None:
    a, b = answers(0, 2, 9, 0)
    assert mcnemar_exact(a, b) == pytest.approx(134 / 2048)
    assert mcnemar_exact(b, a) == mcnemar_exact(a, b) == mcnemar_exact(*answers(500, 2, 9, 100))
    with pytest.raises(ValueError, match="zip"):
        mcnemar_exact(a, b[:-1])


def test_bootstrap_interval_is_that_of_the_difference_of_paired_answers() -> None:
    a, b = answers(40, 10, 30, 20)
    difference, low, high = paired_bootstrap(a, b)
    assert difference == pytest.approx(0.20)
    # variance of a mean of values -1, 0, 1: (share that changed - difference²) / n
    half = 1.96 * ((0.40 - 0.20**2) / 100) ** 0.5
    assert (low, high) == pytest.approx((0.20 - half, 0.20 + half), abs=0.015)
    assert paired_bootstrap(a, b) == (difference, low, high)
    assert paired_bootstrap(b, a)[0] == pytest.approx(-0.20)


def test_bootstrap_of_equal_answers_is_a_point_and_needs_an_answer() -> None:
    a, _ = answers(3, 0, 0, 2)
    assert paired_bootstrap(a, a) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="at least one pair"):
        paired_bootstrap([], [])


def test_the_interval_of_a_ratio_is_that_of_whole_documents() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(100, 4000, 200).astype(float)
    noise = rng.normal(0, 0.2, 200)
    bits = sizes * (1.0 + noise)
    ratio, low, high = ratio_of_sums(bits.tolist(), sizes.tolist())
    assert ratio == pytest.approx(bits.sum() / sizes.sum())
    # the ratio estimator's variance by linearisation: sum of squared residuals / (sum of sizes)²
    half = 1.96 * float(np.sqrt(np.square(bits - ratio * sizes).sum())) / sizes.sum()
    assert low is not None
    assert high is not None
    assert (low, high) == pytest.approx((ratio - half, ratio + half), abs=0.003)
    assert ratio_of_sums(bits.tolist(), sizes.tolist()) == (ratio, low, high)
    assert ratio_of_sums([3.0, 6.0], [3.0, 6.0]) == (1.0, 1.0, 1.0)
    assert ratio_of_sums([3.0], [2.0]) == (1.5, None, None)
    with pytest.raises(ValueError, match="at least one pair"):
        ratio_of_sums([], [])


def test_holm_multiplies_by_the_number_left_and_never_falls() -> None:
    adjusted = holm({"c": 0.03, "a": 0.01, "d": 0.005, "b": 0.04})
    assert list(adjusted) == ["c", "a", "d", "b"]
    assert adjusted == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"x": 0.9, "y": 0.8}) == {"x": 1.0, "y": 1.0}
    assert holm({}) == {}
