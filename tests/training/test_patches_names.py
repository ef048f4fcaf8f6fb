"""What libraries name otherwise than they ask for it: a test that fails says that `name_parts` is no longer needed."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest

from common.training import patches
from tests.training.test_patches import GONE

pytestmark = pytest.mark.slow


def test_trl_asks_for_experts_by_a_name_that_granite_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import GraniteMoeConfig
    from trl.trainer import utils

    monkeypatch.setattr(GraniteMoeConfig, "attribute_map", {})  # as it is until a model trains
    assert "num_experts = text_config.num_experts" in inspect.getsource(utils), GONE
    config = GraniteMoeConfig(num_local_experts=4)
    before = config.to_dict()
    assert not hasattr(config, "num_experts"), GONE
    patches.name_parts(SimpleNamespace(config=config, base_model=None))
    assert GraniteMoeConfig(num_local_experts=6).num_experts == 6
    assert config.to_dict() == before


def test_llama_4_is_its_own_base_model() -> None:
    from transformers import AutoModelForCausalLM, Llama4TextConfig

    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "intermediate_size_mlp": 64, "head_dim": 8}
    shape = {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 2}
    model = AutoModelForCausalLM.from_config(Llama4TextConfig(**sizes, **shape))
    assert model.base_model is model, GONE
    patches.name_parts(model)
    assert model.base_model is model.model
