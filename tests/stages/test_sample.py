"""Answers of its own: they repeat, feed every kind of stage, and expert iteration survives a kill."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.config.resolve import resolve
from common.console import Console
from common.engine.plan import make_plan
from common.engine.run import execute, run_stage
from common.errors import ConfigError, DataError
from common.models import checkpoint
from common.stages import expert
from common.store.artifacts import Artifact
from common.training import sampling
from common.training.fit import fit
from tests.conftest import QUICK, REPOSITORY, long

pytestmark = pytest.mark.slow

# A barely trained model is right by chance alone, so that every answer which stops passes here.
SMALL = {
    "samples": "4", "answer_tokens": "16", "passing": "0", "limits.dropped": "0.5",
    "rewards.length": "{most: 1, slack: 15}",
}  # fmt: skip
EXPERT = {**SMALL, "rounds": "2", "heldout": "8", "prompts": "12", "tokens": "2048", "batch_tokens": "1024"}
GRPO = {"steps": "2", "prompts_per_step": "2", "samples": "4", "answer_tokens": "12", "watch.prompts": "8"}


def words(root: Path, pipeline: str, **sections: dict[str, str]) -> dict[str, str]:
    used = {"rlvr": ("base", "cpt", "sft"), "on-policy": ("base", "cpt", "sft", "dpo")}.get(
        pipeline, ("base", "cpt", "sft")
    )
    stages = ("base", "cpt", "sft", "dpo")
    quick = {k: v for k, v in QUICK.items() if k.partition(".")[0] not in stages or k.partition(".")[0] in used}
    given = {f"{stage}.{key}": value for stage, values in sections.items() for key, value in values.items()}
    return {"domain": "medical", "pipeline": pipeline, "out": str(root), **quick, **given}


def rlvr(root: Path, **more: str) -> dict[str, str]:
    return words(root, "rlvr", expert={**EXPERT, **more}, grpo={**GRPO, "hard": "1.0"})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.open(encoding="utf-8")]


def card_of(artifacts: dict[str, Artifact]) -> str:
    return (artifacts["card"].path / "README.md").read_text(encoding="utf-8")


def test_pairs_of_its_own_answers_train_dpo_to_a_card(copy: Path) -> None:
    told = words(copy, "on-policy", sample={**SMALL, "prompts": "40"}, dpo={"limits.dropped": "0.5"})
    artifacts = execute(resolve(told, REPOSITORY), Console("quiet")).artifacts
    facts = artifacts["sample"].manifest["metrics"]
    samples, pairs = (lines(artifacts["sample"].path / f"{name}.jsonl") for name in ("samples", "pairs"))
    assert (len(samples), facts["answers"], len(pairs)) == (40, 160, facts["pairs"])
    read = [row for row in artifacts["dpo"].manifest["rows"] if row["role"] == "preference"]
    assert [row["source"] for row in read] == ["embedded Medicines (sampled)"]
    assert read[0]["rows_in"] == len(pairs)
    card = card_of(artifacts)
    assert "For `sample`, `sft` answered 40 prompts 4 times each" in card
    assert "the higher odds" not in card
    summary = json.loads((artifacts["card"].path / "summary.json").read_text(encoding="utf-8"))
    assert [c["name"] for c in summary["checkpoints"]] == ["base", "cpt", "sft", "dpo"]  # `sample` is none


@pytest.mark.long
def test_expert_iteration_and_grpo_on_hard_prompts_to_a_card(copy: Path) -> None:
    artifacts = execute(resolve(rlvr(copy), REPOSITORY), Console("quiet")).artifacts
    facts = artifacts["expert"].manifest["metrics"]
    assert [told["round"] for told in facts["rounds"]] == [0, 1, 2]
    best = max(facts["rounds"], key=lambda told: (told["right"], told["round"]))
    assert facts["chosen"] == best["round"]
    rates = {json.dumps(r["prompt"]): r["pass_rate"] for r in lines(artifacts["expert"].path / "prompts.jsonl")}
    hard = sum(0 < rate <= 1 for rate in rates.values())
    assert len(rates) == 12
    assert artifacts["grpo"].manifest["metrics"]["prompts"] == hard - 8
    counts = artifacts["grpo"].manifest["rows"][0]["dropped"]
    assert counts.get("pass rate out of range", 0) == 12 - hard
    assert "`expert` trained on its own right answers" in card_of(artifacts)
    assert {record["round"] for record in lines(artifacts["expert"].path / "log.jsonl")} == {1, 2}


@pytest.mark.parametrize("restart", [long("true"), "false"])
def test_a_killed_run_ends_with_the_same_weights(restart: str, copy: Path, tmp_path: Path, monkeypatch: Any) -> None:
    shutil.copytree(copy, tmp_path / "other", symlinks=True)
    resolved = resolve(rlvr(copy, restart=restart), REPOSITORY)
    whole = run_stage(resolved, "expert", Console("quiet"))
    parent, _ = checkpoint.load(copy / "runs" / "medical" / "tiny" / "demonstration" / "sft", resolved.config.model)
    original = fit
    rounds: list[str] = []
    from_parent: list[bool] = []

    def killed(context: Any, model: Any, tokenizer: Any, rows: Any) -> Any:
        rounds.append(context.work.name)
        pairs = zip(model.parameters(), parent.parameters(), strict=True)
        from_parent.append(all(bool((now == then).all()) for now, then in pairs))
        if rounds == ["round-1", "round-2"]:
            raise KeyboardInterrupt
        return original(context, model, tokenizer, rows)

    monkeypatch.setattr("common.stages.expert.fit", killed)
    again = resolve(rlvr(tmp_path / "other", restart=restart), REPOSITORY)
    with pytest.raises(KeyboardInterrupt):
        run_stage(again, "expert", Console("quiet"))
    monkeypatch.setattr("common.training.sampling.draw", None)  # nothing is drawn a second time
    result = run_stage(again, "expert", Console("quiet"))
    assert rounds == ["round-1", "round-2", "round-2"]  # nor is a finished round trained again
    assert from_parent == [True, *[restart == "true"] * 2]
    assert result.digest == whole.digest
    # Of a round that is not handed on, too: a model that trains again in one process must do so in the same types.
    assert lines(result.path / "log.jsonl") == lines(whole.path / "log.jsonl")


@pytest.mark.long
def test_the_best_round_is_handed_on(copy: Path, monkeypatch: Any, capsys: Any) -> None:
    from safetensors.torch import load_file

    shares = iter([0.5, 0.9, 0.6])
    monkeypatch.setattr(
        expert.Iteration, "_measure", lambda self, model: {"right": next(shares), "n": 8, "low": 0.0, "high": 1.0}
    )
    kept: dict[int, dict[str, Any]] = {}
    save = expert.Iteration._save

    def saved(self: Any, model: Any, number: int) -> None:
        save(self, model, number)
        kept[number] = load_file(self.folder(number) / "model.safetensors")

    monkeypatch.setattr(expert.Iteration, "_save", saved)
    artifact = run_stage(resolve(rlvr(copy), REPOSITORY), "expert", Console("quiet"))
    assert artifact.manifest["metrics"]["chosen"] == 1
    weights = load_file(artifact.path / "model.safetensors")
    assert all(bool((weights[name] == kept[1][name]).all()) for name in weights.keys() & kept[1].keys())
    assert any(bool((weights[name] != kept[2][name]).any()) for name in weights.keys() & kept[1].keys())
    assert "fell after round 1; its weights are kept" in capsys.readouterr().out


def test_the_same_model_answers_alike_whatever_was_drawn_before(copy: Path, monkeypatch: Any) -> None:
    import torch

    seen: list[tuple[Any, ...]] = []
    original = sampling.draw

    def noted(*args: Any, **options: Any) -> Any:
        drawn = original(*args, **options)
        torch.rand(7)
        before = torch.random.get_rng_state()
        seen.append((drawn, original(*args, **options), original(*args, **{**options, "key": "other"})))
        assert bool((torch.random.get_rng_state() == before).all())  # training goes on as if nothing was drawn
        return drawn

    monkeypatch.setattr("common.stages.sample.draw", noted)
    told = words(copy, "on-policy", sample={**SMALL, "prompts": "6"})
    run_stage(resolve(told, REPOSITORY), "sample", Console("quiet"))
    first, second, other = seen[0]
    assert first == second
    assert first != other
    assert all(answer.num_tokens <= 16 for asked in first for answer in asked.answers)
    assert all(answer.stopped or answer.num_tokens == 16 for asked in first for answer in asked.answers)


CONSUMERS = {
    "description": "Rejection sampling, and GRPO on what is hard.",
    "stages": {
        "base": {"kind": "base"},
        "cpt": {"kind": "cpt", "from": "base"},
        "sft": {"kind": "sft", "from": "cpt"},
        "sample": {"kind": "sample", "from": "sft"},
        "best-of": {"kind": "sft", "from": "cpt", "with": ["sample"]},
        "grpo": {"kind": "grpo", "from": "best-of", "with": ["sample"]},
    },
    "exam": ["best-of"],
    "publish": "grpo",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """This repository with a pipeline more."""
    root = tmp_path / "repository"
    shutil.copytree(REPOSITORY / "pipelines", root / "pipelines")
    for name in ("common", "domains"):
        (root / name).symlink_to(REPOSITORY / name)
    (root / "pipelines" / "consumers.yaml").write_text(yaml.safe_dump(CONSUMERS, sort_keys=False), encoding="utf-8")
    return root


@pytest.mark.long
def test_right_answers_train_sft_and_prompts_train_grpo(copy: Path, repository: Path) -> None:
    told = words(copy, "consumers", sample={**SMALL, "prompts": "40"}, grpo={**GRPO, "hard": "1.0"})
    told |= {"best-of.limits.dropped": "0.5", "best-of.tokens": "2048"}
    run_stage(resolve(told, repository), "sample", Console("quiet"))
    learned = run_stage(resolve(told, repository), "best-of", Console("quiet"))
    sources = {row["source"]: row for row in learned.manifest["rows"] if row["role"] == "sft"}
    assert set(sources) == {"embedded Medicines (sampled)"}
    assert not any(key.startswith("sft/") for key in learned.manifest["recipe"]["data"])  # others' rows decide nothing
    tuned = run_stage(resolve(told, repository), "grpo", Console("quiet"))
    (count,) = tuned.manifest["rows"]
    assert count["rows_in"] == 40
    assert count["rows_out"] == tuned.manifest["metrics"]["prompts"] + 8


@pytest.mark.parametrize(
    ("pipeline", "option", "expected"),
    [
        ("grpo", {"grpo.hard": "0.5"}, "grpo.hard=0.5: no input of grpo tells pass rates. Let it continue"),
        ("rlvr", {"expert.replay": "1.0"}, "replay is 1, which leaves no room for the stage's own answers"),
        ("rlvr", {"expert.rewards.exakt": "{weight: 1}"}, "expert.rewards.exakt: there is no such reward"),
        ("on-policy", {"sample.samples": "1"}, "sample.samples"),
    ],
)  # fmt: skip
def test_mistakes_in_settings(pipeline: str, option: dict[str, str], expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(resolve({"domain": "medical", "pipeline": pipeline, "out": str(tmp_path), **option}, REPOSITORY))
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ({"passing": "9"}, r"none of 48 answers to 12 prompts is right \(a total of 9.0 or .* Raise expert.samples"),
        ({"heldout": "9999"}, r"usable prompts and keeps 9999 from training \(expert.heldout\). Add prompts"),
    ],
)  # fmt: skip
def test_nothing_to_learn_from(option: dict[str, str], expected: str, copy: Path) -> None:
    with pytest.raises(DataError, match=expected):
        run_stage(resolve(rlvr(copy, **option), REPOSITORY), "expert", Console("quiet"))


def test_answers_that_all_earn_alike_and_pass_nowhere(copy: Path) -> None:
    told = words(copy, "on-policy", sample={**SMALL, "prompts": "4", "passing": "9", "margin": "9"})
    expected = (
        r"16 answers to 4 prompts gave no pair \(.*\) and no right answer \(a total of 9.0 or more; .* lower .passing"
    )
    with pytest.raises(DataError, match=expected):
        run_stage(resolve(told, REPOSITORY), "sample", Console("quiet"))


@pytest.mark.long
def test_an_expert_with_an_adapter_hands_on_the_whole_model_and_the_adapter(copy: Path) -> None:
    more = {"rounds": "1", "peft": "lora", "lora.r": "2"}
    artifact = run_stage(resolve(rlvr(copy, **more), REPOSITORY), "expert", Console("quiet"))
    facts = artifact.manifest["metrics"]
    assert facts["rounds"][1]["adapter_merge_difference"] < 1e-3
    assert (artifact.path / "adapter").is_dir() == (facts["chosen"] == 1)


def test_an_adapter_on_top_of_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="restart is false with an adapter"):
        make_plan(resolve(rlvr(tmp_path, restart="false", peft="lora"), REPOSITORY))
