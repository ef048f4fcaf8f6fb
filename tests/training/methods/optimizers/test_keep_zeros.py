"""Zeros of sparse matrices stay through the steps of an optimizer with momentum and weight decay; all else learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from common.config.base import StageSettings
from common.config.methods import Ancestor, Step
from common.config.node import Node
from common.config.pruning import PruneSettings
from common.config.stages import CptSettings, SftSettings
from common.errors import ConfigError
from common.models.sparsity.masks import cut, is_sparse, scale
from common.training.methods.optimizers.keep_zeros import KeepZerosSettings, after_step, begin, complete, problem
from tests.models.growth.small import IDS, small


def test_zeros_stay_and_the_rest_learns() -> None:
    model = small("llama", num_hidden_layers=1, tie_word_embeddings=False)
    scale(model, ("up_proj", "o_proj"), 2)
    cut(model)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    state = begin(Step(model, optimizer, 0, 3), KeepZerosSettings())
    assert sorted(name.split(".")[-2] for name in state) == ["o_proj", "up_proj"]
    assert all(mask.dtype == torch.bool for mask in state.values())
    for number in range(1, 4):
        model(input_ids=torch.tensor([IDS]), labels=torch.tensor([IDS])).loss.backward()
        optimizer.step()
        after_step(Step(model, optimizer, number, 3), KeepZerosSettings(), state)
    for name, weight in model.named_parameters():
        assert not torch.equal(weight, before[name]), name
        if name in state:
            assert torch.equal(weight == 0, before[name] == 0)
            assert is_sparse(weight.detach())


def test_a_model_without_zeros_is_refused() -> None:
    model = small("llama", num_hidden_layers=1)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.zero_()  # as a silent copy of a layer has: no pattern
    with pytest.raises(ConfigError, match=r"no linear layer of the model that learns is 2:4 sparse"):
        begin(Step(model, None, 0, 1), KeepZerosSettings())


def test_something_before_must_make_zeros() -> None:
    def after(settings: StageSettings, *, taken: bool = False) -> Any:
        return complete(KeepZerosSettings(), [Ancestor(Node("x", "cpt", None, (), "x"), settings, taken)])

    assert after(PruneSettings(tokens=4096)) == KeepZerosSettings()
    assert after(CptSettings(tokens=4096), taken=True) == KeepZerosSettings()
    with pytest.raises(ValueError, match="no stage before it makes any: put one of kind prune before it"):
        after(CptSettings(tokens=4096))
    assert problem(KeepZerosSettings(), SftSettings(tokens=4096)) == ""
    assert problem(KeepZerosSettings(), SftSettings(tokens=4096, peft="lora")).startswith("an adapter that is merged")
