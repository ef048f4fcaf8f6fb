"""Evaluate: run the exam on one checkpoint and save its scores and every single answer.

Usage: `report = run(context)`; leaves exam.json, records.jsonl and texts.jsonl in `context.out`.

It measures. Limits are in `common.engine.gate`, tables and plots are on the card.
"""

from __future__ import annotations

import logging
from typing import Any, cast

from common.config.kinds import Kind
from common.config.node import Node
from common.config.resolve import Resolved
from common.config.stages import EvaluateSettings
from common.errors import ConfigError
from common.stage import StageContext, StageReport
from common.store.artifacts import write_json, write_rows
from common.training.loop import memory
from common.training.tracking.reporter import reporting

EXAM = "exam.json"
RECORDS = "records.jsonl"  # one line per question
TEXTS = "texts.jsonl"  # one line per held-out text
LEFT_OUT = "left_out"  # benchmarks that were asked for and could not be loaded, in the exam and in the metrics
logger = logging.getLogger(__name__)


def run(context: StageContext) -> StageReport:
    """Run the exam on the parent and write its scores."""
    from common.evaluation.exam import ExamQuestions
    from common.evaluation.scores import SIDES
    from common.evaluation.sitting import examine

    settings = cast(EvaluateSettings, context.settings)
    missing = [task for task in settings.tasks if task in context.left_out]
    settings = settings.model_copy(update={"tasks": tuple(task for task in settings.tasks if task not in missing)})
    checkpoint = context.parent_artifact
    exam = ExamQuestions(
        questions={side: list(context.corpus.rows(f"questions_{side}")) for side in SIDES},
        texts={side: list(context.corpus.rows(f"text_{side}")) for side in SIDES},
    )
    with memory.phase(memory.EVALUATING):
        result = examine(context, exam, settings, "answers")
    noted = {LEFT_OUT: missing} if missing else {}
    write_json(context.out / EXAM, result.to_json(checkpoint.stage) | noted)
    for name, lines in ((RECORDS, result.records), (TEXTS, result.documents)):
        write_rows(context.out / name, lines)
    metrics: dict[str, Any] = {f"{side}_score": facts["score"] for side, facts in result.exam.items() if facts}
    metrics |= {f"{side}_bits_per_byte": bits for side, bits in result.bits_per_byte.items() if bits is not None}
    logger.info("%s of %s: %s", context.stage, checkpoint.stage, metrics)
    with reporting(context) as reporter:
        if reporter is not None:
            reporter.open(0)
            reporter.log({f"exam/{name}": value for name, value in metrics.items()}, 0)
    sources = [source for source in context.corpus.sources() if "eval" in str(source["role"]).split(", ")]
    return StageReport(metrics=metrics | noted, sources=sources)


def check(node: Node, settings: EvaluateSettings, resolved: Resolved) -> None:
    """Check that a domain's own group of benchmarks is in its folder. Raises ConfigError."""
    folder = resolved.domain_folder / "eval"
    own = f"{resolved.config.domain}_benchmarks"
    if own in settings.tasks and not (folder / "benchmarks.yaml").is_file():
        raise ConfigError(
            f"evaluate.tasks asks for {own}, but {folder / 'benchmarks.yaml'} is missing. Put it back (`just "
            "new-domain` makes one to copy), or leave the task out."
        )


KIND = Kind(
    name="evaluate", settings=EvaluateSettings, run=run, check=check, makes="report",
    roles=("questions_domain", "questions_general", "text_domain", "text_general"), seconds=6.0,
)  # fmt: skip
