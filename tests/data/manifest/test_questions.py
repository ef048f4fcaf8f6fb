"""Records become questions of an exam: with choices, or with written answers; unusable ones say why."""

from __future__ import annotations

from typing import Any

import pytest

from common.data.manifest.values import UnusableRow
from tests.data.manifest.shaping import ask, shape


@pytest.mark.parametrize(
    ("answer", "index"), [(1, 1), ("B", 1), (" b ", 1), ("two", 1), ("TWO", 1), ("0", 0), ("A", 0)]
)
def test_answers(answer: Any, index: int) -> None:
    row = ask({"q": "Which?", "c": ["one", "two"], "a": answer, "n": 9}, {"choices": "c", "id": "n"})
    assert row == {"id": "s:9", "question": "Which?", "choices": ["one", "two"], "answer": index}


def test_questions_with_context_and_fixed_choices() -> None:
    row = ask({"q": "Is it?", "x": ["First.", "Second."], "a": "no"}, {"context": "x"}, choices=["yes", "no"])
    assert row == {"id": "s:7", "question": "First.\n\nSecond.\n\nIs it?", "choices": ["yes", "no"], "answer": 1}


def test_choices_with_labels() -> None:
    columns = {"choices": "c.text", "labels": "c.label"}
    assert ask({"q": "?", "c": {"text": ["x", "y"], "label": ["1", "2"]}, "a": "2"}, columns)["answer"] == 1
    assert ask({"q": "?", "c": {"A": "x", "B": "y"}, "a": "B"}, {"choices": "c"})["answer"] == 1


@pytest.mark.parametrize("answer", [2, -1, "C", "three", True])
def test_an_answer_that_is_no_choice(answer: Any) -> None:
    with pytest.raises(UnusableRow, match="the answer is none of the choices") as caught:
        ask({"q": "Which?", "c": ["one", "two"], "a": answer}, {"choices": "c"})
    assert caught.value.detail == f"the answer {answer!r} is none of the choices ['one', 'two']"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"q": "?", "c": ["one"], "a": 0}, "fewer than two choices"),
        ({"q": "?", "c": ["one", None], "a": 0}, "empty choice"),
        ({"q": "?", "c": ["one", "two"], "a": None}, "empty answer"),
        ({"q": "", "c": ["one", "two"], "a": 0}, "empty question"),
    ],
)
def test_questions_that_cannot_be_asked(value: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnusableRow, match=reason):
        ask(value, {"choices": "c"})


@pytest.mark.parametrize(
    ("value", "columns", "facts", "answers"),
    [
        ({"a": "Sales"}, {"answer": "a"}, {}, ["Sales"]),
        ({"a": ["one", 2]}, {"answer": "a"}, {}, ["one, 2"]),
        ({"a": ["one", "two", "one"]}, {"answers": "a"}, {}, ["one", "two"]),
        ({"a": "one"}, {"answers": "a"}, {}, ["one"]),
        ({"a": 12.5}, {"answer": "a"}, {"match": "number"}, ["12.5"]),
        ({"a": ["none", "$1,200"]}, {"answers": "a"}, {"match": "number"}, ["$1,200"]),
        ({"a": "1 + 1\n#### 2\n"}, {"answer": "a"}, {"match": "number", "final": "####"}, ["2"]),
    ],
)
def test_written_answers(value: Any, columns: Any, facts: dict[str, Any], answers: list[str]) -> None:
    facts = {"side": "domain", "match": "text", **facts}
    row = shape("eval", {"q": "Which?", "c": "Text."} | value, {"question": "q", "context": "c"} | columns, **facts)
    assert row == {
        "id": "s:7",
        "question": "Which?\n\nText.",
        "answers": answers,
        "match": facts["match"],
        "final": facts.get("final"),
    }


