"""The reward model: trained from pairs, measured on kept ones, and praise for RLOO; the wrong ones are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from common.config.resolve import resolve
from common.config.schema import ModelSettings
from common.console import Console
from common.engine.plan import make_plan
from common.engine.run import execute, run_stage
from common.errors import ConfigError, DataError, RecipeError
from common.models import checkpoint
from common.rewards.reward_model import load_scorer
from common.rewards.verifiers import Answer
from common.store.artifacts import Artifact
from tests.conftest import QUICK, REPOSITORY, long

pytestmark = pytest.mark.slow

SMALL = {
    "reward.epochs": "0.2", "embedded.preference_repeats": "1", "rlhf.steps": "2", "rlhf.prompts_per_step": "2",
    "rlhf.samples": "4", "rlhf.answer_tokens": "12", "rlhf.watch.prompts": "8", "rlhf.watch.every": "1",
}  # fmt: skip


def words(root: Path, **more: str) -> dict[str, str]:
    quick = {key: value for key, value in QUICK.items() if not key.startswith("dpo.")}
    return {"domain": "medical", "pipeline": "rlhf", "out": str(root), **quick, **SMALL, **more}


@pytest.fixture(scope="module")
def trained(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a reward model in it; tests must not change it."""
    root = tmp_path_factory.mktemp("reward") / "store"
    shutil.copytree(finished, root, symlinks=True)
    run_stage(resolve(words(root), REPOSITORY), "reward", Console("quiet"))
    return root


def reward_of(root: Path) -> Artifact:
    folder = root / "runs" / "medical" / "tiny" / "rlhf" / "reward"
    return Artifact(folder.resolve(), json.loads((folder / "manifest.json").read_text(encoding="utf-8")))


def test_its_pipeline_runs_to_a_card(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "store", symlinks=True)
    outcome = execute(resolve(words(tmp_path / "store"), REPOSITORY), Console("quiet"))
    assert "reward" not in outcome.made  # it is there already
    metrics = outcome.artifacts["rlhf"].manifest["metrics"]
    assert metrics["heldout_reward"]["n"] == 8
    card = outcome.artifacts["card"].path
    text = (card / "README.md").read_text(encoding="utf-8")
    assert "| `reward`" in text
    assert "kept from training" in text
    assert "mean reward of greedy answers went from" in text
    assert (card / "rewards.png").stat().st_size > 10_000
    summary = json.loads((card / "summary.json").read_text(encoding="utf-8"))
    assert [point["name"] for point in summary["checkpoints"]] == ["base", "cpt", "sft", "rlhf"]


def test_kept_prompts_never_train(trained: Path) -> None:
    manifest = reward_of(trained).manifest
    metrics = manifest["metrics"]
    (rows,) = [row for row in manifest["rows"] if row["role"] == "preference"]
    assert metrics["pairs"] + metrics["ranking_accuracy"]["n"] == rows["rows_out"]
    assert 0.05 < metrics["ranking_accuracy"]["n"] / rows["rows_out"] < 0.15
    assert metrics["elsewhere"]["ranking_accuracy"]["n"] > 100


def answers(texts: Sequence[str]) -> list[Answer]:
    prompt = [{"role": "user", "content": "What is Warfarin mainly used for?"}]
    return [Answer(text, {}, prompt=prompt) for text in texts]


def test_a_judge_scores_in_units_of_its_spread_whatever_shares_a_batch(trained: Path) -> None:
    settings = ModelSettings(architecture={"hidden_size": 8})
    score = load_scorer(reward_of(trained), settings, "cpu")
    texts = ["Preventing blood clots.", "I do not know.", "Yes. " * 30]
    together = score(answers(texts))
    alone = [score(answers([text]))[0] for text in texts]
    assert together == pytest.approx(alone, abs=1e-4)
    assert all(abs(number) < 10 for number in together)
    bounded = load_scorer(reward_of(trained), settings, "cpu", bounded=True)(answers(texts))
    assert all(0 < number < 1 for number in bounded)
    assert sorted(range(3), key=bounded.__getitem__) == sorted(range(3), key=together.__getitem__)


