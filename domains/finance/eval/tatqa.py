"""TAT-QA's questions as flat rows, and the mark of a reply: spans by words, computed answers by value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from common.data.answers import exact, f1, final_answer, parse_number, same_number

TOLERANCE = 0.01  # of a computed value: replies round. Ours.
_FIGURE = re.compile(r"[\s$€£¥()%.,\d\u2212\u2013-]+")  # "$ 1,239", "(66)%": a number and signs, no words


def questions(dataset: Any) -> Any:
    """Return one row per question: its page as text, the question, the unit asked for, the answers, their kind."""
    from datasets import Dataset

    return Dataset.from_list([_row(_context(page), question) for page in dataset for question in page["questions"]])


def _context(page: Mapping[str, Any]) -> str:
    table = "\n".join(" | ".join(cells) for cells in page["table"]["table"])
    paragraphs = sorted(page["paragraphs"], key=lambda paragraph: int(paragraph["order"]))
    return "\n\n".join([table, *(paragraph["text"] for paragraph in paragraphs)])


def _row(context: str, question: Mapping[str, Any]) -> dict[str, Any]:
    answer, scale = question["answer"], question["scale"]
    units = {"": "", "percent": "Give percentages. "}
    return {
        "id": question["uid"],
        "context": context,
        "question": question["question"],
        "unit": units.get(scale, f"Give amounts in {scale}s. "),
        "answers": [str(item) for item in answer] if isinstance(answer, list) else [str(answer)],
        "kind": question["answer_type"],
    }


def mark(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Mark one reply: every answer must be there and no other; F1 counts shared words, where there are words."""
    reply = final_answer(results[0], "Answer:")
    wanted = doc["answers"]
    given = [part for part in reply.split(";") if part.strip()] if len(wanted) > 1 else [reply]
    tolerance = TOLERANCE if doc["kind"] == "arithmetic" else 1e-6
    right = len(given) == len(wanted) and all(any(_same(part, item, tolerance) for part in given) for item in wanted)
    words = len(wanted) > 1 or not _is_figure(wanted[0])
    return {"exact_match": float(right), "f1": f1(reply, [" ".join(wanted)]) if words and not right else float(right)}


def _is_figure(text: str) -> bool:
    return bool(_FIGURE.fullmatch(text)) and parse_number(text) is not None


def _same(given: str, wanted: str, tolerance: float) -> bool:
    if _is_figure(wanted):
        return same_number(parse_number(given), parse_number(wanted), tolerance)
    return exact(given, [wanted])
