"""Copies beside frozen layers: they alone learn, the chain ends in a plain model, and what cannot work is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from common.config.resolve import Resolved, resolve
from common.console import Console
from common.cost.outlook import Outlook
from common.engine.frozen_plan import freeze
from common.engine.plan import make_plan
from common.engine.run import run_stage
from common.errors import ConfigError
from common.models import checkpoint
from common.models.growth.record import growth_of
from common.store.artifacts import Artifact
from tests.conftest import QUICK, REPOSITORY, kill_training, own_pipeline

pytestmark = pytest.mark.slow
WORDS = {key: value for key, value in QUICK.items() if not key.startswith("dpo.")}
WORDS |= {"domain": "medical", "pipeline": "control-llm", "cpt.tokens": "4096", "sft.tokens": "2048"}


def controlled(root: Path, **more: str) -> Resolved:
    return resolve(WORDS | {"out": str(root)} | more, REPOSITORY)


def made_by(resolved: Resolved, *stages: str) -> list[Artifact]:
    return [run_stage(resolved, name, Console("quiet")) for name in stages]


def weights_of(resolved: Resolved, artifact: Artifact) -> dict[str, Any]:
    return dict(checkpoint.load_model(artifact.path, resolved.config.model).state_dict())


def test_copies_alone_learn_and_the_chain_ends_in_a_plain_model(copy: Path) -> None:
    resolved = controlled(copy, **{"sft-copies.train.gradient_checkpointing": "true"})
    base, grown, cpt, sft, plain = made_by(resolved, "base", "expand", "cpt-copies", "sft-copies", "collapse")
    assert grown.manifest["metrics"]["growth"]["difference"] == 0.0
    for before, after in ((grown, cpt), (cpt, sft)):
        one, other = weights_of(resolved, before), weights_of(resolved, after)
        moved = {name for name in one if not torch.equal(one[name], other[name])}
        parts = {name.split(".")[3] for name in moved if ".layers." in name}
        assert parts == {"copy", "mixer", "factor", "mean_w"}
        assert all(".layers." in name for name in moved)
    assert growth_of(sft.path) == growth_of(grown.path)
    assert growth_of(plain.path) is None
    facts = plain.manifest["metrics"]["collapse"]
    assert facts["parameters"] == base.manifest["metrics"]["parameters"]
    assert all(0 < w < 1 and w != 0.5 for w in facts["mean_w"])
    loaded: Any = AutoModelForCausalLM.from_pretrained(plain.path)  # as any program would
    kept = dict(AutoModelForCausalLM.from_pretrained(base.path).state_dict())
    found = dict(loaded.state_dict())
    assert kept.keys() == found.keys()
    assert {name.split(".")[2] for name in kept if not torch.equal(kept[name], found[name])} == {"1", "3"}
    measured = sft.manifest["metrics"]["methods"]["control_divergence"]
    assert measured["settings"]["form"] == "mse"
    assert measured["measured"]["divergence"] > 0


def test_a_plan_knows_both_forward_passes_and_what_learns(tmp_path: Path) -> None:
    resolved = controlled(tmp_path)
    settings = Outlook.of(resolved).settings
    work, shape = settings["cpt-copies"].work, settings["cpt-copies"].shape
    assert work is not None
    assert (shape.layers, settings["exam-sft-copies"].shape.layers, settings["exam-collapse"].shape.layers) == (6, 6, 4)
    assert work.learned(shape) == 2 * shape.layer_parameters + shape.mixing_learned  # and what weighs them
    assert work.passed(shape) == 4  # the copies, the layer between them, and that beside the upper one
    notes = make_plan(resolved).notes
    assert any(note.startswith("collapse: 6 -> 4 layers, ") for note in notes)
    assert any(note.startswith("cpt-copies, control_divergence: ") for note in notes)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"cpt-copies.train_only": "null"}, r"cpt-copies\.train_only: the layers of expand are frozen .*peft=full\. A"),
        ({"cpt-copies.peft": "lora"}, r"train_only=added and peft=lora exclude each other; set peft=full"),
        ({"expand.method": "llama_pro", "expand.added": "2"}, r"collapse: no layer of the stage before"),
        ({"expand.added": "3"}, r"expand\.added=3: control_llm parts the model's 4 layers into blocks of one size"),
        ({"expand.num_experts": "4"}, r"method control_llm does not read `num_experts`; remove it"),
        ({"run.compile": "layers"}, r"cpt-copies: run\.compile=layers needs layers that are alike"),
        ({"run.parallelism": "fsdp2", "run.processes": "2", "run.hardware": "h100-sxm"},
         r"cpt-copies: run\.parallelism=fsdp2 shards plain layers, .*Use run\.parallelism=ddp\."),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_in_a_plan(words: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(controlled(tmp_path, **words))


CHAIN = {"base": "{kind: base}", "expand": "{kind: expand, from: base}", "cpt": "{kind: cpt, from: expand}"}


@pytest.mark.parametrize(
    ("later", "message"),
    [
        ({}, r"publish: the layers of cpt have copies beside them \(control_llm\), which no other program loads\. "
             r"Add a stage of kind collapse behind it, and let `publish` name that one\."),
        ({"dpo": "{kind: dpo, from: cpt}"}, r"dpo: a stage of kind dpo cannot go on from cpt, whose layers have cop"),
        ({"merge": "{kind: merge, from: cpt, with: [base]}"}, r"merge: a stage of kind merge cannot go on from cpt"),
        ({"again": "{kind: expand, from: cpt}"}, r"again: the layers of the stage before it have copies beside them"),
        ({"collapse": "{kind: collapse, from: cpt}", "later": "{kind: cpt, from: collapse, settings: cpt}"},
         r"later\.train_only=added: no stage before it expands the model"),
        ({"collapse": "{kind: collapse, from: cpt}", "twice": "{kind: collapse, from: collapse}"},
         r"twice: no layer of the stage before it has a copy beside it"),
    ],
)  # fmt: skip
def test_a_chain_is_collapsed_before_anything_else(later: dict[str, str], message: str, tmp_path: Path) -> None:
    lines = [f"  {name}: {spec}" for name, spec in {**CHAIN, **later}.items()]
    last = list({**CHAIN, **later})[-1]
    settings = "settings: {expand: {method: control_llm, added: 2}, cpt: {train_only: added}}"
    text = "\n".join(["description: A chain.", "stages:", *lines, "exam: [base]", f"publish: {last}", settings])
    root = own_pipeline(tmp_path, f"{text}\n")
    more = {"again.method": "llama_pro", "again.added": "1"} if "again" in later else {}
    with pytest.raises(ConfigError, match=message):
        make_plan(resolve({"domain": "medical", "pipeline": "own", "out": str(tmp_path)} | more, root))


@pytest.mark.long
def test_a_killed_training_of_copies_goes_on_to_the_same_weights_and_the_same_mean(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = controlled(copy, **{"run.checkpoint_minutes": "0.00001"})
    whole = made_by(resolved, "base", "expand", "cpt-copies")[-1]
    shutil.rmtree(whole.path)
    taken = kill_training(monkeypatch, at=5)
    with pytest.raises(KeyboardInterrupt):
        run_stage(resolved, "cpt-copies", Console("quiet"))
    assert run_stage(resolved, "cpt-copies", Console("quiet")).digest == whole.digest
    assert len(taken) == 5 + 4


@pytest.mark.long
@pytest.mark.parametrize("how", ["dlerp", "slerp"])
def test_two_processes_train_copies_as_one_does(how: str, copy: Path) -> None:
    words = {"precision": "float32", "expand.interpolation": how}
    resolved = controlled(copy, **words)
    alone = made_by(resolved, "base", "expand", "cpt-copies")[-1]
    shared = controlled(copy, name="shared", **words, **{"run.processes": "2"})
    freeze(shared)
    made = run_stage(shared, "cpt-copies", Console("quiet"), forced=True)
    assert made.manifest["processes"] == 2
    one, two = weights_of(resolved, alone), weights_of(shared, made)
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-3
    means = [json.dumps([round(float(w), 4) for name, w in found.items() if name.endswith("mean_w")])
             for found in (one, two)]  # fmt: skip
    assert means[0] == means[1] != "[0.5, 0.5]"
