"""Further harness tasks by name, such as arc_easy: published exams beside our own.

Usage: `tasks = load(("arc_easy",))`, `evaluate(model, tasks, chat=True, limit=None)`.

Their data comes from the Hub, so they need a network or a filled cache. Their scores are reported and take no
part in the gate.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from common.errors import ConfigError, DataError, did_you_mean
from common.evaluation import harness


@dataclass(frozen=True)
class Extra:
    """Scores by task and metric, and what is known of the tasks."""

    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)


def load(names: Sequence[str], manager: Any = None) -> dict[str, Any]:
    """Load tasks, groups and tags of the harness with their data.

    Raises ConfigError for a name that it does not have, and DataError when a task's data cannot be had.
    """
    if not names:
        return {}
    with harness.quiet():
        manager = manager or _manager()
        for name in names:
            if name not in manager.task_index:
                raise ConfigError(
                    f"tasks: lm-evaluation-harness has no task '{name}'.{did_you_mean(name, manager.all_tasks)} "
                    "`lm-eval ls tasks` lists all."
                )
        loaded: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
        for name in names:
            try:
                one = manager.load([name])
            except Exception as error:  # whatever the task's own code and the Hub's client raise
                raise DataError(
                    f"The data of the harness task '{name}' cannot be had ({type(error).__name__}: "
                    f"{str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}). Check the "
                    "network and HF_HUB_OFFLINE, or leave the task out; profile=tiny needs none."
                ) from error
            for part in loaded:
                loaded[part].update(one.get(part) or {})
    return loaded


def evaluate(model: Any, tasks: dict[str, Any], chat: bool, limit: int | None) -> Extra:
    """Run loaded tasks and return their metrics, without the harness's filter names and standard errors."""
    if not tasks:
        return Extra()
    results = harness.evaluate(model, tasks, chat, limit)
    scores = {name: _numbers(metrics) for name, metrics in results["results"].items()}
    form = "chat" if chat else "plain"
    facts = {
        name: {"version": version, "asked": form, "shots": results["n-shot"].get(name)}
        for name, version in results["versions"].items()
    }
    return Extra({name: metrics for name, metrics in scores.items() if metrics}, facts)


@functools.cache  # reading the index takes seconds, and a run sits many exams
def _manager() -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """Keep the numbers of one task: `acc,none` becomes `acc`, `exact_match,strict-match` keeps its filter.

    Standard errors are the text "N/A" where there was no bootstrap, and so fall away.
    """
    kept = {}
    for key, value in metrics.items():
        if "," not in key or not isinstance(value, int | float):
            continue
        kept[key.removesuffix(",none")] = float(value)
    return kept
