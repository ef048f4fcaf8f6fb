"""Tests of the block that takes out runs of sentences that came before."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from common.config.blocks import Drop
from common.data.duplicates import records
from common.data.duplicates.splitting import sentence_spans
from tests.data.blocks.repeats import LETTERS, SCRIPTS, dealt, made, run_block

CUT = "repeated sentences taken out"


def test_planted_runs_go_from_all_rows_but_the_first_and_nothing_else(tmp_path: Path) -> None:
    rng = random.Random(9)
    rows, expected = [], []
    for script in SCRIPTS:
        blank = " " if LETTERS[script][2] or script == "thai" else ""
        end = "\n" if script == "thai" else blank  # Thai ends a sentence by a line here
        run = (
            (made(rng, script, 60) + end)
            if script != "thai"
            else "".join(f"{made(rng, script, 6)}\n" for _ in range(4))
        )
        for number in range(12):
            start, rest = made(rng, script, 80) + end, made(rng, script, 80)
            rows.append({"source": script, "text": start + run + rest})
            expected.append(start + rest if number else start + run + rest)
            rows.append({"source": script, "text": made(rng, script, 60)})
            expected.append(rows[-1]["text"])
    found: list[Any] = [one for task in run_block("sentences", {}, dealt(rows, 5), tmp_path) for one in task]
    assert [one["text"] for one in found] == expected
    changed = [row["text"] != text for row, text in zip(rows, expected, strict=True)]
    assert [one.get("changed") == (CUT,) for one in found] == changed


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ('One. Two is 3.14! "Three?" Four', ["One. ", "Two is 3.14! ", '"Three?" ', "Four"]),
        ("一。二！「三？」四", ["一。", "二！", "「三？」", "四"]),  # noqa: RUF001  # the signs of Chinese
        ("एक है। दो है। तीन", ["एक है। ", "दो है। ", "तीन"]),
        ("ما هذا؟ نعم.", ["ما هذا؟ ", "نعم."]),
        ("Title\n\n* * *\n\nBody", ["Title\n\n* * *\n\n", "Body"]),
        ("***\nOnly", ["***\nOnly"]),
        ("***\n", []),
        ("", []),
        ("x", ["x"]),
    ],
)
def test_sentences_are_the_whole_text(text: str, sentences: list[str]) -> None:
    assert [text[start:end] for start, end in sentence_spans(text)] == sentences


def texts(found: list[list[Any]]) -> list[str | None]:
    return [None if isinstance(one, Drop) else one["text"] for task in found for one in task]


def rows_of(*given: str) -> list[dict[str, Any]]:
    return [{"source": "s", "text": text} for text in given]


def test_a_row_with_too_little_left_goes_and_names_the_other(tmp_path: Path) -> None:
    rows = rows_of("A b. C d. E f. Own words here.", "A b. C d. E f. And others.", "A b. C d. E f.")
    found = run_block("sentences", {"least": 2}, [rows], tmp_path)
    assert texts(found) == [rows[0]["text"], "And others.", None]
    assert found[0][2] == Drop(
        "repeated sentences", "0 words left without what is in s: A b. C d. E f. Own words here."
    )


def test_case_signs_and_blanks_do_not_count(tmp_path: Path) -> None:
    rows = rows_of("A b. C d. E f. Own.", "Mine. a  b! C, d. e f? More.")
    assert texts(run_block("sentences", {"least": 0}, [rows], tmp_path)) == [rows[0]["text"], "Mine. More."]


@pytest.mark.parametrize(
    ("times", "left"), [(3, 3), (5, 5), (6, 3), (9, 3)], ids=["once", "overlapping", "twice", "three times"]
)
def test_a_run_that_repeats_itself_keeps_one(tmp_path: Path, times: int, left: int) -> None:
    rows = rows_of("Ha. " * times + "The end.")
    assert texts(run_block("sentences", {"least": 0}, [rows], tmp_path)) == ["Ha. " * left + "The end."]


def test_shorter_runs_stay(tmp_path: Path) -> None:
    rows = rows_of("A b. C d. E f.", "A b. C d. G h.", "I j. C d. E f.")
    assert texts(run_block("sentences", {"least": 0}, [rows], tmp_path)) == [row["text"] for row in rows]


def test_runs_of_earlier_stages_go(tmp_path: Path) -> None:
    chat = {"source": "c", "messages": [{"role": "user", "content": "Q r. S t. U v."}]}
    earlier = {"cpt": [[chat, *rows_of("A b. C d. E f. Old.")]]}
    rows = rows_of("New. A b. C d. E f.", "A b. C d. E f.", "Q r. S t. U v.")
    found: list[list[Any]] = run_block(
        "sentences", {"least": 1, "against": ["cpt"]}, [rows[:1], rows[1:]], tmp_path, earlier=earlier
    )
    assert texts(found) == ["New.", None, "Q r. S t. U v."]
    assert found[1][0].reason == "repeated sentences of an earlier stage"
    assert found[1][0].detail.endswith("cpt, s: A b. C d. E f. Old.")


def test_common_runs_in_little_memory_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = dealt(rows_of(*(f"Number {n}. A b. C d. E f. Ha. Ha. Ha. Ha." for n in range(40))), 4)
    whole = run_block("sentences", {"least": 0}, tasks, tmp_path / "a")
    monkeypatch.setattr(records.in_key_order, "__defaults__", (7,))
    assert run_block("sentences", {"least": 0}, tasks, tmp_path / "b") == whole
    assert texts(whole)[1:] == [f"Number {n}." for n in range(1, 40)]
