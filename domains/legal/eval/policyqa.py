"""PolicyQA's questions as flat rows, and the mark of a reply by SQuAD's exact match and F1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.data.answers import exact, f1


def questions(dataset: Any) -> Any:
    """Return one row per question: the passage, the question, all accepted answers."""
    from datasets import Dataset

    return Dataset.from_list(
        [
            {
                "id": question["id"],
                "context": paragraph["context"],
                "question": question["question"],
                "answers": [answer["text"] for answer in question["answers"]],
            }
            for policy in dataset
            for paragraph in policy["paragraphs"]
            for question in paragraph["qas"]
        ]
    )


def mark(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Mark one reply by the accepted answer that fits it best."""
    return {"exact_match": float(exact(results[0], doc["answers"])), "f1": f1(results[0], doc["answers"])}
