"""GRPO and RLOO on checked answers: they train, say what they saw, skip what tells nothing, and stop when gamed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from common.config.answering import WatchSettings
from common.config.resolve import resolve
from common.console import Console
from common.data.decontaminate import Decontaminator
from common.engine.plan import make_plan
from common.engine.run import execute, run_stage
from common.errors import ConfigError, DataError
from common.rewards.mix import Criterion, Mix
from common.rewards.verifiers import VERIFIERS
from common.stage import StageContext
from common.stages import rewarded
from common.stages.rewarded import Reward, in_order
from common.training import sampling
from common.training.loop import progress
from common.training.loop.reward_monitor import RewardMonitor
from common.training.rows.prompts import read_prompts
from tests.conftest import QUICK, REPOSITORY

pytestmark = pytest.mark.slow

SMALL = {
    "grpo.steps": "2", "grpo.prompts_per_step": "2", "grpo.samples": "4", "grpo.answer_tokens": "12",
    "grpo.watch.prompts": "8", "grpo.watch.every": "1",
}  # fmt: skip


def words(root: Path, **more: str) -> dict[str, str]:
    quick = {key: value for key, value in QUICK.items() if not key.startswith("dpo.")}
    return {"domain": "medical", "pipeline": "grpo", "out": str(root), **quick, **SMALL, **more}


@pytest.mark.parametrize(
    ("stage", "called"),
    [("grpo", "group relative policy optimisation"), ("rloo", "REINFORCE with the other answers as baseline")],
)
def test_its_pipeline_runs_to_a_card(stage: str, called: str, copy: Path) -> None:
    named = {key.replace("grpo", stage): value for key, value in words(copy).items()} | {"pipeline": stage}
    outcome = execute(resolve(named, REPOSITORY), Console("quiet"))
    metrics = outcome.artifacts[stage].manifest["metrics"]
    assert metrics["steps"] == 2
    assert [look["step"] for look in metrics["looks"]] == [0, 1, 2]
    assert {"reward_first", "reward_last", "kl", "no_signal"} <= metrics.keys()
    log = [json.loads(line) for line in (outcome.artifacts[stage].path / "log.jsonl").open(encoding="utf-8")]
    assert all("rewards/exact" in record and "rewards/stopped" in record for record in log)
    card = (outcome.artifacts["card"].path / "README.md").read_text(encoding="utf-8")
    assert called in card


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (
            {"grpo.rewards.exakt": "{weight: 1}"},
            "grpo.rewards.exakt: there is no such reward, and no `model` is given. Did you mean 'exact'?",
        ),
        ({"grpo.watch.check": "nmber"}, "grpo.watch.check: there is no reward 'nmber'. Did you mean 'number'?"),
        ({"grpo.train.reward_weights": "[1.0]"}, "set grpo.rewards.<name>.weight instead"),
        ({"grpo.samples": "1"}, "grpo.samples"),
        ({"grpo.watch.check": "length"}, "grpo.watch.check: 'length' needs options, and a check has none"),
        ({"verify.check": "nmber"}, "verify.check: there is no reward 'nmber'. Did you mean 'number'?"),
        ({"verify.rewards.exakt.weight": "1"}, "verify.rewards.exakt: there is no such reward"),
        ({"grpo.train.num_iterations": "2"}, "num_iterations (command line) cannot be 2 here: answers are used once"),
        ({"grpo.train.sync_ref_model": "true"}, "cannot be set here: the reference is the stage before"),
    ],
)
def test_mistakes_in_settings(option: dict[str, str], expected: str, copy: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(resolve(words(copy, **option), REPOSITORY))
    assert expected in str(caught.value)


def test_prompts_without_answers_are_watched_for_rewards_and_lengths(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:

    def unanswered(context: StageContext, tokenizer: Any) -> Any:
        rows, counts = read_prompts(context, tokenizer)
        return [{key: value for key, value in row.items() if key != "answer"} for row in rows], counts

    monkeypatch.setattr(rewarded, "read_prompts", unanswered)
    more = {"grpo.steps": "1", "grpo.rewards": "{stopped: {weight: 1.0}}"}
    metrics = run_stage(resolve(words(copy, **more), REPOSITORY), "grpo", Console("quiet")).manifest["metrics"]
    assert "held-out prompts without known answers; rewards and lengths alone are watched" in capsys.readouterr().out
    assert all("right" not in look for look in metrics["looks"])


def test_answers_without_an_end_are_told(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = {"grpo.answer_tokens": "1", "grpo.steps": "1"}
    artifact = run_stage(resolve(words(copy, **more), REPOSITORY), "grpo", Console("quiet"))
    assert artifact.manifest["metrics"]["unstopped"] > 0.5
    assert "of the last answers did not stop within 1 tokens; reward `stopped`, or raise" in capsys.readouterr().out


def test_too_few_prompts(copy: Path) -> None:
    with pytest.raises(DataError, match=r"usable prompts; it keeps 9999 from training \(grpo.watch.prompts\)"):
        run_stage(resolve(words(copy, **{"grpo.watch.prompts": "9999"}), REPOSITORY), "grpo", Console("quiet"))


def call(reward: Reward, texts: Sequence[str], ids: Sequence[Sequence[int]] | None = None) -> list[float]:
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    row = [json.dumps({"answer": "4"})] * len(texts)
    return reward([None] * len(texts), completions, ids or [[5, 2]] * len(texts), row)


def test_the_reward_knows_what_stopped_and_what_tells_nothing_apart() -> None:
    reward = Reward(Mix.of({"number": {}, "stopped": {"weight": 0.5}}), 2, 2, Decontaminator([]), Path())
    assert call(reward, ["4", "5", "4", "4"], [[5, 2], [5, 2], [5, 5], [2]]) == [1.5, 0.5, 1.0, 1.5]
    assert not reward.without_signal
    call(reward, ["4", "4", "5", "5"])
    assert reward.without_signal


def test_an_answer_that_repeats_the_exam_earns_what_the_others_do_and_is_noted(tmp_path: Path) -> None:
    asked = "Which lamp of the northern pier burns longest in winter?"
    guard, noted = Decontaminator([asked]), tmp_path / "overlaps.jsonl"
    reward = Reward(Mix.of({"number": {}}), 2, 4, guard, noted)
    texts = ["4", "5", f"You ask: {asked.upper()}", "4", *[f"{asked} 4"] * 4]
    assert call(reward, texts) == pytest.approx([1, 0, 2 / 3, 1, 0, 0, 0, 0])
    assert reward.kept == [True, True, False, True, *[False] * 4]
    assert not reward.without_signal
    lines = noted.read_text().splitlines()
    assert len(lines) == 5
    assert asked in lines[0]
    assert "WHICH LAMP" in lines[0]
    call(reward, texts[4:])
    assert reward.without_signal


@pytest.mark.parametrize("stage", ["grpo", "rloo"])
def test_nothing_is_learned_from_answers_that_repeat_the_exam(
    stage: str, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file
    from transformers import TrainerCallback

    longer = Mix((Criterion("longer", 1.0, lambda batch: [float(len(answer.text)) for answer in batch]),))
    monkeypatch.setattr(Mix, "of", lambda *args, **kwargs: longer)
    monkeypatch.setattr(Reward, "_is_apart", lambda self, _: not self._overlaps.write_text('"both"\n'))
    monkeypatch.setattr(rewarded, "skipper", lambda reward: TrainerCallback())  # the loss alone keeps the weights
    named = {key.replace("grpo", stage): value for key, value in words(copy).items()} | {"pipeline": stage}
    named |= {f"{stage}.train.weight_decay": "0.0", f"{stage}.train.beta": "0.5"}
    artifact = run_stage(resolve(named, REPOSITORY), stage, Console("quiet"))
    assert artifact.manifest["rows"][-1]["dropped"] == {"exam overlap": 16}
    assert artifact.manifest["exam_overlap"][0]["texts"] == ["both"]
    before = load_file(copy / "runs" / "medical" / "tiny" / "demonstration" / "sft" / "model.safetensors")
    after = load_file(artifact.path / "model.safetensors")
    assert all(bool((before[name] == after[name]).all()) for name in before)


def test_without_signal_no_weight_moves(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file

    same = Mix((Criterion("same", 1.0, lambda batch: [1.0] * len(batch)),))
    monkeypatch.setattr(Mix, "of", lambda *args, **kwargs: same)
    artifact = run_stage(resolve(words(copy), REPOSITORY), "grpo", Console("quiet"))
    assert artifact.manifest["metrics"]["no_signal"] == 2
    before = load_file(copy / "runs" / "medical" / "tiny" / "demonstration" / "sft" / "model.safetensors")
    after = load_file(artifact.path / "model.safetensors")
    assert all(bool((before[name] == after[name]).all()) for name in before)


def test_a_stop_is_no_place_to_go_on_from(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of the step that stops it would train past the stop after a kill."""
    saved: list[Path] = []
    monkeypatch.setattr(RewardMonitor, "_verdict", lambda self: "gamed" if len(self.evaluations) == 2 else "")
    monkeypatch.setattr(progress, "write_json", lambda path, facts: saved.append(path))
    more = {"grpo.steps": "4", "run.checkpoint_minutes": "0.00001", "grpo.watch.every": "2"}
    metrics = run_stage(resolve(words(copy, **more), REPOSITORY), "grpo", Console("quiet")).manifest["metrics"]
    assert (metrics["steps"], metrics["stopped"]) == (2, "gamed")
    assert [path.parent.name for path in saved] == ["checkpoint-1"]


