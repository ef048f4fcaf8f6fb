"""Losses in pieces are the same losses with the same gradients, for any size of a piece."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from common.training.methods.pieces import kl, sum_over_learned
from tests.training.methods.losses.test_self_distillation import batch


@pytest.mark.parametrize("most", [1, 14, 35, 10**9])
def test_the_sum_and_its_gradient_do_not_depend_on_the_pieces(most: int) -> None:
    def each(logits_NV: Any, teacher_NV: Any, next_N: Any) -> Any:
        return kl(teacher_NV, logits_NV) * (next_N + 1)

    whole, pieces = batch(), batch()
    expected, found = sum_over_learned(whole, each), sum_over_learned(pieces, each, most)
    assert torch.allclose(expected, found)
    expected.backward()
    found.backward()
    assert torch.allclose(whole.logits_BTV.grad, pieces.logits_BTV.grad)
