"""Several rewards as one number: weighted, or in order of rank.

Usage: `mix = Mix.of({"number": {"weight": 1.0}, "stopped": {"weight": 0.2}})`; `mix.score(answers)`.

A criterion is a verifier by name. With `order: ranked` a criterion only counts
between answers that are alike in all criteria above it, as people rank safety above professionalism above fluency
(Zhongjing, Yang et al. 2023, arXiv 2308.03549).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from common.errors import ConfigError, DataError, did_you_mean
from common.rewards.verifiers import VERIFIERS, Answer, options_of

LEVELS = 10  # of a ranked criterion: rewards closer than a tenth are alike
Order = Literal["weighted", "ranked"]
Scorer = Callable[[Sequence[Answer]], list[float]]


@dataclass(frozen=True)
class Criterion:
    """One reward: its name, its weight, and how it scores a batch of answers."""

    name: str
    weight: float
    scorer: Scorer


@dataclass(frozen=True)
class Mix:
    """Criteria, the first the most important where they are ranked."""

    criteria: tuple[Criterion, ...]
    order: Order = "weighted"

    @classmethod
    def of(cls, rewards: Mapping[str, Mapping[str, Any]], order: Order = "weighted") -> Mix:
        """Build a mix from settings, name -> weight and options. Raises ConfigError as `check_rewards` does."""
        check_rewards(rewards, "rewards")
        criteria = []
        for name, given in rewards.items():
            options = {key: value for key, value in given.items() if key != "weight"}
            criteria.append(Criterion(name, float(given.get("weight", 1.0)), _scorer(name, options)))
        return cls(tuple(criteria), order)

    def score(self, answers: Sequence[Answer]) -> Scores:
        """Return the total of each answer and the parts it is made of. Raises DataError for what is no reward."""
        parts = {criterion.name: _checked(criterion, answers) for criterion in self.criteria}
        if self.order == "ranked":
            totals = [ranked([parts[c.name][place] for c in self.criteria]) for place in range(len(answers))]
        else:
            totals = [sum(c.weight * parts[c.name][place] for c in self.criteria) for place in range(len(answers))]
        return Scores(totals, parts)


@dataclass(frozen=True)
class Scores:
    """Totals, one per answer, and the criteria's own rewards by name."""

    totals: list[float]
    parts: dict[str, list[float]] = field(default_factory=dict)


def check_rewards(rewards: Mapping[str, Mapping[str, Any]], key: str) -> None:
    """Check names, weights and options of rewards as a settings file gives them.

    Raises ConfigError that names the key, what was found and what may stand there.
    """
    if not rewards:
        raise ConfigError(f"{key} is empty; name at least one of {', '.join(VERIFIERS)}.")
    for name, given in rewards.items():
        if name not in VERIFIERS:
            raise ConfigError(f"{key}.{name}: there is no such reward.{did_you_mean(name, VERIFIERS)}")
        weight = given.get("weight", 1.0)
        if not isinstance(weight, int | float) or isinstance(weight, bool) or not math.isfinite(weight):
            raise ConfigError(f"{key}.{name}.weight is {weight!r}; expected a number.")
        _check_options(name, given, f"{key}.{name}")


def _check_options(name: str, given: Mapping[str, Any], key: str) -> None:
    model = options_of(name)
    try:
        model.model_validate({option: value for option, value in given.items() if option != "weight"})
    except ValidationError as error:
        item = error.errors()[0]
        place = ".".join([key, *(str(part) for part in item["loc"])])
        if item["type"] == "extra_forbidden":
            near = did_you_mean(str(item["loc"][0]), ["weight", *model.model_fields])
            raise ConfigError(f"{place}: '{name}' has no such option.{near}") from None
        if item["type"] == "missing":
            raise ConfigError(f"{place} is missing; '{name}' needs it.") from None
        raise ConfigError(f"{place}: {item['msg']}; got {item['input']!r}.") from None


def ranked(rewards: Sequence[float]) -> float:
    """Return a number by which answers are in the order of their first rewards, then of their second, and so on.

    Rewards are from 0 to 1 and told apart in LEVELS steps; the result is from 0 to 1 too.
    """
    base = LEVELS + 1
    digits = [round(min(1.0, max(0.0, reward)) * LEVELS) for reward in rewards]
    value = functools.reduce(lambda total, digit: total * base + digit, digits, 0)
    return value / float(base ** len(digits) - 1)


def _scorer(name: str, options: Mapping[str, Any]) -> Scorer:
    def score(answers: Sequence[Answer]) -> list[float]:
        return [VERIFIERS[name](answer, **options) for answer in answers]

    return score


def _checked(criterion: Criterion, answers: Sequence[Answer]) -> list[float]:
    values = criterion.scorer(answers)
    if len(values) != len(answers):
        raise DataError(
            f"The reward '{criterion.name}' gave {len(values)} numbers for {len(answers)} answers; expected one each."
        )
    for value, answer in zip(values, answers, strict=True):
        if not math.isfinite(value):
            raise DataError(
                f"The reward '{criterion.name}' is {value} for the answer {answer.text[:80]!r}; expected a finite "
                "number. Nothing was learned from it. Look at the reward, or leave the prompt out."
            )
    return [float(value) for value in values]
