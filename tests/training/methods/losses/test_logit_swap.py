"""The distillation with swapped logits against its definition in float64: swap, no-op, divergence, gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.config.methods import LossBatch
from common.training.methods.losses.logit_swap import LogitSwapSettings, swapped, term
from tests.training.methods.losses.test_self_distillation import batch, softmax


def reference(given: LossBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what the teacher says once its logits are swapped, what the model says, and where something is learned."""
    assert given.teacher_BTV is not None
    teacher, following = given.teacher_BTV.double().numpy().copy(), given.next_BT.numpy()
    for place in np.ndindex(following.shape):
        y = following[place]
        if y >= 0:
            m = teacher[place].argmax()
            teacher[place][[m, y]] = teacher[place][[y, m]]
    return softmax(teacher), softmax(given.logits_BTV.detach().double().numpy()), following != -100


def test_it_is_the_divergence_from_the_swapped_teacher() -> None:
    given = batch()
    p, q, learned = reference(given)
    total, measured = term(given, LogitSwapSettings(weight=0.3))
    expected = (p * (np.log(p) - np.log(q))).sum(axis=-1)[learned].sum()
    assert float(total.detach()) == pytest.approx(0.3 * expected, rel=1e-5)
    assert float(measured["kl"]) == pytest.approx(expected, rel=1e-5)
    total.backward()
    np.testing.assert_allclose(given.logits_BTV.grad.numpy(), 0.3 * (q - p) * learned[..., None], atol=1e-6)


def test_where_the_teacher_is_right_nothing_is_swapped_and_elsewhere_two_logits_are() -> None:
    teacher = torch.tensor([[0.5, 3.0, -1.0], [0.5, 3.0, -1.0], [2.0, 2.0, 0.0]])
    found = swapped(teacher, torch.tensor([1, 2, 1]))
    assert found.tolist() == [[0.5, 3.0, -1.0], [0.5, -1.0, 3.0], [2.0, 2.0, 0.0]]  # in a tie a swap changes nothing
    assert teacher.tolist()[1] == [0.5, 3.0, -1.0]  # the teacher's own logits stay


def test_how_often_the_teacher_was_wrong_is_counted_where_something_is_learned() -> None:
    given = batch()
    assert given.teacher_BTV is not None
    best = given.teacher_BTV.argmax(-1)
    wrong = int(((best != given.next_BT) & (given.next_BT != -100)).sum())
    assert int(term(given, LogitSwapSettings())[1]["swapped"]) == wrong
    right = LossBatch(given.logits_BTV, best, given.teacher_BTV)
    assert int(term(right, LogitSwapSettings())[1]["swapped"]) == 0
