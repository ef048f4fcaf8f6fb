"""Exam questions are found in training rows by runs of words."""

from __future__ import annotations

import time

import pytest

from common.data.accounting import RowCount
from common.data.decontaminate import Decontaminator, filter_rows, words_of

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


def test_words_have_one_spelling_in_every_script() -> None:
    assert words_of("_Caf\u00e9_ STRASSE") == words_of("cafe\u0301 straße")
    assert words_of("北京是首都") == ["北", "京", "是", "首", "都"]
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


def test_a_million_words_take_seconds() -> None:
    question = "Is the {} of a house in the street by the river of the town?"
    guard = Decontaminator(question.format(number) for number in range(2000))
    text = "the wall of the house in the old street is near the bank of a river " * 70
    start = time.perf_counter()
    assert not any(guard.hit(text) for _ in range(1000))
    assert time.perf_counter() - start < 5  # about 1 s; a window over every position and length takes far longer
