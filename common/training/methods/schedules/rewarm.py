"""Re-warming: from zero up to a share of the peak that the stage before had, then a cosine down to a floor.

Usage: `cpt: {methods: {rewarm: {share: 0.5, warmup: 0.01, floor: 0.1}}}`.

Gupta et al. 2023 (arXiv 2308.04014) vary the peak of the continuation around that of the pretraining; a higher one
learns the new text better and forgets more. With N_w the steps of the warm-up and N all steps, the rate is

    n < N_w     eta_max n / N_w
    n >= N_w    eta_min + (eta_max - eta_min) / 2 (1 + cos(pi (n - N_w) / (N - N_w))),  eta_min = floor eta_max

with eta_max = share times the peak before. That is read from the settings of the chain: of the nearest stage before
that trains on tokens. A warm-up over 1% of the new tokens and a floor of a tenth are those of Ibrahim et al. 2024
(arXiv 2403.08763).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field

from common.config.base import Share
from common.config.methods import Ancestor, MethodSettings, ScheduleMethod
from common.config.stages import TrainingSettings


class RewarmSettings(MethodSettings):
    """How high, and how fast."""

    share: float = Field(1.0, gt=0, le=100, description="of the peak before, which is the peak of this stage")
    peak: float | None = Field(None, gt=0, description="the peak before; none: what the chain's settings say")
    warmup: float = Field(0.01, ge=0, description="share of all steps spent warming up; from 1 on, a number of steps")
    floor: Share = Field(0.1, description="lowest rate, at the end, as a share of this stage's peak")


def multiplier(step: int, steps: int, settings: RewarmSettings) -> float:
    """Return the rate of a step, as a share of this stage's peak: the equations above."""
    warmup = warmup_steps(steps, settings)
    if step < warmup:
        return step / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return settings.floor + (1 - settings.floor) / 2 * (1 + math.cos(math.pi * done))


def warmup_steps(steps: int, settings: RewarmSettings) -> int:
    """Return the steps of the warm-up."""
    return round(settings.warmup if settings.warmup >= 1 else settings.warmup * steps)


def misfit(steps: int, settings: RewarmSettings, stage: object = None) -> str:
    """Say that the warm-up takes more steps than there are, or nothing."""
    warmup = warmup_steps(steps, settings)
    if warmup <= steps:
        return ""
    return f"warmup is {warmup:,} steps, and the stage has {steps:,}. Shorten it, or raise the budget"


def complete(own: RewarmSettings, before: Sequence[Ancestor]) -> RewarmSettings:
    """Return the settings with the peak before. Raises ValueError where nothing says it."""
    if own.peak is not None:
        return own
    found = next((ancestor for ancestor in before if isinstance(ancestor.settings, TrainingSettings)), None)
    if found is None:
        raise ValueError("no stage before it trains on tokens, so there is no peak to return to. Set peak=<rate>.")
    name = found.node.name
    assert isinstance(found.settings, TrainingSettings)
    if found.taken:
        raise ValueError(
            f"{name} takes a finished checkpoint, and nothing says which peak rate that was trained with. Set "
            "peak=<rate>, as its paper or its card gives it."
        )
    rate = found.settings.train.get("learning_rate")
    if not isinstance(rate, int | float) or found.settings.peft != "full":
        why = "trains an adapter, whose rate is not one of all weights" if rate else "says no train.learning_rate"
        raise ValueError(f"{name}, the stage before it, {why}. Set peak=<rate>.")
    return own.model_copy(update={"peak": float(rate)})


def problem(own: RewarmSettings, stage: TrainingSettings) -> str:
    """Say that an adapter would take the rate of all weights, or nothing."""
    if stage.peft == "full" or own.peak is not None:
        return ""
    return "this stage trains an adapter, whose rate is not one of all weights; set peak=<rate>"


def peak(own: RewarmSettings) -> float:
    """Return the highest rate of this stage."""
    assert own.peak is not None, "it is completed when layers are merged"
    return own.share * own.peak


METHOD = ScheduleMethod(
    name="rewarm", settings=RewarmSettings, multiplier=multiplier, misfit=misfit, complete=complete, peak=peak,
    problem=problem,
    phrase="a rate that rises again to a share of the peak before, and falls as a cosine",
    paper="arXiv 2308.04014", ours="the share",
)  # fmt: skip
