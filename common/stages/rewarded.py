"""What the stages that learn from rewards share: prompts, the reward of an answer, and a check on held-out prompts.

Usage: `KIND = Kind(name="grpo", run=reinforce, check=check, ...)`; the trainer is that of the settings' class.

The model answers prompts, a mix of rewards (`common.rewards`) scores the answers, and answers better than the others to
the same prompt become likelier. The reference of the KL term is the stage before. Some prompts never train. On them the
stage measures, every so many steps, whether right answers fall or answers grow long while the reward rises, which is
how a reward is gamed. Then it stops and keeps the best weights so far.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from common.config.answering import RewardedSettings, WatchSettings
from common.config.node import Node
from common.config.resolve import Resolved
from common.data.accounting import check_limits
from common.data.decontaminate import Decontaminator, guard_of
from common.errors import ConfigError, DataError
from common.models import checkpoint, contracts
from common.models.device import device_of
from common.models.rendering import encode_chat
from common.rewards.mix import Mix, check_stage_rewards, check_verifier
from common.rewards.own import verifiers_for
from common.rewards.reward_model import mix_of
from common.rewards.verifiers import NEED_ANSWERS, Answer
from common.stage import StageContext, StageReport
from common.training.adapters import learner_of
from common.training.distributed import parallel, ranks
from common.training.fit import TrainResult, build_trainer, check_and_save, report, trained_model
from common.training.loop.reward_monitor import RewardMonitor
from common.training.loop.trainer import TrainingLoop
from common.training.options import rewarded_options
from common.training.own_answers import OVERLAPS, OwnAnswers, answers_left_out, skipper
from common.training.patches import AddHead, text_prompt_trainer
from common.training.rows.prompts import read_prompts
from common.training.speed.scoring import head_of, scoring

Row = Mapping[str, Any]
T = TypeVar("T")
UNSTOPPED = 0.5  # share of answers without an end that is worth a warning


def check(node: Node, settings: RewardedSettings, resolved: Resolved) -> None:
    """Check the rewards, what says that an answer is right, what generates, and where pass rates come from."""
    check_stage_rewards(node, settings, resolved)
    check_verifier(settings.watch.check, f"{node.name}.watch.check", verifiers_for(resolved))
    if settings.train.get("use_vllm") and importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            f"{node.name}.train.use_vllm=true, but vllm is not installed here. Install it in a version that TRL "
            "supports (it needs CUDA), or leave use_vllm out: then transformers generates."
        )
    parent = resolved.pipeline.stages[node.parent].kind if node.parent else ""
    if settings.hard is not None and not node.sampled and parent != "expert":
        raise ConfigError(
            f"{node.name}.hard={settings.hard}: no input of {node.name} tells pass rates. Let it continue from a "
            "stage of kind expert or read one of kind sample (`with: [<sample stage>]`), or leave hard out."
        )


def reinforce(context: StageContext) -> StageReport:
    """Return the parent, tuned so that answers with higher rewards become likelier."""
    settings = cast(RewardedSettings, context.settings)
    model, tokenizer = checkpoint.load(context.parent_artifact.path, context.config.model)
    rows, counts = read_prompts(context, tokenizer)
    check_limits(counts, settings.limits, context.stage)
    require_whole_model(context)
    kept = settings.watch.prompts
    if len(rows) < kept + settings.prompts_per_step:
        raise DataError(
            f"Stage {context.stage} has {len(rows)} usable prompts; it keeps {kept} from training "
            f"({context.stage}.watch.prompts) and reads {settings.prompts_per_step} a step. Add prompts or lower these."
        )
    heldout, training = rows[:kept], rows[kept:]
    probe = encode_chat(tokenizer, training[0]["prompt"], prompt=True)
    mix = mix_of(context, settings, device_of(context.config.run))
    monitor = RewardMonitor(context, _watch(context, heldout), heldout, tokenizer, settings.answer_tokens, mix)

    trained = _train(context, model, tokenizer, training, monitor)

    skipped = round(sum(record["no_signal"] for record in trained.log))
    rewards = _rewards_of(trained.log)
    _warn(context, skipped, len(trained.log), rewards.get("unstopped", 0.0))
    measured = check_and_save(context, trained, tokenizer, probe=probe)
    metrics = {"prompts": len(training), "no_signal": skipped, **rewards, **monitor.summary(), **measured}
    left_out = answers_left_out(context, trained.log, "prompts", len(trained.log) * settings.answers)
    return report(context, trained, metrics, [*counts, *left_out])


def require_whole_model(context: StageContext) -> None:
    """Answers are generated in each process, which needs a whole model. Raises ConfigError."""
    if parallel.is_sharded(context.config.run):
        raise ConfigError(
            f"run.parallelism={context.config.run.parallelism}: stage {context.stage} generates, which needs a whole "
            f"model in each process. Use run.parallelism=ddp, with {context.stage}.peft=lora where memory is short."
        )


def _watch(context: StageContext, heldout: Sequence[Row]) -> WatchSettings:
    """Return what to measure on held-out prompts: without known answers, rewards and lengths alone."""
    watch = cast(RewardedSettings, context.settings).watch
    if watch.check not in NEED_ANSWERS or all("answer" in row or "answers" in row for row in heldout):
        return watch
    context.console.line(
        f"  {context.stage}: held-out prompts without known answers; rewards and lengths alone are watched",
        always=True,
    )
    return watch.model_copy(update={"check": None})


def _train(
    context: StageContext, model: Any, tokenizer: Any, rows: Sequence[Row], monitor: RewardMonitor
) -> TrainResult:
    """Run the trainer that the stage's settings are of."""
    import trl
    from datasets import Dataset

    settings, run = cast(RewardedSettings, context.settings), context.config.run
    config_class = getattr(trl, settings.trainer)
    trainer_class = text_prompt_trainer(getattr(trl, settings.trainer.replace("Config", "Trainer")))
    loop = TrainingLoop(context, settings.answers)
    options = rewarded_options(settings, context.config, loop.folder, num_prompts=len(rows), stage=context.stage)
    stops, guard = model.generation_config.eos_token_id, guard_of(context.corpus, "prompts", context.benchmarks)
    reward = Reward(monitor.mix, stops, settings.samples, guard, context.work / OVERLAPS.format(ranks.rank()))
    learner = learner_of(context, model)
    asked = in_order(rows, options["max_steps"], settings.prompts_per_step, context.config.seed)
    prompts = Dataset.from_list([{"prompt": row["prompt"], "row": row_column(row)} for row in asked])
    with scoring(run, settings.train):
        trainer = build_trainer(
            context, trainer_class, config_class, options, learner, prompts, tokenizer, reward_funcs=reward
        )
    if getattr(trainer, "ref_model", None) is not None:
        contracts.check_same_weights(trainer.accelerator.unwrap_model(trainer.ref_model), model)
    if learner is not model and trainer.beta:
        _compare_with(trainer, model, head_of(run, settings.train))
    trainer.add_callback(skipper(reward))
    trainer.add_callback(monitor.callback(trainer))
    log = loop.run(trainer, unit="answers")
    tokens = round(sum(record.get("completions/mean_length", 0.0) for record in log) * settings.answers)
    model = monitor.best(trained_model(context, trainer))
    return TrainResult(model, log, loop.steps, loop.seconds, tokens, loop.measured())


