"""Sparse upcycling against a dense layer in numpy, and routers against their distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from common.config.growth import ExpandSettings
from common.cost.shapes import _of_config
from common.models.growth.configs import grown_config
from common.models.growth.experts import with_experts
from common.models.growth.growing import grow
from tests.models.growth.small import FAMILIES, small, weights_of


def test_equal_experts_with_weights_that_sum_to_one_are_the_dense_layer() -> None:
    """y = sum over the two best of p_e f_e(x), p renormalised (Mixtral): with f_e = f that is f(x)."""
    model = small("llama")
    made = with_experts(model.state_dict(), 4, shared=False, std=0.02, seed=0)
    x = np.random.default_rng(0).normal(size=16)
    router = made["model.layers.0.mlp.gate.weight"].double().numpy()
    both, down = (made[f"model.layers.0.mlp.experts.{name}_proj"].double().numpy() for name in ("gate_up", "down"))
    shares = np.exp(router @ x) / np.exp(router @ x).sum()
    best = np.argsort(-shares)[:2]
    y = np.zeros(16)
    for expert in best:
        gate, up = np.split(both[expert] @ x, 2)
        y += shares[expert] / shares[best].sum() * (down[expert] @ (gate / (1 + np.exp(-gate)) * up))
    own = weights_of(model)
    gate, up = (own[f"model.layers.0.mlp.{name}_proj.weight"] @ x for name in ("gate", "up"))
    assert np.abs(y - own["model.layers.0.mlp.down_proj.weight"] @ (gate / (1 + np.exp(-gate)) * up)).max() < 1e-6


def test_routers_are_drawn_with_the_given_deviation_and_a_seed() -> None:
    weights = small("llama", hidden_size=128, num_hidden_layers=8).state_dict()

    def routers(seed: int, std: float) -> Any:
        made = with_experts(weights, 8, shared=False, std=std, seed=seed)
        return np.stack([made[f"model.layers.{place}.mlp.gate.weight"].numpy() for place in range(8)])

    first = routers(0, 0.02)
    assert abs(first.std() - 0.02) < 0.001
    assert abs(first.mean()) < 0.001
    assert np.array_equal(first, routers(0, 0.02))
    assert not np.array_equal(first, routers(1, 0.02))
    assert abs(routers(0, 0.1).std() - 0.1) < 0.005


def test_the_expert_that_all_tokens_pass_begins_by_adding_nothing() -> None:
    made = with_experts(small("qwen2").state_dict(), 4, shared=True, std=0.02, seed=0)
    assert not made["model.layers.0.mlp.shared_expert.down_proj.weight"].any()
    assert made["model.layers.0.mlp.shared_expert.up_proj.weight"].any()


def test_experts_keep_the_base_of_positions_that_a_config_leaves_to_its_class() -> None:
    """Mixtral's class takes 1,000,000 where Llama's takes 10,000."""
    from transformers import LlamaConfig, MixtralConfig

    settings = ExpandSettings(method="upcycle", num_experts=4)
    silent = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    before = LlamaConfig(**silent).rope_parameters
    assert MixtralConfig(**dict(grown_config(settings, silent, "expand"))).rope_parameters == before


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plan_counts_the_weights_of_experts(family: str) -> None:
    model = small(family)
    settings = ExpandSettings(method="upcycle", num_experts=4, router_aux_loss_coef=0.01)
    grown = grow(model, settings, "expand").model
    shape = _of_config(grown_config(settings, model.config.to_dict(), "expand"))
    assert shape is not None
    assert shape.parameters == grown.num_parameters()
    assert grown.config.router_aux_loss_coef == 0.01
    assert grown.config.num_experts_per_tok == 2
