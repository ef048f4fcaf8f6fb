"""A stage's parent sits an exam, with a bar of progress: what the stages share that ask a checkpoint.

Usage: `result = examine(context, ExamQuestions(questions), EvaluateSettings(), "answers")`.
"""

from __future__ import annotations

from common.config.stages import EvaluateSettings
from common.evaluation.exam import ExamQuestions, Result, run_exam
from common.models.device import device_of
from common.stage import StageContext


def examine(context: StageContext, exam: ExamQuestions, settings: EvaluateSettings, unit: str) -> Result:
    """Return what the parent scores in an exam; `unit` is what the bar counts. Raises what `run_exam` raises."""
    with context.console.progress(context.stage, 0, unit) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done)

        return run_exam(
            context.parent_artifact.path, exam, settings, device=device_of(context.config.run), progress=show,
            trust_remote_code=context.config.model.trust_remote_code, task_folders=context.task_folders,
        )  # fmt: skip
