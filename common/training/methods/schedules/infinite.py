"""A schedule without an end in sight: warm-up, cooldown to a constant rate, and an anneal when training ends.

Usage: `cpt: {methods: {infinite: {warmup: 0.01, cooldown: 0.2, constant: 0.02, anneal: 0.1}}}`.

"Beyond Cosine Decay" (arXiv 2503.02844), equation 1; the schedule is that of Ibrahim et al. 2024 (arXiv 2403.08763),
where the exponent has another denominator. With N_w and N_c the steps of warm-up and cooldown, N_d the step where the
anneal begins, and t_a its steps:

    n < N_w             eta_max n / N_w
    n < N_w + N_c       eta_const + (eta_max - eta_const) / 2 (1 + cos(pi (n - N_w) / N_c))
    n < N_d             eta_const
    n >= N_d            eta_const (eta_min / eta_const) ^ ((n - N_d) / D)

D is t_a where `denominator` is `anneal_steps`, so that eta_min is reached after t_a steps, and t_a + N_d where it is
`paper_eq1`, so that the rate ends above eta_min. No chain of stages is kept here: a later stage that goes on from the
constant rate sets warmup and cooldown to 0.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from pydantic import Field

from common.config.base import Share
from common.config.methods import MethodSettings, ScheduleMethod


class InfiniteSettings(MethodSettings):
    """Lengths of the phases, and the rates between them as shares of the peak."""

    warmup: float = Field(0.01, ge=0, description="share of all steps spent warming up; from 1 on, a number of steps")
    cooldown: float = Field(
        0.2, ge=0, description="share of all steps from the peak to the constant rate; from 1 on, a number of steps"
    )
    anneal: float = Field(
        0.1, ge=0, description="share of all steps of the anneal, at the end; from 1 on, a number of steps; 0: none"
    )
    constant: Share = Field(0.5, gt=0, description="the constant rate, as a share of the peak")
    floor: Share = Field(0.01, gt=0, description="the lowest rate, as a share of the peak")
    denominator: Literal["anneal_steps", "paper_eq1"] = Field(
        "anneal_steps", description="of the anneal's exponent: its own steps, or those and all before it"
    )


class Phases(NamedTuple):
    """Steps of each phase; the constant one has what is left."""

    warmup: int
    cooldown: int
    anneal: int


def phases(steps: int, settings: InfiniteSettings) -> Phases:
    """Return the steps of the phases that have a length."""
    given = (settings.warmup, settings.cooldown, settings.anneal)
    return Phases(*(round(length if length >= 1 else length * steps) for length in given))


def multiplier(step: int, steps: int, settings: InfiniteSettings) -> float:
    """Return the rate of a step, as a share of the peak: the equations above."""
    warmup, cooldown, anneal = phases(steps, settings)
    begins = steps - anneal
    if step < warmup:
        return step / warmup
    if step < warmup + cooldown:
        height = (1 - settings.constant) / 2
        return settings.constant + height * (1 + math.cos(math.pi * (step - warmup) / cooldown))
    if step < begins or not anneal:
        return settings.constant
    denominator = anneal if settings.denominator == "anneal_steps" else anneal + begins
    return float(settings.constant * (settings.floor / settings.constant) ** ((step - begins) / denominator))


def misfit(steps: int, settings: InfiniteSettings, stage: object = None) -> str:
    """Say that the phases take more steps than there are, or nothing."""
    found = phases(steps, settings)
    if sum(found) <= steps:
        return ""
    parts = " + ".join(f"{name} {length:,}" for name, length in found._asdict().items())
    return f"{parts} are {sum(found):,} steps, and the stage has {steps:,}. Shorten one, or raise the budget"


def problem(own: InfiniteSettings, stage: object) -> str:
    """Say that the floor is above the constant rate, or nothing."""
    if own.floor > own.constant:
        return f"floor {own.floor:g} is above the constant rate {own.constant:g}; lower it"
    return ""


METHOD = ScheduleMethod(
    name="infinite", settings=InfiniteSettings, multiplier=multiplier, misfit=misfit, problem=problem,
    phrase="warm-up, cosine cooldown, a constant rate, and an exponential anneal at the end",
    paper="arXiv 2503.02844, equation 1", ours="all lengths and rates",
)  # fmt: skip
