"""Makes lm-evaluation-harness tasks of one side of the exam.

Usage: `task = question_task("exam_domain_questions", rows, chat=True, ending="<|end|>")`.

A task describes questions or texts and holds them in memory. Running it is `common.evaluation.exam`. Raise VERSION
whenever a change here can change a score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.errors import DataError

VERSION = 1
PLAIN_PROMPT = "Question: {question}\nAnswer:"
Rows = Sequence[Mapping[str, Any]]


def question_task(name: str, rows: Rows, *, chat: bool, ending: str = "") -> Any:
    """Return a task of multiple-choice questions.

    The choice with the highest log-likelihood is the answer. With `chat` the question is the whole user message, and
    every choice ends with `ending` (the checkpoint's end-of-turn token), so that "dollar" does not beat "dollar bill"
    merely by being shorter. Raises DataError for a row that cannot be scored.
    """
    check_questions(name, rows)
    documents = [
        {**{key: row[key] for key in ("id", "question", "answer")}, "choices": [c + ending for c in row["choices"]]}
        for row in rows
    ]
    return _task(
        name,
        documents,
        output_type="multiple_choice",
        # The bare column, where chat needs no text around it: the harness reads a rendered template that is all
        # digits, or looks like a list, as a Python value.
        doc_to_text="question" if chat else PLAIN_PROMPT.replace("{question}", "{{question}}"),  # a jinja template
        doc_to_target="answer",
        doc_to_choice="choices",
        target_delimiter=" ",  # the harness leaves it out after a chat template
        metric_list=[{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in ("acc", "acc_norm")],
    )


def text_task(name: str, rows: Rows) -> Any:
    """Return a task that measures the bits per byte of whole documents."""
    return _task(
        name,
        [{"text": row["text"], "language": row.get("language")} for row in rows],
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="text",
        metric_list=[{"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}],
    )


def check_questions(name: str, rows: Rows) -> None:
    """Refuse rows that would make a score wrong. Raises DataError naming the row."""
    seen: set[str] = set()
    for row in rows:
        choices, answer = row["choices"], row["answer"]
        if row["id"] in seen:
            raise DataError(f"{name}: question id '{row['id']}' occurs twice. Give every question its own id.")
        seen.add(row["id"])
        if len(choices) < 2 or len(set(choices)) < len(choices) or not all(choice.strip() for choice in choices):
            raise DataError(
                f"{name}: question '{row['id']}' has the choices {list(choices)}; "
                "expected two or more different, non-empty ones. Fix the row or leave it out."
            )
        if not 0 <= answer < len(choices):
            raise DataError(
                f"{name}: question '{row['id']}' has answer {answer}; expected the index of the right choice, "
                f"0 to {len(choices) - 1}. Check the column that `answer` is read from."
            )


def _task(name: str, documents: list[dict[str, Any]], **config: Any) -> Any:
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    settings = {
        "task": name,
        "custom_dataset": lambda **_: {"test": Dataset.from_list(documents)},
        "test_split": "test",
        "num_fewshot": 0,
        "metadata": {"version": VERSION},
        **config,
    }
    return ConfigurableTask(config=settings)