def monitor_that_sees(
    right: Sequence[float], tokens: Sequence[int], folder: Path, monkeypatch: Any, check: str | None = "exact"
) -> RewardMonitor:
    """A monitor over one prompt and a model of one weight, whose answers are given."""
    looks = iter(zip(right, tokens, strict=True))

    def write(*args: Any, **kwargs: Any) -> list[Any]:
        share, length = next(looks)
        return [SimpleNamespace(text=f"{share} " + "x" * length, stopped=True, num_tokens=length)]

    monkeypatch.setattr(sampling, "write_answers", write)
    monkeypatch.setitem(VERIFIERS, "exact", lambda answer: float(answer.text.split()[0]))

    context = cast(StageContext, SimpleNamespace(stage="grpo", console=Console("quiet"), work=folder))
    rows = [{"prompt": [{"content": "q"}]}]
    mix = Mix((Criterion("liked", 1.0, lambda batch: [float(len(answer.text)) for answer in batch]),))
    return RewardMonitor(context, WatchSettings(check=check, drop=0.1, longer=1.0), rows, None, 8, mix)


def trainer_of(model: Any) -> Any:
    """What a look needs of a trainer: its model, as accelerate leaves it in one process."""
    kind = SimpleNamespace(value="NO")
    accelerator = SimpleNamespace(unwrap_model=lambda wrapped: wrapped, distributed_type=kind)
    arguments = SimpleNamespace(output_dir="/nowhere")
    return SimpleNamespace(model=model, model_wrapped=model, accelerator=accelerator, args=arguments)


