"""Evaluate held-out prompts while a model learns from rewards, and stop it when it games them.

Usage: `monitor = RewardMonitor(context, settings, heldout, tokenizer, 128, mix)`, then
`trainer.add_callback(monitor.callback(trainer))`, and after training `model = monitor.best(model)`.

A reward is gamed when fewer answers are right than before, or when answers grow long and no more of them are right. The
check is a verifier of its own, whatever is rewarded. Prompts without known answers have none; then only lengths can
show it. Evaluations and the best weights so far are kept in the stage's scratch, so a killed run resumes with them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from common.config.answering import WatchSettings
from common.evaluation.statistics import paired_means
from common.rewards.mix import Mix
from common.rewards.verifiers import Answer
from common.stage import StageContext
from common.training.adapters import load_weights
from common.training.callbacks import callback
from common.training.distributed import ranks
from common.training.loop.best import Best, Evaluation
from common.training.sampling import answer_greedily


class RewardMonitor:
    """The held-out evaluations of one stage: step, share of right answers, mean reward, mean length in tokens."""

    def __init__(
        self, context: StageContext, settings: WatchSettings, rows: Sequence[Mapping[str, Any]], tokenizer: Any,
        answer_tokens: int, mix: Mix,
    ) -> None:  # fmt: skip
        self.mix = mix
        self.stage, self.console, self.settings = context.stage, context.console, settings
        self.rows, self.tokenizer, self.answer_tokens = rows, tokenizer, answer_tokens
        self.kept = Best(context.work / "watch")
        self.evaluations: list[Evaluation] = []
        self.stopped = ""

    def evaluate(self, model: Any, step: int) -> bool:
        """Let the model answer the held-out prompts greedily. Return whether it is the best so far."""
        answers = self.answers(model)
        rewards = self.mix.score(answers).totals
        tokens = fmean(answer.num_tokens for answer in answers)
        found = {"step": step, "reward": round(fmean(rewards), 4), "tokens": round(tokens, 2)}
        if self.settings.check is not None:
            found["right"] = round(fmean(map(self.mix.verifiers[self.settings.check], answers)), 4)
        best = max((self._worth(one) for one in self.evaluations if not self._too_long(one)), default=-math.inf)
        is_best = self._worth(found) > best and not self._too_long(found)
        self.evaluations.append({**found, "rewards": [round(reward, 4) for reward in rewards]})
        self.kept.write(self.evaluations)
        self.stopped = self._verdict()
        return is_best

    def answers(self, model: Any) -> list[Answer]:
        """Return the likeliest answers of a model to the held-out prompts."""
        return answer_greedily(model, self.tokenizer, self.rows, self.answer_tokens)

    def evaluate_for_all(self, trainer: Any, step: int) -> None:
        """Evaluate in the first process, broadcast the result, and keep the weights if they are the best so far."""
        is_best = False
        if ranks.is_main_process():
            is_best = self.evaluate(trainer.accelerator.unwrap_model(trainer.model), step)
        is_best, self.evaluations, self.stopped = ranks.broadcast((is_best, self.evaluations, self.stopped))
        if is_best:
            self.kept.keep(trainer, step)

    def summary(self) -> dict[str, Any]:
        """Return the evaluations, for the stage's metrics; `kept` is the step whose weights the stage saves."""
        first, kept = self.evaluations[0], self._chosen()
        gain, low, high = paired_means(first["rewards"], kept["rewards"])
        return {
            "looks": [{key: value for key, value in one.items() if key != "rewards"} for one in self.evaluations],
            "kept": kept["step"],
            "heldout_reward": {
                "before": first["reward"], "after": kept["reward"], "n": len(self.rows),
                "gain": round(gain, 4), "low": round(low, 4), "high": round(high, 4),
            },
            **({"stopped": self.stopped} if self.stopped else {}),
        }  # fmt: skip

    def best(self, model: Any) -> Any:
        """Return the model to save: the last one or, where a reward was gamed, the best of the evaluations."""
        if not self.stopped or not ranks.is_main_process():
            return model
        step = self._chosen()["step"]
        load_weights(model, self.kept.path(step))
        self.console.line(f"  {self.stage}: {self.stopped}; keeping the weights of step {step}", always=True)
        return model

    def callback(self, trainer: Any) -> Any:
        """Return the callback that evaluates at the start, every `every` steps and after the last one."""

        def begin(args: Any, state: Any, control: Any, **_: Any) -> None:
            self.restore(state.global_step)
            if not self.evaluations:
                self.evaluate_for_all(trainer, 0)

        def evaluate(args: Any, state: Any, control: Any, **_: Any) -> None:
            step = state.global_step
            if step % self.settings.every == 0 or step == state.max_steps:
                self.evaluate_for_all(trainer, step)
                if self.stopped:
                    control.should_training_stop = True

        return callback(on_train_begin=begin, on_step_end=evaluate)

    def restore(self, step: int) -> None:
        """Read the evaluations of a killed run, up to the step from which it resumes."""
        self.evaluations = self.kept.read(step)

    def _worth(self, one: Evaluation) -> float:
        """Return what makes one evaluation better than another: right answers, or rewards where none are known."""
        return float(one["right"] if self.settings.check is not None else one["reward"])

    def _too_long(self, one: Evaluation) -> bool:
        """Whether answers grew beyond the limit and no more of them are right than at the start."""
        first = self.evaluations[0] if self.evaluations else one
        grown = one["tokens"] > first["tokens"] * (1 + self.settings.longer)
        return bool(grown and one.get("right", 0.0) <= first.get("right", 0.0))

    def _chosen(self) -> Evaluation:
        """Return the evaluation whose weights are saved: the last one, or the best where a reward was gamed."""
        if not self.stopped:
            return self.evaluations[-1]
        kept = [one for one in self.evaluations if self.kept.has(one["step"])]
        return max(kept, key=lambda one: (self._worth(one), -one["step"]))

    def _verdict(self) -> str:
        first, last = self.evaluations[0], self.evaluations[-1]
        if self.settings.check is not None:
            best = max(one["right"] for one in self.evaluations)
            if last["right"] < best - self.settings.drop:
                return f"right answers to held-out prompts fell from {best:.2f} to {last['right']:.2f}"
        if self._too_long(last):
            return f"answers grew from {first['tokens']:.0f} to {last['tokens']:.0f} tokens"
        return ""
