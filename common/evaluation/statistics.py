"""Intervals and tests for shares of correct answers, and intervals for ratios such as bits per byte.

Usage: `low, high = wilson(correct=37, n=50)`; `p = mcnemar_exact(before, after)`.

Pure functions of counts, paired answers and sums per document; what is compared is decided in
`common.evaluation.comparison`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CONFIDENCE, RESAMPLES, SEED = 0.95, 10_000, 0
BATCH = 2_000_000  # draws held in memory at once


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of a share p = correct / n.

    (p + z²/2n ± z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n), z = 1.96. Wilson (1927), "Probable inference, the law
    of succession, and statistical inference". Unlike p ± z·sqrt(p(1-p)/n) it stays inside [0, 1] and has a width
    at 0 and n correct. Without answers nothing is known: (0, 1).
    """
    if not 0 <= correct <= n:
        raise ValueError(f"correct is {correct}, expected 0 to n={n}")
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar_exact(a: Sequence[bool], b: Sequence[bool]) -> float:
    """Return the two-sided p-value of the hypothesis that two models answer the same questions equally well.

    Only discordant pairs carry information: of n = b + c questions that one of them got right, the smaller count
    is Binomial(n, 1/2) when they are equal, so p = min(1, 2·P(X ≤ min(b, c))). McNemar (1947), "Note on the
    sampling error of the difference between correlated proportions", in its exact form. No such pair: p = 1.
    """
    gained = sum(not x and y for x, y in zip(a, b, strict=True))
    lost = sum(x and not y for x, y in zip(a, b, strict=True))
    if gained + lost == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost, 0.5).pvalue)


def paired_bootstrap(a: Sequence[bool], b: Sequence[bool]) -> tuple[float, float, float]:
    """Return (difference, low, high): mean(b) - mean(a), with its 95% percentile interval.

    Questions are drawn with replacement, both answers of one question together: Efron (1979), "Bootstrap
    methods: another look at the jackknife". A difference per question is -1, 0 or 1, so one resample is one
    multinomial draw of how often each occurs, which is the same distribution without n draws each.
    """
    import numpy as np

    n = len(a)
    if n == 0:
        raise ValueError("paired_bootstrap needs at least one pair of answers, got none")
    differences = np.asarray(b, dtype=np.int64) - np.asarray(a, dtype=np.int64)
    values = np.array([-1, 0, 1])
    shares = np.array([np.count_nonzero(differences == value) for value in values]) / n
    draws = np.random.default_rng(SEED).multinomial(n, shares, size=RESAMPLES)
    means = draws @ values / n
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return float(differences.mean()), float(low), float(high)


def paired_means(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """Return (difference, low, high): mean(b) - mean(a), with its 95% bootstrap interval (percentile) over the pairs.

    For numbers of any size, such as rewards; of equal differences the interval is that one number.
    """
    import numpy as np
    from scipy.stats import bootstrap

    differences = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    if not differences.size:
        raise ValueError("paired_means needs at least one pair, got none")
    mean = float(differences.mean())
    if np.ptp(differences) == 0:
        return mean, mean, mean
    found = bootstrap(
        (differences,), np.mean, confidence_level=CONFIDENCE, method="percentile", rng=np.random.default_rng(SEED)
    )
    return mean, float(found.confidence_interval.low), float(found.confidence_interval.high)


def ratio_of_sums(
    numerators: Sequence[float], denominators: Sequence[float]
) -> tuple[float, float | None, float | None]:
    """Return (ratio, low, high): sum(numerators) / sum(denominators), with its 95% percentile interval.

    Pairs are drawn with replacement, numerator and denominator of one together (Efron 1979, as above). With bits and
    bytes per document it is bits per byte; with the bits of two models for the same documents, their relative size.
    One pair says nothing of how pairs differ, so it has no interval.
    """
    import numpy as np
    from scipy.stats import bootstrap

    if not numerators:
        raise ValueError("ratio_of_sums needs at least one pair, got none")

    def ratio(a: Any, b: Any, axis: int = -1) -> Any:
        return a.sum(axis=axis) / b.sum(axis=axis)

    pairs = (np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64))
    found = float(ratio(*pairs))
    if len(numerators) == 1:
        return found, None, None
    drawn = bootstrap(
        pairs, ratio, paired=True, confidence_level=CONFIDENCE, method="percentile", n_resamples=RESAMPLES,
        batch=max(1, BATCH // len(numerators)), rng=np.random.default_rng(SEED),
    )  # fmt: skip
    return found, float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values adjusted for multiple comparisons, in the order given.

    The i-th smallest of m (from 0) is multiplied by m - i, made no smaller than the one before it and capped
    at 1: Holm (1979), "A simple sequentially rejective multiple test procedure". Comparing the adjusted values
    with 0.05 keeps the chance of one or more false alarms below 0.05.
    """
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}
