"""Look at held-out prompts while a model learns from rewards, and stop it when it games them.

Usage: `watcher = Watcher(context, settings, heldout, tokenizer, 128)`, then
`trainer.add_callback(watcher.callback(trainer))`, and after training `model = watcher.best(model)`.

A reward is gamed when it rises while right answers become fewer, or answers grow long. The check is a verifier of its
own, whatever is rewarded. Looks and the best weights so far lie in the stage's scratch, so a killed run goes on with
them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.artifacts import write_json
from common.evaluation.written import write_answers
from common.rewards.verifiers import VERIFIERS, Answer
from common.stage_settings import WatchSettings
from common.stages import StageContext
from common.training.adapters import load_weights, save_weights

BATCH = 64


class Watcher:
    """Held-out looks of one stage: step, share of right answers, mean length in tokens."""

    def __init__(
        self, context: StageContext, settings: WatchSettings, rows: Sequence[Mapping[str, Any]], tokenizer: Any,
        answer_tokens: int,
    ) -> None:  # fmt: skip
        self.stage, self.console, self.settings = context.stage, context.console, settings
        self.rows, self.tokenizer, self.answer_tokens = rows, tokenizer, answer_tokens
        self.folder = context.work / "watch"
        self.looks: list[dict[str, Any]] = []
        self.stopped = ""

    def look(self, model: Any, step: int) -> None:
        """Let the model answer the held-out prompts, greedily, and remember it where it is the best so far."""
        prompts = [row["prompt"] for row in self.rows]
        wrote = write_answers(
            model, self.tokenizer, prompts, chat=True, most_tokens=self.answer_tokens, batch_size=BATCH
        )
        check = VERIFIERS[self.settings.check]
        right = [check(Answer(answer.text, row, answer.stopped)) for answer, row in zip(wrote, self.rows, strict=True)]
        lengths = [len(self.tokenizer(answer.text, add_special_tokens=False).input_ids) for answer in wrote]
        best = max((look["right"] for look in self.looks), default=-1.0)
        self.looks.append({
            "step": step, "right": round(sum(right) / len(right), 4), "tokens": round(sum(lengths) / len(lengths), 2),
        })  # fmt: skip
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.looks[-1]["right"] > best:
            self._keep(model, step)
        write_json(self.folder / "looks.json", self.looks)
        self.stopped = self._verdict()

    def summary(self) -> dict[str, Any]:
        """Return what the looks saw, for the stage's metrics."""
        first, last = self.looks[0], self.looks[-1]
        facts = {"heldout_first": first["right"], "heldout_last": last["right"], "looks": self.looks}
        return facts | ({"stopped": self.stopped} if self.stopped else {})

    def best(self, model: Any) -> Any:
        """Return the model to hand on: the last one, or, where a reward was gamed, the best that was seen."""
        if not self.stopped:
            return model
        kept = [look for look in self.looks if self._weights(look["step"]).is_file()]
        chosen = max(kept, key=lambda look: (look["right"], -look["step"]))
        load_weights(model, self._weights(chosen["step"]))
        self.console.line(f"  {self.stage}: {self.stopped}; the weights of step {chosen['step']} are kept", always=True)
        return model

    def callback(self, trainer: Any) -> Any:
        """Return the callback that looks every so many steps."""
        from transformers import TrainerCallback

        watcher = self

        class Watch(TrainerCallback):  # type: ignore[misc] # transformers is seen as Any
            def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                watcher.restore(state.global_step)
                if not watcher.looks:
                    watcher.look(watcher.bare(trainer), 0)

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                step = state.global_step
                if step % watcher.settings.every == 0 or step == state.max_steps:
                    watcher.look(watcher.bare(trainer), step)
                    if watcher.stopped:
                        control.should_training_stop = True

        return Watch()

    def restore(self, step: int) -> None:
        """Read the looks of a run that was killed, up to the step from which it goes on."""
        path = self.folder / "looks.json"
        if path.is_file():
            self.looks = [look for look in json.loads(path.read_text(encoding="utf-8")) if look["step"] <= step]

    @staticmethod
    def bare(trainer: Any) -> Any:
        return trainer.accelerator.unwrap_model(trainer.model)

    def _verdict(self) -> str:
        first, last = self.looks[0], self.looks[-1]
        best = max(look["right"] for look in self.looks)
        if last["right"] < best - self.settings.drop:
            return f"right answers to held-out prompts fell from {best:.2f} to {last['right']:.2f}"
        if last["tokens"] > first["tokens"] * (1 + self.settings.longer):
            return f"answers grew from {first['tokens']:.0f} to {last['tokens']:.0f} tokens"
        return ""

    def _keep(self, model: Any, step: int) -> None:
        save_weights(model, self._weights(step))
        # A run that goes on from an older checkpoint may need the best before this one, never an older one.
        for path in sorted(self.folder.glob("best-*.safetensors"), key=_step_of)[:-2]:
            path.unlink()

    def _weights(self, step: int) -> Path:
        return self.folder / f"best-{step}.safetensors"


def _step_of(path: Path) -> int:
    return int(path.stem.partition("-")[2])
