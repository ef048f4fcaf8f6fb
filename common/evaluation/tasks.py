"""Writes lm-evaluation-harness task files, with their data, for one side of the exam.

Usage: `write_question_task(folder, "exam_domain", rows, chat=True, ending="<|end|>")`, then point a harness
`TaskManager(include_path=folder)` at the folder.

The files describe questions; asking them is `common.evaluation.exam`. Raise VERSION whenever a change here
can change a score.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import DataError

VERSION = 1
PLAIN_PROMPT = "Question: {question}\nAnswer:"


def write_question_task(
    folder: Path, name: str, rows: Sequence[Mapping[str, Any]], *, chat: bool, ending: str = ""
) -> Path:
    """Write `<name>.yaml` and `<name>.jsonl` for multiple-choice question rows and return the YAML's path.

    The choice with the highest log-likelihood is the answer. With `chat` the question is the whole user message
    and `ending` (the checkpoint's end-of-turn token) belongs to every choice, so that "dollar" does not beat
    "dollar bill" merely by being shorter. Raises DataError on a row that cannot be scored.
    """
    check_questions(name, rows)
    documents = [
        {
            "id": row["id"],
            "question": row["question"],
            "choices": [choice + ending for choice in row["choices"]],
            "answer": row["answer"],
        }
        for row in rows
    ]
    task = {
        "output_type": "multiple_choice",
        # The bare column, where chat needs no words around it: the harness reads a rendered template that is
        # all digits, or looks like a list, as a Python value.
        "doc_to_text": "question" if chat else PLAIN_PROMPT.replace("{question}", "{{question}}"),  # a jinja template
        "doc_to_target": "answer",
        "doc_to_choice": "choices",
        "target_delimiter": " ",  # the harness leaves it out after a chat template
        "metric_list": [_mean("acc"), _mean("acc_norm")],
    }
    return _write(folder, name, task, documents)


def write_text_task(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write `<name>.yaml` and `<name>.jsonl` for bits per byte of whole documents and return the YAML's path."""
    documents = [{"text": row["text"], "language": row.get("language")} for row in rows]
    task = {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "text",
        "metric_list": [{"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}],
    }
    return _write(folder, name, task, documents)


def check_questions(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse rows that would make a score wrong. Raises DataError naming the row."""
    seen: set[str] = set()
    for row in rows:
        choices, answer = row["choices"], row["answer"]
        if row["id"] in seen:
            raise DataError(f"{name}: question id '{row['id']}' occurs twice; give every question its own id.")
        seen.add(row["id"])
        if len(choices) < 2 or len(set(choices)) < len(choices) or not all(choice.strip() for choice in choices):
            raise DataError(
                f"{name}: question '{row['id']}' has the choices {list(choices)}; "
                "expected two or more different, non-empty ones. Mend the row or leave it out."
            )
        if not 0 <= answer < len(choices):
            raise DataError(
                f"{name}: question '{row['id']}' has answer {answer}, expected the place of the right choice, "
                f"0 to {len(choices) - 1}. Check the column that `answer` is read from."
            )


def _write(folder: Path, name: str, task: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> Path:
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{name}.jsonl"
    with data.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
    settings = {
        "task": name,
        "dataset_path": "json",
        # Its own cache, so that nothing is left below the user's home and no earlier exam is mistaken for this one.
        "dataset_kwargs": {"data_files": {"test": str(data.resolve())}, "cache_dir": str((folder / "cache").resolve())},
        "test_split": "test",
        "num_fewshot": 0,
        **task,
        "metadata": {"version": VERSION},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def _mean(metric: str) -> dict[str, Any]:
    return {"metric": metric, "aggregation": "mean", "higher_is_better": True}
