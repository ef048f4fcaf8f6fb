"""The pull towards the stage before against KL in float64, in both directions and at several temperatures."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from common.config.methods import LossBatch
from common.training.methods.applied import Applied
from common.training.methods.losses.self_distillation import METHOD, SelfDistillationSettings, problem, term


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def batch(seed: int = 0, learned: float = 0.7) -> LossBatch:
    rng = np.random.default_rng(seed)
    logits, teacher = (torch.tensor(3 * rng.standard_normal((2, 5, 7)), dtype=torch.float32) for _ in range(2))
    labels = torch.tensor(np.where(rng.random((2, 5)) < learned, rng.integers(0, 7, (2, 5)), -100))
    return LossBatch(logits.requires_grad_(), labels, teacher)


def both(given: LossBatch) -> list[Any]:
    """Return the logits of the model and of the teacher."""
    return [given.logits_BTV, given.teacher_BTV]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_it_is_the_divergence_over_what_is_learned(temperature: float, direction: Any) -> None:
    given = batch()
    settings = SelfDistillationSettings(weight=0.3, temperature=temperature, direction=direction)
    q, p = (softmax(x.detach().double().numpy() / temperature) for x in both(given))
    if direction == "reverse":
        p, q = q, p
    each = (p * (np.log(p) - np.log(q))).sum(axis=-1)
    expected = each[given.next_BT.numpy() != -100].sum()
    total, measured = term(given, settings)
    assert float(total.detach()) == pytest.approx(0.3 * temperature**2 * expected, rel=1e-5)
    assert float(measured["kl"]) == pytest.approx(expected, rel=1e-5)


def test_its_gradient_is_that_of_the_definition() -> None:
    """Of KL(p || softmax(z)) it is softmax(z) - p, where something is learned, and nothing elsewhere."""
    given = batch()
    total, _ = term(given, SelfDistillationSettings(weight=1.0))
    total.backward()
    q, p = (softmax(x.detach().double().numpy()) for x in both(given))
    expected = (q - p) * (given.next_BT.numpy() != -100)[..., None]
    np.testing.assert_allclose(given.logits_BTV.grad.numpy(), expected, atol=1e-6)
    assert given.teacher_BTV.grad is None  # type: ignore[union-attr] # a teacher is there


def test_of_equal_models_or_of_nothing_learned_it_is_zero() -> None:
    given = batch()
    same = LossBatch(given.teacher_BTV, given.next_BT, given.teacher_BTV)
    assert float(term(same, SelfDistillationSettings())[0].detach()) == pytest.approx(0, abs=1e-5)
    nothing, measured = term(batch(learned=0.0), SelfDistillationSettings())
    assert float(nothing.detach()) == float(measured["kl"]) == 0


def test_a_share_leaves_the_next_token_the_rest() -> None:
    given, settings = batch(), SelfDistillationSettings(share=0.25)
    total, measured = term(given, settings)
    assert float(total.detach()) == pytest.approx(0.25 * float(measured["kl"]), rel=1e-6)
    plain = torch.tensor(8.0)
    applied = Applied([(METHOD, settings)])
    applied.teacher = lambda **_: SimpleNamespace(logits=given.teacher_BTV)
    both_terms = applied.loss({}, SimpleNamespace(logits=given.logits_BTV), given.next_BT, None, lambda: plain, {})
    assert float(both_terms.detach()) == pytest.approx(0.75 * 8.0 + float(total.detach()), rel=1e-6)
    assert float(applied.sums["next_token_loss"]) == 8.0
    assert METHOD.next_token(SelfDistillationSettings(weight=2.0)) == 1.0


def test_share_and_weight_are_not_both_taken() -> None:
    assert problem(SelfDistillationSettings(share=0.25), None) == ""
    assert problem(SelfDistillationSettings(weight=2.0), None) == ""
    found = problem(SelfDistillationSettings(share=0.25, weight=2.0), None)
    assert found == "share is 0.25 and weight 2, and each says how strong the pull is; keep one"
