"""What paired differences over seeds show: their interval, the smallest effect that could have been seen, a verdict.

Usage: `mean, half = interval(differences)`; `verdict(differences, lower=True, paper=-0.03)`.

Pure functions of numbers. Each difference is that of two runs with the same seed, in bits per byte, so that what seeds
share drops out. Nothing here corrects for how many comparisons are made.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence

CONFIDENCE, POWER = 0.95, 0.8
SUPPORTS, CONTRADICTS, UNDERPOWERED, OPEN = "supports", "contradicts", "underpowered", "open: one seed"


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean, and half the width of its 95% interval by Student's t; infinite for one value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.inf
    return mean, _quantile(len(values)) * statistics.stdev(values) / len(values) ** 0.5


def _quantile(n: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))


def power(effect: float, n: int) -> float:
    """Return how often a two-sided paired t-test of n pairs finds an effect, given in standard deviations.

    With the effect d, t = (z + d sqrt(n)) / s has a noncentral t distribution with n - 1 degrees of freedom (Cohen
    1988, "Statistical power analysis for the behavioral sciences", chapter 2). P(|t| > t_crit) is integrated over the
    spread s, the root of chi squared by its degrees of freedom: scipy's own function fails at two pairs.
    """
    from scipy.integrate import quad
    from scipy.special import ndtr
    from scipy.stats import chi

    freedom, bound, shift = n - 1, _quantile(n), abs(effect) * n**0.5
    scale = freedom**0.5
    log_density = math.log(2) + freedom / 2 * math.log(freedom / 2) - math.lgamma(freedom / 2)

    def seen(s: float) -> float:
        density = math.exp(log_density - freedom * s * s / 2) * s ** (freedom - 1)
        return float(ndtr(shift - bound * s) + ndtr(-shift - bound * s)) * density

    return float(quad(seen, 0.0, float(chi.ppf(1 - 1e-12, freedom)) / scale, limit=200)[0])


@functools.cache
def _least(n: int) -> float:
    """Return the effect, in standard deviations, that n pairs find with the power that is asked for."""
    from scipy.optimize import brentq

    high = 1.0
    while power(high, n) < POWER:
        high *= 2
    return float(brentq(lambda effect: power(effect, n) - POWER, 0.0, high))


def smallest_seen(values: Sequence[float]) -> float:
    """Return the smallest effect that such a test would find in 80 of 100 cases, were its spread that of the values."""
    if len(values) < 2:
        return math.inf
    return statistics.stdev(values) * _least(len(values))


def verdict(differences: Sequence[float], *, lower: bool, paper: float | None) -> str:
    """Say what differences show of a paper's claim that bits per byte get lower, or higher.

    `paper` is the size of its effect in the same unit, where it gives one. An effect that is not shown is underpowered
    where the paper's could not have been seen; else it lies within the interval, whose larger end is named.
    """
    if len(differences) < 2:
        return OPEN
    mean, half = interval(differences)
    if abs(mean) > half:
        return SUPPORTS if (mean < 0) == lower else CONTRADICTS
    if paper is not None and abs(paper) < smallest_seen(differences):
        return UNDERPOWERED
    return f"no effect within {abs(mean) + half:.3f}"
