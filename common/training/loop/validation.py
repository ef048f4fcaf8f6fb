"""Rows that never train: how well a model reads them while it learns from the others, and when it read them best.

Usage: `validation = Validation(context, rows.validation)`; `trainer.add_callback(validation.callback(trainer))`, and
after training `model = validation.chosen(model)`.

The looks are at fixed steps, so that what is handed on depends on no clock. The exam, which all checkpoints sit, is
another thing: these rows are of the stage's own data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from common.config.stages import TrainingSettings
from common.training.adapters import load_weights
from common.training.distributed import ranks
from common.training.loop.best import Best, Look

if TYPE_CHECKING:
    from datasets import Dataset

    from common.stage import StageContext


class Validation:
    """The looks of one training."""

    def __init__(self, context: StageContext, rows: Dataset | None) -> None:
        self.settings = cast(TrainingSettings, context.settings).validation
        self.context, self.rows = context, rows
        self.best = Best(context.work / "validation")
        self.looks: list[Look] = []

    def steps(self, total: int) -> set[int]:
        """Return the steps after which the rows are read: evenly spaced, the last one among them."""
        number = self.settings.evaluations
        return {round(total * place / number) for place in range(1, number + 1)} - {0}

    def look(self, trainer: Any, step: int) -> None:
        loss = round(float(trainer.evaluate(eval_dataset=self.rows)["eval_loss"]), 6)
        improved = all(loss < look["loss"] for look in self.looks)
        self.looks.append({"step": step, "loss": loss})
        if improved and self.settings.keep == "best":
            self.best.keep(trainer, step)
        if ranks.is_main_process():
            self.best.write(self.looks)

    def chosen(self, model: Any) -> Any:
        """Return the model to keep: as it is, or with the weights that read the rows best."""
        if self.settings.keep == "last" or not self.looks or not ranks.is_main_process():
            return model
        step = self._kept()
        if step != self.looks[-1]["step"]:
            load_weights(model, self.best.path(step))
            self.context.console.line(f"  {self.context.stage}: the weights of step {step} read held-out rows best")
        return model

    def measured(self) -> dict[str, Any]:
        """Return what goes into the stage's metrics."""
        if not self.looks:
            return {}
        return {"validation": {"rows": len(self.rows or ()), "looks": self.looks, "kept": self._kept()}}

    def _kept(self) -> int:
        if self.settings.keep == "last":
            return int(self.looks[-1]["step"])
        return int(min(self.looks, key=lambda look: (look["loss"], look["step"]))["step"])

    def callback(self, trainer: Any) -> Any:
        """Return the callback that reads the rows after some of the steps."""
        from transformers import TrainerCallback

        validation = self

        class Validate(TrainerCallback):  # type: ignore[misc] # transformers is seen as Any
            def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                validation.looks = ranks.broadcast(validation.best.read(state.global_step))

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.global_step in validation.steps(state.max_steps):
                    due = control.should_log  # evaluating writes to the log, after which nothing would be due
                    validation.look(trainer, state.global_step)
                    control.should_log = due

        return Validate()
