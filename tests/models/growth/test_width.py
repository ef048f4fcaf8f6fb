"""Growth in width against its definition, neuron by neuron in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from common.config.growth import ExpandSettings
from common.models.growth.width import copyings, widened, widened_config
from tests.conftest import long
from tests.models.growth.small import logits, small, weights_of

ALL = {"hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 8}


def wider(model: Any, **settings: Any) -> tuple[dict[str, np.ndarray], Any]:
    """Return the weights of a wider model, and its configuration."""
    before = model.config.to_dict()
    given = ExpandSettings.model_validate({"method": "width", **settings})
    after = widened_config(given, before, "expand")
    made = widened(model.state_dict(), before, after, given.new_neurons)
    return {name: weight.double().numpy() for name, weight in made.items()}, type(model.config)(**after)


@pytest.mark.parametrize("family", ["llama", "qwen3", *map(long, ("mistral", "qwen2"))])
@pytest.mark.parametrize("tied", [True, long(False)])
def test_fpi_computes_the_same_logits_in_an_independent_forward_pass(family: str, tied: bool) -> None:
    model = small(family, tie_word_embeddings=tied)
    made, config = wider(model, **ALL)
    before = logits(weights_of(model), model.config)
    assert np.abs(logits(made, config) - before).max() < 1e-4 * np.abs(before).max()


def test_each_new_neuron_is_a_copy_and_shares_what_the_old_one_fed() -> None:
    """bert2BERT, equations 4 to 6, written for one pair of matrices: inner neurons 24 -> 31, the first seven twice."""
    model = small("llama")
    made, _ = wider(model, intermediate_size=31)
    up, down = (weights_of(model)[f"model.layers.0.mlp.{name}_proj.weight"] for name in ("up", "down"))
    expected_up, expected_down = np.zeros((31, 16)), np.zeros((16, 31))
    for new in range(31):
        source = new if new < 24 else new - 24
        copies = 2 if source < 7 else 1
        expected_up[new] = up[source]
        expected_down[:, new] = down[:, source] / copies
    assert np.abs(made["model.layers.0.mlp.up_proj.weight"] - expected_up).max() < 1e-7
    assert np.abs(made["model.layers.0.mlp.down_proj.weight"] - expected_down).max() < 1e-7


def test_heads_grow_inside_their_group() -> None:
    model = small("llama")  # 4 heads of queries in 2 groups, of size 4
    before = model.config.to_dict()
    settings = ExpandSettings(method="width", num_attention_heads=8)
    sources = copyings(before, widened_config(settings, before, "expand"))["heads"].sources
    heads = [source // 4 for source in sources[::4]]
    assert heads == [0, 1, 0, 1, 2, 3, 2, 3]


def test_aki_takes_new_neurons_from_the_next_layer() -> None:
    """bert2BERT, equation 9; the last layer has no next one and keeps to FPI."""
    model = small("llama")
    fpi, _ = wider(model, **ALL)
    aki, _ = wider(model, **ALL, new_neurons="aki")
    for name, old in (("mlp.up_proj.weight", 24), ("self_attn.o_proj.weight", 16), ("mlp.down_proj.weight", 16)):
        for place in range(3):
            own, following = (f"model.layers.{at}.{name}" for at in (place, place + 1))
            assert np.array_equal(aki[own][:old], fpi[own][:old])
            assert np.array_equal(aki[own][old:], fpi[following][old:])
            assert not np.array_equal(aki[own][old:], fpi[own][old:])
        assert np.array_equal(aki[f"model.layers.3.{name}"], fpi[f"model.layers.3.{name}"])
    for name in ("model.embed_tokens.weight", "model.norm.weight", "model.layers.0.input_layernorm.weight",
                 "model.layers.0.self_attn.k_proj.weight"):  # fmt: skip
        assert np.array_equal(aki[name], fpi[name])
