"""Questions of whole sources: their ids, how their answers are to be read, and how many may be faulty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import DataError
from tests.data.manifest.manifests import CPT, load, write_rows


def test_a_question_id_twice(folder: Path) -> None:
    write_rows(folder / "exam.jsonl", [{"i": 1, "q": "Is it?", "a": "no"}] * 2)
    columns = {"id": "i", "question": "q", "answer": "a"}
    exam = {"id": "e", "role": "eval", "side": "domain", "path": "exam.jsonl", "columns": columns, "licence": "mit"}
    with pytest.raises(DataError, match=r"Source 'e', exam\.jsonl, line 2: id 'e:1' is given twice"):
        list(load(folder, CPT, exam | {"choices": ["yes", "no"]}).rows("questions_domain"))


def test_questions_of_several_files_are_named_by_file_and_place(folder: Path) -> None:
    for name in ("set1", "set2"):
        write_rows(folder / f"{name}.jsonl", [{"q": f"{name}?", "a": "no"}] * 2)
    exam: dict[str, Any] = {"id": "e", "role": "eval", "side": "domain", "choices": ["yes", "no"], "licence": "mit"}
    exam |= {"columns": {"question": "q", "answer": "a"}}
    found = load(folder, CPT, exam | {"path": "set*.jsonl"}).rows("questions_domain")
    assert [row["id"] for row in found] == ["e:1.1", "e:1.2", "e:2.1", "e:2.2"]
    found = load(folder, CPT, exam | {"path": "set1.jsonl"}).rows("questions_domain")
    assert [row["id"] for row in found] == ["e:1", "e:2"]


@pytest.mark.parametrize(
    ("others", "facts", "answers"),
    [
        ("Which?,w,x,y,z,3\n", {}, {2, 3}),
        ("3+1?,3,4,8,9,4\n", {}, {0, 1}),
        ("3+1?,3,4,8,9,4\n", {"answer_by": "mark"}, {2, 1}),
    ],
)
@pytest.mark.parametrize("place", [0, 12])
def test_a_source_decides_whether_numbers_are_choices_or_places(
    folder: Path, others: str, facts: dict[str, Any], answers: set[int], place: int
) -> None:
    lines = [others] * 12
    lines.insert(place, "1+3?,2,3,4,5,2\n")  # 2 is the first choice, and the place of the third
    (folder / "exam.csv").write_text("".join(["q,A,B,C,D,a\n", *lines]))
    exam: dict[str, Any] = {"id": "e", "role": "eval", "side": "domain", "path": "exam.csv", "licence": "mit"}
    exam |= {"columns": {"question": "q", "choices": ["A", "B", "C", "D"], "answer": "a"}} | facts
    assert {row["answer"] for row in load(folder, CPT, exam).rows("questions_domain")} == answers


def test_a_number_that_is_no_choice_is_no_place_among_texts(folder: Path) -> None:
    right = {"q": "3+1?", "c": ["3", "4", "8"], "a": "4"}
    write_rows(folder / "exam.jsonl", [right] * 38 + [right | {"a": "2"}])
    columns = {"question": "q", "choices": "c", "answer": "a"}
    exam = {"id": "e", "role": "eval", "side": "domain", "path": "exam.jsonl", "columns": columns, "licence": "mit"}
    corpus = load(folder, CPT, exam)
    assert len(list(corpus.rows("questions_domain"))) == 38
    assert corpus.counts("questions_domain")["e"].dropped == {"the answer is none of the choices": 1}


def test_letters_that_are_choices_too_are_read_as_the_others(folder: Path) -> None:
    rows = [{"q": "Which?", "c": ["w", "x", "y"], "a": "B"}] * 3 + [{"q": "Vitamin?", "c": ["D", "A", "B"], "a": "B"}]
    write_rows(folder / "exam.jsonl", rows)
    columns = {"question": "q", "choices": "c", "answer": "a"}
    chat = {"id": "e", "role": "sft", "path": "exam.jsonl", "columns": columns, "licence": "mit"}
    exam = chat | {"role": "eval", "side": "domain"}
    assert [row["answer"] for row in load(folder, CPT, exam).rows("questions_domain")] == [1, 1, 1, 1]
    (*_, last) = load(folder, CPT, chat).rows("sft")
    assert last["messages"][1]["content"] == "B. A"


def test_faulty_questions_are_left_out_up_to_a_share(folder: Path) -> None:
    right = {"q": "Which?", "c": ["one", "two"], "a": 0}
    exam: dict[str, Any] = {"id": "exam", "role": "eval", "side": "domain", "path": "exam.jsonl", "licence": "mit"}
    exam |= {"columns": {"question": "q", "choices": "c", "answer": "a"}}
    faulty = [right | {"c": ["one", "One."]}, right | {"a": "three"}]
    write_rows(folder / "exam.jsonl", [*faulty, *[right] * 38])
    corpus = load(folder, CPT, exam)
    assert len(list(corpus.rows("questions_domain"))) == 38
    dropped = {"a choice is given twice": 1, "the answer is none of the choices": 1}
    assert corpus.counts("questions_domain")["exam"].dropped == dropped
    write_rows(folder / "exam.jsonl", [*faulty, *[right] * 37])
    message = (
        r"Source 'exam', exam\.jsonl, line 1: the choice 'one' is given twice in \['one', 'One\.'\], among its own "
        r"distractors\. 2 of 39 questions have such faults; up to 5% would be left out\. An answer is an index from 0"
    )
    with pytest.raises(DataError, match=message):
        list(load(folder, CPT, exam).rows("questions_domain"))
    with pytest.raises(DataError, match=message):
        load(folder, CPT, exam).check_rows(["questions_domain"])
