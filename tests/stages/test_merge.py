"""Merging: every method on tiny checkpoints, the arithmetic, and what the parent keeps."""

from __future__ import annotations

import json
import logging
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from common.config.stages import MergeSettings
from common.stages.merge import run
from common.training.merging import build_recipe
from tests.stages.merging import RECIPES, STAGES, TEMPLATE, WEIGHTED, change, make_context, merge


@pytest.mark.parametrize("method", RECIPES)
def test_every_method_gives_a_checkpoint_that_loads_and_leaves_nothing_else(
    method: str, checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def refuse(*_: Any) -> None:
        raise AssertionError("a merge asks the network")

    settings = MergeSettings.model_validate({"method": method, **RECIPES[method]})
    context = make_context(tmp_path, checkpoints, settings)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    capfd.readouterr()
    report = run(context)

    said = capfd.readouterr()
    assert said.out + said.err == ""
    assert {path.name for path in context.out.iterdir()} == {
        "model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja", "mergekit.yaml",
    }  # fmt: skip
    assert list(context.work.iterdir()) == []
    loaded: Any = AutoModelForCausalLM.from_pretrained(context.out, output_loading_info=True)
    model, facts = loaded
    assert not any(facts[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.config.num_hidden_layers == (3 if method == "passthrough" else 2)
    assert torch.isfinite(model(torch.arange(8)[None]).logits).all()
    assert AutoTokenizer.from_pretrained(context.out).chat_template == TEMPLATE
    assert report.metrics["method"] == method
    assert report.metrics["num_parameters"] == model.num_parameters()
    assert list(report.metrics["models"]) == settings.members()


def test_linear_is_the_mean(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    halves = {"base": {"weight": 0.5}, "dpo": {"weight": 0.5}}
    merged = merge(tmp_path, checkpoints, method="linear", models=halves)
    first, second = (load_file(checkpoints[name] / "model.safetensors") for name in halves)
    assert merged.keys() == first.keys()
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, (first[name] + second[name]) / 2)
        assert not torch.equal(tensor, first[name])


def test_linear_divides_by_the_sum_of_the_weights_unless_told(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    twos = {"base": {"weight": 2}, "dpo": {"weight": 2}}
    mean = merge(tmp_path / "mean", checkpoints, method="linear", models=twos)
    total = merge(tmp_path / "sum", checkpoints, method="linear", models=twos, parameters={"normalize": False})
    for name, tensor in mean.items():
        torch.testing.assert_close(total[name], 4 * tensor)


def test_gradient_runs_over_the_layers(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    weights = {"base": {"weight": [1, 0]}, "dpo": {"weight": [0.0, 1.0]}}
    merged = merge(tmp_path, checkpoints, method="linear", models=weights)
    for layer, origin in enumerate(("base", "dpo")):
        name = f"model.layers.{layer}.mlp.up_proj.weight"
        torch.testing.assert_close(merged[name], load_file(checkpoints[origin] / "model.safetensors")[name])


def test_task_arithmetic_adds_the_differences_to_the_base(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    merged = merge(tmp_path, checkpoints, method="task_arithmetic", base="base", models=WEIGHTED)
    base, sft, dpo = (load_file(checkpoints[name] / "model.safetensors") for name in STAGES)
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, base[name] + 0.5 * (sft[name] - base[name]) + (dpo[name] - base[name]))


@pytest.mark.parametrize("method", ["dare_ties", "della"])
def test_random_methods_follow_the_seed_alone(method: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    keys: dict[str, Any] = {"method": method, **RECIPES[method]}
    moved = {name: shutil.copytree(path, tmp_path / "elsewhere" / name) for name, path in checkpoints.items()}
    first = merge(tmp_path / "first", checkpoints, **keys)
    torch.manual_seed(99)
    again = merge(tmp_path / "again", moved, **keys)
    other = merge(tmp_path / "other", checkpoints, seed=4, **keys)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_weights_are_stored_in_the_dtype_and_rounded_once(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    keys: dict[str, Any] = {"method": "linear", "models": WEIGHTED}
    exact = merge(tmp_path / "exact", checkpoints, **keys)
    for dtype in ("bfloat16", "float16"):
        stored = merge(tmp_path / dtype, checkpoints, dtype=dtype, **keys)
        assert all(torch.equal(stored[name], tensor.to(getattr(torch, dtype))) for name, tensor in exact.items())
        assert json.loads((tmp_path / dtype / "out" / "config.json").read_text())["dtype"] == dtype


def test_the_parents_template_and_stop_ids_stay(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    for parent in ("sft", "base"):
        merge(tmp_path / parent, checkpoints, parent=parent, method="linear", models=WEIGHTED)
        out = tmp_path / parent / "out"
        for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
            assert (out / name).read_bytes() == (checkpoints[parent] / name).read_bytes()
        assert (out / "chat_template.jinja").exists() == (parent != "base")
        expected = json.loads((checkpoints[parent] / "config.json").read_text())
        assert json.loads((out / "config.json").read_text()) == expected


def test_recipe_names_stages_and_digests_but_no_path(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    settings = MergeSettings.model_validate({"method": "della", **RECIPES["della"]})
    context = make_context(tmp_path, checkpoints, settings)
    run(context)
    text = (context.out / "mergekit.yaml").read_text()
    assert yaml.safe_load(text) == build_recipe(settings)
    assert str(checkpoints["sft"].parent) not in text
    for name in STAGES:
        assert f"#   {name}: digest {name}\n" in text


def test_stored_copy_of_tied_embeddings_is_left_out(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folders = change(checkpoints, tmp_path, "base")
    tensors = load_file(folders["base"] / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folders["base"] / "model.safetensors", metadata={"format": "pt"})
    keys = {"method": "dare_ties", **RECIPES["dare_ties"]}
    merged = merge(tmp_path / "run", folders, parent="base", **keys)
    assert merged.keys() == load_file(checkpoints["base"] / "model.safetensors").keys()


def test_checkpoint_made_anew_is_read_anew_and_a_crash_leaves_no_trace(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folders = change(checkpoints, tmp_path, "dpo")
    first = merge(tmp_path / "first", folders, method="linear", models=WEIGHTED)
    shutil.rmtree(folders["dpo"])
    shutil.copytree(checkpoints["sft"], folders["dpo"])
    context = make_context(tmp_path / "second", folders, MergeSettings(method="linear", models=WEIGHTED))
    (context.work / "merged").mkdir()
    (context.work / "merged" / "model-7.safetensors").write_text("half a file")
    run(context)
    second = load_file(context.out / "model.safetensors")
    sft = load_file(checkpoints["sft"] / "model.safetensors")
    assert all(torch.allclose(second[name], sft[name]) for name in sft)
    assert not any(torch.allclose(first[name], second[name]) for name in first)
    assert list(context.work.iterdir()) == []


def test_logging_is_as_before_afterwards(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    merge(tmp_path, checkpoints, method="linear", models=WEIGHTED)
    assert logging.root.handlers == []
    assert logging.root.manager.disable == logging.NOTSET
