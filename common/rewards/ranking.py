"""Measures how well rewards rank pairs of answers: accuracy, margin and calibration.

Usage: `ranking_facts(chosen, rejected, length_differences)`, where the rewards are of held-out pairs.

Pure functions of numbers; the rewards come from `common.rewards.reward_model`.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from common.errors import DataError
from common.evaluation.scores import score_of
from common.models.finite import require_finite

BINS = 5  # of confidence, from 0.5 to 1
LEAST_SPREAD = 1e-4  # of rewards; smaller differences are rounding


def ranking_facts(
    chosen: Sequence[float], rejected: Sequence[float], length_differences: Sequence[int]
) -> dict[str, Any]:
    """Return the metrics of a reward stage from the rewards of pairs. Equal rewards count as wrong.

    `length_differences` are preferred minus rejected, in tokens: a reward model that has learned length instead of
    quality prefers the longer answer more often than people do. Raises ValueError where the numbers of rewards differ,
    DataError where the rewards rank nothing.
    """
    if not chosen or len(chosen) != len(rejected):
        raise ValueError(
            f"{len(chosen)} chosen and {len(rejected)} rejected rewards; expected equally many, at least one"
        )
    pooled = [*chosen, *rejected]
    advice = "Train it again, or give another."
    require_finite([("the reward of a held-out answer", pooled)], "The reward model", advice, DataError)
    if (spread := statistics.pstdev(pooled)) < LEAST_SPREAD:
        raise DataError(
            f"The reward model gives all held-out answers the same reward (spread {spread:.1g}), so it "
            "ranks nothing. Train it for longer or at another learning rate, or use another reward model."
        )
    margins = [a - b for a, b in zip(chosen, rejected, strict=True)]
    accuracy = score_of([margin > 0 for margin in margins]) or {}
    unequal = [(margin, length) for margin, length in zip(margins, length_differences, strict=True) if length]
    bins = calibration(margins)
    return {
        "ranking_accuracy": {key: round(value, 4) for key, value in accuracy.items()},
        "margin": round(statistics.fmean(margins), 4),
        "calibration": bins,
        "calibration_error": round(sum(b["n"] * abs(b["sure"] - b["right"]) for b in bins) / len(margins), 4),
        "reward_mean": round(statistics.fmean(pooled), 6),
        "reward_spread": round(spread, 6),
        "longer_preferred": _share([(margin > 0) == (length > 0) for margin, length in unequal]),
        "longer_chosen": _share([length > 0 for _, length in unequal]),
    }


def calibration(margins: Sequence[float]) -> list[dict[str, float]]:
    """Return per bin of confidence: the mean confidence `sure`, the share `right`, and the number of pairs `n`.

    The confidence is sigmoid(|margin|), the probability that the model gives to its own ranking. For a calibrated
    model it equals the share of right rankings (Guo et al. 2017, arXiv 1706.04599).
    """
    from scipy.special import expit

    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for margin in margins:
        sure = float(expit(abs(margin)))
        bins[min(BINS - 1, int((sure - 0.5) * 2 * BINS))].append((sure, margin > 0))
    return [
        {
            "sure": round(statistics.fmean(sure for sure, _ in pairs), 4),
            "right": round(sum(right for _, right in pairs) / len(pairs), 4),
            "n": len(pairs),
        }
        for pairs in bins
        if pairs
    ]


def _share(values: Sequence[bool]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None