@pytest.mark.parametrize(
    ("answer", "facts", "reason"),
    [
        (None, {"match": "text"}, "empty answer"),
        ("many", {"match": "number"}, "no number in answer"),
        ("18", {"match": "number", "final": "####"}, "no #### in answer"),
        ("18 ####", {"match": "number", "final": "####"}, "empty final answer"),
        ({"x": 1}, {"match": "text"}, "answer is no text"),
    ],
)
def test_written_answers_that_are_none(answer: Any, facts: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnusableRow, match=reason):
        shape("eval", {"q": "?", "a": answer}, {"question": "q", "answer": "a"}, side="domain", **facts)
    if answer is None:
        with pytest.raises(UnusableRow, match="empty answers"):
            shape("eval", {"q": "?", "a": []}, {"question": "q", "answers": "a"}, side="domain", **facts)


def test_an_answer_in_a_list_of_one() -> None:
    assert ask({"q": "?", "c": ["x", "y"], "a": ["y"]}, {"choices": "c"})["answer"] == 1
    with pytest.raises(UnusableRow, match="several answers"):
        ask({"q": "?", "c": ["x", "y"], "a": ["x", "y"]}, {"choices": "c"})
    with pytest.raises(UnusableRow, match="empty answer"):
        ask({"q": "?", "c": ["x", "y"], "a": []}, {"choices": "c"})


def test_a_choice_given_twice() -> None:
    value = {"q": "Which?", "c": ["Aspirin", "Iron", " aspirin "], "a": 0}
    with pytest.raises(UnusableRow, match="a choice is given twice") as caught:
        ask(value, {"choices": "c"})
    assert caught.value.detail == (
        "the choice 'Aspirin' is given twice in ['Aspirin', 'Iron', 'aspirin'], among its own distractors"
    )


@pytest.mark.parametrize(
    ("choices", "answer", "place"),
    [
        (["A)21", "B)21.5", "C)22"], "C", 2),
        (["A. 21", "B. 21.5", "C. 22"], "b", 1),
        (["(A) 21", "(B) 21.5", "(C) 22"], "(B)", 1),
        (["(A) 21", "(B) 21.5", "(C) 22"], "C) 22", 2),
        (["a: 21", "b: 21.5", "c: 22"], "21.5", 1),
    ],
)
def test_choices_behind_their_letters(choices: list[str], answer: str, place: int) -> None:
    row = ask({"q": "Which?", "c": choices, "a": answer}, {"choices": "c"})
    assert (row["choices"], row["answer"]) == (["21", "21.5", "22"], place)


@pytest.mark.parametrize("choices", [["A) x", "y"], ["B) x", "A) y"], ["A x", "B y"], ["Anna", "Bob"]])
def test_choices_that_only_look_like_it(choices: list[str]) -> None:
    assert ask({"q": "Which?", "c": choices, "a": 1}, {"choices": "c"})["choices"] == choices


def test_answers_that_count_from_one() -> None:
    facts: dict[str, Any] = {"index_from": 1}
    for answer, place in ((1, 0), ("2", 1), (2.0, 1), ("B", 1), ("x", 0)):
        assert ask({"q": "?", "c": ["x", "y"], "a": answer}, {"choices": "c"}, **facts)["answer"] == place
    with pytest.raises(UnusableRow, match="none of the choices"):
        ask({"q": "?", "c": ["x", "y"], "a": 0}, {"choices": "c"}, **facts)


def test_fewer_choices_than_columns() -> None:
    columns = {"choices": ["x", "y", "z"]}
    assert ask({"q": "?", "x": "a", "y": "b", "z": ""}, columns | {"answer": "x"})["choices"] == ["a", "b"]
    with pytest.raises(UnusableRow, match="empty choice"):
        ask({"q": "?", "x": "a", "y": "", "z": "b"}, columns | {"answer": "x"})


def test_choices_that_are_objects_are_told_how_to_be_named() -> None:
    value = {"q": "Which?", "o": [{"key": "A", "value": "a"}, {"key": "B", "value": "b"}], "a": "A"}
    with pytest.raises(UnusableRow, match=r"choices that are objects: name their text, as o\.\*\.value"):
        ask(value, {"choices": "o"})
