"""The state of each optimizer that is carried comes back whole, and goes on as if nothing had been between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import Trainer, TrainingArguments

from common.config.method_rules import CARRIED
from common.training.loop.carried import give_state, state_of


def training(name: str, folder: Path) -> tuple[Any, Any]:
    """Return a model and the optimizer that transformers makes for it by a name."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    arguments = TrainingArguments(output_dir=str(folder), optim=name, use_cpu=True, report_to="none")
    made, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    return model, made(model.parameters(), **{"lr": 0.1, **options})


def steps(model: Any, optimizer: Any, places: range) -> None:
    for place in places:
        optimizer.zero_grad()
        model(torch.full((2, 3), 1.0 + place)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("name", CARRIED)
def test_a_carried_state_goes_on_as_one_run(name: str, tmp_path: Path) -> None:
    expected, optimizer = training(name, tmp_path)
    steps(expected, optimizer, range(4))

    first, optimizer = training(name, tmp_path)
    steps(first, optimizer, range(2))
    save_file(state_of(first, optimizer, weights=True), tmp_path / "state.safetensors")
    later, optimizer = training(name, tmp_path)
    give_state(later, optimizer, tmp_path / "state.safetensors")
    steps(later, optimizer, range(2, 4))
    for one, other in zip(expected.parameters(), later.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_state_of_another_shape_has_no_place(tmp_path: Path) -> None:
    model, optimizer = training("adagrad", tmp_path)
    save_file({"0.weight|sum": torch.ones(4, 4)}, tmp_path / "state.safetensors")
    with pytest.raises(ValueError, match=r"^a state of shape \(4, 4\) for 0\.weight, which is of shape \(4, 3\) here"):
        give_state(model, optimizer, tmp_path / "state.safetensors")
    save_file({"2.weight|sum": torch.ones(4, 4)}, tmp_path / "state.safetensors")
    with pytest.raises(ValueError, match=r"for 2\.weight, which is missing here"):
        give_state(model, optimizer, tmp_path / "state.safetensors")