def in_order(rows: Sequence[T], steps: int, prompts_per_step: int, seed: int) -> list[T]:
    """Return the prompts of all steps, one after another: a new seeded order for every pass, the odd rest left out.

    TRL's own sampler draws an order per pass from a state that no checkpoint holds, so a run that was killed after the
    first pass would read other prompts than one that was not.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    whole = len(rows) // prompts_per_step * prompts_per_step
    places: list[int] = []
    while len(places) < steps * prompts_per_step:
        places += torch.randperm(len(rows), generator=generator).tolist()[:whole]
    return [rows[place] for place in places[: steps * prompts_per_step]]


def _warn(context: StageContext, skipped: int, steps: int, unstopped: float) -> None:
    """Report steps without a signal to learn from, and answers without an end."""
    settings = cast(RewardedSettings, context.settings)
    if skipped:
        context.console.line(
            f"  {context.stage}: in {skipped} of {steps} steps all answers to each prompt earned alike; nothing was "
            "learned from them"
        )
    if unstopped > UNSTOPPED:
        context.console.line(
            f"  {context.stage}: {unstopped:.0%} of the last answers did not stop within {settings.answer_tokens} "
            f"tokens; reward `stopped`, or raise {context.stage}.answer_tokens", always=True,
        )  # fmt: skip


def _compare_with(trainer: Any, parent: Any, add_head: AddHead) -> None:
    """Make the unquantised stage before the reference; TRL alone would use the quantised copy, with its adapter off."""
    cast_head = getattr(trainer.args, "cast_lm_head_to_fp32", False)
    add_head(parent, temperature=trainer.temperature, cast_lm_head_to_fp32=cast_head)
    trainer.ref_model = trainer.accelerator.prepare_model(parent, evaluation_mode=True)


class Reward(OwnAnswers):
    """The reward function that TRL calls with a batch of answers.

    An answer that repeats the exam is not learned from, and earns what the others to its prompt earn on average.
    """

    def __init__(
        self, mix: Mix, stops: int | Sequence[int], samples: int, guard: Decontaminator, overlaps: Path
    ) -> None:
        super().__init__(samples, guard, overlaps)
        self.mix = mix
        self.stops = {stops} if isinstance(stops, int) else set(stops)

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Sequence[Sequence[int]],
        row: Sequence[str], **context: Any,
    ) -> list[float]:  # fmt: skip
        """Return one number per answer; the answers to a prompt come one after another."""
        answers = [
            Answer(
                messages[0]["content"].strip(), json.loads(known), bool(ids) and ids[-1] in self.stops, len(ids), prompt
            )
            for prompt, messages, ids, known in zip(prompts, completions, completion_ids, row, strict=True)
        ]
        scores = self.mix.score(answers)
        self.kept = [self._is_apart(answer.text) for answer in answers]
        totals = self.evened(scores.totals)
        (overlapping,) = self.settle(self.differing(totals), [self.kept.count(False)])
        if log := context.get("log_metric"):
            for name, values in scores.parts.items():
                log(f"rewards/{name}", sum(values) / len(values))
            log("no_signal", float(self.without_signal))
            log("exam_overlap", overlapping)
        return totals


def row_column(row: Row) -> str:
    """Return what is known of a prompt as JSON: a column of the data set that TRL passes to the reward."""
    return json.dumps({key: value for key, value in row.items() if key not in ("prompt", "source", "language")})


def _rewards_of(log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean reward of the first and of the last tenth of the steps, and how far the model has moved.

    `unstopped` is the share of the last tenth's answers that ran into `answer_tokens`.
    """
    if not log:
        return {}
    few = max(1, len(log) // 10)
    first, last = ([record["reward"] for record in part] for part in (log[:few], log[-few:]))
    kl = {"kl": round(log[-1]["kl"], 6)} if "kl" in log[-1] else {}
    return {
        "reward_first": round(sum(first) / few, 4), "reward_last": round(sum(last) / few, 4), **kl,
        "unstopped": round(sum(record["completions/clipped_ratio"] for record in log[-few:]) / few, 4),
    }  # fmt: skip
