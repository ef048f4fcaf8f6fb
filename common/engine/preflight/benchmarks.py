"""Load the benchmarks that the exams of a run ask, once: to see that they are there, and to keep them out of the rows.

Usage: `found = load_benchmarks(resolved, corpus, nodes)`; `noted_benchmarks(resolved)` in another process.

What they ask is noted in the run's folder, for the processes that make single stages of it. What a row must not repeat
is `common.data.exam_passages`.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.config.cleaning import benchmarks_of
from common.config.node import Node
from common.config.resolve import EMBEDDED, HUB, Resolved
from common.config.stages import EvaluateSettings
from common.data.corpus import Corpus
from common.data.exam_passages import Passage, digest_of
from common.engine.fingerprint import task_files, task_folders
from common.engine.own_data import is_default
from common.engine.preflight.domain_code import exam_folders
from common.errors import DataError
from common.evaluation.hub_tasks import check_reachable, hub_tasks
from common.stage import holds_apart
from common.store.artifacts import Store, write_json, writing
from common.store.manifest import read_mapping
from common.store.runs import BENCHMARKS, run_of

LIBRARIES = ("lm-eval", "datasets")  # what decides how a task words its questions


@dataclass(frozen=True)
class Benchmarks:
    """What the benchmarks of a run ask, and which of them it goes without."""

    passages: tuple[Passage, ...] = ()
    left_out: tuple[str, ...] = ()

    def facts(self, resolved: Resolved) -> dict[str, Any]:
        """Return what the manifest of a stage says that held its rows against them."""
        tasks = [name for name in benchmarks_of(resolved.config.stages) if name not in self.left_out]
        facts = {"tasks": tasks, "questions": len(self.passages), "digest": digest_of(self.passages)}
        return {**facts, **({"left_out": list(self.left_out)} if self.left_out else {})}


NONE = Benchmarks()


def load_benchmarks(resolved: Resolved, corpus: Corpus, nodes: Sequence[Node]) -> Benchmarks:
    """Load what the exams of some stages ask; where one of these holds rows against the exam, what all exams ask.

    A run on a user's own files goes without what a domain or a profile asks for and cannot be loaded. What a user asks
    for is needed. Raises DataError where that cannot be loaded, or read, and ConfigError for a name that no task has.
    """
    apart = any(holds_apart(node, resolved.config) for node in nodes)
    stages = resolved.config.stages
    exams = stages if apart else {node.name: stages[node.name] for node in nodes}
    asked = {name: settings.tasks for name, settings in exams.items() if isinstance(settings, EvaluateSettings)}
    tasks = list(dict.fromkeys(task for names in asked.values() for task in names))
    if not tasks:
        return NONE
    from common.evaluation import extra

    folders = exam_folders(task_folders(resolved), resolved)
    try:
        return Benchmarks(_load(tasks, folders, apart))
    except DataError:
        on_hub = any("revision" in source for source in corpus.sources())
        own = resolved.config.data not in (EMBEDDED, HUB) and not on_hub
        if not own or not all(is_default(f"{name}.tasks", resolved) for name, names in asked.items() if names):
            extra.check_known(tasks, folders)  # a name that nobody has is none of the network's
            raise
    passages: list[Passage] = []
    missing = []
    for task in tasks:
        try:
            passages += _load([task], folders, apart)
        except DataError:
            missing.append(task)
    return Benchmarks(tuple(passages), tuple(missing))


def _load(names: Sequence[str], folders: Sequence[Path], apart: bool) -> tuple[Passage, ...]:
    from common.evaluation import extra
    from common.evaluation.benchmark_passages import benchmark_passages

    check_reachable(hub_tasks(names, folders))
    loaded = extra.load(names, folders)
    return tuple(benchmark_passages(loaded)) if apart else ()


def note_benchmarks(found: Benchmarks, resolved: Resolved, nodes: Sequence[Node]) -> None:
    """Note in the run's folder what the benchmarks ask, for `noted_benchmarks`, if one of some stages is held apart."""
    if found != NONE and any(holds_apart(node, resolved.config) for node in nodes):
        path = run_of(resolved).path / _file_of(resolved)
        with writing(Store(resolved.out).runs):
            path.parent.mkdir(parents=True, exist_ok=True)
            passages = [asdict(one) for one in found.passages]
            write_json(path, {**_asked(resolved), "passages": passages, "left_out": list(found.left_out)})


def noted_benchmarks(resolved: Resolved) -> Benchmarks | None:
    """Return what a process of this run has noted of the same tasks; None where none has."""
    found = read_mapping(run_of(resolved).path / _file_of(resolved))
    if not found or any(found.get(name) != value for name, value in _asked(resolved).items()):
        return None
    return Benchmarks(tuple(Passage(**one) for one in found["passages"]), tuple(found["left_out"]))


def _file_of(resolved: Resolved) -> str:
    """Return the file of a run's benchmarks; each domain of a sequence has its own."""
    return f"{resolved.config.domain}.{BENCHMARKS}" if resolved.part_of else BENCHMARKS


def _asked(resolved: Resolved) -> Mapping[str, Any]:
    """Return what decides the questions of the benchmarks, as far as this machine knows it, and which are needed."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    stages = resolved.config.stages
    needed = sorted(
        name for name in stages if getattr(stages[name], "tasks", ()) and not is_default(f"{name}.tasks", resolved)
    )
    tasks = sorted(benchmarks_of(stages))
    return {"tasks": tasks, "needed": needed, "task_files": task_files(resolved), "versions": versions}
