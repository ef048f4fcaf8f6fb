"""That a saved model is 2:4 sparse is read from its file, and read again behind later stages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from common.config.pruning import PruneSettings
from common.errors import ConfigError, ContractError
from common.models.sparsity.configs import check_tensors, check_widths
from common.models.sparsity.masks import cut, scale
from common.models.sparsity.record import FILE, check_sparse, keep, sparsity_of, write_sparsity
from tests.models.growth.small import small

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4, "head_dim": 4, "model_type": "llama"}


def saved(folder: Path, *, pruned: bool = True) -> list[str]:
    """Save a model of one layer, pruned, and return the names of its matrices."""
    model = small("llama", num_hidden_layers=1)
    names = scale(model, ("up_proj", "down_proj"), 2)
    if pruned:
        cut(model)
        model.save_pretrained(folder)
    else:
        small("llama", num_hidden_layers=1).save_pretrained(folder)
    return names


def test_zeros_are_counted_in_the_file_and_carried_on(tmp_path: Path) -> None:
    names = saved(tmp_path / "parent")
    found = check_sparse(tmp_path / "parent", names, "sparse")
    assert (found.weights, found.zeros) == (2 * 16 * 24, 16 * 24)
    assert found.parameters == sum(weight.numel() for weight in small("llama", num_hidden_layers=1).parameters())
    assert sparsity_of(tmp_path / "parent") is None
    assert keep(tmp_path / "parent", tmp_path / "parent") is None  # nothing was promised
    write_sparsity(tmp_path / "parent", found)
    saved(tmp_path / "later")
    assert keep(tmp_path / "parent", tmp_path / "later") == found == sparsity_of(tmp_path / "later")


def test_a_file_that_is_not_sparse_stops_the_stage(tmp_path: Path) -> None:
    names = saved(tmp_path / "parent")
    write_sparsity(tmp_path / "parent", check_sparse(tmp_path / "parent", names, "sparse"))
    saved(tmp_path / "later", pruned=False)
    with pytest.raises(ContractError, match=r"up_proj\.weight of the saved model has more than 2 .* as sparse promises|"
                                            r"down_proj\.weight of the saved model has more than 2"):  # fmt: skip
        keep(tmp_path / "parent", tmp_path / "later")
    assert not (tmp_path / "later" / FILE).exists()
    with pytest.raises(ContractError, match=r"1 of the matrices that sparse cut are not in the saved model, such as x"):
        check_sparse(tmp_path / "parent", ["x.weight", *names], "sparse")


def test_the_file_is_ours_alone(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    names = saved(tmp_path)
    write_sparsity(tmp_path, check_sparse(tmp_path, names, "sparse"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert int((loaded.model.layers[0].mlp.up_proj.weight == 0).sum()) == 16 * 24 // 2
    assert torch.isfinite(loaded(input_ids=torch.tensor([[1, 2]])).logits).all()
    assert json.loads((tmp_path / FILE).read_text(encoding="utf-8"))["stage"] == "sparse"


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        ({}, {}, ""),
        (SIZES, {}, ""),
        ({"model_type": "bloom", "n_embed": 30}, {}, ""),
        ({"model_type": "gpt2"}, {"modules": ["c_attn"]}, r"type gpt2, .* transposed .* so it cannot be pruned"),
        (SIZES, {"modules": ["up_proj", "foo"]}, r"sparse\.modules: foo is no linear layer of this model; it has down"),
        (SIZES, {"modules": ["lm_head"]}, r"sparse\.modules: lm_head is no linear layer"),
        ({**SIZES, "hidden_size": 18, "num_attention_heads": 4}, {}, r"sparse: q_proj has 18 inputs, which is no mult"),
        (
            {**SIZES, "intermediate_size": 30},
            {},
            r"sparse: down_proj has 30 inputs, .* Leave its name out",
        ),
        ({**SIZES, "intermediate_size": 30}, {"modules": ["q_proj", "up_proj"]}, ""),
        ({**SIZES, "head_dim": 3, "num_attention_heads": 5}, {}, r"sparse: o_proj has 15 inputs"),
        (SIZES, {"scale_groups": 3}, r"sparse\.scale_groups=3: q_proj has 16 inputs, which do not divide by it"),
        (SIZES, {"scale_groups": 3, "zeros": "cut"}, ""),  # without scales
        ({**SIZES, "num_experts": 8}, {}, r"sparse: the stage before it is a model of type llama, whose experts"),
    ],
)
def test_a_plan_knows_what_a_config_says(config: dict[str, int], settings: dict[str, object], message: str) -> None:
    given = PruneSettings.model_validate({"tokens": 4096, **settings})
    if not message:
        check_widths(config, given, "sparse")
        return
    with pytest.raises(ConfigError, match=message):
        check_widths(config, given, "sparse")


def test_a_plan_knows_the_matrices_of_a_folder(tmp_path: Path) -> None:
    small("llama", num_hidden_layers=1, intermediate_size=30).save_pretrained(tmp_path)
    some = PruneSettings.model_validate({"tokens": 4096, "modules": ["q_proj", "up_proj"]})
    check_tensors(tmp_path, some, "sparse")
    with pytest.raises(ConfigError, match=r"sparse: model\.layers\.0\.mlp\.down_proj has 30 inputs, which is no mult"):
        check_tensors(tmp_path, PruneSettings(tokens=4096), "sparse")
    other = PruneSettings.model_validate({"tokens": 4096, "modules": ["q_proj", "fc1"]})
    with pytest.raises(
        ConfigError,
        match=r"sparse\.modules: fc1 is no linear layer of this model; it has down_proj, .*v_proj\.",
    ):
        check_tensors(tmp_path, other, "sparse")
