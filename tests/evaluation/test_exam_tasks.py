"""The harness tasks that the exam is made of, and the rows that it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from common.errors import DataError
from common.evaluation.tasks import VERSION, check_questions, question_task, text_task


def test_tasks_carry_a_version_and_hold_their_rows(make_questions: Callable[..., list[dict[str, Any]]]) -> None:
    asked = question_task("asked", make_questions(3), chat=True, ending="<|end|>")
    read = text_task("read", [{"text": "one document"}])
    assert (asked.VERSION, read.VERSION) == (VERSION, VERSION)
    assert [doc["id"] for doc in asked.test_docs()] == ["q0", "q1", "q2"]
    assert list(read.test_docs()) == [{"text": "one document", "language": None}]


def test_ending_is_part_of_every_choice(make_questions: Callable[..., list[dict[str, Any]]]) -> None:
    rows = make_questions(2)
    asked = list(question_task("asked", rows, chat=True, ending="<|end|>").test_docs())
    assert [row["choices"] for row in asked] == [[f"{c}<|end|>" for c in row["choices"]] for row in rows]
    assert [(row["id"], row["answer"]) for row in asked] == [("q0", 0), ("q1", 1)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "q0"}, "question id 'q0' occurs twice"),
        ({"choices": ["one"], "answer": 0}, "two or more different"),
        ({"choices": ["one", "one"]}, "two or more different"),
        ({"choices": ["one", " "]}, "two or more different"),
        ({"answer": 4}, "answer 4; expected the index of the right choice, 0 to 3"),
        ({"answer": -1}, "answer -1; expected"),
    ],
)
def test_rows_that_cannot_be_scored_are_refused(
    change: dict[str, Any], message: str, make_questions: Callable[..., list[dict[str, Any]]]
) -> None:
    rows = make_questions(2)
    check_questions("asked", rows)
    with pytest.raises(DataError, match=message):
        check_questions("asked", [rows[0], {**rows[1], **change}])
