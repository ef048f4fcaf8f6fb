"""The batch of a stage, and which numbers of processes can share it.

Usage: `require_shareable([batch_of("cpt", settings)], processes=8)`.

What a step learns from is part of a recipe and never changes with the number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from common.config.answering import OnlineSettings
from common.config.base import StageSettings
from common.config.methods import LossMethod, OptimizerMethod, chosen
from common.config.schema import RunSettings
from common.config.stages import LearningSettings, PreferenceSettings, TrainingSettings
from common.config.trl_options import needs_bitsandbytes
from common.errors import ConfigError

SHARDED = ("fsdp2", "zero3")


def unshardable(settings: StageSettings, run: RunSettings) -> str:
    """Return what of a stage its processes could not share out, as `<key>=<value>` without the stage; empty where all.

    Quantised weights are packed. The kernels of bitsandbytes' optimizers take no shards: torch's `fully_shard` with
    AdamW8bit fails in its first step (torch 2.13, bitsandbytes 0.50, two gloo processes).
    """
    if run.processes == 1 or run.parallelism not in SHARDED or not isinstance(settings, LearningSettings):
        return ""
    optimizer = str(settings.train.get("optim", ""))
    if settings.peft == "qlora":
        return "peft=qlora"
    whole = (
        method
        for method, _ in chosen(settings)
        if (isinstance(method, OptimizerMethod) and not method.shards)
        or (isinstance(method, LossMethod) and method.head is not None)
    )
    if (method := next(whole, None)) is not None:
        return f"methods.{method.name}"
    return f"train.optim={optimizer}" if needs_bitsandbytes(optimizer) else ""


def own_share(settings: TrainingSettings) -> float:
    """Return the share of a stage's tokens that are its own rows; with `replay: 1` there are no others."""
    return 1.0 if settings.replay == 1 else 1.0 - settings.replay


def pair_steps(settings: PreferenceSettings, num_pairs: float) -> int:
    """Return the number of optimizer steps over a number of pairs."""
    return settings.steps or max(1, round(settings.epochs * num_pairs / settings.batch_pairs))


def pair_epochs(settings: PreferenceSettings, num_pairs: float) -> float:
    """Return the passes over a number of pairs."""
    return settings.steps * settings.batch_pairs / max(1, num_pairs) if settings.steps else settings.epochs


def rewarded_steps(settings: OnlineSettings, num_prompts: float) -> int:
    """Return the number of optimizer steps over a number of prompts, or of texts where these make up the batch."""
    if settings.epochs is None:
        return settings.steps
    return max(1, math.ceil(settings.epochs * num_prompts / settings.batch))


def micro_tokens(settings: StageSettings, run: RunSettings) -> int | None:
    """Return the tokens of a forward pass: the least that the stage or the run asks for; None for a whole batch."""
    asked = [size for size in (getattr(settings, "micro_batch_tokens", None), run.micro_batch_tokens) if size]
    return min(asked) if asked else None


@dataclass(frozen=True)
class Batch:
    """What a step of a stage learns from: a number of rows, pairs or prompts, set by one of its keys."""

    key: str
    value: int
    size: int
    unit: str
    tokens_each: int  # of what a forward pass reads: a row, a pair, or one answer with its prompt
    answers_each: int = 1  # to one of them

    @property
    def tokens(self) -> int:
        """The most tokens of a step."""
        return self.size * self.answers_each * self.tokens_each

    def fits(self, processes: int) -> bool:
        return self.size % processes == 0

    def values_near(self, processes: int) -> list[int]:
        """Return the nearest values of the key that processes can share alike, at most one on each side."""
        step = self.value // self.size * processes  # one piece for each process
        below = self.value // step * step
        return [value for value in (below, below + step) if value]


def batch_of(stage: str, settings: StageSettings) -> Batch | None:
    """Return the batch of a stage that processes may share; None for a stage without one.

    Of GRPO and RLOO these are prompts: all answers to one are compared in one process. Of RL pre-training they are
    paragraphs, with all masks of one and all answers to these.
    """
    if isinstance(settings, TrainingSettings):
        value, length = settings.batch_tokens, settings.sequence_length
        return Batch(f"{stage}.batch_tokens", value, value // length, "rows", length)
    if isinstance(settings, PreferenceSettings):
        value = settings.batch_pairs
        return Batch(f"{stage}.batch_pairs", value, value, "pairs", 2 * settings.sequence_length)
    if isinstance(settings, OnlineSettings):
        value, length = settings.batch, settings.prompt_tokens + settings.answer_tokens
        each = settings.answers_each(settings.samples)
        return Batch(f"{stage}.{settings.batch_key}", value, value, settings.unit, length, each)
    return None


def accumulate(rows: int, most: int | None) -> tuple[int, int]:
    """Return (rows of a forward pass, forward passes of a step) whose product is `rows`; `most` bounds the first."""
    each = rows if most is None else max(1, min(most, rows))
    while rows % each:  # the next smaller one that fits; what a step learns from stays the same
        each -= 1
    return each, rows // each


def require_shareable(batches: Sequence[Batch], processes: int, machines: int = 1, least: int = 1) -> None:
    """Check that processes can share the steps of all stages alike. Raises ConfigError for the first that they cannot.

    It names the nearest batches, and numbers of processes, from `least` on, that suit all stages and as many machines.
    """
    unfit = next((batch for batch in batches if not batch.fits(processes)), None)
    if unfit is None:
        return
    common = math.gcd(*(batch.size for batch in batches))
    suiting = [n for n in range(machines, common + 1, machines) if common % n == 0 and n >= least]
    near = sorted(sorted(suiting, key=lambda n: (abs(n - processes), n))[:3])
    every = ", which suits every stage" if len(batches) > 1 else ""
    otherwise = f", or run.processes={' or '.join(map(str, near))}{every}" if near else ""
    raise ConfigError(
        f"{unfit.key}={unfit.value} makes {unfit.size} {unfit.unit} per step, which {processes} processes cannot share "
        f"alike. Set {unfit.key}={' or '.join(map(str, unfit.values_near(processes)))}{otherwise}."
    )
