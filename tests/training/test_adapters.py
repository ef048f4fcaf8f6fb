"""Adapters on every kind of stage: they train, merge into the unquantised stage before, and fit it when loaded."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.config.resolve import resolve
from common.config.schema import ModelSettings
from common.console import Console
from common.engine.run import run_stage
from common.errors import ConfigError
from common.models import checkpoint, contracts
from common.store.artifacts import Artifact
from common.training import adapters
from tests.conftest import QUICK, REPOSITORY, long

pytestmark = pytest.mark.slow

PROBE = list(range(5, 25))
# Steps in which little is learned: enough to show what is trained and what is not.
FEW = {
    "cpt.tokens": "2048", "sft.tokens": "2048", "dpo.epochs": "0.05", "orpo.epochs": "0.05", "kto.epochs": "0.05",
    **{f"{kind}.{key}": value for kind in ("grpo", "rloo") for key, value in {
        "steps": "2", "prompts_per_step": "2", "samples": "4", "answer_tokens": "12", "watch.prompts": "8",
        "watch.every": "1",
    }.items()},
}  # fmt: skip
PIPELINES = {"sft": "full", "cpt": "full", "dpo": "full", "orpo": "orpo", "kto": "kto", "grpo": "grpo", "rloo": "rloo"}


def make(out: Path, stage: str, *before: str, **words: str) -> Artifact:
    """Make one stage, after others that it needs anew."""
    pipeline = PIPELINES[stage]
    kinds = {"base", "cpt", "sft", stage}
    own = {k: v for k, v in {**QUICK}.items() if k.split(".")[0] not in {"dpo"} - kinds}
    few = {key: value for key, value in FEW.items() if key.split(".")[0] == stage}
    all_words = {"domain": "medical", "out": str(out), "pipeline": pipeline, **own, **few, **words}
    resolved = resolve(all_words, REPOSITORY)
    for name in (*before, stage):
        artifact = run_stage(resolved, name, Console("quiet"))
    return artifact


def load(folder: Path) -> Any:
    return checkpoint.load(folder, ModelSettings(path=str(folder)))[0]


def parent_of(out: Path, artifact: Artifact) -> Path:
    base = json.loads((artifact.path / "adapter" / "base.json").read_text(encoding="utf-8"))["base"]
    folder = out / "artifacts" / f"{base['stage']}-{base['fingerprint']}"
    assert json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["digest"] == base["digest"]
    return folder


def with_adapter(parent: Path, artifact: Artifact) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(load(parent), str(artifact.path / "adapter"))


@pytest.mark.parametrize(
    ("stage", "peft"),
    [
        ("cpt", "lora"), ("sft", "qlora"),
        *[long(stage, "lora") for stage in ("dpo", "kto", "grpo", "rloo")],
        *[long(stage, "qlora") for stage in ("dpo", "orpo", "kto", "grpo")],
    ],
)  # fmt: skip
def test_a_stage_hands_on_a_merged_model_and_an_adapter_that_fits_its_base(stage: str, peft: str, copy: Path) -> None:
    import torch

    words = {f"{stage}.peft": peft, f"{stage}.lora.r": "4", f"{stage}.train.learning_rate": "5e-3"}
    artifact = make(copy, stage, **words)
    metrics = artifact.manifest["metrics"]
    assert metrics["steps"] >= 1
    assert metrics["adapter_merge_difference"] < 1e-3
    assert ("quantized_logit_difference" in metrics) is (peft == "qlora")
    assert 0.0 < metrics.get("quantized_logit_difference", 0.1) < 1.0
    config = json.loads((artifact.path / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config
    parent = parent_of(copy, artifact)
    merged = contracts.probe_logits(load(artifact.path), PROBE)
    adapted = contracts.probe_logits(with_adapter(parent, artifact), PROBE)
    assert torch.allclose(adapted, merged, atol=1e-3)
    assert not torch.allclose(contracts.probe_logits(load(parent), PROBE), merged, atol=1e-3)  # it has learned
    for path in (artifact.path / "adapter").glob("*.json"):
        assert str(copy) not in path.read_text(encoding="utf-8")
    named = json.loads((artifact.path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == parent.name


@pytest.mark.long
@pytest.mark.parametrize("option", ["use_rslora", "use_dora"])
def test_variants_of_peft_train_quantised_too(option: str, copy: Path) -> None:
    artifact = make(copy, "sft", **{"sft.peft": "qlora", f"sft.lora.{option}": "true"})
    assert json.loads((artifact.path / "adapter" / "adapter_config.json").read_text())[option] is True
    assert artifact.manifest["metrics"]["adapter_merge_difference"] < 1e-3


def test_memory_savers_go_together(copy: Path) -> None:
    words = {"sft.peft": "qlora", "sft.train.gradient_checkpointing": "true", "sft.train.optim": "adamw_bnb_8bit"}
    metrics = make(copy, "sft", **words).manifest["metrics"]
    assert math.isfinite(metrics["final_loss"])


def test_the_adapter_of_a_quantised_base_learns_in_float32(copy: Path) -> None:
    import torch
    from safetensors.torch import load_file

    artifact = make(copy, "sft", **{"sft.peft": "qlora"})
    weights = load_file(artifact.path / "adapter" / "adapter_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert not all(torch.equal(w, w.bfloat16().float()) for w in weights.values())


@pytest.mark.parametrize("stage", ["dpo", long("kto")])
def test_the_reference_of_a_quantised_stage_is_the_unquantised_one(
    stage: str, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its precomputed log-probabilities are as far from a float32 recomputation as without any quantisation."""
    seen: list[float] = []
    check = contracts.check_reference

    def watched(recorded: Any, recomputed: Any) -> None:
        seen.append(max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(recorded, recomputed, strict=True)))
        check(recorded, recomputed)

    monkeypatch.setattr(contracts, "check_reference", watched)
    whole = make(copy, stage)
    quantised = make(copy, stage, **{f"{stage}.peft": "qlora"})
    assert whole.fingerprint != quantised.fingerprint
    assert seen[1] == pytest.approx(seen[0], rel=1e-6)


