"""Questions and answers become plain text: the exact text of conversations, of pairs, and of rows that say less."""

from __future__ import annotations

from typing import Any

import pytest

from common.data.accounting import RowCount
from common.data.decontaminate import EXAM_OVERLAP, Decontaminator, filter_rows
from common.data.exam_passages import question_passages
from common.data.manifest.values import UnusableRow
from tests.data.manifest.shaping import shape

QA = {"question": "q", "answer": "a"}
MARKED = {"qa": {"question": "Problem: ", "answer": "Solution: ", "between": "\n"}}


def text(value: dict[str, Any], columns: dict[str, Any], form: Any = "qa", **facts: Any) -> str:
    row = shape("cpt", value, columns, form=form, **facts)
    assert row.keys() <= {"text", "changed"}
    return str(row["text"])


def test_a_question_and_its_answer() -> None:
    assert text({"q": " Why? ", "a": "So."}, QA) == "Why?\n\nSo."
    assert text({"q": "2 + 3?", "a": 5}, QA, MARKED) == "Problem: 2 + 3?\nSolution: 5"


def test_context_system_text_and_choices() -> None:
    columns = {**QA, "context": "c", "system": "s"}
    assert text({"q": "Why?", "a": "So.", "c": "It rains.", "s": "Be brief."}, columns, MARKED) == (
        "Be brief.\nProblem: Why?\n\nIt rains.\nSolution: So."
    )
    lettered = {**QA, "choices": ["x", "y"]}
    assert text({"q": "Which?", "x": "oak", "y": "moss", "a": "B"}, lettered) == "Which?\nA. oak\nB. moss\n\nB. moss"


def test_a_conversation_of_several_turns_with_thoughts() -> None:
    turns = [
        {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5", "reasoning_content": "3 + 2 = 5"},
    ]  # fmt: skip
    assert text({"m": turns}, {"messages": "m"}) == "Hi?\n\nYes.\n\n2 + 3?\n\n3 + 2 = 5\n\n5"
    assert text({"m": turns[:2]}, {"messages": "m"}, MARKED) == "Problem: Hi?\nSolution: Yes."


def test_of_a_pair_the_prompt_and_the_chosen_answer() -> None:
    pair = {"p": "Why?", "c": "So.", "r": "No."}
    columns = {"prompt": "p", "chosen": "c", "rejected": "r"}
    assert text(pair, columns) == "Why?\n\nSo."
    said = "\n\nHuman: Why?\n\nAssistant: "
    transcripts = {"transcript_chosen": "c", "transcript_rejected": "r"}
    assert text({"c": f"{said}So.", "r": f"{said}No."}, transcripts) == "Why?\n\nSo."


@pytest.mark.parametrize(
    ("value", "columns", "reason"),
    [
        ({"q": "Why?", "a": None}, QA, "empty answer"),
        ({"a": "So."}, QA, "empty question"),
        ({"p": "Why?", "c": "So.", "r": ""}, {"prompt": "p", "chosen": "c", "rejected": "r"}, "empty rejected"),
        ({"m": [{"role": "user", "content": "Hi?"}]}, {"messages": "m"}, "ends in a user turn"),
        (
            {"m": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "No.", "weight": 0}]},
            {"messages": "m"}, "an answer that is not to be learned",
        ),
        (
            {"m": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "No."}],
             "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
            {"messages": "m"}, "calls of tools, which plain text has no place for",
        ),
    ],
)  # fmt: skip
def test_rows_that_are_left_out_say_why(value: dict[str, Any], columns: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnusableRow, match=reason):
        shape("cpt", value, columns, form="qa")


@pytest.mark.parametrize("form", ["qa", MARKED])
def test_an_exam_question_is_found_in_its_new_form(form: Any) -> None:
    asked = {"id": "1", "question": "What is the capital of Mali?", "answers": ["Bamako"], "source": "exam"}
    guard = Decontaminator(question_passages("questions_domain", [asked]))
    values: list[dict[str, Any]] = [
        {"q": asked["question"], "a": "Bamako"},
        {"q": "What is the capital of Malta?", "a": "Valletta"},
    ]
    rows = [shape("cpt", value, QA, form=form) | {"source": "s"} for value in values]
    count = RowCount("s", "cpt")
    assert [row["text"][-8:] for row in filter_rows(rows, guard, count)] == ["Valletta"]
    assert count.dropped == {EXAM_OVERLAP: 1}
