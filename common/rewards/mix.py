"""Several rewards as one number: weighted, or in order of rank.

Usage: `mix = Mix.of({"number": {"weight": 1.0}, "stopped": {"weight": 0.2}})`; `mix.score(answers)`.

A criterion is a verifier by name, or a reward model under a name of its own: `{safety: {model: reward-safety}}`, where
`reward-safety` is a stage among the inputs. With `order: ranked` a criterion decides only between answers that are
equal in all criteria above it, as people rank safety above professionalism above fluency (Zhongjing, Yang et al. 2023,
arXiv 2308.03549).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from common.config.answering import AnsweringSettings
from common.config.kinds import kind_of
from common.config.node import Node
from common.config.resolve import Resolved
from common.config.validation import validated
from common.errors import ConfigError, DataError, did_you_mean
from common.rewards.own import verifiers_for
from common.rewards.verifiers import VERIFIERS, Answer, Verifier, options_of

MOST = 1e18  # of a total; its square is still finite in float32
LEVELS = 10  # of a ranked criterion: rewards closer than a tenth are equal
Weight = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0, le=1000)]
Order = Literal["weighted", "ranked"]
Scorer = Callable[[Sequence[Answer]], list[float]]


class ModelOptions(BaseModel):
    """The options of a reward model among the criteria."""

    model_config = ConfigDict(extra="forbid")
    model: str


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
    verifiers: Mapping[str, Verifier] = field(default_factory=lambda: VERIFIERS)  # all that the run knows

    @classmethod
    def of(
        cls, rewards: Mapping[str, Mapping[str, Any]], order: Order = "weighted",
        models: Mapping[str, Scorer] | None = None, verifiers: Mapping[str, Verifier] = VERIFIERS,
    ) -> Mix:  # fmt: skip
        """Build a mix from settings, name -> weight and options; `models` are the reward models by stage name.

        `verifiers` are those of the package, and the domain's own where it brings some.

        Raises ConfigError as `check_rewards` does.
        """
        models = models or {}
        check_rewards(rewards, "rewards", tuple(models), verifiers)
        criteria = []
        for name, given in rewards.items():
            scorer = models[given["model"]] if "model" in given else _scorer(name, verifiers[name], given)
            criteria.append(Criterion(name, float(given.get("weight", 1.0)), scorer))
        return cls(tuple(criteria), order, verifiers)

    def score(self, answers: Sequence[Answer]) -> Scores:
        """Return the total of each answer and its parts. Raises DataError for a missing or non-finite reward."""
        parts = {criterion.name: _checked(criterion, answers) for criterion in self.criteria}
        total = ranked if self.order == "ranked" else self._weighted
        totals = [total(rewards) for rewards in zip(*parts.values(), strict=True)]
        beyond = next((value for value in totals if not abs(value) <= MOST), None)  # also where it is NaN
        if beyond is not None:
            raise DataError(
                f"The rewards of an answer add up to {beyond:g}; expected a number up to {MOST:g}, as a training "
                "computes in float32. Lower the weights, or what a reward returns."
            )
        return Scores(totals, parts)

    def _weighted(self, rewards: Sequence[float]) -> float:
        return sum(criterion.weight * reward for criterion, reward in zip(self.criteria, rewards, strict=True))


@dataclass(frozen=True)
class Scores:
    """Totals, one per answer, and the criteria's own rewards by name."""

    totals: list[float]
    parts: dict[str, list[float]] = field(default_factory=dict)


def check_rewards(
    rewards: Mapping[str, Mapping[str, Any]], key: str, models: Sequence[str] = (),
    verifiers: Mapping[str, Verifier] = VERIFIERS, origin: Callable[[str], str] = lambda key: "",
) -> None:  # fmt: skip
    """Check names, weights and options of rewards as a settings file gives them; `models` are the stages it may name.

    `origin` gives the layer that set a key.

    Raises ConfigError that names the key, the value and what is expected.
    """
    if not rewards:
        raise ConfigError(f"{key} is empty; expected at least one of {', '.join(verifiers)}.")
    for name, given in rewards.items():
        place = f"{key}.{name}"
        if "model" not in given and name not in verifiers:
            near = did_you_mean(name, verifiers)
            raise ConfigError(f"{place}: there is no such reward, and no `model` is given.{near}")
        base = ModelOptions if "model" in given else options_of(name, verifiers)
        options = create_model(name, __base__=base, weight=(Weight, 1.0))
        validated(options, dict(given), prefix=place, origin=origin)
        if given.get("model") not in (None, *models):
            raise ConfigError(
                f"{place}.model is {given['model']!r}; expected a reward stage among the inputs of this stage "
                f"({', '.join(models) or 'none'}). Name it in the pipeline file: `with: [<reward stage>]`."
            )


def check_stage_rewards(node: Node, settings: AnsweringSettings, resolved: Resolved) -> None:
    """Check the rewards of a stage that answers prompts; reward models are stages that it reads.

    In a sequence settings name these as a run of the stage's domain does.
    """
    if settings.rewards and settings.rewards == resolved.config.verify.rewards:
        return  # checked with `verify`
    kinds = {other.name: kind_of(other.kind) for other in resolved.nodes}
    models = [node.called(name) for name in node.inputs if kinds[name].makes == "reward model"]
    check_rewards(settings.rewards, f"{node.name}.rewards", models, verifiers_for(resolved), resolved.origin_of)


def check_verifier(name: str | None, key: str, verifiers: Mapping[str, Verifier] = VERIFIERS) -> None:
    """Check what says that an answer is right: a reward that needs no options. Raises ConfigError."""
    if name is None:
        return
    if name not in verifiers:
        raise ConfigError(f"{key}: there is no reward '{name}'.{did_you_mean(name, verifiers)}")
    if any(field.is_required() for field in options_of(name, verifiers).model_fields.values()):
        raise ConfigError(f"{key}: '{name}' needs options, and a check has none; name another.")


def ranked(rewards: Sequence[float]) -> float:
    """Return a number from 0 to 1 that orders answers by their first reward, then by their second, and so on.

    Rewards are from 0 to 1 and rounded to LEVELS steps.
    """
    base = LEVELS + 1
    digits = [round(min(1.0, max(0.0, reward)) * LEVELS) for reward in rewards]
    value = functools.reduce(lambda total, digit: total * base + digit, digits, 0)
    return value / float(base ** len(digits) - 1)


def _scorer(name: str, verifier: Verifier, given: Mapping[str, Any]) -> Scorer:
    options = {option: value for option, value in given.items() if option != "weight"}

    def score(answers: Sequence[Answer]) -> list[float]:
        try:
            return [verifier(answer, **options) for answer in answers]
        except DataError:
            raise
        except Exception as error:
            error.add_note(f"The reward '{name}' raised this.")
            raise

    return score


def _checked(criterion: Criterion, answers: Sequence[Answer]) -> list[float]:
    values = criterion.scorer(answers)
    if len(values) != len(answers):
        raise DataError(
            f"The reward '{criterion.name}' returned {len(values)} numbers for {len(answers)} answers; "
            "expected one each."
        )
    for value, answer in zip(values, answers, strict=True):
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise DataError(
                f"The reward '{criterion.name}' is {value} for the answer {answer.text[:80]!r}; expected a finite "
                "number. Nothing was learned from it. Check the reward, or leave the prompt out."
            )
    return [float(value) for value in values]
