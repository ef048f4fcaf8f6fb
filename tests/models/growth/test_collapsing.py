"""Pairs collapsed into plain layers: weights against the definition in float64, and a model of transformers' own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from common.errors import ConfigError
from common.models.growth.collapsing import collapse, collapsed_weights, how_weights_meet, mean_weights
from common.models.growth.growing import grow
from common.models.growth.pairs import pairs_of
from tests.models.growth.small import logits_of, small
from tests.models.growth.test_pairs import arc, changed, settings_of


@pytest.mark.parametrize("how", ["lerp", "slerp"])
def test_weights_meet_as_defined(how: str) -> None:
    model = changed("dlerp")
    for place, pair in enumerate(pairs_of(model)):
        pair.mean_w.fill_(0.25 + 0.5 * place)
    before = {name: one.double().numpy() for name, one in model.state_dict().items()}
    made = collapsed_weights(model.state_dict(), how)
    assert mean_weights(model) == [0.25, 0.75]
    for place, w in ((1, 0.25), (3, 0.75)):
        for rest in ("mlp.up_proj.weight", "input_layernorm.weight"):
            a, b = (before[f"model.layers.{place}.{part}.{rest}"] for part in ("original", "copy"))
            expected = (1 - w) * a + w * b if how == "lerp" else arc(a, b, w)
            np.testing.assert_allclose(made[f"model.layers.{place}.{rest}"], expected, atol=1e-5)
    assert torch.equal(
        made["model.layers.0.mlp.up_proj.weight"], model.state_dict()["model.layers.0.mlp.up_proj.weight"]
    )


def test_rows_that_point_the_same_way_are_on_a_line_and_the_others_on_an_arc() -> None:
    a, b = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    prefix = "model.layers.0"
    weights = {f"{prefix}.original.x": a, f"{prefix}.copy.x": b, f"{prefix}.mean_w": torch.tensor([0.5])}
    found = collapsed_weights(weights, "slerp")[f"{prefix}.x"]
    np.testing.assert_allclose(found, [[2.0, 0.0], [np.sqrt(0.5), np.sqrt(0.5)]], atol=1e-6)


def test_copies_that_never_learned_give_the_model_before_and_transformers_loads_it_alone(tmp_path: Path) -> None:
    model = small("llama")
    plain = collapse(grow(model, settings_of("slerp"), "expand").model, "auto", "collapse")
    assert type(plain) is LlamaForCausalLM
    before, after = model.config.to_dict(), plain.config.to_dict()
    assert {key for key in {*before, *after} if before.get(key) != after.get(key)} == {"_name_or_path", "dtype"}
    assert all(torch.equal(one, model.state_dict()[name]) for name, one in plain.state_dict().items())
    plain.save_pretrained(tmp_path)
    assert torch.equal(logits_of(AutoModelForCausalLM.from_pretrained(tmp_path)), logits_of(model))
    with pytest.raises(ConfigError, match=r"collapse: no layer of the stage before it has a copy.*Put `expand: "):
        collapse(model, "auto", "collapse")


@pytest.mark.parametrize(("asked", "interpolation", "how"), [
    ("auto", "lerp", "lerp"), ("auto", "dlerp", "slerp"), ("auto", "slerp", "slerp"), ("lerp", "dlerp", "lerp"),
])  # fmt: skip
def test_weights_meet_as_outputs_did(asked: str, interpolation: str, how: str) -> None:
    assert how_weights_meet(asked, interpolation) == how
