"""What a merge refuses: checkpoints that do not fit each other, are incomplete or damaged, and results that are."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.config.node import Node
from common.config.resolve import resolve
from common.config.stages import MergeSettings
from common.errors import ConfigError, ContractError, StoreError
from common.stages import merge as stage
from common.stages.merge import check
from tests.conftest import REPOSITORY
from tests.stages.merging import RECIPES, STAGES, WEIGHTED, change, merge


def write_config(folder: Path, **keys: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


@pytest.mark.parametrize(("keys", "message"), [
    ({"num_attention_heads": 4}, r"dpo and sft: num_attention_heads in config.json is 2 and 4"),
    ({"tie_word_embeddings": False}, r"dpo and sft: tie_word_embeddings in config.json is True and False"),
])  # fmt: skip
def test_different_architectures_are_refused(
    keys: dict[str, Any], message: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folders = change(checkpoints, tmp_path, "sft")
    write_config(folders["sft"], **keys)
    with pytest.raises(ContractError, match=message):
        merge(tmp_path / "run", folders, method="linear", models=WEIGHTED)


def test_different_shapes_are_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folders = change(checkpoints, tmp_path, "sft")
    tensors = load_file(folders["sft"] / "model.safetensors")
    tensors["model.embed_tokens.weight"] = torch.zeros(65, 16)
    del tensors["model.norm.weight"]
    save_file(tensors, folders["sft"] / "model.safetensors", metadata={"format": "pt"})
    expected = r"dpo and sft: tensor model.embed_tokens.weight has the shape \[64, 16\] and \[65, 16\] \(2 tensors"
    with pytest.raises(ContractError, match=expected):
        merge(tmp_path / "run", folders, method="linear", models=WEIGHTED)


def test_different_tokenizers_are_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folders = change(checkpoints, tmp_path, "sft")
    path = folders["sft"] / "tokenizer.json"
    path.write_text(path.read_text().replace('"w1"', '"v1"'))
    with pytest.raises(ContractError, match=r"dpo and sft: their tokenizer.json differ"):
        merge(tmp_path / "run", folders, method="linear", models=WEIGHTED)


@pytest.mark.parametrize(("file", "message"), [
    ("config.json", "Cannot merge sft: .* has no config.json"),
    ("tokenizer.json", "Cannot merge sft: .* has no tokenizer.json"),
    ("model.safetensors", "sft has no model.safetensors"),
])  # fmt: skip
def test_incomplete_checkpoints_are_refused(
    file: str, message: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folders = change(checkpoints, tmp_path, "sft")
    (folders["sft"] / file).unlink()
    with pytest.raises(ContractError, match=message):
        merge(tmp_path / "run", folders, method="linear", models=WEIGHTED)


def test_passthrough_with_layer_types_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folders = change(checkpoints, tmp_path, "sft")
    write_config(folders["sft"], layer_types=["full_attention"] * 2, model_type="qwen3")
    with pytest.raises(ConfigError, match=r"merge.method: passthrough .* 'sft': .*`layer_types` \(qwen3 does\)"):
        merge(tmp_path / "run", folders, method="passthrough", **RECIPES["passthrough"])


def test_layers_that_do_not_exist_are_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    slices = [{"sources": [{"model": "dpo", "layer_range": [0, 9]}]}]
    message = r"merge.slices.0.sources.0.layer_range: 'dpo' has 2 layers, got \[0, 9\]"
    with pytest.raises(ConfigError, match=message):
        merge(tmp_path, checkpoints, method="passthrough", slices=slices)


def test_result_that_is_not_finite_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    models = {"sft": {"weight": 1e9}, "dpo": {"weight": 1e9}}
    with pytest.raises(ContractError, match=r"^The merge: \S+ holds infinity in [\d,]+ of [\d,]+ places"):
        merge(tmp_path, checkpoints, method="linear", models=models, parameters={"normalize": False}, dtype="float16")


def test_input_that_is_not_finite_is_refused_though_its_merge_might_be(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folders = change(checkpoints, tmp_path, "sft")
    tensors = load_file(folders["sft"] / "model.safetensors")
    tensors["model.norm.weight"][0] = math.nan
    save_file(tensors, folders["sft"] / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ContractError, match=r"^Cannot merge sft: model\.norm\.weight holds NaN in 1 of \d+ places"):
        merge(tmp_path / "run", folders, method="linear", models=WEIGHTED)


def test_tensor_that_mergekit_leaves_out_is_noticed(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it would where its list of an architecture is not set aside."""
    monkeypatch.setattr(stage, "listed_as_stored", lambda _: contextlib.nullcontext())
    folders = checkpoints
    for name in STAGES:
        folders = change(folders, tmp_path, name)
        tensors = load_file(folders[name] / "model.safetensors") | {"model.layers.0.extra.weight": torch.ones(3)}
        save_file(tensors, folders[name] / "model.safetensors", metadata={"format": "pt"})
    message = r"of 1 tensors, first model.layers.0.extra.weight: shape \[3\] before, none after"
    with pytest.raises(ContractError, match=message):
        merge(tmp_path / "run", folders, method="linear", models=WEIGHTED)


def test_full_disk_is_met_before_the_merge(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(StoreError, match=r"The disk of .* is full"):
        merge(tmp_path, checkpoints, method="linear", models=WEIGHTED)


def test_a_merge_of_nothing_is_refused_by_the_plan() -> None:
    node = Node("blend", "merge", "dpo", ("dpo", "base"), "blend")
    resolved = resolve({"domain": "medical"}, REPOSITORY)
    with pytest.raises(
        ConfigError, match=r"^blend\.models is empty, so there is nothing to merge\. Name .* are dpo, base\.$"
    ):
        check(node, MergeSettings(), resolved)


def slices(*layers: tuple[str, int]) -> list[dict[str, Any]]:
    """Return slices of passthrough, each all layers of a stage."""
    return [{"sources": [{"model": name, "layer_range": [0, number]}]} for name, number in layers]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"method": "passthrough", "slices": slices(("base", 4), ("sft-grown", 6))},
            r"^blend: sft-grown and base cannot be merged: their num_hidden_layers will be 6 and 4, as a stage between",
        ),
        (
            {"method": "passthrough", "slices": slices(("base", 4))},
            r"^blend: sft-grown and base cannot be merged",  # whose files the result gets
        ),
        (
            {"method": "passthrough", "slices": slices(("sft-grown", 7))},
            r"^blend\.slices\.0\.sources\.0\.layer_range: 'sft-grown' has 6 layers, got \[0, 7\]",
        ),
        ({"models": {"base": {"weight": 1.0}}}, r"^blend: sft-grown and base cannot be merged"),
    ],
)
def test_a_merge_across_growth_is_refused_by_the_plan(settings: dict[str, Any], message: str) -> None:
    node = Node("blend", "merge", "sft-grown", ("sft-grown", "base"), "blend")
    resolved = resolve({"domain": "medical", "pipeline": "growth"}, REPOSITORY)
    with pytest.raises(ConfigError, match=message):
        check(node, MergeSettings.model_validate(settings), resolved)
    check(node, MergeSettings.model_validate({"method": "passthrough", "slices": slices(("sft-grown", 6))}), resolved)
