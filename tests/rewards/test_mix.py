"""Rewards put together: weights, ranks, and mistakes in settings and in rewards."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from common.errors import ConfigError, DataError
from common.rewards.mix import Criterion, Mix, check_rewards, ranked
from common.rewards.verifiers import Answer

ROW = {"answers": ["42"]}


def answers(*texts: str) -> list[Answer]:
    return [Answer(text, ROW) for text in texts]


def test_weights_add_up_and_the_parts_stay_to_be_seen() -> None:
    mix = Mix.of({"number": {"weight": 2}, "calculation": {"weight": 0.5}})
    scores = mix.score(answers("40 + 2 = 42", "42", "1 + 1 = 3"))
    assert scores.totals == [2.5, 2.0, 0.0]
    assert scores.parts == {"number": [1.0, 1.0, 0.0], "calculation": [1.0, 0.0, 0.0]}


def test_ranks_count_only_between_equals() -> None:
    grid = list(itertools.product((0.0, 0.5, 1.0), repeat=3))
    assert sorted(grid, key=ranked) == grid
    assert (ranked((0, 0, 0)), ranked((1, 1, 1))) == (0.0, 1.0)
    mix = Mix.of({"number": {}, "calculation": {}}, "ranked")
    right, reasoned, wrong = mix.score(answers("42", "40 + 2 = 42", "1 + 1 = 2")).totals
    assert reasoned > right > wrong


def test_several_reward_models_and_a_rule_as_people_rank_them() -> None:
    """Safety above professionalism above fluency: what is liked more below decides only between equals above."""
    liked = {"safe": {"a": 0.9, "b": 0.9, "c": 0.1}, "skilled": {"a": 0.2, "b": 0.7, "c": 1.0}}
    models = {
        name: (lambda batch, likes=likes: [likes[answer.text] for answer in batch]) for name, likes in liked.items()
    }
    rewards: dict[str, Any] = {"safety": {"model": "safe"}, "skill": {"model": "skilled"}, "stopped": {"weight": 9.0}}
    totals = Mix.of(rewards, "ranked", models).score(answers("a", "b", "c")).totals
    assert totals[1] > totals[0] > totals[2]
    weighted = Mix.of({"safety": {"model": "safe"}, "skill": {"model": "skilled", "weight": 2.0}}, models=models)
    assert weighted.score(answers("a", "b", "c")).totals == pytest.approx([1.3, 2.3, 2.1])


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ({}, "sft.rewards is empty; expected at least one of number,"),
        ({"nmber": {}}, "sft.rewards.nmber: there is no such reward, and no `model` is given. Did you mean 'number'?"),
        ({"number": {"weight": "much"}}, "sft.rewards.number.weight: expected a number; got 'much'"),
        ({"number": {"weight": math.nan}}, "sft.rewards.number.weight: expected a finite number; got nan"),
        ({"number": {"afer": "#"}}, "sft.rewards.number.afer: unknown key. Did you mean 'after'?"),
        ({"pattern": {}}, "sft.rewards.pattern.regex is missing."),
        ({"length": {"most": 4, "slack": 0}}, "sft.rewards.length.slack: expected more than 0; got"),
        ({"pattern": {"regex": "("}}, "sft.rewards.pattern.regex: is not a regular expression: missing )"),
        (
            {"json_schema": {"definition": {"type": "objekt"}}},
            "sft.rewards.json_schema.definition: is not a JSON schema: 'objekt' is not valid",
        ),
        ({"length": {"most": "x", "slack": 1}}, "sft.rewards.length.most: expected a whole number; got"),
    ],
)
def test_mistakes_in_settings(rewards: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_rewards(rewards, "sft.rewards")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([math.nan, 0.0], "The reward 'own' is nan for the answer 'one'; expected a finite number"),
        ([0.0], "The reward 'own' returned 1 numbers for 2 answers; expected one each"),
    ],
)
def test_a_reward_that_is_none_is_named(values: list[float], expected: str) -> None:
    mix = Mix((Criterion("own", 1.0, lambda batch: values),))
    with pytest.raises(DataError) as caught:
        mix.score(answers("one", "two"))
    assert expected in str(caught.value)


@pytest.mark.parametrize("weight", [1e300, -1e20])
def test_rewards_whose_sum_is_beyond_a_trainer_are_refused(weight: float) -> None:
    mix = Mix((Criterion("own", weight, lambda batch: [1e10, 0.0]),))
    with pytest.raises(DataError, match=r"^The rewards of an answer add up to -?(inf|1e\+30); expected a number up to"):
        mix.score(answers("one", "two"))
