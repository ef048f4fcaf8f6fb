"""Statistics of paired differences, against scipy's tests and against drawn samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tests.bench import paired


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    plain, other = rng.normal(size=(2, 6))
    found = stats.ttest_rel(other, plain).confidence_interval(0.95)
    mean, half = paired.interval(list(other - plain))
    assert (mean - half, mean + half) == pytest.approx((found.low, found.high))


def test_one_value_has_no_interval() -> None:
    assert paired.interval([2.0]) == (2.0, math.inf)
    assert paired.smallest_seen([2.0]) == math.inf


@pytest.mark.parametrize(("effect", "n"), [(0.0, 5), (1.0, 5), (1.5, 5), (4.0, 2)])
def test_power_is_how_often_the_test_finds_an_effect(effect: float, n: int) -> None:
    drawn = np.random.default_rng(1).normal(effect, 1.0, size=(40_000, n))
    found = float(np.mean(stats.ttest_1samp(drawn, 0.0, axis=1).pvalue < 0.05))
    assert paired.power(effect, n) == pytest.approx(found, abs=0.01)


@pytest.mark.parametrize(("effect", "n"), [(0.3, 3), (1.2, 5), (0.8, 12), (0.1, 30)])
def test_power_is_that_of_a_noncentral_t(effect: float, n: int) -> None:
    bound, shift = stats.t.ppf(0.975, n - 1), effect * n**0.5
    expected = stats.nct.sf(bound, n - 1, shift) + stats.nct.cdf(-bound, n - 1, shift)
    assert paired.power(effect, n) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_the_smallest_effect_is_seen_in_four_of_five_cases(n: int) -> None:
    values = list(np.random.default_rng(2).normal(0.0, 0.03, size=n))
    spread = float(np.std(values, ddof=1))
    assert paired.power(paired.smallest_seen(values) / spread, n) == pytest.approx(0.8)
    doubled = paired.smallest_seen([2 * value for value in values])
    assert doubled == pytest.approx(2 * paired.smallest_seen(values))


@pytest.mark.parametrize(
    ("differences", "lower", "paper", "expected"),
    [
        ([-0.2, -0.21, -0.19], True, None, "supports"),
        ([-0.2, -0.21, -0.19], False, 0.3, "contradicts"),
        ([0.2, 0.21, 0.19], True, None, "contradicts"),
        ([0.2, 0.21, 0.19], False, None, "supports"),
        ([-0.2, 0.1, 0.0], True, -0.1, "underpowered"),
        ([-0.2, 0.1, 0.0], True, None, "no effect within 0.413"),  # 0.033 + 4.303 * 0.153 / sqrt(3)
        ([-0.002, 0.001, 0.0], True, -0.1, "no effect within 0.004"),
        ([-0.2], True, -0.1, "open: one seed"),
        ([0.0, 0.0], True, None, "no effect within 0.000"),
    ],
)
def test_verdicts(differences: list[float], lower: bool, paper: float | None, expected: str) -> None:
    assert paired.verdict(differences, lower=lower, paper=paper) == expected
