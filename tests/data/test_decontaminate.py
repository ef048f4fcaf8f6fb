"""Exam questions are found in training rows by runs of words."""

from __future__ import annotations

import time

import pytest

from common.data.accounting import RowCount
from common.data.decontaminate import Decontaminator, filter_rows
from tests.data.planted import AROUND, CHANGES, SCRIPTS, clean, exam

LONG = "Which of the following drugs is the first choice for a child of three years with acute otitis media?"
SHORT = "What is the capital of Mali?"


@pytest.fixture
def guard() -> Decontaminator:
    return Decontaminator([LONG, SHORT, "Who was she?"])


@pytest.mark.parametrize(
    ("text", "question"),
    [
        (f"Today's quiz: {SHORT} Bamako.", SHORT),
        ("what IS the capital, of 'Mali'", SHORT),
        ("Note: of the following drugs is the first choice for a child of three.", LONG),  # a run of 13
        ("the following drugs is the first choice for a child of three", None),  # 12 words
        ("What is the capital of Malta?", None),
        ("What is the capital of", None),
        ("Who was she?", None),  # under six words
        ("", None),
    ],
)
def test_hit(guard: Decontaminator, text: str, question: str | None) -> None:
    assert guard.hit(text) == question


def test_a_whole_question_of_six_words_in_characters() -> None:
    assert Decontaminator(["中国的首都是哪座城市?"]).hit("问:中国的首都是哪座城市?答:北京")


@pytest.mark.parametrize(
    "row",
    [
        {"text": SHORT},
        {"messages": [{"role": "user", "content": SHORT}, {"role": "assistant", "content": "Bamako."}]},
        {"prompt": [{"role": "user", "content": SHORT}], "chosen": [], "rejected": []},
        {"prompt": [], "chosen": [], "rejected": [{"role": "assistant", "content": SHORT}]},
    ],
)
def test_filter_rows_looks_into_every_kind_of_row(guard: Decontaminator, row: dict[str, object]) -> None:
    clean = {"text": "Bamako lies on the Niger.", "source": "b"}
    single = RowCount("all", "cpt")
    assert list(filter_rows([row | {"source": "a"}, clean], guard, single)) == [clean]
    assert single.dropped == {"exam overlap": 1}
    each = {"a": RowCount("a", "cpt"), "b": RowCount("b", "cpt")}
    assert list(filter_rows([row | {"source": "a"}, clean], guard, each)) == [clean]
    assert (each["a"].dropped, each["b"].dropped) == ({"exam overlap": 1}, {})


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("script", SCRIPTS)
def test_no_whole_copy_is_missed(script: str, change: str) -> None:
    questions = exam(script)
    everything = Decontaminator(questions)
    before, after = AROUND[script]
    missed = [text for text in questions if not everything.hit(before + CHANGES[change](text) + after)]
    assert len(questions) == 24
    assert missed == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_clean_row_is_lost(script: str) -> None:
    rows, everything = clean(script), Decontaminator(exam(script))
    assert len(rows) == 64
    assert [text for text in rows if everything.hit(text)] == []


def test_a_short_question_is_no_more_common_in_one_script_than_in_another() -> None:
    asked = {
        "latin": ("What is its main symptom?", "What is the main symptom of malaria?"),
        "devanagari": ("इसका मुख्य लक्षण क्या है?", "मलेरिया का सबसे मुख्य लक्षण क्या है?"),
        "han": ("主要症状是什么?", "疟疾的主要症状是什么呢?"),
        "thai": ("อาการหลักคืออะไร?", "อาการหลักของโรคมาลาเรียคืออะไร?"),
    }
    for short, long in asked.values():
        assert Decontaminator([short]).hit(f"Malaria. {short}") is None
        assert Decontaminator([long]).hit(f"Malaria. {long}") == long


def test_words_broken_and_compounded_at_once() -> None:
    question = "Is a well-known long-term drug newly diagnosed in children's wards?"
    everything = Decontaminator([question])
    for text in (
        "is a well known long term drug newly diagnosed in childrens wards",
        "is a well-\nknown long-term drug newly diag-\nnosed in children\u2019s wards",
        "is a well known long term drug newly diag-\nnosed in children's wards",
        "is a wellknown longterm drug newly diagnosed in childrens wards",
    ):
        assert everything.hit(text) == question, text
    assert everything.hit("is a well known long term drug newly given in childrens wards") is None


def test_a_question_far_inside_a_long_text(guard: Decontaminator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.data.decontaminate.LONG", 100)
    for shift in range(0, 120, 7):
        text = "a " * 500 + "b" * shift + " " + LONG + " c" * 500
        assert guard.hit(text) == LONG
    assert guard.hit("a " * 1000) is None


def test_a_hyphenated_copy_lies_across_the_pieces_of_a_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.data.decontaminate.LONG", 100)
    question = "Which newly diagnosed disease of the inner ear is treated with antibiotics?"
    guard, copy = Decontaminator([question]), question.replace("diagnosed", "diag-\nnosed")
    for shift in range(120):
        assert guard.hit("a " * 500 + "b" * shift + " " + copy + " c" * 500) == question, shift


def test_without_questions_a_long_text_is_not_cut_into_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.data.decontaminate.LONG", 100)
    monkeypatch.setattr("common.data.decontaminate.cut", None)
    assert Decontaminator([]).hit("a " * 1000) is None


def test_what_a_model_thinks_and_calls_is_looked_at_too(guard: Decontaminator) -> None:
    turn = {"role": "assistant", "content": "", "reasoning_content": SHORT}
    broken = SHORT.replace(" of ", "\nof\n")
    calls = [
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"arguments": arguments}}]}
        for arguments in ({"q": SHORT}, {"asked": [1, {"q": broken}]}, {broken: None}, broken)
    ]
    for message in (turn, *calls):
        assert list(filter_rows([{"messages": [message], "source": "a"}], guard, RowCount("a", "sft"))) == [], message
    row = {"prompt": [], "completion": [{"content": SHORT}], "source": "a"}
    assert list(filter_rows([row], guard, RowCount("a", "sft"))) == []


def test_a_million_words_take_seconds() -> None:
    question = "Is the {} of a house in the street by the river of the town?"
    guard = Decontaminator(question.format(number) for number in range(2000))
    text = "the wall of the house in the old street is near the bank of a river " * 70
    start = time.perf_counter()
    assert not any(guard.hit(text) for _ in range(1000))
    assert time.perf_counter() - start < 5  # about 1 s; a window over every position and length takes far longer
