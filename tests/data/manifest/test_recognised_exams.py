"""Columns of exams are recognised, and how their answers name the choices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.data.manifest.fields import Unclear
from common.errors import DataError
from tests.data.manifest.manifests import CPT, load, write_rows
from tests.data.manifest.recognised import ASKED, row_of, told


@pytest.mark.parametrize(
    "record",
    [
        {"question": "Which?", "choices": ["one", "two", "three"], "answer": 1, "subject": "x"},  # MMLU
        {"question": "Which?", "choices": {"text": ["one", "two", "three"], "label": [*"ABC"]}, "answerKey": "B"},
        {"question": {"stem": "Which?", "choices": [{"text": t, "label": n} for t, n in (("one", "1"), ("two", "2"),
                      ("three", "3"))]}, "answerKey": "2"},
        {"question": "Which?", "options": {"A": "one", "B": "two", "C": "three"}, "answer": "two", "answer_idx": "B"},
        {"question": "Which?", "opa": "one", "opb": "two", "opc": "three", "cop": 1, "exp": "so"},  # MedMCQA
        {"URL": "u", "Question": "Which?", "Option A": "one", "Option B": "two", "Option C": "three", "Prompt": "Q: …",
         "GT": "B"},  # CTI-MCQ
        {"id": 0, "question": "Which?", "A": "one", "B": "two", "C": "three", "answer": "B"},  # C-Eval
        {"question": "Which?", "options": ["A)one", "B)two", "C)three"], "rationale": "So.", "correct": "B"},  # AQuA
        {"question": "Which?", "options": ["(A) one", "(B) two", "(C) three"], "answer": "(B)"},
        {"question": "Which?", "choices": "['one', 'two', 'three']", "answer": "two"},
        {"question": "Which?", "options": ["one", "two", "three"], "answer": "B", "answer_index": 1},  # MMLU-Pro
        {"question": "Which?", "choice1": "one", "choice2": "two", "choice3": "three", "choice4": "", "answer": "two"},
    ],
)  # fmt: skip
def test_exams_with_choices(record: dict[str, Any]) -> None:
    others = {"answer": 0, "cop": 0} if isinstance(record.get("answer", record.get("cop")), int) else {}
    assert row_of("eval", record, record | {key: 0 for key in others if key in record}) == ASKED


def test_answers_that_count_from_one() -> None:
    rows = [{"question": "Which?", "options": ["a", "b"], "answer": number} for number in (1, 2, 1)]
    assert told("eval", *rows)["index_from"] == 1
    assert row_of("eval", *rows)["answer"] == 0
    with pytest.raises(Unclear, match="'answer' counts the choices from 0 or from 1; say which with index_from"):
        told("eval", rows[0] | {"options": ["a", "b", "c"]})
    named = row_of("eval", {"question": "Which?", "sentence": "x", "option1": "a", "option2": "b", "answer": "2"})
    assert (named["choices"], named["answer"]) == (["a", "b"], 1)


def test_answers_that_are_no_whole_numbers_do_not_count() -> None:
    record = {"question": "Which?", "choices": ["a", "b"], "answer": "a", "label": float("nan")}
    assert told("eval", record) == {"question": "question", "choices": "choices", "answer": "answer"}


def test_two_columns_that_name_different_choices() -> None:
    record = {"question": "Which?", "choices": ["a", "b"], "answer": "a", "label": "b"}
    with pytest.raises(Unclear, match="'answer' and 'label' name different choices"):
        told("eval", record)


@pytest.mark.parametrize(
    "record",
    [
        {
            "question": "Which?",
            "distractor3": "c",
            "distractor1": "a",
            "distractor2": "b",
            "correct_answer": "d",
        },  # SciQ
        {"Question": "Which?", "Correct Answer": "d", "Incorrect Answer 1": "c", "Incorrect Answer 2": "b"},  # GPQA
    ],
)
def test_a_right_answer_beside_wrong_ones(record: dict[str, Any]) -> None:
    row = row_of("eval", record)
    assert row["question"] == "Which?"
    assert (row["choices"][0], row["answer"]) == ("d", 0)
    assert sorted(row["choices"]) == sorted(value for value in record.values() if value != "Which?")
    with pytest.raises(Unclear):  # the right choice of every row trained on would be A
        told("sft", record)


def test_columns_that_differ_are_seen_where_one_has_gaps() -> None:
    rows = [{"question": "Which?", "choices": ["a", "b"], "answer": "a", "label": label} for label in ("", "b", "a")]
    with pytest.raises(Unclear, match="'answer' and 'label' name different choices"):
        told("eval", *rows)


def test_places_told_by_most_records_are_not_taken_for_choices() -> None:
    others = [
        {"question": "Which?", "choices": ["w", "x", "y", "z"], "answer": str(n), "key": "ABCD"[n]} for n in (0, 2)
    ]
    sums = {"question": "1+3?", "choices": ["2", "3", "4", "5"], "answer": "2", "key": "C"}
    assert told("eval", *others, sums)["answer"] == "answer"  # else answer and key would name different choices


def test_numbers_of_choices_are_no_places_for_one_wrong_answer() -> None:
    rows = [{"question": "3+1?", "choices": ["4", "7", "8", "9"], "answer": "4"}] * 2
    rows += [{"question": "3+4?", "choices": ["4", "7", "8", "9"], "answer": "7"}] * 10
    wrong = {"question": "2+4?", "choices": ["5", "6", "7", "8"], "answer": "4"}
    assert told("eval", *rows, wrong) == {"question": "question", "choices": "choices", "answer": "answer"}


def test_exams_with_written_answers() -> None:
    gsm = {"question": "1+1?", "answer": "It is so.\n#### 1,002"}
    assert told("eval", gsm) == {
        "columns": {"question": "question", "answer": "answer"}, "final": "####", "match": "number",
    }  # fmt: skip
    assert row_of("eval", gsm)["answers"] == ["1,002"]
    assert told("eval", {"question": "1+1?", "answer": 2})["match"] == "number"
    assert told("eval", {"question": "Who?", "answers": ["x", "y"]}, match="text") == {
        "question": "question", "answers": "answers",
    }  # fmt: skip
    with pytest.raises(Unclear, match="match: text or number must say what counts as equal"):
        told("eval", {"question": "Who?", "answer": "Ada"})


def test_choices_that_are_objects() -> None:
    listed = [{"key": "A", "value": "a1"}, {"key": "B", "value": "b1"}]
    asked = {"question": "Which?", "options": listed, "answer_idx": "B"}
    columns = {"choices": "options.*.value", "labels": "options.*.key"}
    assert told("eval", asked) == columns | {"question": "question", "answer": "answer_idx"}
    assert row_of("eval", asked)["answer"] == 1
    with pytest.raises(Unclear, match=r"'options' holds objects \(name\), so write choices: options\.\*\.<the key"):
        told("eval", asked | {"options": [{"name": "a"}, {"name": "b"}]})


BLOOD = {"A": "B", "B": "A", "C": "AB", "D": "O"}
LABELLED = [
    {"options": BLOOD},
    {"choices": {"text": [*BLOOD.values()], "label": [*BLOOD]}},
    {"options": [{"key": key, "value": value} for key, value in BLOOD.items()]},
    BLOOD,
    {f"option_{key.lower()}": value for key, value in BLOOD.items()},
    {"options": [f"{key}) {value}" for key, value in BLOOD.items()]},
]


@pytest.mark.parametrize("given", LABELLED)
def test_a_letter_is_a_label_before_it_is_the_text_of_a_choice(given: dict[str, Any]) -> None:
    found = row_of("eval", {"question": "Which?", **given, "answer": "A"})
    assert found["choices"][found["answer"]] == "B"


def test_numbers_that_are_labels_or_values_of_choices() -> None:
    asked = {"question": "How many?", "choices": [0, 1, 2, 3]}
    assert row_of("eval", asked | {"answer": 1}, asked | {"answer": 0})["answer"] == 1
    labelled = {"question": "Which?", "choices": {"text": ["a1", "b1", "c1"], "label": ["1", "2", "3"]}}
    assert row_of("eval", labelled | {"answer": 2}, labelled | {"answer": 1})["answer"] == 1


@pytest.mark.parametrize("named", [True, False])
def test_numbers_that_can_be_values_or_places_are_asked_for(folder: Path, named: bool) -> None:
    asked = {"question": "How many?", "choices": [3, 2, 1, 0]}
    write_rows(folder / "exam.jsonl", [asked | {"answer": 0}, asked | {"answer": 1}])
    columns = {name: name for name in ("question", "choices", "answer")}
    exam: dict[str, Any] = {"id": "exam", "role": "eval", "side": "domain", "path": "exam.jsonl", "licence": "mit"}
    exam |= {"columns": columns} if named else {}
    doubt = "its answers can be values of the choices or their places; say which: answer_by: text or mark"
    with pytest.raises(DataError, match=doubt):
        list(load(folder, CPT, exam).rows("questions_domain"))
    ones = exam | {"columns": columns, "index_from": 1}
    write_rows(folder / "exam.jsonl", [asked | {"answer": 1}, asked | {"answer": 2}])
    assert [row["answer"] for row in load(folder, CPT, ones).rows("questions_domain")] == [0, 1]
    write_rows(folder / "exam.jsonl", [asked | {"answer": 0}, asked | {"answer": 1}])
    for by, first in (("text", 3), ("mark", 0)):
        given = exam | {"columns": {name: name for name in ("question", "choices", "answer")}, "answer_by": by}
        assert next(iter(load(folder, CPT, given).rows("questions_domain")))["answer"] == first


@pytest.mark.parametrize("choices", [[1, 2, 3, 4], [10, 20, 30, 40]])
def test_numbers_some_of_which_can_be_no_place_are_values(folder: Path, choices: list[int]) -> None:
    asked = {"question": "How many?", "choices": choices}
    write_rows(folder / "exam.jsonl", [asked | {"answer": choices[place]} for place in (0, 1, 3)])
    exam = {"id": "exam", "role": "eval", "side": "domain", "path": "exam.jsonl", "licence": "mit"}
    named = exam | {"columns": {name: name for name in ("question", "choices", "answer")}}
    for given in (exam, named):
        assert [row["answer"] for row in load(folder, CPT, given).rows("questions_domain")] == [0, 1, 3]


def test_answers_that_are_true_or_false() -> None:
    asked = {"question": "Is it?", "passage": "It is.", "answer": True}
    for choices in (["no", "yes"], ["Yes", "No", "Maybe"], ["false", "true"]):
        found = row_of("eval", asked, asked | {"answer": False}, choices=choices)
        assert choices[found["answer"]].lower() in ("yes", "true")
    with pytest.raises(Unclear, match=r"the answers are true or false, so choices: \[no, yes\] must say"):
        told("eval", asked)


def test_choices_that_are_lists_and_objects() -> None:
    with pytest.raises(Unclear, match="'choices' holds lists in some records and objects in others"):
        told("eval", ASKED, ASKED | {"choices": {"A": "one", "B": "two"}})
    with pytest.raises(Unclear, match="none names one of the choices in every record, so none is the answer"):
        told("eval", ASKED | {"answer": "four"})
