"""Further tasks by name, such as arc_easy or a domain's own: published benchmarks in addition to our exam.

Usage: `tasks = load(("arc_easy",), folders=[Path("domains/medical/eval")])`,
`evaluate(model, tasks, chat=True, limit=None)`.

A name is a task, group or tag of lm-evaluation-harness, or of a YAML file in one of the folders; a file overrides a
name of the harness's own. The data comes from the Hub, so tasks need a network or a filled cache. Their scores are
reported and take no part in the gate.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.config.yaml import read_yaml
from common.errors import ConfigError, DataError, did_you_mean, first_line
from common.evaluation import harness
from common.evaluation.hub_tasks import LEAVE_OUT
from common.evaluation.task_index import remembered_index
from common.models.finite import require_finite
from common.system.files import check_files

PARTS = ("tasks", "groups", "group_map")


@dataclass(frozen=True)
class Extra:
    """Scores by task and metric, and what is known of the tasks."""

    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)


def load(names: Sequence[str], folders: Sequence[Path] = (), manager: Any = None) -> dict[str, Any]:
    """Load tasks, groups and tags of the harness, and those in the folders' YAML files, with their data.

    Folders are read recursively, and a name in a later folder overrides one in an earlier folder.

    Raises ConfigError for an unknown name. Raises DataError, which names every task concerned, when their data or a
    package that they need could not be loaded.
    """
    if not names:
        return {}
    # What tasks print while they load, such as downloads of nltk, is dropped; errors are raised all the same.
    with (
        harness.quiet(), harness.metrics_of_its_own(),
        contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()),
    ):  # fmt: skip
        manager = manager or task_manager(tuple(folders))
        _check_known(names, folders, manager)
        loaded: dict[str, Any] = {part: {} for part in PARTS}
        failures: dict[str, Exception] = {}
        for name in names:
            try:
                one = manager.load([name])
            except Exception as error:  # whatever the task's own code and the Hub's client raise
                failures |= _failures(manager, name, error)
                continue
            for part in PARTS:
                loaded[part].update(one.get(part) or {})
    if failures:
        raise DataError(_describe(failures))
    return loaded


def check_known(names: Sequence[str], folders: Sequence[Path] = ()) -> None:
    """Raise ConfigError for a name that neither the harness nor a file has. Nothing is asked of the Hub."""
    with harness.quiet():
        _check_known(names, folders, task_manager(tuple(folders)))


def _check_known(names: Sequence[str], folders: Sequence[Path], manager: Any) -> None:
    for name in names:
        if name not in manager.task_index:
            raise ConfigError(
                f"tasks: lm-evaluation-harness has no task '{name}'.{did_you_mean(name, manager.all_tasks)} "
                f"{_where_to_look(name, folders)}"
            )


def evaluate(model: Any, tasks: dict[str, Any], chat: bool, limit: int | None) -> Extra:
    """Run loaded tasks and return their metrics, without the harness's filter names and standard errors."""
    if not tasks:
        return Extra()
    results = harness.evaluate(model, tasks, chat, limit)
    # `acc,none` becomes `acc`; `exact_match,strict-match` keeps its filter. Standard errors are the text "N/A" here.
    scores = {
        name: {k.removesuffix(",none"): float(v) for k, v in metrics.items() if "," in k and isinstance(v, int | float)}
        for name, metrics in results["results"].items()
    }
    for name, metrics in scores.items():
        require_finite(metrics.items(), f"Task {name}", f"Train the stage again, or {LEAVE_OUT}.")
    form = "chat" if chat else "plain"
    facts = {
        name: {"version": version, "asked": form, "shots": results["n-shot"].get(name)}
        for name, version in results["versions"].items()
    }
    return Extra({name: metrics for name, metrics in scores.items() if metrics}, facts)


@functools.cache  # reading the index takes seconds, and a run has many exams
def task_manager(folders: tuple[Path, ...] = ()) -> Any:
    """Return the harness's index of its own tasks and of those in some folders; later folders override.

    Raises DataError where a folder holds what is no file, which the harness would wait for.
    """
    from lm_eval.tasks import TaskManager

    for folder in folders:
        check_files(folder, below=True)
    with harness.bounded_files(folders), remembered_index():
        return TaskManager(include_path=[str(folder) for folder in folders] or None)


def _where_to_look(name: str, folders: Sequence[Path]) -> str:
    """Return the next step for an unknown name; the harness ignores a file that it cannot read."""
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            try:
                read_yaml(folder / f"{name}.yaml", any_tag=True)
            except DataError as error:
                return f"{error} Fix it."
            return f"{folder / name}.yaml exists, but has no `task: {name}` or `group: {name}`."
    own = ", ".join(str(folder) for folder in folders)
    return f"`lm-eval ls tasks` lists all{f'; ours are in {own}' if own else ''}."


def _failures(manager: Any, name: str, error: Exception) -> dict[str, Exception]:
    """Return the errors of a group's members one by one, since a group stops at the first; else that of the name."""
    members = (manager.task_index[name].cfg or {}).get("task")
    failures: dict[str, Exception] = {}
    for member in members if isinstance(members, list) else ():
        if not isinstance(member, str) or member not in manager.task_index:
            continue
        try:
            manager.load([member])
        except Exception as failure:  # as in `load`
            failures[member] = failure
    return failures or {name: error}


def _describe(failures: Mapping[str, Exception]) -> str:
    by_reason: dict[str, list[str]] = {}
    for name, error in failures.items():
        by_reason.setdefault(f"{type(error).__name__}: {first_line(error)}", []).append(f"'{name}'")
    packages = any(isinstance(error, ImportError) for error in failures.values())
    install = "Install the packages named (lm-eval[ifeval], lm-eval[math]). " if packages else ""
    lines = [
        f"{len(failures)} of the harness tasks could not be loaded. {install}Check the network, HF_HUB_OFFLINE and "
        f"your access to gated data, or {LEAVE_OUT}.",
        *(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items()),
    ]
    return "\n  - ".join(lines)
