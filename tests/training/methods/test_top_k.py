"""Distributions of K tokens and the rest, against sums in float64; the loss of what a teacher has kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from common.config.methods import KeptLogits, LossBatch
from common.training.methods.losses.self_distillation import SelfDistillationSettings, term
from common.training.methods.pieces import sum_of_kept
from common.training.methods.top_k import bucket_kl, top_k, with_rest
from tests.training.methods.losses.test_self_distillation import batch, both, softmax

FORWARD = [True, False]


def whole(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.asarray((p * (np.log(p) - np.log(q))).sum(axis=-1))


def grouped(p: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return the probabilities of some tokens, and what is left of one."""
    found = np.take_along_axis(p, ids, axis=-1)
    return np.concatenate([found, 1 - found.sum(axis=-1, keepdims=True)], axis=-1)


def pair(seed: int = 0, size: float = 3.0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return tuple(torch.tensor(size * rng.standard_normal((6, 9))) for _ in range(2))


@pytest.mark.parametrize("forward", FORWARD)
@pytest.mark.parametrize("k", [1, 4, 8, 9])
def test_it_is_the_divergence_of_the_grouped_distributions(k: int, forward: bool) -> None:
    model, teacher = pair()
    q, p = (softmax(each.numpy()) for each in (model, teacher))
    ids = np.argsort(-p, axis=-1)[:, :k]
    expected = (grouped(p, ids), grouped(q, ids)) if k < 9 else (p, q)
    found = bucket_kl(model, *top_k(teacher, k), forward=forward)
    np.testing.assert_allclose(found.numpy(), whole(*(expected if forward else expected[::-1])), rtol=1e-9)


@pytest.mark.parametrize("forward", FORWARD)
def test_it_never_exceeds_the_whole_divergence_grows_with_k_and_ends_in_it(forward: bool) -> None:
    model, teacher = pair(1)
    q, p = (softmax(each.numpy()) for each in (model, teacher))
    found = np.stack([bucket_kl(model, *top_k(teacher, k), forward=forward).numpy() for k in range(1, 10)])
    assert (np.diff(found, axis=0) >= -1e-12).all()
    assert (found[0] < found[-1]).all()
    np.testing.assert_allclose(found[-1], whole(p, q) if forward else whole(q, p), rtol=1e-9)


@pytest.mark.parametrize("k", [3, 9])
def test_a_teacher_that_is_sure_leaves_a_rest_that_is_finite(k: int) -> None:
    model, teacher = pair(2)
    teacher[:, 0] += 1000
    model.requires_grad_()
    divergences = bucket_kl(model, *top_k(teacher, k))
    divergences.sum().backward()
    assert divergences.isfinite().all()
    assert model.grad.isfinite().all()
    np.testing.assert_allclose(
        divergences.detach().numpy(), -with_rest(model, torch.zeros(6, 1, dtype=torch.int64))[:, 0].detach()
    )


def test_its_gradient_is_that_of_the_grouped_distributions() -> None:
    """Of KL(p || q) it is q - p at the K tokens, and at the others q less its share of the rest's probability."""
    model, teacher = pair(3)
    model.requires_grad_()
    bucket_kl(model, *(kept := top_k(teacher, 2))).sum().backward()
    q, p = (softmax(each.detach().numpy()) for each in (model, teacher))
    ids = kept[0].numpy()
    others = np.ones_like(p, dtype=bool)
    np.put_along_axis(others, ids, False, axis=-1)
    shared = np.where(others, q / (q * others).sum(-1, keepdims=True) * (p * others).sum(-1, keepdims=True), p)
    np.testing.assert_allclose(model.grad.numpy(), q - shared, atol=1e-12)


def kept_of(given: LossBatch, k: int) -> LossBatch:
    """Return a batch whose teacher has left k logits."""
    logits, teacher = both(given)
    ids, log_probs, rest = top_k(teacher.flatten(0, 1), k)
    shape = teacher.shape[:2]
    kept = KeptLogits(ids.reshape(*shape, k), log_probs.reshape(*shape, k), rest.reshape(shape))
    return LossBatch(logits, given.next_BT, None, kept=kept)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_with_all_tokens_the_term_is_that_of_a_teacher_beside(direction: Any) -> None:
    beside, kept = batch(4), kept_of(batch(4), 7)
    total, measured = term(beside, SelfDistillationSettings(direction=direction))
    other, same = term(kept, SelfDistillationSettings(direction=direction, top_k=7))
    assert float(other.detach()) == pytest.approx(float(total.detach()), rel=1e-6)
    assert float(same["kl"]) == pytest.approx(float(measured["kl"]), rel=1e-6)
    total.backward()
    other.backward()
    torch.testing.assert_close(kept.logits_BTV.grad, beside.logits_BTV.grad)


@pytest.mark.parametrize("most", [1, 21, 10**9])
def test_pieces_do_not_change_it(most: int) -> None:
    given = kept_of(batch(5), 3)
    found = sum_of_kept(given, bucket_kl, most)
    assert float(found.detach()) == pytest.approx(
        float(term(given, SelfDistillationSettings(weight=1, top_k=3))[0].detach())
    )
