"""Every reward by itself: what earns it, what does not, and what its options may be."""

from __future__ import annotations

import time
from typing import Any

import pytest

from common.errors import DataError
from common.rewards.calculation import wrong_steps
from common.rewards.verifiers import NEED_ANSWERS, VERIFIERS, Answer, options_of

OPTIONS: dict[str, dict[str, Any]] = {
    "pattern": {"regex": ".*"},
    "json_schema": {"definition": {}},
    "length": {"most": 3, "slack": 2},
}
CHOICES = {"choices": ["a bond", "a share", "an option", "a loan"], "answer": "B. a share"}


def reward(name: str, text: str, row: dict[str, Any] | None = None, **options: Any) -> float:
    return VERIFIERS[name](Answer(text, row or {}), **options)


@pytest.mark.parametrize(
    ("name", "text", "right", "expected"),
    [
        ("number", "6 and 7 make 42.", ["42"], 1.0),
        ("number", "42, or 43", ["42"], 0.0),
        ("number", "1,000 dollars", ["1000", "7"], 1.0),
        ("number", "none", ["42"], 0.0),
        ("mathematics", r"so \boxed{\frac{1}{2}}", ["0.5"], 1.0),
        ("mathematics", "$x^2 + 1$", ["$1 + x^2$"], 1.0),
        ("mathematics", r"\boxed{3}", ["4"], 0.0),
        ("mathematics", "", ["4"], 0.0),
        ("exact", "The Statute of Frauds.", ["statute of frauds"], 1.0),
        ("exact", "a statute", ["statute of frauds"], 0.0),
        ("f1", "statute of limitations", ["statute of frauds"], pytest.approx(2 / 3)),
        ("f1", "", ["statute"], 0.0),
    ],
)
def test_answers_in_words_and_numbers(name: str, text: str, right: list[str], expected: float) -> None:
    assert reward(name, text, {"answers": right}) == expected


def test_a_lone_answer_is_one_right_answer() -> None:
    assert reward("number", "42", {"answer": "42"}) == 1.0


def test_a_mark_says_where_the_number_stands() -> None:
    assert reward("number", "5 #### 42\nand 7", {"answers": ["42"]}, after="####") == 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", 1.0), ("(B)", 1.0), ("B.", 1.0), ("B. a share", 1.0), ("a share", 1.0), ("Share.", 1.0),
        ("A", 0.0), ("B. a bond", 0.0), ("a share or a bond", 0.0), ("", 0.0), ("Z", 0.0), ("Because", 0.0),
    ],
)  # fmt: skip
def test_choices_by_letter_and_by_words(text: str, expected: float) -> None:
    assert reward("choice", text, CHOICES) == expected


def test_a_prompt_without_choices_is_named() -> None:
    with pytest.raises(DataError, match="The reward 'choice' needs choices; the prompt with the answer 'x' has"):
        reward("choice", "B", {"answer": "x"})


def test_form() -> None:
    assert reward("pattern", "<think>a\nb</think> 4", regex=r"<think>.*</think>\s*\d+") == 1.0
    assert reward("pattern", "x <think>a</think> 4", regex=r"<think>.*</think>\s*\d+") == 0.0
    schema = {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}}}
    assert reward("json_schema", '{"port": 22}', definition=schema) == 1.0
    assert [
        reward("json_schema", text, definition=schema) for text in ('{"port": "22"}', "{}", "port 22", "[" * 9999)
    ] == [0] * 4


def test_stopping_and_length() -> None:
    assert VERIFIERS["stopped"](Answer("x", {}, stopped=False)) == 0.0
    lengths = [VERIFIERS["length"](Answer("x", {}, num_tokens=n), most=10, slack=4) for n in (3, 10, 11, 14, 99)]
    assert lengths == [1.0, 1.0, 0.75, 0.0, 0.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 * 12 = 36, and 36 + 5 = 42", (1, 2)),
        ("3 x 12 = 36", (0, 1)),
        ("(2 + 3) \u00d7 4 = 20", (0, 1)),
        ("10 / 3 = 3.33, 10 ÷ 4 = 2.5", (0, 2)),
        ("10 / 3 = 3", (1, 1)),
        ("5 \u2212 8 = -3", (0, 1)),
        ("1 + 2 = 3 + 4 = 7", (0, 2)),
        ("1,000 + 5 = 1,005.", (0, 1)),
        ("$5 + $7 = $12", (0, 1)),
        ("0.1 + 0.2 = 0.3", (0, 1)),
        ("2 + 3 * 4 = 20", (1, 1)),
        ("4 / 0 = 5", (0, 0)),
        ("3 + 4 * (2 = 14", (0, 0)),
        ("a1 + 2 = 3, 12 apples - 3 = 9, 5 + 7 = 12%", (0, 0)),
        ("1" + "+1" * 5000 + " = 5001", (0, 0)),
        ("no sum", (0, 0)),
    ],
)  # fmt: skip
def test_steps_are_worked_out_again(text: str, expected: tuple[int, int]) -> None:
    assert wrong_steps(text) == expected


def test_calculation_is_the_share_of_right_steps() -> None:
    assert reward("calculation", "1 + 1 = 2, 2 + 2 = 5") == 0.5
    assert reward("calculation", "It is 4.") == 0.0


@pytest.mark.parametrize("name", sorted(VERIFIERS))
def test_every_reward_is_from_0_to_1_and_has_checked_options(name: str) -> None:
    options = OPTIONS.get(name, {})
    options_of(name).model_validate(options)
    row = {**CHOICES, "answers": ["B. a share", "4"]}
    for text in ("", "4", "2 + 2 = 4", "B", "{", "\\boxed{", "é" * 500):
        assert 0.0 <= reward(name, text, row, **options) <= 1.0


def test_an_expression_without_end_earns_nothing_and_takes_no_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.rewards.verifiers.PATIENCE", 1)
    started = time.monotonic()
    assert reward("mathematics", r"\boxed{9^{9^{9}}}", {"answer": "4"}) == 0.0
    assert time.monotonic() - started < 20


def test_a_prompt_without_a_known_answer_is_told_what_it_lacks() -> None:
    with pytest.raises(DataError, match="compares with known answers, and the prompt has none"):
        reward("exact", "anything", {"choices": ["a", "b"]})
    assert reward("stopped", "anything") == 1.0


def test_what_needs_answers_is_what_asks_for_them() -> None:
    asking = []
    for name in VERIFIERS:
        try:
            reward(name, "a", {"choices": ["a", "b"]}, **OPTIONS.get(name, {}))
        except DataError:
            asking.append(name)
    assert set(asking) == set(NEED_ANSWERS)
