"""RoPE of another base: the angles are those of the formula, config.json says so, and what cannot be is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.config.resolve import Resolved, resolve
from common.engine.preflight.settings import check_settings
from common.errors import ConfigError
from common.models.planned import config_after, context_after
from common.models.rope import FAMILIES, base_of, config_with_base, has_rope, rope_of, set_base
from tests.conftest import REPOSITORY

SIZES = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "head_dim": 16, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16, "rope_parameters": {"rope_theta": 10_000.0, "rope_type": "default"},
}  # fmt: skip
LONGER: dict[str, Any] = {"base": 500_000, "length": 256}


def made(family: str) -> Any:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**copy.deepcopy(SIZES))).eval()


def frequencies(width: int, base: float) -> np.ndarray:
    """Return theta_i = base^(-2i/d) of Su et al. (arXiv 2104.09864), section 3.4.2, in float64."""
    return np.array([base ** (-2 * place / width) for place in range(width // 2)])


@pytest.mark.parametrize("family", FAMILIES)
def test_angles_are_those_of_the_formula(family: str) -> None:
    model = made(family)
    before = set_base(model, "cpt", **LONGER)
    assert (before.base, before.context) == (10_000.0, 64)
    turning = [module for name, module in model.named_modules() if name.endswith("rotary_emb")]
    width = 2 * len(turning[0].inv_freq)  # of a head's numbers some families turn a part
    assert width == int(16 * model.config.rope_parameters.get("partial_rotary_factor", 1.0))
    assert np.allclose(turning[0].inv_freq.double().numpy(), frequencies(width, 500_000), rtol=1e-6)
    cos_BTD, sin_BTD = turning[0](torch.zeros(1, 1, 1), torch.tensor([[0, 3, 255]]))
    angles_TD = np.outer([0, 3, 255], frequencies(width, 500_000))
    assert np.allclose(cos_BTD[0, :, : width // 2].numpy(), np.cos(angles_TD), atol=1e-4)
    assert np.allclose(sin_BTD[0, :, : width // 2].numpy(), np.sin(angles_TD), atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma", "gpt_neox"])
def test_the_result_is_a_plain_checkpoint(family: str, tmp_path: Path) -> None:
    """Saved and loaded without our code it has the new base and context, and the same logits."""
    from transformers import AutoModelForCausalLM

    model, ids_BT = made(family), torch.arange(40)[None]
    with torch.inference_mode():
        old_BTV = model(ids_BT).logits
        set_base(model, "cpt", **LONGER)
        changed_BTV = model(ids_BT).logits
        model.save_pretrained(tmp_path)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert torch.equal(loaded(ids_BT).logits, changed_BTV)
    assert not torch.equal(old_BTV, changed_BTV)
    assert loaded.config.rope_parameters["rope_theta"] == 500_000
    assert loaded.config.max_position_embeddings == 256
    assert set(dict(loaded.named_parameters())) == set(dict(model.named_parameters()))


OLDER = [
    ({"model_type": "llama", "rope_theta": 10_000.0, "rope_scaling": None}, 10_000.0),
    ({"model_type": "llama"}, None),
    ({"model_type": "gpt_neox", "rotary_emb_base": 10_000, "rotary_pct": 0.25}, 10_000.0),
    ({"model_type": "qwen2", "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}, 10_000.0),
]


@pytest.mark.parametrize(("config", "base"), OLDER)
def test_a_config_json_of_any_age_gets_the_base(config: dict[str, Any], base: float | None) -> None:
    """What transformers reads of it is what it reads of a model that was changed after loading."""
    from transformers import CONFIG_MAPPING

    config = {**config, "max_position_embeddings": 64}
    assert rope_of(config).base == base
    after = config_with_base(config, "cpt", **LONGER)
    assert rope_of(after).base == 500_000
    family = CONFIG_MAPPING[config["model_type"]]
    read, plain = family(**dict(after)), family(**config)
    expected = {**plain.rope_parameters, "rope_theta": 500_000.0}
    assert read.rope_parameters == expected
    assert read.max_position_embeddings == 256


@pytest.mark.parametrize("family", FAMILIES)
def test_where_a_config_json_is_silent_the_base_is_that_of_its_class(family: str) -> None:
    from transformers import CONFIG_MAPPING

    assert base_of({"model_type": family}) == CONFIG_MAPPING[family]().rope_parameters["rope_theta"]


def test_an_architecture_without_one_base_has_none() -> None:
    assert [base_of({"model_type": family}) for family in ("gemma3_text", "of its own")] == [None, None]


def test_a_longer_context_stays() -> None:
    config = {"model_type": "llama", "max_position_embeddings": 4096}
    assert config_with_base(config, "cpt", **LONGER)["max_position_embeddings"] == 4096


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "gpt2"}, r"^cpt\.rope_theta=500000: the model is of type gpt2, .*llama.*Leave cpt\.rope_theta"),
        ({"model_type": "bloom"}, "of type bloom"),
        ({"model_type": "gemma3_text"}, "of type gemma3_text"),
        ({"model_type": "llama", "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, r"is llama3 \(rope_type"),
        ({"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2.0}}, "RoPE is linear"),
        ({"model_type": "qwen2", "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "RoPE is yarn"),
        ({"model_type": "llama", "rope_parameters": {"full_attention": {}}}, "for each kind of layer"),
        ({"model_type": "mixtral"}, r"base is 1e\+06 already.* Set cpt\.rope_theta=1e\+06 or more"),
        ({"model_type": "qwen2", "rope_theta": 1e6}, r"base is 1e\+06 already.* Set cpt\.rope_theta=1e\+06 or more"),
    ],
)  # fmt: skip
def test_what_cannot_be_changed_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_with_base(config, "cpt", **LONGER)


def test_models_that_learned_their_positions_are_known() -> None:
    from transformers import FalconConfig, GPT2Config

    assert has_rope({"rope_parameters": {"rope_theta": 1e4}})
    assert not has_rope(GPT2Config().to_dict())
    assert not has_rope(FalconConfig(alibi=True).to_dict())


def planned(**words: str) -> Resolved:
    small = {"domain": "medical", "pipeline": "cpt-sft", "model.architecture.max_position_embeddings": "256"}
    return resolve({**small, "cpt.sequence_length": "512", **words}, REPOSITORY)


def test_a_plan_knows_the_longer_context_of_the_stage_and_of_those_behind_it() -> None:
    resolved = planned(**{"cpt.rope_theta": "500000", "sft.sequence_length": "512"})
    check_settings(resolved)
    assert [context_after(resolved, name) for name in ("base", "cpt", "sft")] == [256, 512, 512]
    assert rope_of(config_after(resolved, "sft")).base == 500_000


def test_a_plan_refuses_rows_that_are_longer_without_it() -> None:
    with pytest.raises(ConfigError, match=r"cpt\.sequence_length=512.*context of 256.*\(rope_theta\)"):
        check_settings(planned())
    with pytest.raises(ConfigError, match=r"sft\.sequence_length=1024.*context of 512"):
        check_settings(planned(**{"cpt.rope_theta": "500000", "sft.sequence_length": "1024"}))
    with pytest.raises(ConfigError, match="base is 10000 already"):
        check_settings(planned(**{"cpt.rope_theta": "5000"}))


def test_a_plan_refuses_to_merge_across_the_change() -> None:
    words = {"pipeline": "demonstration", "cpt.rope_theta": "500000"}
    with pytest.raises(ConfigError, match=r"merge: \w+ and \w+ cannot be merged: the base of their RoPE will be \d+"):
        check_settings(planned(**words))
    check_settings(planned(**words | {"cpt.rope_theta": "10000"}))
