"""Look at held-out prompts while a model learns from rewards, and stop it when it games them.

Usage: `watcher = RewardMonitor(context, settings, heldout, tokenizer, 128, mix)`, then
`trainer.add_callback(watcher.callback(trainer))`, and after training `model = watcher.best(model)`.

A reward is gamed when right answers become fewer whatever it does, or answers grow long and no more of them are right.
The check is a verifier of its own, whatever is rewarded; prompts without known answers have none, and then only lengths
can tell. Looks and the best weights so far lie in the stage's scratch, so a killed run goes on with them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from common.config.stages import WatchSettings
from common.evaluation.statistics import paired_means
from common.evaluation.written import write_answers
from common.rewards.mix import Mix
from common.rewards.verifiers import Answer
from common.stage import StageContext
from common.training.adapters import load_weights
from common.training.distributed import ranks
from common.training.loop.best import Best

BATCH = 64


class RewardMonitor:
    """Held-out looks of one stage: step, share of right answers, mean reward, mean length in tokens."""

    def __init__(
        self, context: StageContext, settings: WatchSettings, rows: Sequence[Mapping[str, Any]], tokenizer: Any,
        answer_tokens: int, mix: Mix,
    ) -> None:  # fmt: skip
        self.mix = mix
        self.stage, self.console, self.settings = context.stage, context.console, settings
        self.rows, self.tokenizer, self.answer_tokens = rows, tokenizer, answer_tokens
        self.kept = Best(context.work / "watch")
        self.looks: list[dict[str, Any]] = []
        self.stopped = ""

    def look(self, model: Any, step: int) -> bool:
        """Let the model answer the held-out prompts, greedily; return whether it is the best so far."""
        prompts = [row["prompt"] for row in self.rows]
        wrote = write_answers(
            model, self.tokenizer, prompts, chat=True, most_tokens=self.answer_tokens, batch_size=BATCH
        )
        answers = [
            Answer(answer.text, row, answer.stopped, answer.num_tokens, row["prompt"])
            for answer, row in zip(wrote, self.rows, strict=True)
        ]
        rewards = self.mix.score(answers).totals
        tokens = fmean(answer.num_tokens for answer in answers)
        found = {"step": step, "reward": round(fmean(rewards), 4), "tokens": round(tokens, 2)}
        if self.settings.check is not None:
            found["right"] = round(fmean(map(self.mix.verifiers[self.settings.check], answers)), 4)
        best = max((self._worth(look) for look in self.looks if not self._too_long(look)), default=-math.inf)
        is_best = self._worth(found) > best and not self._too_long(found)
        self.looks.append({**found, "rewards": [round(reward, 4) for reward in rewards]})
        self.kept.write(self.looks)
        self.stopped = self._verdict()
        return is_best

    def look_for_all(self, trainer: Any, step: int) -> None:
        """Let the first process look, and the others know what it saw; the best weights so far are kept."""
        is_best = self.look(self.bare(trainer), step) if ranks.is_main_process() else False
        is_best, self.looks, self.stopped = ranks.broadcast((is_best, self.looks, self.stopped))
        if is_best:
            self.kept.keep(trainer, step)

    def summary(self) -> dict[str, Any]:
        """Return what the looks saw, for the stage's metrics; `kept` is the look whose weights are handed on."""
        first, kept = self.looks[0], self._chosen()
        gain, low, high = paired_means(first["rewards"], kept["rewards"])
        looks = [{key: value for key, value in look.items() if key != "rewards"} for look in self.looks]
        return {
            "looks": looks,
            "kept": kept["step"],
            "heldout_reward": {
                "before": first["reward"], "after": kept["reward"], "n": len(self.rows),
                "gain": round(gain, 4), "low": round(low, 4), "high": round(high, 4),
            },
            **({"stopped": self.stopped} if self.stopped else {}),
        }  # fmt: skip

    def best(self, model: Any) -> Any:
        """Return the model to hand on: the last one, or, where a reward was gamed, the best that was seen."""
        if not self.stopped or not ranks.is_main_process():
            return model
        step = self._chosen()["step"]
        load_weights(model, self.kept.path(step))
        self.console.line(f"  {self.stage}: {self.stopped}; the weights of step {step} are kept", always=True)
        return model

    def callback(self, trainer: Any) -> Any:
        """Return the callback that looks every so many steps."""
        from transformers import TrainerCallback

        watcher = self

        class Watch(TrainerCallback):  # type: ignore[misc] # transformers is seen as Any
            def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                watcher.restore(state.global_step)
                if not watcher.looks:
                    watcher.look_for_all(trainer, 0)

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                step = state.global_step
                if step % watcher.settings.every == 0 or step == state.max_steps:
                    watcher.look_for_all(trainer, step)
                    if watcher.stopped:
                        control.should_training_stop = True

        return Watch()

    def restore(self, step: int) -> None:
        """Read the looks of a run that was killed, up to the step from which it goes on."""
        self.looks = ranks.broadcast(self.kept.read(step))

    @staticmethod
    def bare(trainer: Any) -> Any:
        return trainer.accelerator.unwrap_model(trainer.model)

    def _worth(self, look: Mapping[str, Any]) -> float:
        """Return what makes one look better than another: right answers, or rewards where nothing tells the right."""
        return float(look["right"] if self.settings.check is not None else look["reward"])

    def _too_long(self, look: Mapping[str, Any]) -> bool:
        """Whether answers grew beyond the limit and no more of them are right than at the start."""
        first = self.looks[0] if self.looks else look
        grown = look["tokens"] > first["tokens"] * (1 + self.settings.longer)
        return bool(grown and look.get("right", 0.0) <= first.get("right", 0.0))

    def _chosen(self) -> dict[str, Any]:
        """Return the look whose weights are handed on: the last one, or the best where a reward was gamed."""
        if not self.stopped:
            return self.looks[-1]
        kept = [look for look in self.looks if self.kept.has(look["step"])]
        return max(kept, key=lambda look: (self._worth(look), -look["step"]))

    def _verdict(self) -> str:
        first, last = self.looks[0], self.looks[-1]
        if self.settings.check is not None:
            best = max(look["right"] for look in self.looks)
            if last["right"] < best - self.settings.drop:
                return f"right answers to held-out prompts fell from {best:.2f} to {last['right']:.2f}"
        if self._too_long(last):
            return f"answers grew from {first['tokens']:.0f} to {last['tokens']:.0f} tokens"
        return ""