def test_a_finished_reward_model_is_taken(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "store", symlinks=True)
    more = {"reward.path": str(reward_of(trained).path)}
    taken = run_stage(resolve(words(tmp_path / "store", **more), REPOSITORY), "reward", Console("quiet"))
    ours, theirs = taken.manifest["metrics"], reward_of(trained).manifest["metrics"]
    assert (ours["steps"], ours["pairs"]) == (0, 0)
    assert ours["ranking_accuracy"] == theirs["ranking_accuracy"]


@pytest.mark.parametrize("kind", ["lora", long("qlora")])
def test_an_adapter_and_its_new_head_are_merged(kind: str, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "store", symlinks=True)
    more = {"reward.peft": kind, "reward.lora.r": "2", "reward.epochs": "0.1"}
    artifact = run_stage(resolve(words(tmp_path / "store", **more), REPOSITORY), "reward", Console("quiet"))
    metrics = artifact.manifest["metrics"]
    assert metrics["adapter_merge_difference"] < 1e-3
    assert ("quantized_logit_difference" in metrics) == (kind == "qlora")
    assert (artifact.path / "adapter" / "base.json").is_file()
    assert metrics["ranking_accuracy"]["n"] == reward_of(trained).manifest["metrics"]["ranking_accuracy"]["n"]


def retokenised(trained: Path, folder: Path) -> Path:
    """Copy the reward model and give one word of its vocabulary another number."""
    shutil.copytree(reward_of(trained).path, folder)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    first, second = sorted(vocabulary)[:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder


def test_one_with_another_tokenizer_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "store", symlinks=True)
    more = {"reward.path": str(retokenised(trained, tmp_path / "other"))}
    with pytest.raises(ConfigError, match=r"reward\.path: The reward model .* has another tokenizer"):
        run_stage(resolve(words(tmp_path / "store", **more), REPOSITORY), "reward", Console("quiet"))


def test_one_with_another_chat_template_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "store", symlinks=True)
    shutil.copytree(reward_of(trained).path, tmp_path / "other")
    template = tmp_path / "other" / "chat_template.jinja"
    template.write_text("Please judge: " + template.read_text(encoding="utf-8"), encoding="utf-8")
    more = {"reward.path": str(tmp_path / "other")}
    with pytest.raises(ConfigError, match=r"reward\.path: the reward model has another chat template"):
        run_stage(resolve(words(tmp_path / "store", **more), REPOSITORY), "reward", Console("quiet"))


def test_the_padding_of_a_given_one_does_not_matter(trained: Path, tmp_path: Path) -> None:
    """Many reward models pad with their stop token; the place of the last word is told by the chain's padding here."""
    shutil.copytree(trained, tmp_path / "store", symlinks=True)
    shutil.copytree(reward_of(trained).path, tmp_path / "other")
    path = tmp_path / "other" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "pad_token_id": config["eos_token_id"]}), encoding="utf-8")
    resolved = resolve(words(tmp_path / "store", **{"reward.path": str(tmp_path / "other")}), REPOSITORY)
    taken = run_stage(resolved, "reward", Console("quiet")).manifest
    assert taken["metrics"]["reward_mean"] == reward_of(trained).manifest["metrics"]["reward_mean"]
    assert str(tmp_path) not in json.dumps(taken)  # where it lay is nobody's business

    shutil.move(tmp_path / "other", tmp_path / "moved")
    moved = resolve(words(tmp_path / "store", **{"reward.path": str(tmp_path / "moved")}), REPOSITORY)
    assert run_stage(moved, "reward", Console("quiet")).fingerprint == taken["fingerprint"]
    shutil.copy(
        trained / "runs" / "medical" / "tiny" / "rlhf" / "reward" / "config.json", tmp_path / "moved" / "config.json"
    )
    (step,) = [step for step in make_plan(moved).steps if step.node.name == "reward"]
    assert step.state == "stale"  # other content, although it lies in the same place


