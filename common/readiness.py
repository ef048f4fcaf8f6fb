"""Whether all that some stages need is there, told before any of them begins: machine, libraries, rows, benchmarks.

Usage: `check_inputs(resolved, corpus, nodes)`, from `common.run`. What settings alone tell is `common.preconditions`.
"""

from __future__ import annotations

from collections.abc import Sequence

from common import needs
from common.data.corpus import Corpus
from common.errors import ConfigError, DataError, RecipeError
from common.layers import Resolved
from common.libraries import needs_hub, prepare
from common.pipeline import Node
from common.recipe import task_folders
from common.stage_settings import EvaluateSettings
from common.stages import MODEL_KINDS, data_roles
from common.training.arguments import check_arguments
from common.training.backends import check_backends
from common.training.gpu import ON_GPU


def check_inputs(resolved: Resolved, corpus: Corpus, nodes: Sequence[Node]) -> None:
    """Read every local row, one of each data set of the Hub, and the benchmarks, that some stages need.

    Raises DataError with all that is wrong, or ConfigError where only a benchmark's name is.
    """
    if not nodes:
        return
    config = resolved.config
    if any(node.kind in (*MODEL_KINDS, *ON_GPU) for node in nodes):
        needs.check(resolved)
    prepare(config.run, asks_hub=needs_hub(config, corpus, [config.stages[node.name] for node in nodes]))
    check_backends(config, [node.name for node in nodes])
    check_arguments(config, nodes)
    stages = resolved.config.stages
    roles = [r for node in nodes for r in data_roles(node.kind, corpus, stages[node.name], sampled=node.sampled)]
    problems: list[RecipeError] = []
    try:
        corpus.check_rows(list(dict.fromkeys(roles)))
    except DataError as error:
        problems.append(error)
    exams = [settings for node in nodes if isinstance(settings := stages[node.name], EvaluateSettings)]
    if tasks := list(dict.fromkeys(task for exam in exams for task in exam.tasks)):
        from common.evaluation import extra

        try:
            extra.load(tasks, task_folders(resolved.repository, resolved.config.domain))
        except (ConfigError, DataError) as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise DataError("\n".join(map(str, problems)))
