"""Merging: every method on tiny checkpoints, the arithmetic, what the parent keeps, and what is refused."""

from __future__ import annotations

import io
import json
import logging
import math
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

from common.config.node import Node
from common.config.resolve import resolve
from common.config.schema import Config
from common.config.stages import MergeSettings
from common.console import Console
from common.errors import ConfigError, ContractError, StoreError
from common.stage import StageContext
from common.stages.merge import check, run
from common.store.artifacts import Artifact, fingerprint_of
from common.training.merging import build_recipe
from tests.conftest import REPOSITORY

torch = pytest.importorskip("torch")
STAGES = ("base", "sft", "dpo")
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
WEIGHTED = {"sft": {"weight": 0.5}, "dpo": {"weight": 1.0}}
THINNED = {"sft": {"weight": 0.5, "density": 0.6}, "dpo": {"weight": 1.0, "density": 0.5}}
RECIPES: dict[str, dict[str, Any]] = {
    "linear": {"models": WEIGHTED},
    "slerp": {"base": "base", "models": {"dpo": {}}, "parameters": {"t": [{"filter": "mlp", "value": [0, 1]},
                                                                          {"value": 0.5}]}},
    "ties": {"base": "base", "models": THINNED, "parameters": {"int8_mask": True, "normalize": False}},
    "dare_ties": {"base": "base", "models": THINNED},
    "della": {"base": "base", "models": THINNED, "parameters": {"epsilon": 0.2, "lambda": 0.9}},
    "task_arithmetic": {"base": "base", "models": WEIGHTED},
    "model_stock": {"base": "base", "models": {"sft": {}, "dpo": {}}, "parameters": {"filter_wise": True}},
    "passthrough": {"slices": [{"sources": [{"model": "dpo", "layer_range": [0, 2]}]},
                               {"sources": [{"model": "sft", "layer_range": [1, 2], "parameters": {"scale": 0.5}}]}]},
}  # fmt: skip


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three tiny tied Llamas; the folder's name has the characters that mergekit parses in a path given as text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    root = tmp_path_factory.mktemp("chain+a@b c")
    core = Tokenizer(models.WordLevel({f"w{i}": i for i in range(62)} | {"<end>": 62, "<unk>": 63}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"eos_token": "<end>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **names)
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        tie_word_embeddings=True, eos_token_id=62, bos_token_id=None, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    for number, name in enumerate(STAGES):
        with torch.no_grad():
            for tensor in model.parameters():
                tensor.add_(torch.randn_like(tensor) * 0.02)
        tokenizer.chat_template = TEMPLATE if name != "base" else None
        stop: Any = GenerationConfig(eos_token_id=[62, number], pad_token_id=62)
        model.generation_config = stop
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return {name: root / name for name in STAGES}


def make_context(root: Path, folders: dict[str, Path], settings: MergeSettings, parent: str = "dpo",
                 seed: int = 3) -> StageContext:  # fmt: skip
    config = Config.model_validate(
        {"domain": "d", "profile": "p", "pipeline": "q", "seed": seed, "model": {"path": "x"}, "stages": {}}
    )
    inputs = {
        name: Artifact(path, {"stage": name, "fingerprint": fingerprint_of({"stage": name}), "digest": name})
        for name, path in folders.items()
    }
    out, work = root / "out", root / "work"
    for folder in (out, work):
        folder.mkdir(parents=True)
    return StageContext(
        stage="merge", kind="merge", settings=settings, config=config, inputs=inputs, parent=parent,
        corpus=None, out=out, work=work, models=root, console=Console(stream=io.StringIO()),  # type: ignore[arg-type] # no data
    )  # fmt: skip


def merge(root: Path, folders: dict[str, Path], parent: str = "dpo", seed: int = 3, **keys: Any) -> dict[str, Any]:
    """Merge and return the tensors."""
    context = make_context(root, folders, MergeSettings.model_validate(keys), parent, seed)
    run(context)
    return dict(load_file(context.out / "model.safetensors"))


def change(checkpoints: dict[str, Path], root: Path, name: str) -> dict[str, Path]:
    """Copy one checkpoint so that a test may damage it."""
    shutil.copytree(checkpoints[name], root / name)
    return {**checkpoints, name: root / name}


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


def test_tensor_that_mergekit_leaves_out_is_noticed(checkpoints: dict[str, Path], tmp_path: Path) -> None:
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