@pytest.mark.parametrize(
    ("right", "tokens", "stopped", "kept"),
    [
        ((0.5, 0.6, 0.7), (4, 4, 4), "", None),
        ((0.5, 0.8, 0.65), (4, 4, 4), "right answers to held-out prompts fell from 0.80 to 0.65", 1),
        ((0.5, 0.6, 0.4), (4, 8, 9), "right answers to held-out prompts fell from 0.60 to 0.40", 1),
        ((0.5, 0.5, 0.5), (4, 8, 9), "answers grew from 4 to 9 tokens", 0),
        ((0.5, 0.6, 0.7), (4, 8, 9), "", None),  # longer, and more of them right: worked solutions do that
    ],
)
def test_a_gamed_reward_stops_it_with_the_best_weights(
    right: Sequence[float], tokens: Sequence[int], stopped: str, kept: int | None, tmp_path: Path, monkeypatch: Any
) -> None:
    import torch

    model = torch.nn.Linear(1, 1, bias=False)
    monitor = monitor_that_sees(right, tokens, tmp_path, monkeypatch)
    for step in range(3):
        torch.nn.init.constant_(model.weight, float(step))
        monitor.evaluate_for_all(trainer_of(model), step)
        if step < 2:
            assert not monitor.stopped
    assert monitor.stopped == stopped
    assert monitor.best(model).weight.item() == (2 if kept is None else kept)
    again = monitor_that_sees(right, tokens, tmp_path, monkeypatch)
    again.restore(1)  # a killed run goes on from step 1 and looks at step 2 again
    assert again.evaluations == monitor.evaluations[:2]


