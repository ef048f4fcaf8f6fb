"""A model that has grown: the same logits, only what was added learns, and later stages know of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from common.config.resolve import Resolved, resolve
from common.console import Console
from common.cost.outlook import Outlook
from common.engine.frozen_plan import freeze
from common.engine.plan import make_plan
from common.engine.preflight.settings import check_settings
from common.engine.run import run_stage
from common.errors import ConfigError, ContractError
from common.models.growth.record import growth_of
from common.stages import expand
from common.store.artifacts import Artifact
from tests.conftest import QUICK, REPOSITORY, kill_training, long

pytestmark = pytest.mark.slow
WORDS = {key: value for key, value in QUICK.items() if not key.startswith("dpo.")}
WORDS |= {"domain": "medical", "pipeline": "growth", "cpt.tokens": "4096", "sft.tokens": "2048"}
CHECKPOINTED = {"cpt-added.train.gradient_checkpointing": "true"}


def growing(root: Path, **more: str) -> Resolved:
    return resolve(WORDS | {"out": str(root)} | more, REPOSITORY)


def weights_of(artifact: Artifact) -> dict[str, Any]:
    """Load a result as any program would, without code of ours."""
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(artifact.path)
    return dict(loaded.state_dict())


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    assert before.keys() == after.keys()
    return {name.split(".")[2] if ".layers." in name else name for name in before
            if not torch.equal(before[name], after[name])}  # fmt: skip


def test_only_added_layers_learn_and_then_all_do(copy: Path) -> None:
    resolved = growing(copy, **CHECKPOINTED)
    base, grown, cpt, sft = (
        run_stage(resolved, name, Console("quiet")) for name in ("base", "expand", "cpt-added", "sft-grown")
    )
    facts = grown.manifest["metrics"]["growth"]
    assert (facts["method"], facts["added"], facts["layers"]) == ("llama_pro", [2, 5], 6)
    assert facts["difference"] == 0.0
    before = weights_of(base)
    layer = sum(weight.numel() for name, weight in before.items() if ".layers.0." in name)
    assert facts["parameters"] - facts["parameters_before"] == 2 * layer
    assert changed(weights_of(grown), weights_of(cpt)) == {"2", "5"}
    assert len(changed(weights_of(cpt), weights_of(sft))) == 6 + 3  # layers, embedding, head, norm
    assert growth_of(sft.path) == growth_of(grown.path)
    outlook = Outlook.of(resolved)
    assert outlook.settings["cpt-added"].shape.parameters == facts["parameters"]
    assert outlook.settings["cpt"].shape.parameters == facts["parameters_before"]


def test_a_plan_knows_the_grown_size_and_what_learns(tmp_path: Path) -> None:
    resolved = growing(tmp_path)
    check_settings(resolved)
    settings = Outlook.of(resolved).settings
    work, shape = settings["cpt-added"].work, settings["cpt-added"].shape
    assert work is not None
    assert (shape.layers, settings["exam-sft-grown"].shape.layers, settings["sft"].shape.layers) == (6, 6, 4)
    assert work.learned(shape) == 2 * shape.layer_parameters
    assert work.passed(shape) == 4  # down to the third of six
    notes = make_plan(resolved).notes
    adept = Outlook.of(growing(tmp_path, **by("adept", added="2", probe_tokens="512")))
    assert adept.settings["expand"].probed == 512 * 5
    before = settings["sft"].shape.parameters
    assert any(note.startswith(f"expand: 4 -> 6 layers, {before:,} -> ") for note in notes)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"expand.added": "3"}, r"expand\.added=3: llama_pro parts the model's 4 layers"),
        ({"cpt.train_only": "added"}, r"cpt\.train_only=added: no stage before it expands the model; "
                                            r"layers are added by the methods llama_pro.*\. Put `expand: "),
        ({"cpt-added.peft": "lora"}, r"train_only=added and peft=lora exclude each other; set peft=full"),
        ({"cpt-added.train_only": "null", "cpt-added.train_also": "[embed_tokens]"}, r"train_also is set, but all"),
        ({"expand.hidden_size": "256"}, r"method llama_pro does not read `hidden_size`; remove it"),
        ({"expand.method": "adept", "expand.added": "9"}, r"expand\.added=9: the model has 4 layers, and adept copies"),
        ({"expand.added": "null"}, r"method llama_pro needs `added`; set it"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_in_a_plan(words: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(growing(tmp_path, **words))


@pytest.mark.parametrize("family", ["gemma2", "qwen3"])
def test_a_checkpoint_is_judged_by_its_facts(family: str, tmp_path: Path) -> None:
    facts = {
        "model_type": family, "parameters": 596_049_920, "vocab_size": 151_936, "hidden_size": 1024, "head_dim": 128,
        "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
        "tie_word_embeddings": True, "max_position_embeddings": 40_960, "licence": "mit", "chat_template": "own",
    }  # fmt: skip
    words = {"model.path": "owner/name", "model.revision": "0" * 40, "model.facts": json.dumps(facts)}
    resolved = growing(tmp_path, **words, **{"expand.added": "7"})
    if family == "gemma2":
        with pytest.raises(
            ConfigError, match=r"expand\.method=llama_pro: the stage before it is a model of type gemma2"
        ):
            check_settings(resolved)
        return
    check_settings(resolved)
    shape = Outlook.of(resolved).settings["cpt-added"].shape
    assert (shape.layers, shape.parameters) == (35, 596_049_920 + 7 * shape.layer_parameters)


def test_a_merge_across_growth_is_refused_in_a_plan(tmp_path: Path) -> None:
    words = WORDS | {"out": str(tmp_path)}
    resolved = resolve(words | {"pipeline": "full", "dpo.epochs": "0.1"}, REPOSITORY)
    grown = growing(tmp_path).pipeline.stages["expand"]
    stages = {**resolved.pipeline.stages, "expand": grown}
    nodes = [replace(node, parent="expand", inputs=("expand",)) if node.name == "cpt" else node
             for node in resolved.pipeline.model_copy(update={"stages": stages}).nodes()]  # fmt: skip
    settings = {**resolved.config.stages, "expand": growing(tmp_path).config.stages["expand"]}
    config = resolved.config.model_copy(update={"stages": settings})
    with pytest.raises(ConfigError, match=r"merge: dpo and base cannot be merged: their num_hidden_layers will be 6 "):
        check_settings(replace(resolved, config=config, nodes=tuple(nodes)))


def test_other_logits_than_promised_stop_the_stage(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from common.models.growth import growing as module
    from common.models.growth.layers import stacked

    def loud(weights: Any, sources: Any, silent: Any) -> Any:
        return stacked(weights, sources)

    monkeypatch.setattr(module, "stacked", loud)
    with pytest.raises(ContractError, match=r"The grown model computes other logits than the one before it \(differ"):
        run_stage(growing(copy), "expand", Console("quiet"))
    assert not list((copy / "artifacts").glob("expand-*"))
    assert expand.KIND.reshapes is not None


OTHERS = {
    "depth": {"num_hidden_layers": "6"},
    "width": {"intermediate_size": "512", "num_attention_heads": "8"},
    "upcycle": {"num_experts": "4"},
}


def by(method: str, **settings: str) -> dict[str, str]:
    given = {"method": method, **settings} | ({} if "added" in settings else {"added": "null"})
    return {f"expand.{key}": value for key, value in given.items()}


def test_adept_copies_what_replay_text_needs_least(copy: Path) -> None:
    resolved = growing(copy, **by("adept", added="2", probe_tokens="512"))
    for name in ("base", "expand"):
        run_stage(resolved, name, Console("quiet"))
    grown = run_stage(resolved, "expand", Console("quiet"))
    facts = grown.manifest["metrics"]
    importance, copied = facts["layer_importance"], facts["copied"]
    assert len(importance) == 4
    assert copied == sorted(sorted(range(4), key=importance.__getitem__)[:2])
    assert facts["growth"]["added"] == [place + number + 1 for number, place in enumerate(copied)]
    assert facts["growth"]["difference"] == 0.0
    assert any(name.startswith("replay/") or "replay" in name for name in grown.manifest["recipe"]["data"])
    plain = run_stage(growing(copy), "expand", Console("quiet"))
    assert "data" not in plain.manifest["recipe"]


@pytest.mark.parametrize("method", [long(method) for method in OTHERS])
def test_what_has_grown_otherwise_trains_whole(method: str, copy: Path) -> None:
    words = by(method, **OTHERS[method]) | {"cpt-added.train_only": "null", "cpt.tokens": "2048"}
    resolved = growing(copy, **words)
    for name in ("base", "expand", "cpt-added"):
        made = run_stage(resolved, name, Console("quiet"))
    grown = run_stage(resolved, "expand", Console("quiet"))
    facts = grown.manifest["metrics"]["growth"]
    assert (facts["preserving"], facts["added"]) == (method != "depth", [])
    assert (facts["difference"] <= 1e-5) is (method != "depth")
    assert len(changed(weights_of(grown), weights_of(made))) == facts["layers"] + 3
    assert Outlook.of(resolved).settings["cpt-added"].shape.parameters == facts["parameters"]
    with pytest.raises(ConfigError, match=rf"expand before it grows by {method}, which adds no layers of their own"):
        make_plan(growing(copy, **words | {"cpt-added.train_only": "added"}))


@pytest.mark.long
def test_a_killed_training_of_added_layers_goes_on_to_the_same_weights(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = growing(copy, **{"run.checkpoint_minutes": "0.00001", **CHECKPOINTED})
    for name in ("base", "expand", "cpt-added"):
        whole = run_stage(resolved, name, Console("quiet"))
    shutil.rmtree(whole.path)
    taken = kill_training(monkeypatch, at=5)
    with pytest.raises(KeyboardInterrupt):
        run_stage(resolved, "cpt-added", Console("quiet"))
    (state,) = (copy / "artifacts" / ".work").glob("cpt-added-*/trainer/checkpoint-4/optimizer.pt")
    saved = torch.load(state, weights_only=True)["state"]
    assert len(saved) == 2 * 9  # the matrices and norms of two layers
    assert run_stage(resolved, "cpt-added", Console("quiet")).digest == whole.digest
    assert len(taken) == 5 + 4


@pytest.mark.long
def test_two_processes_train_added_layers_as_one_does(copy: Path) -> None:
    resolved = growing(copy, precision="float32", **CHECKPOINTED)
    for name in ("base", "expand"):
        run_stage(resolved, name, Console("quiet"))
    grown, alone = (run_stage(resolved, name, Console("quiet")) for name in ("expand", "cpt-added"))
    shared = growing(copy, precision="float32", name="shared", **{"run.processes": "2", **CHECKPOINTED})
    freeze(shared)
    made = run_stage(shared, "cpt-added", Console("quiet"), forced=True)
    assert made.manifest["processes"] == 2
    assert changed(weights_of(grown), weights_of(made)) == {"2", "5"}
    pairs = zip(weights_of(alone).values(), weights_of(made).values(), strict=True)
    assert max(float((one - two).abs().max()) for one, two in pairs) < 1e-3
