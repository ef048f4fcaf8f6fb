"""Answers compared with accepted ones: numbers as people and annual reports write them, words as SQuAD does."""

from __future__ import annotations

import pytest

from common.data.answers import exact, f1, final_answer, normalise_text, parse_number, same_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", 18.0),
        ("The answer is 18.", 18.0),
        ("first 3, then 4, so 12", 12.0),
        ("1,234.5", 1234.5),
        ("1,234,567", 1234567.0),
        ("1,2,3", 3.0),
        ("12,345678", 345678.0),
        ("$1,234.50", 1234.5),
        ("€ 7", 7.0),
        ("12.5%", 12.5),
        (".5", 0.5),
        ("18.00", 18.0),
        ("-5", -5.0),
        ("\u22125", -5.0),  # minus sign
        ("\u20135", -5.0),  # en dash
        ("-$5", -5.0),
        ("$-5", -5.0),
        ("-.5", -0.5),
        ("(12.3)", -12.3),
        ("($1,200)", -1200.0),
        ("a loss of (3.1)%", -3.1),
        ("(12.3%)", -12.3),
        ("(see note 4)", 4.0),
        ("2019-2020", 2020.0),
        ("10 - 4", 4.0),
        ("7-", 7.0),
        ("grew 5% in Q3", 5.0),
        ("version 1.2.3", 1.2),
        ("1,5", 1.5),
        ("0,75", 0.75),
        ("0,750", 0.75),
        ("12,50 \u20ac", 12.5),
        ("1.234,5", 1234.5),
        ("-1.234.567", -1234567.0),
        ("1 234", 1234.0),
        ("1\u202f234\u202f567,89", 1234567.89),
        ("1'234.50", 1234.5),
        ("3/4", 0.75),
        ("(3/4)", 0.75),
        ("1 1/2", 1.5),
        ("1e3", 1000.0),
        ("2.5e-3", 0.0025),
        ("10/2 = 5.", 5.0),
        ("It has 1.234 kg, or 1,234 g.", 1234.0),
        ("3/0", None),
        ("1,000 / 4", 250.0),
        ("12/05/2024", None),
        ("10:30", None),
        ("2^10", None),
        ("1.234.56,7", None),
        ("1,234,5", None),
        ("1234,567", None),
        ("in 1.5 of 2019, 300", 300.0),
        ("", None),
        ("no number, not one", None),
        ("9" * 400, None),
    ],
)
def test_the_last_number_of_a_text(text: str, number: float | None) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3 + 4 = 7 #### 8", 8.0),
        ("#### 1 then #### 2", 2.0),
        ("7, without the mark", 7.0),
        ("7 ####", None),
        ("7 #### none", None),
    ],
)
def test_a_mark_says_where_the_answer_begins(text: str, number: float | None) -> None:
    assert parse_number(final_answer(text, "####")) == number


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It is 3 + 4.\nAnswer: 7 dollars\nQuestion 2", "7 dollars"),
        ("Answer: 1\nNo. Answer:\n\n 2 \n", "2"),
        ("  two\nlines ", "two\nlines"),
        ("so\nAnswer:", ""),
    ],
)
def test_the_final_answer_is_the_line_behind_the_last_mark(text: str, answer: str) -> None:
    assert final_answer(text, "Answer:") == answer


def test_numbers_are_the_same_within_a_share_of_the_larger() -> None:
    assert same_number(0.1 + 0.2, 0.3)
    assert same_number(0.0, 0.0)
    assert not same_number(1.0, 1.0001)
    assert same_number(100.0, 99.0, relative=0.01)
    assert not same_number(100.0, 98.9, relative=0.01)
    assert not same_number(5.0, -5.0)
    assert not same_number(None, None)
    assert not same_number(1.0, None)


def test_normalised_text_has_no_case_punctuation_or_articles() -> None:
    assert normalise_text("  The U.S. Statute\nof Frauds, (a) “rule”; ¿sí? ") == "us statute of frauds rule sí"
    assert normalise_text("another theory") == "another theory"


@pytest.mark.parametrize(
    ("text", "accepted", "right"),
    [
        ("The statute of frauds.", ["parol evidence", "Statute of Frauds"], True),
        ("statute of limitations", ["Statute of Frauds"], False),
        ("", ["Statute of Frauds"], False),
        ("a. ", ["A."], True),
        ("the", ["A"], False),  # both normalise to nothing
        ("yes", "Yes", True),
        ("y", "yes", False),
        ("anything", [], False),
    ],
)
def test_an_exact_answer(text: str, accepted: list[str] | str, right: bool) -> None:
    assert exact(text, accepted) is right


def test_f1_counts_common_words_and_takes_the_best_accepted_answer() -> None:
    assert f1("The cat sat", ["cat sat"]) == 1.0
    assert f1("cat sat down", ["cat sat"]) == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert f1("cat cat", ["cat"]) == pytest.approx(2 / 3), "a word counts as often as both have it"
    assert f1("cat", ["dog", "a cat"]) == 1.0
    assert f1("", ["cat"]) == 0.0
    assert f1("cat", []) == 0.0
