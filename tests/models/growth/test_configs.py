"""What growth makes of a config.json, where it puts copies, and what it refuses."""

from __future__ import annotations

import pytest

from common.config.growth import ExpandSettings
from common.errors import ConfigError
from common.models.growth.configs import (
    block_ends,
    copies_among,
    grown_config,
    places_of,
    sources_after,
    sources_of,
)

PRO = ExpandSettings(method="llama_pro", added=2)
PLAIN = {"model_type": "llama", "num_hidden_layers": 4}


@pytest.mark.parametrize(
    ("layers", "added", "ends"),
    [(32, 8, [3, 7, 11, 15, 19, 23, 27, 31]), (4, 2, [1, 3]), (4, 4, [0, 1, 2, 3]), (1, 1, [0]), (6, 1, [5])],
)
def test_each_block_of_llama_pro_gets_a_copy_of_its_last_layer(layers: int, added: int, ends: list[int]) -> None:
    settings = ExpandSettings(method="llama_pro", added=added)
    assert block_ends(settings, layers, "expand") == ends
    sources = sources_after(range(layers), ends)
    assert len(sources) == layers + added
    places = copies_among(sources)
    assert [sources[place] for place in places] == ends
    assert places == [(layers // added + 1) * (block + 1) - 1 for block in range(added)]


def test_each_layer_keeps_its_kind_of_attention() -> None:
    kinds = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    grown = grown_config(PRO, {**PLAIN, "model_type": "qwen3", "layer_types": kinds, "other": 1}, "expand")
    assert grown["num_hidden_layers"] == 6
    assert grown["layer_types"] == [kinds[layer] for layer in (0, 1, 1, 2, 3, 3)]
    assert grown["other"] == 1
    assert places_of(PRO, PLAIN, "expand") == (2, 5)


@pytest.mark.parametrize(
    ("layers", "target", "sources"),
    [(4, 7, [0, 0, 1, 1, 2, 2, 3]), (2, 4, [0, 0, 1, 1]), (3, 4, [0, 0, 1, 2]), (1, 3, [0, 0, 0])],
)
def test_depth_stretches_the_layers_over_the_deeper_model(layers: int, target: int, sources: list[int]) -> None:
    settings = ExpandSettings(method="depth", num_hidden_layers=target)
    config = {**PLAIN, "num_hidden_layers": layers}
    assert sources_of(settings, config, "expand") == sources
    assert grown_config(settings, config, "expand")["num_hidden_layers"] == target
    assert places_of(settings, config, "expand") == ()


def test_what_adept_will_choose_is_planned_as_the_dearest() -> None:
    settings = ExpandSettings(method="adept", added=2)
    assert places_of(settings, PLAIN, "expand") == (1, 3)
    assert copies_among(sources_of(settings, PLAIN, "expand", [1, 3])) == [2, 5]


SIZES = {**PLAIN, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.mark.parametrize(
    ("settings", "config", "message"),
    [
        (
            {"method": "adept", "added": 5},
            PLAIN,
            r"expand\.added=5: the model has 4 layers, and adept copies",
        ),
        ({"method": "depth", "num_hidden_layers": 4}, PLAIN, r"the model has 4 layers already\. Set more than 4\."),
        ({"method": "width", "hidden_size": 24}, SIZES, r"hidden_size=24: with new_neurons=fpi it must be a multiple "),
        ({"method": "width", "intermediate_size": 8}, SIZES, r"the model has 24, and growth takes nothing away\."),
        ({"method": "width", "hidden_size": 16}, SIZES, r"expand: the model has these sizes already, so nothing grows"),
        ({"method": "width", "num_attention_heads": 5}, SIZES, r"num_attention_heads=5: heads must be a multiple of "),
        (
            {"method": "upcycle", "num_experts": 4},
            {**SIZES, "mlp_bias": True},
            r"upcycle: mlp_bias is true in",
        ),
    ],
)
def test_sizes_that_a_model_cannot_have_are_refused(
    settings: dict[str, object], config: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        grown_config(ExpandSettings.model_validate(settings), config, "expand")


@pytest.mark.parametrize(
    ("added", "config", "message"),
    [
        (3, PLAIN, r"expand\.added=3: llama_pro parts the model's 4 layers into blocks of one size, and 4 is no "
                   r"multiple of 3\. Set expand\.added=2 or 4\."),
        (5, PLAIN, r"expand\.added=5: the model has 4 layers, .* Set expand\.added=4 or less\."),
        (2, {**PLAIN, "model_type": "gpt2"}, r"expand\.method=llama_pro: the stage before it is a model of type gpt2, "
                                             r"and growth knows llama, mistral, qwen2 and qwen3\. Give a checkpoint"),
    ],
)  # fmt: skip
def test_what_cannot_be_grown_is_refused(added: int, config: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        grown_config(ExpandSettings(method="llama_pro", added=added), config, "expand")
