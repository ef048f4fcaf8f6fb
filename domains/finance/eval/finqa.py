"""FinQA's questions as flat rows, and the mark of a reply by its final number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.data.answers import exact, final_answer, parse_number, same_number

TOLERANCE = 0.01  # of the value: replies round. Ours.


def questions(dataset: Any) -> Any:
    """Return one row per question: the page's text with its table in place, the question, the executed answer."""
    from datasets import Dataset

    return Dataset.from_list([_row(page) for page in dataset])


def _row(page: Mapping[str, Any]) -> dict[str, str]:
    table = "\n".join(" | ".join(cells) for cells in page["table"])
    parts = (" ".join(page["pre_text"]), table, " ".join(page["post_text"]))
    return {
        "id": page["id"],
        "context": "\n\n".join(part for part in parts if part.strip()),
        "question": page["qa"]["question"],
        "answer": str(page["qa"]["exe_ans"]),
    }


def mark(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Mark one reply; shares are stored as fractions (0.125), so the same number as a percentage is right too."""
    reply = final_answer(results[0], "Answer:")
    wanted = parse_number(doc["answer"])
    if wanted is None:
        return {"exact_match": float(exact(reply, [doc["answer"]]))}
    number = parse_number(reply)
    right = any(same_number(number, value, TOLERANCE) for value in (wanted, 100 * wanted))
    return {"exact_match": float(right)}
