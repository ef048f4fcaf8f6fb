"""What training on one domain after the other does to all of them: forgetting, backward and forward transfer.

Usage: `found = measure(numerators, denominators)`; `found.matrix[i][j]`, `found.forgetting[j].value`.

Yildiz et al. (arXiv 2402.17400) examine every checkpoint of a chain on every domain: zero-shot, right after its own
domain, and at the end. Their formulas for transfer are not known to us, so those here are ours. They hold for any p of
which less is better: bits per byte of held-out text, or the share of wrong answers. p(0, j) is the base on domain j,
p(i, j) the checkpoint after the i-th of N domains. Pure functions; who sat which exam is `common.report.sequence`.

Shapes: C = checkpoints of the chain, the base first (N + 1); D = domains (N); any leading axes are resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.evaluation.statistics import BATCH, CONFIDENCE, RESAMPLES, SEED


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval; None where a domain has a single document or question."""

    value: float
    low: float | None
    high: float | None

    @property
    def proven(self) -> bool:
        """Whether the interval excludes 0. It is not adjusted for the number of figures."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Transfer:
    """The matrix of a chain and what follows from it, by domain in the order of training."""

    matrix: list[list[float]]  # C x D
    forgetting: list[Estimate]  # of each domain; above 0: forgotten
    backward: Estimate  # of the whole chain; above 0: better than the base
    backward_steps: list[Estimate]  # of the 2nd to the last domain, on those before it
    forward: list[Estimate]  # of the 1st to the last but one domain, on those after it


def forgetting(p_CD: Any) -> Any:
    """Return FG_j = p(N, j) - p(j, j) for each domain: what it lost from its own checkpoint to the last."""
    import numpy as np

    own = np.arange(p_CD.shape[-1])
    return p_CD[..., -1, :] - p_CD[..., own + 1, own]


def backward(p_CD: Any) -> Any:
    """Return BWT = mean_j [p(0, j) - p(N, j)]: what the whole chain gained over the base."""
    return (p_CD[..., 0, :] - p_CD[..., -1, :]).mean(axis=-1)


def backward_steps(p_CD: Any) -> Any:
    """Return, for the domains i = 2 to N, mean_{j < i} [p(0, j) - p(i, j)]: what is left on the domains before it."""
    import numpy as np

    steps = range(2, p_CD.shape[-1] + 1)
    return np.stack([(p_CD[..., 0, : i - 1] - p_CD[..., i, : i - 1]).mean(axis=-1) for i in steps], axis=-1)


def forward(p_CD: Any) -> Any:
    """Return FWT_i = mean_{j > i} [p(0, j) - p(i, j)] for the domains i = 1 to N - 1: what those after it gain."""
    import numpy as np

    steps = range(1, p_CD.shape[-1])
    return np.stack([(p_CD[..., 0, i:] - p_CD[..., i, i:]).mean(axis=-1) for i in steps], axis=-1)


def measure(numerators: Sequence[Any], denominators: Sequence[Any], *, resamples: int = RESAMPLES) -> Transfer:
    """Return the matrix and its figures with 95% percentile intervals.

    `numerators[j]` is C x n_j: bits of the n_j documents of domain j by each checkpoint, `denominators[j]` their bytes;
    or whether each answer is wrong, and ones. Documents are drawn with replacement within their domain, the values of
    all checkpoints for one together (Efron 1979), so that differences between checkpoints are paired.
    """
    import numpy as np

    tops, bottoms = ([np.asarray(one, dtype=np.float64) for one in given] for given in (numerators, denominators))
    if len(tops) < 2 or any(
        top.shape != (len(tops) + 1, bottom.size) for top, bottom in zip(tops, bottoms, strict=True)
    ):
        raise ValueError(f"expected one more checkpoint than the {len(tops)} domains, and at least two of these")
    found = np.stack([top.sum(axis=-1) / bottom.sum() for top, bottom in zip(tops, bottoms, strict=True)], axis=-1)
    rng, drawn = np.random.default_rng(SEED), []
    if min(bottom.size for bottom in bottoms) > 1:
        drawn = [_resampled(top, bottom, resamples, rng) for top, bottom in zip(tops, bottoms, strict=True)]
    draws_BCD = np.stack(drawn, axis=-1) if drawn else None

    def estimates(figure: Any) -> list[Estimate]:
        values = np.atleast_1d(figure(found))
        if draws_BCD is None:
            return [Estimate(float(value), None, None) for value in values]
        tail = (1.0 - CONFIDENCE) / 2.0
        figures = figure(draws_BCD).reshape(resamples, -1)
        lows, highs = np.quantile(figures, [tail, 1.0 - tail], axis=0)
        return [Estimate(*map(float, three)) for three in zip(values, lows, highs, strict=True)]

    (overall,) = estimates(backward)
    return Transfer(found.tolist(), estimates(forgetting), overall, estimates(backward_steps), estimates(forward))


def _resampled(top_Cn: Any, bottom_n: Any, resamples: int, rng: Any) -> Any:
    """Return the ratio of sums of each checkpoint for some resamples of the documents of one domain: B x C."""
    import numpy as np

    n = bottom_n.size
    parts = []
    for start in range(0, resamples, size := max(1, BATCH // n)):
        times_Bn = rng.multinomial(n, np.full(n, 1.0 / n), size=min(size, resamples - start)).astype(np.float64)
        parts.append((times_Bn @ top_Cn.T) / (times_Bn @ bottom_n)[:, None])
    return np.concatenate(parts)
