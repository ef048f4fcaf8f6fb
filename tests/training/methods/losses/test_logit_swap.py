"""The distillation with swapped logits against its definition in float64: swap, no-op, divergence, gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.config.methods import KeptLogits, LossBatch
from common.training.methods.losses.logit_swap import METHOD, LogitSwapSettings, swapped, term
from common.training.methods.top_k import top_k
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


def kept_of(given: LossBatch, k: int) -> LossBatch:
    """Return a batch whose teacher has read the tokens before, and left k of its swapped logits."""
    assert given.teacher_BTV is not None
    assert METHOD.as_kept is not None
    shape = given.next_BT.shape
    teacher_NV, next_N = given.teacher_BTV.flatten(0, 1), given.next_BT.flatten().clamp(min=0)
    parts = top_k(METHOD.as_kept(teacher_NV.float(), next_N), k)
    kept = KeptLogits(*(part.reshape(*shape, *part.shape[1:]) for part in parts))
    logits = given.logits_BTV.detach().clone().requires_grad_()
    return LossBatch(logits, given.next_BT, None, kept=kept)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_what_is_kept_is_the_divergence_of_the_largest_swapped_probabilities_and_the_rest(k: int) -> None:
    given = batch(3)
    p, q, learned = reference(given)
    size = p.shape[-1]
    ids = np.argsort(-p, axis=-1)[..., :k]
    parts = [np.take_along_axis(each, ids, axis=-1) for each in (p, q)]
    if k < size:
        parts = [np.concatenate([part, 1 - part.sum(-1, keepdims=True)], axis=-1) for part in parts]
    expected = (parts[0] * (np.log(parts[0]) - np.log(parts[1]))).sum(axis=-1)[learned].sum()
    kept = kept_of(given, k)
    total, measured = term(kept, LogitSwapSettings(weight=0.3, top_k=k))
    assert float(total.detach()) == pytest.approx(0.3 * expected, rel=1e-5)
    assert set(measured) == {"kl"}
    whole = float(term(given, LogitSwapSettings(weight=0.3))[0].detach())
    assert float(total.detach()) <= whole * (1 + 1e-6)
    if k == size:
        assert float(total.detach()) == pytest.approx(whole, rel=1e-5)
    assert kept.kept is not None
    assert (kept.kept.ids_BTK == given.next_BT.unsqueeze(-1)).any(-1)[given.next_BT >= 0].all()  # the truth is kept


def test_how_often_the_teacher_was_wrong_is_counted_where_something_is_learned() -> None:
    given = batch()
    assert given.teacher_BTV is not None
    best = given.teacher_BTV.argmax(-1)
    wrong = int(((best != given.next_BT) & (given.next_BT != -100)).sum())
    assert int(term(given, LogitSwapSettings())[1]["swapped"]) == wrong
    right = LossBatch(given.logits_BTV, best, given.teacher_BTV)
    assert int(term(right, LogitSwapSettings())[1]["swapped"]) == 0
