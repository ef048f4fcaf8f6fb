"""The state of methods in a trainer checkpoint comes back as it was, and is there or not as a whole."""

from __future__ import annotations

from pathlib import Path

import torch

from common.config.methods import Step
from common.training.methods.state import load_state, save_state


def test_tensors_come_back_by_method_and_name(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    step = Step(model, None, 1, 2)
    state = {"reptile": {"weight": torch.randn(2, 3), "bias": torch.randn(2)}, "other": {"count": torch.zeros(())}}
    save_state(tmp_path, state)
    found = load_state(tmp_path, step)
    assert found is not None
    assert {method: set(tensors) for method, tensors in found.items()} == {m: set(t) for m, t in state.items()}
    assert all(torch.equal(found[method][name], state[method][name]) for method in state for name in state[method])
    assert load_state(tmp_path / "elsewhere", step) is None


def test_weights_that_share_their_numbers_are_each_kept(tmp_path: Path) -> None:
    shared = torch.randn(4)
    save_state(tmp_path, {"a": {"x": shared, "y": shared[:2]}})
    found = load_state(tmp_path, Step(torch.nn.Linear(1, 1), None, 1, 1))
    assert found is not None
    assert torch.equal(found["a"]["y"], shared[:2])


def test_without_state_a_checkpoint_still_says_so(tmp_path: Path) -> None:
    save_state(tmp_path, {})
    assert load_state(tmp_path, Step(torch.nn.Linear(1, 1), None, 1, 1)) == {}