def test_without_known_answers_the_longest_answers_do_not_win(tmp_path: Path, monkeypatch: Any) -> None:
    """A reward that likes length is highest where it is gamed most; the weights before that are kept."""
    import torch

    model = torch.nn.Linear(1, 1, bias=False)
    monitor = monitor_that_sees((0.0, 0.0, 0.0), (4, 6, 9), tmp_path, monkeypatch, check=None)
    for step in range(3):
        torch.nn.init.constant_(model.weight, float(step))
        monitor.evaluate_for_all(trainer_of(model), step)
    assert monitor.stopped == "answers grew from 4 to 9 tokens"
    assert monitor.evaluations[2]["reward"] > monitor.evaluations[1]["reward"]
    assert monitor.best(model).weight.item() == 1
    assert monitor.summary()["kept"] == 1


def test_every_pass_over_the_prompts_has_an_order_of_its_own_and_a_longer_run_begins_alike() -> None:
    rows = [{"prompt": number} for number in range(7)]
    asked = [row["prompt"] for row in in_order(rows, 9, 2, seed=0)]
    assert len(asked) == 18
    passes = [asked[start : start + 6] for start in (0, 6, 12)]  # the seventh prompt fills no step of two
    assert all(len(set(one)) == 6 for one in passes)
    assert passes[0] != passes[1]
    assert [row["prompt"] for row in in_order(rows, 4, 2, seed=0)] == asked[:8]
    assert [row["prompt"] for row in in_order(rows, 4, 2, seed=1)] != asked[:8]


@pytest.mark.long
def test_a_killed_run_ends_with_the_same_weights(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the first pass over the prompts, where TRL's own sampler would begin again with the first order."""
    more = {"grpo.steps": "6", "grpo.prompts_per_step": "16", "run.checkpoint_minutes": "0.00001"}
    given = words(copy, **more) | {"grpo.watch.prompts": "580", "grpo.samples": "2", "grpo.watch.every": "3"}
    shutil.copytree(copy, tmp_path / "other", symlinks=True)
    whole = run_stage(resolve(given, REPOSITORY), "grpo", Console("quiet"))
    assert whole.manifest["metrics"]["prompts"] < 6 * 16  # more than one pass

    class Killed(Exception):
        pass

    look = RewardMonitor.evaluate

    def dies(self: RewardMonitor, model: Any, step: int) -> None:
        look(self, model, step)
        if step == 6:
            raise Killed

    again = resolve(given | {"out": str(tmp_path / "other")}, REPOSITORY)
    with monkeypatch.context() as patched:
        patched.setattr(RewardMonitor, "evaluate", dies)
        with pytest.raises(Killed):
            run_stage(again, "grpo", Console("quiet"))
    assert list((tmp_path / "other" / "artifacts" / ".work").glob("grpo-*/trainer/checkpoint-5"))
    assert run_stage(again, "grpo", Console("quiet")).digest == whole.digest
