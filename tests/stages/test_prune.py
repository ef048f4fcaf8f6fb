"""A stage of kind prune on the embedded medical domain: 2:4 in the file, kept by SFT, resumed and shared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from common.config.pruning import PruneSettings
from common.config.resolve import Resolved, resolve
from common.console import Console
from common.cost.outlook import Outlook
from common.engine.frozen_plan import freeze
from common.engine.plan import make_plan
from common.engine.preflight.settings import check_settings
from common.engine.run import run_stage
from common.errors import ConfigError
from common.models.sparsity.record import sparsity_of
from common.stages import prune
from common.stages.prune import check_modules, made_from
from common.training.fit import fit
from tests.conftest import QUICK, REPOSITORY, kill_training, own_pipeline
from tests.models.growth.small import small

pytestmark = pytest.mark.slow
WORDS = {key: value for key, value in QUICK.items() if not key.startswith("dpo.")}
WORDS |= {"domain": "medical", "pipeline": "sparse", "cpt.tokens": "4096", "sft.tokens": "2048", "run.threads": "1"}
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


DECAYING = {"sparse.methods.adams.decay": "1.0", "sparse.train.learning_rate": "2e-2"}  # within its 8 steps


def pruning(root: Path, **more: str) -> Resolved:
    return resolve(WORDS | {"out": str(root)} | more, REPOSITORY)


def made(resolved: Resolved, *names: str) -> list[Any]:
    return [run_stage(resolved, name, Console("quiet")) for name in names]


def most_of_four(path: Path) -> dict[str, int]:
    """Load a result as any program would; return the most weights of 4 that are not zero, by matrix."""
    from transformers import AutoModelForCausalLM, LlamaForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(path)
    assert type(loaded) is LlamaForCausalLM
    assert all(type(module).__module__.split(".")[0] in ("torch", "transformers") for module in loaded.modules())
    return {
        name: int((weight != 0).reshape(weight.shape[0], -1, 4).sum(-1).max())
        for name, weight in loaded.state_dict().items()
        if name.split(".")[-2] in MODULES
    }


def test_half_of_the_weights_are_zero_and_sft_keeps_them(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, sparse, sft = made(pruning(copy, **DECAYING), "base", "cpt", "sparse", "sft-sparse")
    for result in (sparse, sft):
        found = most_of_four(result.path)
        assert len(found) == 4 * 7
        assert set(found.values()) == {2}
    facts = sparse.manifest["metrics"]["sparsity"]
    assert facts["zeros"] * 2 == facts["weights"]
    assert sorted(facts["matrices"]) == sorted(most_of_four(sparse.path))
    learned = list[str]()

    def spied(context: Any, model: Any, *more: Any) -> Any:
        learned.extend(name for name, _ in model.named_parameters())
        return fit(context, model, *more)

    with monkeypatch.context() as patched:
        patched.setattr(prune, "fit", spied)
        off = {**DECAYING, "sparse.zeros": "cut", "sparse.methods.adams": "false"}
        del off["sparse.methods.adams.decay"]
        (plain,) = made(pruning(copy, **off), "sparse")
    assert not [name for name in learned if name.endswith(".scale")]
    assert set(most_of_four(plain.path).values()) == {2}
    assert facts["cut"] < plain.manifest["metrics"]["sparsity"]["cut"] / 4
    methods = sparse.manifest["metrics"]["methods"]
    assert methods["adams"]["paper"] == "arXiv 2509.25996"
    assert methods["self_distillation"]["settings"]["share"] == pytest.approx(1 / 3)
    assert sft.manifest["metrics"]["kept_zeros"] == facts["zeros"]
    assert sparsity_of(sft.path) == sparsity_of(sparse.path)
    first = json.loads((sparse.path / "log.jsonl").read_text(encoding="utf-8").splitlines()[0])
    expected = 2 / 3 * first["next_token_loss"] + 1 / 3 * first["self_distillation/kl"]
    assert first["loss"] == pytest.approx(expected, rel=1e-3)
    assert first["self_distillation/kl"] < 1e-3  # it begins as its teacher


def test_a_plan_knows_the_teacher_and_the_pattern(tmp_path: Path) -> None:
    resolved = pruning(tmp_path)
    outlook = Outlook.of(resolved)
    setting = outlook.settings["sparse"]
    assert (setting.teacher, setting.beside) == (True, 5.0)
    added = outlook.added("sparse", "adams")
    assert added is not None
    assert added[0] >= 5 * setting.shape.parameters
    plan = make_plan(resolved)
    states = {step.node.name: step.state for step in plan.steps}
    assert states["sparse"] == "waits"
    before = Outlook.of(pruning(tmp_path, **{"sparse.distillation": "0"})).settings["sparse"]
    assert not before.teacher


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"sft-sparse.methods.keep_zeros": "false"},
         r"sft-sparse \(sft\) would fill the zeros that sparse before it makes\. Set sft-sparse\.methods\.keep_zeros="),
        ({"sparse.modules": "[q_proj, c_attn]"}, r"sparse\.modules: c_attn is no linear layer of this model; it"),
        ({"sparse.peft": "lora"}, r"sparse.*peft is lora, and a merged adapter would fill the zeros; set peft=full"),
        ({"sparse.schedule.kind": "constant"}, r"sparse\.methods\.adams: the rate ends at 1 of its peak"),
        ({"sparse.methods.reptile": "{}"}, r"sparse\.methods: adams and reptile cannot be on together"),
        ({"sft.methods.keep_zeros": "{}"}, r"sft\.methods\.keep_zeros: no stage before it makes any"),
        ({"cpt.methods.adams": "{}"}, r"cpt\.methods\.adams: it is for stages of kind prune"),
        ({"sft-sparse.optimizer": "carry"}, r"sft-sparse\.optimizer=carry: sparse trains with AdamS, whose state"),
        ({"model.architecture.intermediate_size": "386"}, r"sparse: down_proj has 386 inputs, which is no multiple"),
        ({"run.processes": "2", "run.parallelism": "fsdp2", "sft-sparse.methods.keep_zeros": "false"},
         r"sparse with run\.parallelism=fsdp2: its optimizer draws the pattern over whole matrices"),
        ({"sparse.modules": "[qkv_proj]", "sparse.methods.adams.decay": "0"}, r"sparse\.methods\.adams\.decay"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_in_a_plan(words: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        check_settings(pruning(tmp_path, **words))


CHAIN = (
    "description: A chain.\nstages:\n  base: {kind: base}\n  expand: {kind: expand, from: base}\n"
    "  sft: {kind: sft, from: expand}\n  sparse: {kind: prune, from: sft, settings: cpt}\n"
    "  sft-sparse: {kind: sft, from: sparse}\n  blend: {kind: merge, from: sft, with: [sft-sparse]}\n"
    "exam: [base]\npublish: sft-sparse\n"
)


def own_chain(tmp_path: Path, chain: str = CHAIN) -> Resolved:
    more = {"pipeline": "own", "out": str(tmp_path), "sft-sparse.methods.keep_zeros": "{}"}
    if "kind: expand" in chain:
        more |= {"expand.method": "llama_pro", "expand.added": "1"}
    return resolve(WORDS | more, own_pipeline(tmp_path, chain))


def test_a_merge_with_a_model_that_was_trained_on_would_fill_the_zeros_too(tmp_path: Path) -> None:
    resolved = own_chain(tmp_path)
    with pytest.raises(ConfigError, match=r"blend \(merge\) would fill the zeros that sparse before it makes\. Put"):
        check_settings(resolved)
    assert [node.name for node in made_from(resolved.nodes, "sparse")] == ["sft-sparse", "blend"]


def test_files_of_the_base_say_nothing_of_a_model_that_was_changed_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise ConfigError("read")

    monkeypatch.setattr(prune, "known_folder", lambda model: tmp_path)
    monkeypatch.setattr(prune, "check_tensors", refused)
    grown = CHAIN.replace("  blend: {kind: merge, from: sft, with: [sft-sparse]}\n", "")
    as_it_was = grown.replace("  expand: {kind: expand, from: base}\n", "").replace("from: expand", "from: base")
    check_settings(own_chain(tmp_path / "grown", grown))
    with pytest.raises(ConfigError, match="read"):
        check_settings(own_chain(tmp_path / "same", as_it_was))


def test_layers_that_a_model_lacks_are_named_before_it_trains() -> None:
    settings = PruneSettings.model_validate({"tokens": 4096, "modules": ["q_proj", "c_attn"]})
    with pytest.raises(ConfigError, match=r"sparse\.modules: c_attn is no linear layer .* k_proj, o_proj, q_proj"):
        check_modules(small("llama", num_hidden_layers=1), settings, "sparse")


@pytest.mark.long
def test_a_killed_training_goes_on_to_the_same_weights(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = pruning(copy, **{"run.checkpoint_minutes": "0.00001", "sparse.methods.adams.every": "3"})
    *_, whole = made(resolved, "base", "cpt", "sparse")
    shutil.rmtree(whole.path)
    taken = kill_training(monkeypatch, at=5)
    with pytest.raises(KeyboardInterrupt):
        made(resolved, "sparse")
    (again,) = made(resolved, "sparse")
    assert again.digest == whole.digest
    assert len(taken) == 5 + 4  # of 8, from the checkpoint of step 4 on


@pytest.mark.long
def test_two_processes_prune_as_one_does(copy: Path) -> None:
    from safetensors.torch import load_file

    resolved = pruning(copy, precision="float32")
    *_, alone = made(resolved, "base", "cpt", "sparse")
    shared = pruning(copy, precision="float32", name="shared", **{"run.processes": "2"})
    freeze(shared)
    both = run_stage(shared, "sparse", Console("quiet"), forced=True)
    assert both.manifest["processes"] == 2
    assert set(most_of_four(both.path).values()) == {2}
    one, two = (load_file(result.path / "model.safetensors") for result in (alone, both))
    norm = [torch.linalg.vector_norm(torch.cat([w.flatten() for w in ws])) for ws in (
        one.values(), [one[name] - two[name] for name in one]
    )]  # fmt: skip
    assert float(norm[1] / norm[0]) < 0.05  # rounding may choose another of two nearly equal weights