def test_modules_that_are_saved_whole_keep_tied_weights_tied(copy: Path) -> None:
    artifact = make(copy, "sft", **{"sft.peft": "lora", "sft.lora.modules_to_save": "[embed_tokens]"})
    contracts.check_tied(load(artifact.path))


def test_options_that_peft_refuses_are_told(copy: Path) -> None:
    with pytest.raises(ConfigError, match=r"sft\.lora: peft refuses these options"):
        make(copy, "sft", **{"sft.peft": "lora", "sft.lora.layers_pattern": "layers"})
    with pytest.raises(ConfigError, match=r"sft\.quantization: transformers refuses these options"):
        make(copy, "sft", **{"sft.peft": "qlora", "sft.quantization.bnb_4bit_compute_dtype": "float99"})


@pytest.mark.parametrize("tied", [True, long(False)])
@pytest.mark.parametrize("peft", ["lora", long("qlora")])
def test_rows_of_new_tokens_are_trained_and_saved(tied: bool, peft: str, copy: Path, tmp_path: Path) -> None:
    """`mainly` is in the questions that SFT asks; once a token of its own, only its row moves."""
    import torch

    if tied:
        words = {"model.path": str(next((copy / "artifacts").glob("base-*")))}
    else:
        words = {"model.architecture.tie_word_embeddings": "false"}
    words |= {"model.new_tokens": "[mainly]", "cpt.tokens": "1024", "sft.peft": peft}
    artifact = make(tmp_path / "own", "sft", "base", "cpt", **words)
    before, after = load(parent_of(tmp_path / "own", artifact)), load(artifact.path)
    tokenizer = checkpoint.load_tokenizer(artifact.path, ModelSettings(path=str(artifact.path)))
    row = tokenizer.convert_tokens_to_ids("mainly")
    assert row == len(tokenizer) - 1
    assert tokenizer("What is it mainly used for?").input_ids.count(row) == 1
    assert after.config.tie_word_embeddings is tied
    tables = [(before.get_input_embeddings(), after.get_input_embeddings())]
    tables.append((before.get_output_embeddings(), after.get_output_embeddings()))
    for old, new in tables:
        moved = (old.weight != new.weight).any(dim=1).nonzero().flatten().tolist()
        assert moved == [row]
    probe = [*PROBE, row]
    adapted = contracts.probe_logits(with_adapter(parent_of(tmp_path / "own", artifact), artifact), probe)
    assert torch.allclose(adapted, contracts.probe_logits(after, probe), atol=1e-3)


def test_the_best_weights_of_an_adapted_model_are_its_adapter(tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    from tests.models.test_contracts import build

    model = get_peft_model(build()[0], LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    before = contracts.probe_logits(model, PROBE[:5])
    adapters.save_weights(model, tmp_path / "best.safetensors")
    assert (tmp_path / "best.safetensors").stat().st_size < 100_000
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    assert not torch.equal(contracts.probe_logits(model, PROBE[:5]), before)
    adapters.load_weights(model, tmp_path / "best.safetensors")
    assert torch.equal(contracts.probe_logits(model, PROBE[:5]), before)


MIXED = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8,
    "num_key_value_heads": 2, "num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "vocab_size": 97,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


@pytest.mark.parametrize(("family", "left_out"), [("gpt_oss", True), ("granitemoe", True), ("mixtral", False)])
@pytest.mark.filterwarnings("ignore:The following .*_pattern keys did not match:RuntimeWarning")  # peft's own
def test_experts_that_an_adapter_leaves_out_are_named_and_learn_where_that_is_set(
    family: str, left_out: bool, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    def parent() -> Any:
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **MIXED)).eval()

    def adapted(**more: str) -> tuple[Any, str]:
        words = {"domain": "medical", "sft.peft": "lora", "sft.lora.r": "4", "sft.lora.init_lora_weights": "false"}
        config, said = resolve({**words, **more}, REPOSITORY).config, io.StringIO()
        context: Any = SimpleNamespace(
            stage="sft", settings=config.stages["sft"], config=config, console=Console(stream=said)
        )
        return get_peft_model(parent(), adapters.adapter_for(context, parent())), said.getvalue()

    model, said = adapted()
    setting = "sft.lora.target_parameters=[experts.down_proj,experts.gate_up_proj]"
    assert (setting in " ".join(said.split())) == left_out
    if left_out:
        model, said = adapted(**dict([setting.split("=")]))
        assert said == ""
    assert any("experts" in name for name, weight in model.named_parameters() if weight.requires_grad)
    logits_TV = contracts.probe_logits(model, PROBE)
    model.save_pretrained(tmp_path)
    merged = PeftModel.from_pretrained(parent(), str(tmp_path)).merge_and_unload()
    assert not torch.allclose(contracts.probe_logits(parent(), PROBE), logits_TV, atol=1e-3)
    assert torch.allclose(contracts.probe_logits(merged, PROBE), logits_TV, atol=1e-4)
