"""Messages stay messages: what they quote cannot flood a terminal, move its cursor or look like another line."""

from __future__ import annotations

import pytest

from common.errors import (
    LONGEST_LINE,
    MOST_LINES,
    ConfigError,
    DataError,
    StoreError,
    did_you_mean,
    first_line,
    quoted,
    visible,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, äöü, 漢字, \N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET}", None),
        ("\x1b[2J\x1b[31m", r"\x1b[2J\x1b[31m"),
        ("a\rb\bc\x7f\x9b1A", r"a\rb\x08c\x7f\x9b1A"),
        ("a\nerror: b\u2028c\x85", r"a\nerror: b\u2028c\x85"),
        ("\u202egpj.exe\u2066", r"\u202egpj.exe\u2066"),
        ("\udcff.txt", r"\udcff.txt"),
        ("a\U000e0041b\ufeff", r"a\U000e0041b\ufeff"),
    ],
)
def test_what_a_terminal_obeys_is_written_out(text: str, shown: str | None) -> None:
    assert visible(text) == (text if shown is None else shown)
    assert visible("a\tb\nc", "\n") == "a\\tb\nc"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("name", "'name'"),
        ("two\nlines", r"'two\nlines'"),
        ("x" * 10_000_000, f"'{'x' * 53}…{'x' * 26}'"),
        ("\x1b" * 1000, r"'\x1b"),
        ([1, "a\n"], r"[1, 'a\n']"),
        (5, "5"),
        (10**5000, "a int that is too large to show"),
        ({"a": "x" * 200}, "{'a': 'x"),
    ],
    ids=range(8),
)
def test_values_are_quoted_short_and_on_one_line(value: object, shown: str) -> None:
    assert quoted(value).startswith(shown)
    assert len(quoted(value)) <= 82
    assert "\n" not in quoted(value)


def test_a_message_is_bounded_and_keeps_its_start_and_its_end() -> None:
    text = str(DataError(f"data.yaml: title: got {'x' * 5_000_000}; expected text. Write one."))
    assert len(text) == LONGEST_LINE
    assert text.startswith("data.yaml: title: got xxx")
    assert text.endswith("x; expected text. Write one.")
    lines = str(ConfigError("\n".join(f"problem {number}" for number in range(1000)))).splitlines()
    assert len(lines) == MOST_LINES
    assert lines[0] == "problem 0"
    assert lines[-11:-9] == ["  … 941 more lines …", "  problem 990"]
    assert len(str(StoreError("\x1b" * 5_000_000))) <= LONGEST_LINE


def test_no_line_of_a_message_but_its_first_stands_at_the_margin() -> None:
    assert str(DataError("a\nerror: forged\n b\n  - item\x1b[1A")) == "a\n  error: forged\n   b\n  - item\\x1b[1A"
    again = DataError(str(DataError("a\nb")))
    assert str(again) == "a\n  b"
    assert again.args == ("a\n  b",)


def test_the_message_of_a_library_is_its_first_line_cut() -> None:
    assert first_line(ValueError("\n bad \x1b[0m\nmore")) == r"bad \x1b[0m"
    assert first_line(ValueError()) == "ValueError"
    assert len(first_line(ValueError("x" * 10_000_000))) == 300


def test_near_names_are_found_among_many_and_shown_short() -> None:
    assert did_you_mean("fst", ["fast", "slow"]) == " Did you mean 'fast'?"
    assert len(did_you_mean("x", [f"\n{i}" * 500 for i in range(20)])) < 14 * 82 + 20
    assert "\n" not in did_you_mean("x", ["\n" * 5])
    assert did_you_mean("a" * 1_000_000, ["a" * 150])
    assert did_you_mean("x", ["x"]) == ""
    assert did_you_mean("SFT", ["SFT", "sft"]) == " Did you mean 'sft'? Capital letters count."
    many = [f"a_{number:05}_of_many_tasks" for number in range(9000)]  # as many as lm-evaluation-harness has, and more
    assert did_you_mean("pubmedqaa", [*many, "pubmedqa"]) == " Did you mean 'pubmedqa'?"
    assert did_you_mean("pubmedqa_of_test_x", [*many, "pubmedqa_of"]) == " Did you mean 'pubmedqa_of'?"
    assert did_you_mean(12, ["123", "x"]) == " Did you mean '123'?"  # a key of a YAML file may be a number
