"""Every method on every architecture: the promise of equal logits, and a checkpoint that transformers loads alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from common.config.growth import ExpandSettings
from common.errors import ContractError
from common.models.contracts import relative_difference
from common.models.growth.growing import grow, rebuilt
from tests.conftest import long
from tests.models.growth.small import FAMILIES, logits_of, small

METHODS: dict[str, dict[str, Any]] = {
    "llama_pro": {"method": "llama_pro", "added": 2},
    "one block": {"method": "llama_pro", "added": 1},
    "adept": {"method": "adept", "added": 2},
    "hidden": {"method": "width", "hidden_size": 32},
    "inner": {"method": "width", "intermediate_size": 33},
    "heads": {"method": "width", "num_attention_heads": 8},
    "all widths": {"method": "width", "hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 8},
    "upcycle": {"method": "upcycle", "num_experts": 4},
}
OTHERS: dict[str, dict[str, Any]] = {
    "depth": {"method": "depth", "num_hidden_layers": 7},
    "aki": {"method": "width", "hidden_size": 24, "intermediate_size": 30, "new_neurons": "aki"},
}


def settings_of(name: str) -> ExpandSettings:
    return ExpandSettings.model_validate({**METHODS, **OTHERS}[name])


def cases() -> list[Any]:
    """All methods on a Llama, tied and untied, and on the others what their layers have more."""
    regular = {("llama", True, name) for name in METHODS} | {("qwen3", False, "all widths"), ("qwen2", True, "upcycle"),
               ("qwen2", False, "all widths"), ("mistral", True, "llama_pro"), ("qwen3", True, "upcycle")}  # fmt: skip
    every = [(family, tied, name) for family in FAMILIES for tied in (True, False) for name in METHODS]
    return [case if case in regular else long(*case) for case in every]


@pytest.mark.parametrize(("family", "tied", "name"), cases())
def test_logits_stay_and_the_result_loads_without_code_of_ours(
    family: str, tied: bool, name: str, tmp_path: Path
) -> None:
    model = small(family, tie_word_embeddings=tied)
    grown = grow(model, settings_of(name), "expand", chosen=[1, 3]).model
    torch.testing.assert_close(logits_of(grown), logits_of(model), rtol=0, atol=1e-5)
    assert grown.num_parameters() > model.num_parameters()
    grown.save_pretrained(tmp_path)
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert relative_difference(logits_of(loaded), logits_of(grown)) < 1e-6
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) is tied


@pytest.mark.parametrize("name", OTHERS)
def test_what_promises_no_equal_logits_says_so(name: str) -> None:
    model = small("llama")
    grown = grow(model, settings_of(name), "expand")
    assert not grown.preserving
    assert grown.added == ()
    assert relative_difference(logits_of(grown.model), logits_of(model)) > 1e-3


def test_what_goes_in_stays() -> None:
    model = small("llama")
    before = {key: weight.clone() for key, weight in model.state_dict().items()}
    for name in (*METHODS, *OTHERS):
        grown = grow(model, settings_of(name), "expand", chosen=[0, 1]).model
        with torch.no_grad():
            for weight in grown.parameters():
                weight.add_(1.0)
    assert all(torch.equal(weight, before[key]) for key, weight in model.state_dict().items())


def test_a_tensor_without_a_place_is_refused() -> None:
    model = small("llama")
    weights = {**model.state_dict(), "model.layers.9.mlp.up_proj.weight": torch.zeros(2, 2)}
    with pytest.raises(ContractError, match=r"model does not take its weights: model\.layers\.9\.mlp\.up_proj"):
        rebuilt(model, model.config.to_dict(), weights)
