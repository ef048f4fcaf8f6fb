"""Forgetting and transfer by their definitions, summed by hand with loops, and intervals that pair checkpoints."""

from __future__ import annotations

import numpy as np
import pytest

from common.evaluation.transfer import backward, backward_steps, forgetting, forward, measure


def by_hand(p: list[list[float]]) -> dict[str, list[float]]:
    """The definitions one by one: p[i][j] of the checkpoint after domain i (0: the base) on domain j + 1."""
    n = len(p[0])

    def gain(i: int, domains: range) -> float:
        return sum(p[0][j - 1] - p[i][j - 1] for j in domains) / len(domains)

    return {
        "forgetting": [p[n][j - 1] - p[j][j - 1] for j in range(1, n + 1)],
        "backward": [gain(n, range(1, n + 1))],
        "steps": [gain(i, range(1, i)) for i in range(2, n + 1)],
        "forward": [gain(i, range(i + 1, n + 1)) for i in range(1, n)],
    }


@pytest.mark.parametrize("domains", [2, 3, 5])
def test_figures_are_those_of_the_definitions(domains: int) -> None:
    p_CD = np.random.default_rng(domains).uniform(1, 4, (domains + 1, domains))
    expected = by_hand(p_CD.tolist())
    assert forgetting(p_CD) == pytest.approx(expected["forgetting"])
    assert forgetting(p_CD)[-1] == 0  # the last domain has had no time to be forgotten
    assert backward(p_CD) == pytest.approx(expected["backward"][0])
    assert backward_steps(p_CD) == pytest.approx(expected["steps"])
    assert forward(p_CD) == pytest.approx(expected["forward"])
    both = np.stack([p_CD, 2 * p_CD])  # leading axes are resamples
    assert forward(both)[1] == pytest.approx(2 * forward(p_CD))
    assert backward_steps(both).shape == (2, domains - 1)


def test_a_worked_example_of_two_domains() -> None:
    p_CD = np.array([[4.0, 5.0], [1.0, 4.5], [2.0, 1.5]])
    assert forgetting(p_CD).tolist() == [1.0, 0.0]  # the first domain went from 1 to 2
    assert backward(p_CD) == pytest.approx(((4 - 2) + (5 - 1.5)) / 2)
    assert backward_steps(p_CD).tolist() == [2.0]  # of the second checkpoint on the first domain
    assert forward(p_CD).tolist() == [0.5]  # of the first checkpoint on the second domain


def test_a_matrix_is_of_sums_and_its_intervals_pair_the_checkpoints() -> None:
    rng = np.random.default_rng(0)
    sizes = [rng.integers(50, 500, 40).astype(float), rng.integers(50, 500, 60).astype(float)]
    hard = [rng.uniform(0.5, 8.0, size.size) for size in sizes]  # documents differ much, checkpoints little
    bits = [
        np.stack([factor * own * size for factor in factors])
        for own, size, factors in zip(hard, sizes, ([1.0, 0.5, 0.6], [1.0, 0.9, 0.4]), strict=True)
    ]
    found = measure(bits, sizes, resamples=500)
    assert found.matrix[2] == pytest.approx([bits[j][2].sum() / sizes[j].sum() for j in range(2)])
    forgotten = found.forgetting[0]
    assert forgotten.value == pytest.approx(found.matrix[2][0] - found.matrix[1][0])
    assert forgotten.low is not None
    assert forgotten.high is not None
    assert forgotten.low < forgotten.value < forgotten.high
    assert forgotten.proven
    # Drawn apart, both checkpoints would vary as the documents do; together only their difference does.
    apart = 1.96 * 0.55 * hard[0].std() / 40**0.5
    assert forgotten.high - forgotten.low < apart
    assert (found.forgetting[1].value, found.forgetting[1].low, found.forgetting[1].high) == (0, 0, 0)
    assert measure(bits, sizes, resamples=500) == found, "the seed is fixed"
    # Where each document has the same bits per byte, it does not matter which are drawn: bits go with their bytes.
    alike = [np.stack([factor * size for factor in (4.0, 1.0, 2.0)]) for size in sizes]
    same = measure(alike, sizes, resamples=50).forgetting[0]
    assert (same.low, same.high) == pytest.approx((1.0, 1.0))


def test_the_interval_is_that_of_a_bootstrap_by_hand() -> None:
    wrong = [np.array([[1, 1, 0, 1, 1, 0], [1, 0, 0, 0, 1, 0], [1, 1, 0, 0, 1, 0]]), np.array([[1, 1], [1, 1], [0, 1]])]
    found = measure([one.astype(float) for one in wrong], [np.ones(6), np.ones(2)], resamples=4000)
    rng, drawn = np.random.default_rng(5), []
    for _ in range(4000):
        p = np.stack([one[:, rng.integers(0, one.shape[1], one.shape[1])].mean(axis=1) for one in wrong], axis=1)
        drawn.append(by_hand(p.tolist())["backward"][0])
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found.backward.low, found.backward.high) == pytest.approx((low, high), abs=0.03)


def test_a_single_document_has_no_interval_and_a_wrong_shape_is_refused() -> None:
    one = measure([np.ones((3, 1)), np.ones((3, 4))], [np.ones(1), np.ones(4)])
    assert one.backward.low is None
    assert not one.backward.proven
    with pytest.raises(ValueError, match="one more checkpoint than the 2 domains"):
        measure([np.ones((2, 3)), np.ones((2, 3))], [np.ones(3), np.ones(3)])
    with pytest.raises(ValueError, match="at least two"):
        measure([np.ones((2, 3))], [np.ones(3)])
