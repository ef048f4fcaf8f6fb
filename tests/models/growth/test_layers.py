"""Zero-initialised copies of layers, against a forward pass written independently in numpy."""

from __future__ import annotations

import numpy as np
import pytest

from common.models.growth.layers import stacked
from tests.models.growth.small import FAMILIES, logits, logits_of, small, weights_of


@pytest.mark.parametrize("family", FAMILIES)
def test_the_independent_forward_pass_is_that_of_transformers(family: str) -> None:
    biased = {"attention_bias": True, "mlp_bias": True} if family == "llama" else {}
    model = small(family, **biased)
    assert np.abs(logits(weights_of(model), model.config) - logits_of(model).numpy()).max() < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_silent_copies_change_no_logit_and_learn(family: str) -> None:
    biased = {"attention_bias": True, "mlp_bias": True} if family == "llama" else {}
    model = small(family, **biased)
    before = logits(weights_of(model), model.config)
    made = stacked(model.state_dict(), [0, 1, 1, 2, 3, 3], silent=[2, 5])
    model.config.num_hidden_layers = 6
    deeper = {name: weight.double().numpy() for name, weight in made.items()}
    assert np.array_equal(logits(deeper, model.config), before)
    loud = stacked(model.state_dict(), [0, 1, 1, 2, 3, 3])
    other = {name: weight.double().numpy() for name, weight in loud.items()}
    assert np.abs(logits(other, model.config) - before).max() > 0.1
    zeros = {name for name, weight in made.items() if not weight.any()}
    endings = ("self_attn.o_proj.weight", "mlp.down_proj.weight", "self_attn.o_proj.bias", "mlp.down_proj.bias")
    assert zeros == {f"model.layers.{p}.{e}" for p in (2, 5) for e in endings if f"model.layers.0.{e}" in made}


def test_what_goes_in_is_neither_changed_nor_shared() -> None:
    weights = small("llama").state_dict()
    before = {name: weight.clone() for name, weight in weights.items()}
    made = stacked(weights, [0, 1, 1, 2, 3], silent=[2])
    for name, weight in made.items():
        if ".layers." in name:
            weight.add_(1.0)
    assert all(weights[name].equal(before[name]) for name in weights)
