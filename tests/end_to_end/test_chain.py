"""The whole chain on tiny budgets: what it leaves, what it reuses, what a change remakes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from common.config.resolve import resolve
from common.console import Console
from common.engine.frozen_plan import thaw
from common.engine.plan import Plan, make_plan
from common.engine.run import execute, run_stage
from common.errors import ConfigError, ContractError, DataError, GateError
from common.report.record import Summary
from tests.bench.gpu_parts import read_chain
from tests.conftest import QUICK, REPOSITORY, linked

pytestmark = pytest.mark.slow

NAMES = ["base", "sft-only", "cpt", "sft", "dpo", "merge"]


def planned(root: Path, **words: str) -> Plan:
    return make_plan(resolve({"domain": "medical", "out": str(root), **QUICK, **words}, REPOSITORY))


def states(plan: Plan) -> dict[str, str]:
    return {step.node.name: step.state for step in plan.steps}


def test_summary_follows_its_schema_in_pipeline_order(finished: Path) -> None:
    text = (finished / "runs" / "medical" / "tiny" / "demonstration" / "summary.json").read_text(encoding="utf-8")
    summary = Summary.model_validate_json(text)
    assert [point.name for point in summary.checkpoints] == NAMES
    assert [point.parent for point in summary.checkpoints] == [None, "base", "base", "cpt", "sft", "dpo"]
    raw = json.loads(text)
    assert set(raw) == {"domain", "profile", "pipeline", "published", "choice", "total_seconds", "checkpoints"}
    assert set(raw["checkpoints"][0]) == {
        "name", "stage", "fingerprint", "parent", "exam", "bits_per_byte", "tokens", "seconds", "tokens_per_second",
    }  # fmt: skip
    assert raw["checkpoints"][0]["exam"]["domain"]["n"] == 40


def test_the_run_on_a_gpu_reads_what_the_chain_left(finished: Path, tmp_path: Path) -> None:
    figures = {figure.what: figure.found for figure in read_chain(finished)}
    assert figures.pop("checkpoints with an exam") == len(NAMES)
    assert list(figures) == [f"last loss of {name}" for name in ("base", "cpt", "sft", "dpo")]
    assert all(loss > 0 for loss in figures.values())
    with pytest.raises(ValueError, match="not enough values"):
        read_chain(tmp_path)


def test_artifacts_hold_no_pickle_and_manifests_no_path(finished: Path) -> None:
    files = [p for p in (finished / "artifacts").rglob("*") if p.is_file() and ".locks" not in p.parts]
    assert not [p for p in files if p.suffix in {".bin", ".pt", ".pth", ".pkl"}]
    for path in files:
        if path.suffix in {".json", ".md", ".jsonl", ".yaml"}:
            text = path.read_text(encoding="utf-8")
            assert str(finished) not in text, path
            assert os.path.expanduser("~") + "/" not in text, path


def test_a_second_run_makes_nothing(finished: Path) -> None:
    resolved = resolve({"domain": "medical", "out": str(finished), **QUICK}, REPOSITORY)
    assert execute(resolved, Console("quiet")).made == []


@pytest.mark.parametrize(
    "words",
    [
        {"run.device": "cpu"},
        {"run.workers": "2"},
        {"run.verbosity": "verbose"},
        {"run.threads": "1"},
        {"run.micro_batch_tokens": "1024"},
    ],
)
def test_where_it_runs_changes_nothing(finished: Path, words: dict[str, str]) -> None:
    assert set(states(planned(finished, **words)).values()) == {"cached"}


def test_a_changed_key_is_named_with_old_and_new_value(finished: Path) -> None:
    plan = planned(finished, **{"sft.train.learning_rate": "0.0003"})
    found = states(plan)
    assert found["sft"] == "stale"
    assert found["base"] == found["cpt"] == found["sft-only"] == "cached" or found["sft-only"] == "stale"
    step = next(step for step in plan.steps if step.node.name == "sft")
    assert "sft.train.learning_rate: 0.0005 -> 0.0003 (command line)" in step.reasons
    assert found["dpo"] == "waits"


def test_changed_data_is_named(finished: Path) -> None:
    steps = {s.node.name: s for s in planned(finished, **{"embedded.documents_per_entity": "5"}).steps}
    assert any("documents_per_entity: 4 -> 5" in reason for reason in steps["cpt"].reasons)
    assert steps["base"].state == steps["sft-only"].state == "cached"


def test_an_equal_result_does_not_remake_what_follows(copy: Path) -> None:
    resolved = resolve({"domain": "medical", "out": str(copy), **QUICK}, REPOSITORY)
    outcome = execute(resolved, Console("quiet"), frozenset({"sft"}))
    assert outcome.made == outcome.equal == ["sft"]


def test_a_different_result_remakes_what_follows_and_going_back_is_instant(copy: Path) -> None:
    words = {"domain": "medical", "out": str(copy), **QUICK}
    outcome = execute(resolve({**words, "dpo.train.beta": "0.3"}, REPOSITORY), Console("quiet"))
    assert outcome.made == ["dpo", "exam-dpo", "merge", "exam-merge", "card", "publish"]
    assert execute(resolve(words, REPOSITORY), Console("quiet")).made == []


def test_changed_code_is_reported(copy: Path) -> None:
    manifest = (copy / "runs" / "medical" / "tiny" / "demonstration" / "cpt" / "manifest.json").resolve()
    content = json.loads(manifest.read_text(encoding="utf-8"))
    content["code"]["files"]["common/stages/cpt.py"] = "0" * 16
    manifest.write_text(json.dumps(content), encoding="utf-8")
    step = next(step for step in planned(copy).steps if step.node.name == "cpt")
    assert step.state == "cached"
    assert "made by older code (common/stages/cpt.py changed)" in step.reasons[0]


def test_a_damaged_artifact_is_made_again(copy: Path) -> None:
    resolved = resolve({"domain": "medical", "out": str(copy), **QUICK}, REPOSITORY)
    link = copy / "runs" / "medical" / "tiny" / "demonstration" / "merge" / "model.safetensors"
    digest = linked(copy, "merge")
    link.resolve().write_bytes(b"short")
    step = next(step for step in make_plan(resolved).steps if step.node.name == "merge")
    assert (step.state, step.reasons[0].split(":")[0]) == ("missing", "damaged")
    outcome = execute(resolved, Console("quiet"))
    assert "merge" in outcome.made
    assert digest is not None
    assert outcome.artifacts["merge"].digest == digest.digest


def test_a_published_version_that_is_gone_comes_back(copy: Path) -> None:
    shutil.rmtree(copy / "models")
    assert states(planned(copy))["publish"] == "missing"
    execute(resolve({"domain": "medical", "out": str(copy), **QUICK}, REPOSITORY), Console("quiet"))
    assert (copy / "models" / "medical" / "latest" / "README.md").is_file()


def test_a_stage_runs_alone_from_a_frozen_plan(copy: Path) -> None:
    plan = copy / "runs" / "medical" / "tiny" / "demonstration" / "plan.json"
    before = linked(copy, "sft")
    assert before is not None
    shutil.rmtree(before.path)
    resolved = thaw(plan, {}, REPOSITORY)
    again = run_stage(resolved, "sft", Console("quiet"))
    assert again.digest == before.digest
    assert run_stage(resolved, "sft", Console("quiet")).manifest["created"] == again.manifest["created"]
    shutil.rmtree(again.path)
    with pytest.raises(DataError, match="Stage dpo needs sft, which is not made yet"):
        run_stage(resolved, "dpo", Console("quiet"))


def test_a_frozen_plan_cannot_be_changed(finished: Path) -> None:
    plan = finished / "runs" / "medical" / "tiny" / "demonstration" / "plan.json"
    with pytest.raises(ConfigError, match=r"sft\.tokens: a frozen plan takes run\.\* and out only"):
        thaw(plan, {"sft.tokens": "5"}, REPOSITORY)
    with pytest.raises(ConfigError, match="not valid JSON"):
        thaw(Path(__file__), {}, REPOSITORY)


def test_the_gate_stops_a_chain_that_forgets(copy: Path) -> None:
    words = {"domain": "medical", "out": str(copy), **QUICK, "gate.mode": "stop", "gate.min_domain_gain": "1.0"}
    with pytest.raises(GateError, match=r"The gate stops the chain: cpt: domain .* Set gate\.mode=warn"):
        execute(resolve(words, REPOSITORY), Console("quiet"))


def test_lora_hands_on_a_merged_model_and_its_adapter(copy: Path) -> None:
    words = {
        "domain": "medical",
        "out": str(copy),
        **QUICK,
        "sft.peft": "lora",
        "sft.lora": "{r: 4, target_modules: [q_proj, v_proj]}",
    }
    execute(resolve(words, REPOSITORY), Console("quiet"))
    folder = copy / "runs" / "medical" / "tiny" / "demonstration" / "sft"
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert json.loads((folder / "manifest.json").read_text())["metrics"]["adapter_merge_difference"] < 1e-3


def test_a_broken_row_stops_a_run_before_anything_is_spent(tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_text('{"text": "one"}\n{"text": \n', encoding="utf-8")
    chat = [{"question": f"what is {i}?", "answer": str(i)} for i in range(9)]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chat), encoding="utf-8")
    source = "  - {{id: {0}, role: {0}, path: {1}.jsonl, columns: {2}, licence: mit}}\n"
    manifest = tmp_path / "data.yaml"
    manifest.write_text(
        "title: Broken\nsources:\n"
        + source.format("pretrain", "text", "{text: text}").replace("path: text", "path: good")
        + source.format("cpt", "text", "{text: text}")
        + source.format("sft", "chat", "{question: question, answer: answer}"),
        encoding="utf-8",
    )
    (tmp_path / "good.jsonl").write_text('{"text": "a good text"}\n' * 3, encoding="utf-8")
    words = {"domain": "medical", "out": str(tmp_path / "store"), "data": str(manifest), "pipeline": "full", **QUICK}
    pairs = [{"prompt": "a", "chosen": f"b{i}", "rejected": "c"} for i in range(4)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs), encoding="utf-8")
    columns = "{prompt: prompt, chosen: chosen, rejected: rejected}"
    with manifest.open("a", encoding="utf-8") as stream:
        stream.write(source.format("preference", "pairs", columns))
    with pytest.raises(DataError, match=r"text\.jsonl, line 2"):
        execute(resolve(words, REPOSITORY), Console("quiet"))
    assert not (tmp_path / "store" / "artifacts").exists()


def test_a_local_checkpoint_takes_the_place_of_the_tiny_base(finished: Path, tmp_path: Path) -> None:
    base = finished / "runs" / "medical" / "tiny" / "demonstration" / "base"
    words = {"domain": "medical", "out": str(tmp_path / "a"), **QUICK, "pipeline": "full", "model.path": str(base)}
    outcome = execute(resolve(words, REPOSITORY), Console("quiet"))
    made = outcome.artifacts["base"].manifest["files"]["model.safetensors"]["sha256"]
    before = linked(finished, "base")
    assert before is not None
    assert made == before.manifest["files"]["model.safetensors"]["sha256"]
    card = (outcome.artifacts["card"].path / "README.md").read_text(encoding="utf-8")
    assert f"It starts from the checkpoint in the local folder `{base.name}`." in card
    assert "license: unknown" in card  # a stage's folder has no README.md that states one
    assert str(finished) not in json.dumps(outcome.artifacts["base"].manifest)
    moved = tmp_path / "moved"
    shutil.copytree(base, moved)
    plan = make_plan(resolve({**words, "model.path": str(moved)}, REPOSITORY))
    assert set(states(plan).values()) == {"cached"}


def test_a_checkpoint_that_cannot_learn_to_stop_or_is_cut_short_is_refused(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(finished / "runs" / "medical" / "tiny" / "demonstration" / "base", folder)
    words = {"domain": "medical", "out": str(tmp_path / "a"), **QUICK, "model.path": str(folder)}
    template = folder / "chat_template.jinja"
    text = template.read_text(encoding="utf-8")
    template.write_text(text.replace("<|end|>{% endgeneration %}", "{% endgeneration %}"), encoding="utf-8")
    with pytest.raises(ContractError, match="no token of its own behind an assistant's turn"):
        execute(resolve(words, REPOSITORY), Console("quiet"))
    template.write_text(text, encoding="utf-8")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"model\.safetensors is cut short"):
        execute(resolve(words, REPOSITORY), Console("quiet"))
    assert not list((tmp_path / "a" / "artifacts").glob("base-*"))


@pytest.mark.long
def test_trl_packing_takes_trl_options(copy: Path) -> None:
    words = {"domain": "medical", "out": str(copy), **QUICK, "cpt.packing": "trl",
             "cpt.train.packing": "true", "cpt.train.packing_strategy": "wrapped", "sft.packing": "trl"}  # fmt: skip
    outcome = execute(resolve(words, REPOSITORY), Console("quiet"))
    assert {"cpt", "sft"} <= set(outcome.made)
