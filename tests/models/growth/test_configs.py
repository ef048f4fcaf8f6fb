"""What growth makes of a config.json, where it puts copies, and what it refuses."""

from __future__ import annotations

import pytest

from common.config.growth import ExpandSettings
from common.errors import ConfigError
from common.models.growth.configs import block_ends, copies_among, grown_config, places_of, sources_after

PRO = ExpandSettings(method="llama_pro", added=2)
PLAIN = {"model_type": "llama", "num_hidden_layers": 4}


@pytest.mark.parametrize(
    ("layers", "added", "ends"),
    [(32, 8, [3, 7, 11, 15, 19, 23, 27, 31]), (4, 2, [1, 3]), (4, 4, [0, 1, 2, 3]), (1, 1, [0]), (6, 1, [5])],
)
def test_each_block_of_llama_pro_gets_a_copy_of_its_last_layer(layers: int, added: int, ends: list[int]) -> None:
    assert block_ends(layers, added, "expand") == ends
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
