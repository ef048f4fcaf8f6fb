"""Reptile against its equation in float64: several interpolations in a row, steps between them, and what it holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from common.config.methods import Step
from common.training.methods.optimizers.reptile import ReptileSettings, after_step, begin


def trained(steps: int, settings: ReptileSettings) -> tuple[list[np.ndarray], list[np.ndarray], list[float]]:
    """Add random numbers to weights at every step; return ours, the equation's, and the distances that were noted."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2)).double()
    model[1].bias.requires_grad_(False)
    now = [p.detach().numpy().copy() for p in model.parameters() if p.requires_grad]
    before = [array.copy() for array in now]
    state = begin(Step(model, None, 0, steps), settings)
    moved = []
    for number in range(1, steps + 1):
        for place, weight in enumerate(p for p in model.parameters() if p.requires_grad):
            update = torch.randn_like(weight)
            weight.data += update
            now[place] = now[place] + update.numpy()
        noted = after_step(Step(model, None, number, steps), settings, state)
        if number % settings.every == 0:
            before = [old + settings.step * (new - old) for old, new in zip(before, now, strict=True)]
            now = [array.copy() for array in before]
            assert noted is not None
            moved.append(noted["moved"])
        else:
            assert noted is None
    return [p.detach().numpy() for p in model.parameters() if p.requires_grad], now, moved


@pytest.mark.parametrize(("every", "step"), [(1, 0.1), (3, 0.1), (3, 1.0), (4, 0.37), (100, 0.1)])
def test_weights_are_those_of_the_equation(every: int, step: float) -> None:
    ours, expected, moved = trained(10, ReptileSettings(every=every, step=step))
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)
    assert len(moved) == 10 // every
    assert all(distance > 0 for distance in moved)


def test_how_far_they_had_moved_is_relative_to_the_copy() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[3.0, 4.0]])
    settings = ReptileSettings(every=1, step=0.5)
    state: dict[str, Any] = begin(Step(model, None, 0, 1), settings)
    model.weight.data = torch.tensor([[3.0, 6.0]])
    noted = after_step(Step(model, None, 1, 1), settings, state)
    assert noted is not None
    assert noted["moved"] == pytest.approx(2 / 5)
    assert model.weight.tolist() == state["weight"].tolist() == [[3.0, 5.0]]
    assert model.weight.data_ptr() != state["weight"].data_ptr()


def test_one_copy_is_held_of_what_learns_and_none_of_what_is_frozen() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    model[0].requires_grad_(False)
    assert begin(Step(model, None, 0, 1), ReptileSettings()).keys() == {"1.weight", "1.bias"}