def test_a_language_model_is_no_reward_model(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "store", symlinks=True)
    more = {"reward.path": str(trained / "runs" / "medical" / "tiny" / "demonstration" / "sft")}
    with pytest.raises(DataError, match=r"is no reward model: config\.json names LlamaForCausalLM"):
        run_stage(resolve(words(tmp_path / "store", **more), REPOSITORY), "reward", Console("quiet"))


def test_a_classifier_of_several_classes_is_none(trained: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForSequenceClassification(LlamaConfig(vocab_size=32, num_labels=3, **small))
    model.save_pretrained(tmp_path / "three")
    with pytest.raises(DataError, match="has 3 labels; expected one number"):
        checkpoint.load_reward_model(tmp_path / "three", ModelSettings(architecture={"hidden_size": 8}))


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ({"rlhf.rewards.quality.model": "rewrd"}, "rlhf.rewards.quality.model is 'rewrd'; expected a reward stage"),
        ({"rlhf.rewards.quality.after": "x"}, "rlhf.rewards.quality.after (command line): unknown key."),
        ({"rlhf.train.use_vllm": "true"}, "rlhf.train.use_vllm=true, but vllm is not installed here"),
        ({"reward.path": "owner/name"}, "reward.path=owner/name needs reward.revision=<commit>"),
        ({"reward.path": "./nowhere"}, "reward.path=./nowhere: no such folder"),
        ({"reward.train.betta": "1"}, "RewardConfig of TRL has no option 'betta'"),
        ({"reward.train.max_steps": "1"}, "and reward.epochs=0.2 (command line) contradict each other"),
    ],
)
def test_mistakes_in_settings(option: dict[str, str], expected: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        make_plan(resolve(words(tmp_path, **option), REPOSITORY))
    assert expected in str(caught.value)


def test_no_pair_would_be_kept(copy: Path) -> None:
    with pytest.raises(DataError, match=r"of which 0 would be kept from training \(reward.heldout=0.0\)"):
        run_stage(resolve(words(copy, **{"reward.heldout": "0"}), REPOSITORY), "reward", Console("quiet"))


@pytest.mark.parametrize("edge", ["stages: {sft: {from: reward}}", "exam: [base, reward]", "publish: reward"])
def test_it_is_no_language_model(edge: str, tmp_path: Path) -> None:
    import yaml

    from common.config.pipeline import load_pipeline

    raw = yaml.safe_load((REPOSITORY / "pipelines" / "rlhf.yaml").read_text(encoding="utf-8"))
    changed = yaml.safe_load(edge)
    if "stages" in changed:
        raw["stages"]["more"] = {"kind": "sft", "from": "reward"}
    else:
        raw |= changed
    (tmp_path / "odd.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    with pytest.raises(ConfigError, match="makes no language model"):
        load_pipeline(tmp_path, "odd")


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ({"kind": "cpt", "from": "base", "with": ["sft"]}, "'with: sft' is a sft stage; one of kind cpt"),
        (
            {"kind": "dpo", "from": "sft", "with": ["reward"]},
            "'with: reward' is a reward stage; one of kind",
        ),
        ({"kind": "merge", "from": "sft", "with": ["reward"]}, "one of kind merge reads language models there"),
        ({"kind": "dpo", "from": "sft", "with": ["a", "b"]}, "two sample stages in 'with'; the stage reads one"),
    ],
)
def test_a_stage_reads_what_its_kind_can_read(stage: dict[str, object], expected: str, tmp_path: Path) -> None:
    import yaml

    from common.config.pipeline import load_pipeline

    raw = yaml.safe_load((REPOSITORY / "pipelines" / "rlhf.yaml").read_text(encoding="utf-8"))
    raw["stages"] |= {name: {"kind": "sample", "from": "sft"} for name in ("a", "b")} | {"more": stage}
    (tmp_path / "odd.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_pipeline(tmp_path, "odd")
    assert expected in str(caught.value)
