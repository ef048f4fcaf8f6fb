"""Check that all that some stages need is there before any begins: machine, libraries, rows, benchmarks.

Usage: `check_inputs(resolved, corpus, nodes)`, from `common.engine.run`. What follows from settings alone is checked by
`common.engine.preflight.settings`.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.config.kinds import kind_of
from common.config.pipeline import Node
from common.config.resolve import Resolved
from common.config.stages import EvaluateSettings, MergeSettings
from common.data.corpus import Corpus
from common.engine.environment import needs_hub, prepare
from common.engine.fingerprint import task_folders
from common.engine.preflight import hardware
from common.engine.preflight.arguments import check_arguments
from common.engine.preflight.backends import check_backends
from common.errors import ConfigError, DataError, RecipeError
from common.stage import data_roles
from common.training.merging import check_merge


def check_inputs(resolved: Resolved, corpus: Corpus, nodes: Sequence[Node]) -> None:
    """Read every local row, one of each data set of the Hub, and the benchmarks, that some stages need.

    Raises DataError with all that is wrong, or ConfigError where only a benchmark's name is.
    """
    if not nodes:
        return
    config = resolved.config
    if any(kind_of(node.kind).holds_model for node in nodes):
        hardware.check(resolved)
    prepare(config.run, asks_hub=needs_hub(config, corpus, [config.stages[node.name] for node in nodes]))
    check_backends(config, [node.name for node in nodes])
    check_arguments(config, nodes)
    stages = resolved.config.stages
    for node in nodes:
        if isinstance(settings := stages[node.name], MergeSettings):
            check_merge(settings, node.name)
    roles = [r for node in nodes for r in data_roles(node.kind, corpus, stages[node.name], sampled=node.sampled)]
    problems: list[RecipeError] = []
    try:
        corpus.check_rows(list(dict.fromkeys(roles)))
    except DataError as error:
        problems.append(error)
    exams = [exam for node in nodes if isinstance(exam := stages[node.name], EvaluateSettings)]
    if tasks := list(dict.fromkeys(task for exam in exams for task in exam.tasks)):
        from common.evaluation import extra

        try:
            extra.load(tasks, task_folders(resolved))
        except (ConfigError, DataError) as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise DataError("\n".join(map(str, problems)))
