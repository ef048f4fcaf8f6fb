"""A domain's blocks.py: its functions score rows, and what is wrong with them is said with source, row and function."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from common.config.blocks import BlockContext, checked
from common.config.cleaning import DataSettings
from common.config.kinds import kind_of
from common.data.blocks.relevance import BLOCK as RELEVANCE
from common.data.blocks.relevance import RelevanceSettings
from common.data.blocks.score import BLOCK as SCORE
from common.data.blocks.score import ScoreSettings
from common.data.scorers import scorer_names, scorers_with
from common.errors import ConfigError, DataError
from tests.data.blocks.passes import texts, through

FILE = """
import math


def length(row, *, times: float = 1.0) -> float:
    return len(row["text"]) * times


def words(text: str) -> int:
    return len(text.split())


def half(row) -> float:
    return 0.5


def first(row) -> float:
    return float(row["text"].startswith("a"))


def broken(row) -> float:
    return 1 / (len(row["text"]) - 3)


def nan(row) -> float:
    return math.nan if row["text"] == "aaa" else 1.0
"""
ROWS = [{"source": "web", "text": "a" * n} for n in (3, 1, 4, 1, 5, 9, 2, 6)]


@pytest.fixture
def context(tmp_path: Path) -> BlockContext:
    (tmp_path / "blocks.py").write_text(FILE, encoding="utf-8")
    folder = tmp_path / "work"
    folder.mkdir()
    return BlockContext(folder=folder, role="cpt", scorers=scorers_with(tmp_path / "blocks.py"))


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ({"at_least": 4}, [4, 5, 9, 6]),
        ({"at_most": 3}, [3, 1, 1, 2]),
        ({"drop_lowest": 0.25}, [3, 4, 5, 9, 2, 6]),
        ({"drop_lowest": 0.2}, [3, 1, 4, 1, 5, 9, 2, 6]),  # one of two equal rows would be more than the other
        ({"drop_highest": 0.75}, [1, 1]),
        ({"drop_highest": 0.5, "at_least": 2}, [3, 2]),
        ({"at_least": 12, "options": {"times": 2}}, [9, 6]),
    ],
)
@pytest.mark.parametrize("tasks", [1, 3])
def test_rows_stay_by_threshold_or_share(
    rule: dict[str, Any], kept: list[int], tasks: int, context: BlockContext
) -> None:  # fmt: skip
    found, dropped = through(SCORE, ScoreSettings(function="length", **rule), context, ROWS, tasks)
    assert [len(text) for text in texts(found)] == kept
    assert len(dropped) == len(ROWS) - len(kept)
    assert {drop.reason for drop in dropped} <= {"length too low", "length too high"}


def test_scores_are_left_on_all_rows_and_on_lines_that_say_something(context: BlockContext) -> None:
    rows = [{"source": "book", "text": "one two\n \nthree\r\n"}, {"source": "book", "text": ""}]
    settings = ScoreSettings(function="words", reads="text", keep_all=True, lines=True)
    found, dropped = through(SCORE, settings, context, rows)
    assert not dropped
    assert [row["scores"] for row in found] == [{"words": 3.0}, {"words": 0.0}]
    assert [row["line_scores"] for row in found] == [{"words": [2.0, 1.0]}, {"words": []}]
    assert list(SCORE.line_scores(settings)) == ["words"]
    assert "line_scores" not in through(SCORE, settings.model_copy(update={"lines": False}), context, rows)[0][0]


def test_a_function_may_read_text_of_any_row(context: BlockContext) -> None:
    chat = {
        "source": "chat",
        "messages": [{"role": "user", "content": "one two"}, {"role": "assistant", "content": "x"}],
    }
    found, _ = through(SCORE, ScoreSettings(function="words", reads="text", at_least=3), context, [chat, ROWS[0]])
    assert found == [{**chat, "scores": {"words": 3.0}}]


def test_axes_are_weighed(context: BlockContext) -> None:
    rows = [{"source": "web", "text": "a"}, {"source": "web", "text": "b"}]
    axes = {"grammar": {"function": "half"}, "relevance": {"function": "first", "weight": 3}}
    _, dropped = through(RELEVANCE, RelevanceSettings(**axes, at_least=0.5), context, rows)
    assert [(drop.reason, drop.detail) for drop in dropped] == [("relevance too low", "0.125, least 0.5")]
    with pytest.raises(DataError, match="the function 'length' for density is 9; expected a number from 0 to 1"):
        through(RELEVANCE, RelevanceSettings(density={"function": "length"}, at_least=0), context, [ROWS[5]])


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("broken", "Source 'web', the row that begins 'aaa': the scorer 'broken' raised ZeroDivisionError: "),
        ("nan", "Source 'web', the row that begins 'aaa': the scorer 'nan' is nan; expected a finite number."),
    ],
)
def test_a_failure_names_source_row_and_function(function: str, expected: str, context: BlockContext) -> None:
    with pytest.raises(DataError) as caught:
        through(SCORE, ScoreSettings(function=function, at_least=0), context, ROWS[::-1])
    assert expected in str(caught.value)


def test_wrong_names_and_options_are_said_before_any_row(context: BlockContext) -> None:
    assert SCORE.look is not None
    with pytest.raises(ConfigError, match=r"no function 'lenght' in blocks\.py\. Did you mean 'length'\?"):
        SCORE.look(ScoreSettings(function="lenght", at_least=0), context)
    with pytest.raises(ConfigError, match=r"score\.options\.time: unknown key"):
        SCORE.look(ScoreSettings(function="length", at_least=0, options={"time": 2}), context)
    for given, expected in (
        ({"function": "f"}, "nothing says which rows stay; set one of at_least"),
        ({"function": "f", "keep_all": True, "at_most": 1}, "keep_all drops none, and at_least, at_most"),
        ({"function": "f", "at_least": 2, "at_most": 1}, "so that no row would stay"),
        ({"function": "f", "drop_lowest": 0.5, "drop_highest": 0.5}, "drop all rows"),
    ):
        with pytest.raises(ValueError, match=expected):
            checked([{"score": given}])


def test_a_scorer_crosses_to_other_processes_and_only_as_it_was(context: BlockContext, tmp_path: Path) -> None:
    scorer = pickle.loads(pickle.dumps(context.scorers["length"]))
    assert scorer({"text": "abc"}, times=2.0) == 6
    with (tmp_path / "blocks.py").open("a", encoding="utf-8") as stream:
        stream.write("# other\n")
    with pytest.raises(ConfigError, match="changed since the run began"):
        scorer({"text": "abc"})


def test_which_functions_a_stage_calls() -> None:
    blocks = [{"score": {"function": "f", "at_least": 0}}, {"relevance": {"grammar": {"function": "g"}, "at_most": 1}}]
    assert scorer_names(DataSettings.model_validate({"blocks": [*blocks, "pii"]})) == {"f", "g"}
    assert scorer_names(kind_of("cpt").settings.model_validate({"tokens": 5})) == set()
