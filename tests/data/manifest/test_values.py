"""Values are found in nested records and written out as texts."""

from __future__ import annotations

from typing import Any

import pytest

from common.data.manifest.values import ABSENT, UnusableRow, answer_of, folded, joined, lacks, lookup, text_of

RECORD = {"a.b": 1, "a": {"b": 2, "c": [{"d": 3}]}, "p": [{"t": "x", "s": ["1", "2"]}, {"s": ["3"]}], "none": None}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("a.b", 1),
        ("a.c.0.d", 3),
        ("a.c.1.d", ABSENT),
        ("a.x", ABSENT),
        ("p.*.t", ["x"]),
        ("p.*.s", [["1", "2"], ["3"]]),
        ("p.*.s.*", ["1", "2", "3"]),
        ("p.*.x", ABSENT),
        ("a.*.b", ABSENT),
    ],
)
def test_lookup(column: str, value: Any) -> None:
    assert lookup(RECORD, column) == value


def test_lookup_of_all_in_an_empty_list() -> None:
    assert lookup({"p": []}, "p.*.t") == []


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("a.b", False),
        ("a.c.0.d", False),
        ("a.c.7.d", False),  # another record may have more
        ("none.x", False),
        ("p.*.t", False),
        ("a.x", True),
        ("a.c.d", True),
        ("p.*.x", True),
        ("a.b.c", True),
    ],
)
def test_lacks(column: str, expected: bool) -> None:
    assert lacks(RECORD, column) is expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (ABSENT, ""),
        (" \n", ""),
        (" x ", "x"),
        (5.0, "5"),
        (["a ", "", None, "b"], "a\n\nb"),
        ([["", "2019"], ["Sales", 1.5], ["", None]], " | 2019\nSales | 1.5"),
    ],
)
def test_joined(value: Any, text: str) -> None:
    assert joined(value, "context") == text


def test_joined_refuses_what_is_no_text() -> None:
    with pytest.raises(UnusableRow, match="context is no text"):
        joined([{"a": 1}], "context")


@pytest.mark.parametrize(
    ("value", "text"),
    [(" x ", "x"), (172, "172"), (-3.61, "-3.61"), (5.0, "5"), (["a", 2], "a, 2"), ([0.1], "0.1")],
)
def test_answers(value: Any, text: str) -> None:
    assert answer_of(value) == text


@pytest.mark.parametrize(
    ("value", "reason"),
    [([], "empty answer"), (None, "empty answer"), (True, "answer is no text"), (float("nan"), "answer is no text")],
)
def test_answers_that_are_none(value: Any, reason: str) -> None:
    with pytest.raises(UnusableRow, match=reason):
        answer_of(value)


def test_texts_are_kept_as_they_are() -> None:
    assert text_of(" x ", "text") == " x "


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("The cat", " the  CAT. ", True),
        ("5", "-5", False),
        ("A+", "A", False),
        ("0.5", "05", False),
        ("a cat", "cat", False),
    ],
)
def test_choices_are_compared_without_case_blanks_and_full_stop(first: str, second: str, same: bool) -> None:
    assert (folded(first) == folded(second)) is same
