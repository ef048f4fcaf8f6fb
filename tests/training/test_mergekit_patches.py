"""What mergekit still does that `common.training.mergekit_patches` changes. A test that fails: remove the patch."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import Any

import pytest

from common.stages.merge import _merge, _read_shapes
from common.training.mergekit_patches import fresh_loaders, quiet_mergekit

pytestmark = pytest.mark.slow

GONE = "the library no longer does this: remove the patch"


def test_mergekit_logs_through_the_root_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    import mergekit.plan

    assert "logging.info(" in inspect.getsource(mergekit.plan), GONE
    with quiet_mergekit():
        assert not logging.getLogger().isEnabledFor(logging.INFO)
    monkeypatch.setattr(logging.getLogger("mergekit"), "level", logging.NOTSET)  # another test may have set it
    assert logging.getLogger("mergekit").isEnabledFor(logging.WARNING)


def test_mergekit_keeps_open_what_it_has_read(tmp_path: Path) -> None:
    from mergekit.common import ModelPath, ModelReference
    from mergekit.io.tasks import LoaderCache
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2)).save_pretrained(tmp_path)
    reference = ModelReference(model=ModelPath(path=str(tmp_path)))
    with fresh_loaders():
        assert LoaderCache().get(reference) is LoaderCache().get(reference), GONE
    assert not LoaderCache.loaders


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("gpt_neox", {}),
        ("cohere", {"num_key_value_heads": 2}),
        ("falcon", {"ffn_hidden_size": 32, "multi_query": True}),
    ],
)
def test_mergekit_lists_other_tensors_than_such_checkpoints_hold(
    family: str, sizes: dict[str, Any], tmp_path: Path
) -> None:
    import torch
    from mergekit import architecture
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    config = AutoConfig.for_model(family, **shape, num_attention_heads=4, **sizes)
    folders = {name: tmp_path / name for name in ("a", "b")}
    for folder in folders.values():
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    stored = load_file(folders["a"] / "model.safetensors")
    listed = architecture.arch_info_for_config(AutoConfig.from_pretrained(folders["a"]))
    weights = listed.all_weights(config)
    needed = {weight.name for weight in weights if not weight.optional and not weight.aliases}
    assert not needed <= stored.keys() <= {weight.name for weight in weights}, GONE
    recipe = {
        "merge_method": "linear", "dtype": "float32", "out_dtype": "float32",
        "models": [{"model": name, "parameters": {"weight": 0.5}} for name in folders],
    }  # fmt: skip
    _merge(recipe, folders, tmp_path / "out", 0, _read_shapes(folders["a"], tied=False))
    other, merged = load_file(folders["b"] / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert merged.keys() == stored.keys()
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, (stored[name] + other[name]) / 2)
    assert architecture.arch_info_for_config(AutoConfig.from_pretrained(folders["a"])) == listed  # as it was


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_mergekit_goes_by_names_in_memory_where_files_name_experts_one_by_one(
    family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import torch
    from mergekit.architecture import auto
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8}
    experts = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
    config = AutoConfig.for_model(family, **shape, **experts, num_attention_heads=2, num_key_value_heads=1)
    folders = {name: tmp_path / name for name in ("a", "b")}
    for folder in folders.values():
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    stored, other = (load_file(folder / "model.safetensors") for folder in folders.values())
    in_memory = AutoModelForCausalLM.from_config(config).state_dict().keys()
    assert "all_tensor_names = set(transformer_tensor_names)" in inspect.getsource(auto), GONE
    assert not in_memory <= stored.keys(), GONE
    recipe = {
        "merge_method": "linear", "dtype": "float32", "out_dtype": "float32",
        "models": [{"model": name, "parameters": {"weight": 0.5}} for name in folders],
    }  # fmt: skip
    _merge(recipe, folders, tmp_path / "out", 0, _read_shapes(folders["a"], tied=False))
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert merged.keys() == stored.keys()
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, (stored[name] + other[name]) / 2)
    assert 'logging.warning(f"Inferred' in inspect.getsource(auto), GONE
    assert "Inferred" not in caplog.text
