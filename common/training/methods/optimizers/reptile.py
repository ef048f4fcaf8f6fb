"""Reptile in continued pre-training: every k steps the weights go back most of the way to where they were.

Usage: `cpt: {replay: 0.25, methods: {reptile: {every: 500, step: 0.1}}}`; both together are meta-experience replay.

Abbes et al. 2025 (arXiv 2508.01908), after Riemer et al. 2019 (arXiv 1810.11910). Every k optimizer steps

    theta <- theta_before + epsilon (theta - theta_before),  theta_before <- theta

with k = 500 and epsilon = 0.1. The optimizer's state is left as it is. Steps behind the last multiple of k are kept
whole. Of a sharded model each process interpolates its shards.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field

from common.config.base import Share
from common.config.methods import MethodSettings, OptimizerMethod, Step
from common.training.distributed import ranks

WEIGHT = 4.0  # bytes of a weight of the copy, which is in float32 as the weights are


class ReptileSettings(MethodSettings):
    """How often, and how far."""

    every: int = Field(500, ge=1, description="optimizer steps between two interpolations")
    step: Share = Field(0.1, gt=0, description="share of the way since the last one that is kept (epsilon)")


def interpolate(before: list[Any], now: list[Any], step: float) -> float:
    """Move weights, and the copy of what they were, to `before + step (now - before)`, in place.

    Returns how far they had moved, relative to the norm of the copy. Of shards, each process moves its own.
    """
    import torch

    sharded = hasattr(now[0], "to_local")
    if sharded:
        before, now = ([tensor.to_local() for tensor in tensors] for tensors in (before, now))
    with torch.no_grad():
        moved = torch._foreach_sub(now, before)
        squares = [
            float(torch.stack(torch._foreach_norm(tensors)).double().square().sum()) for tensors in (moved, before)
        ]
        torch._foreach_add_(before, moved, alpha=step)
        torch._foreach_copy_(now, before)
    rows = ranks.all_gather(squares) if sharded else [squares]
    distance, norm = (math.sqrt(sum(row[place] for row in rows)) for place in (0, 1))
    return distance / norm if norm else 0.0


def begin(step: Step, settings: ReptileSettings) -> dict[str, Any]:
    """Return a copy of the weights that learn."""
    return {name: weight.detach().clone() for name, weight in step.weights().items()}


def after_step(step: Step, settings: ReptileSettings, state: dict[str, Any]) -> dict[str, float] | None:
    """Interpolate after every k-th step."""
    if step.number % settings.every:
        return None
    weights = step.weights()
    moved = interpolate([state[name] for name in weights], [weight.data for weight in weights.values()], settings.step)
    return {"moved": moved}


METHOD = OptimizerMethod(
    name="reptile", settings=ReptileSettings, begin=begin, after_step=after_step,
    bytes_per_weight=lambda own: WEIGHT,
    phrase="every so many steps, an interpolation with the weights of the interpolation before (Reptile)",
    paper="arXiv 2508.01908, section 3",
)  # fmt: skip
