"""Rows that never train: how well the model predicts them during training, and at which step it did so best.

Usage: `validation = Validation(context, rows.validation)`; `trainer.add_callback(validation.callback(trainer))`, and
after training `model = validation.chosen(model)`.

Evaluations are at fixed steps, so that the chosen weights depend on no clock. These rows are of the stage's own data;
the exam, which all checkpoints take, is something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from common.config.stages import TrainingSettings
from common.models.finite import require_finite
from common.training.adapters import load_weights
from common.training.callbacks import callback
from common.training.distributed import ranks
from common.training.loop.best import Best, Evaluation

if TYPE_CHECKING:
    from datasets import Dataset

    from common.stage import StageContext


class Validation:
    """The evaluations of one training."""

    def __init__(self, context: StageContext, rows: Dataset | None) -> None:
        self.settings = cast(TrainingSettings, context.settings).validation
        self.context, self.rows = context, rows
        self.best = Best(context.work / "validation")
        self.evaluations: list[Evaluation] = []

    def steps(self, total: int) -> set[int]:
        """Return the steps after which the rows are evaluated: evenly spaced, the last one among them."""
        number = self.settings.evaluations
        return {round(total * place / number) for place in range(1, number + 1)} - {0}

    def evaluate(self, trainer: Any, step: int) -> None:
        loss = round(float(trainer.evaluate(eval_dataset=self.rows)["eval_loss"]), 6)
        where = f"Stage {self.context.stage}, validation at step {step}"
        require_finite([("the loss", loss)], where, "Nothing is saved. Lower the learning rate.")
        improved = all(loss < before["loss"] for before in self.evaluations)
        self.evaluations.append({"step": step, "loss": loss})
        if improved and self.settings.keep == "best":
            self.best.keep(trainer, step)
        if ranks.is_main_process():
            self.best.write(self.evaluations)

    def chosen(self, model: Any) -> Any:
        """Return the model to keep: as it is, or with the weights of the lowest loss."""
        if not self.evaluations or not ranks.is_main_process():
            return model
        step = self._kept()
        if step != self.evaluations[-1]["step"]:
            load_weights(model, self.best.path(step))
            self.context.console.line(
                f"  {self.context.stage}: keeping the weights of step {step}, which have the lowest validation loss"
            )
        return model

    def measured(self) -> dict[str, Any]:
        """Return the entry `validation` of the stage's metrics."""
        if not self.evaluations:
            return {}
        return {"validation": {"rows": len(self.rows or ()), "looks": self.evaluations, "kept": self._kept()}}

    def _kept(self) -> int:
        if self.settings.keep == "last":
            return int(self.evaluations[-1]["step"])
        return int(min(self.evaluations, key=lambda one: (one["loss"], one["step"]))["step"])

    def callback(self, trainer: Any) -> Any:
        """Return the callback that evaluates the rows after some of the steps."""

        def restore(args: Any, state: Any, control: Any, **_: Any) -> None:
            self.evaluations = self.best.read(state.global_step)

        def evaluate(args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step in self.steps(state.max_steps):
                due = control.should_log  # evaluating writes to the log, which resets this
                self.evaluate(trainer, state.global_step)
                control.should_log = due

        return callback(on_train_begin=restore, on_step_end=evaluate)
