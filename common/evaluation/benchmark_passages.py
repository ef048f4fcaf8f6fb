"""List what the benchmarks of lm-evaluation-harness ask, so that no training row repeats it.

Usage: `loaded = extra.load(names, folders)`; `found = benchmark_passages(loaded)`.

It reads the documents that a task is scored on, as its own template words them, without examples and instructions. How
tasks are loaded, and what happens when one cannot be, is `common.evaluation.extra`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from common.data.exam_passages import Passage, question_passages
from common.errors import DataError
from common.evaluation.hub_tasks import LEAVE_OUT


def benchmark_passages(loaded: Mapping[str, Any]) -> list[Passage]:
    """Return the questions of loaded tasks, task by task in the order of their names.

    Raises DataError for a task whose questions cannot be read: rows are not checked against a part of an exam.
    """
    return [passage for name in sorted(loaded.get("tasks") or {}) for passage in _of_task(name, loaded["tasks"][name])]


def _of_task(name: str, task: Any) -> Iterator[Passage]:
    try:
        asked = [_question(task, doc, f"{number}") for number, doc in enumerate(task.eval_docs)]
    except Exception as error:  # whatever the task's own template and code raise
        raise DataError(
            f"The questions of the benchmark '{name}' cannot be read, so that no row can be checked against them "
            f"({type(error).__name__}: {error}). Fix the task, or {LEAVE_OUT}."
        ) from error
    yield from question_passages(name, [row for row in asked if row["question"].strip()])


def _question(task: Any, doc: Mapping[str, Any], number: str) -> dict[str, Any]:
    """Return what a document asks; some tasks ask by their choices alone, as which of two sentences is likelier."""
    choices = [str(choice) for choice in task.doc_to_choice(doc)] if task.config.doc_to_choice is not None else []
    text = task.doc_to_text(doc)
    if not isinstance(text, str):  # the place of the right one among several beginnings
        return {"id": number, "question": "\n".join(choices), "choices": []}
    if not text.strip():  # a text that is only read
        target = task.doc_to_target(doc)
        text = target if isinstance(target, str) else "\n".join(choices)
    return {"id": number, "question": text, "choices": choices}
