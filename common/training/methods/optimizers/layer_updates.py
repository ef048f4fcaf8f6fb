"""How far the lowest and the highest layers have moved: the diagnostic of the stability gap. It changes no weight.

Usage: `cpt: {methods: {layer_updates: {layers: 5, every: 10}}}`.

Guo et al. 2024 (arXiv 2406.14833) compare the relative update of some layers, with w_t their weights after t steps,

    |w_t - w_0| / |w_0|

of the five lowest with that of the five highest. While a model falls into the gap the lowest move more (the ratio was
above 1.35 early there), and later the two come together. Norms are those of all weights of these layers in one: that is
ours. A model of less than twice as many layers is measured by a fifth of its layers on either side.

It keeps the first weights of these layers, in float32: at most 4 bytes for each weight that learns, as a plan counts
them, and less in a deep model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from common.config.methods import MethodSettings, OptimizerMethod, Step
from common.config.stages import ContinuedSettings, TrainingSettings
from common.training.distributed import ranks

WEIGHT = 4.0  # bytes
NUMBERED = re.compile(r"\.(\d+)\.")  # in the name of a layer's weight: model.layers.3.mlp.down_proj.weight


class LayerUpdatesSettings(MethodSettings):
    """Which layers, and how often."""

    layers: int = Field(5, ge=1, description="layers at either end; in a model of less than twice as many, a fifth")
    every: int = Field(10, ge=1, description="optimizer steps between two measurements; the last step is measured too")


def ends(names: Sequence[str], settings: LayerUpdatesSettings) -> tuple[list[str], list[str]]:
    """Return the weights of the lowest and of the highest layers, by their names."""
    layer = {name: int(found[1]) for name in names if (found := NUMBERED.search(name))}
    numbers = sorted(set(layer.values()))
    size = settings.layers if 2 * settings.layers <= len(numbers) else max(1, len(numbers) // 5)
    lowest, highest = set(numbers[:size]), set(numbers[-size:])
    return [name for name in layer if layer[name] in lowest], [name for name in layer if layer[name] in highest]


def relative_update(now: Sequence[Any], before: Sequence[Any]) -> float:
    """Return |now - before| / |before| over all weights in one; of shards, over those of all processes."""
    import torch

    if not now:
        return 0.0
    sharded = hasattr(now[0], "to_local")
    if sharded:
        now, before = ([tensor.to_local() for tensor in tensors] for tensors in (now, before))
    with torch.no_grad():
        squares = [0.0, 0.0]
        for one, other in zip(now, before, strict=True):  # one by one: the differences of all would be another copy
            for place, tensor in enumerate((one - other, other)):
                squares[place] += float(torch.linalg.vector_norm(tensor, dtype=torch.float32)) ** 2
    rows = ranks.all_gather(squares) if sharded else [squares]
    moved, norm = (math.sqrt(sum(row[place] for row in rows)) for place in (0, 1))
    return moved / norm if norm else 0.0


def begin(step: Step, settings: LayerUpdatesSettings) -> dict[str, Any]:
    """Return the first weights of the layers that are measured."""
    weights = step.weights()
    return {name: weights[name].detach().clone() for side in ends(list(weights), settings) for name in side}


def after_step(step: Step, settings: LayerUpdatesSettings, state: Mapping[str, Any]) -> dict[str, float] | None:
    """Measure after every k-th step, and after the last one."""
    if step.number % settings.every and step.number != step.of:
        return None
    weights = step.weights()
    lowest, highest = (
        relative_update([weights[name].detach() for name in side], [state[name] for name in side])
        for side in ends(list(weights), settings)
    )
    return {
        "step": step.number,
        "lowest": lowest,
        "highest": highest,
        **({"ratio": lowest / highest} if highest else {}),
    }


def problem(own: LayerUpdatesSettings, stage: TrainingSettings) -> str:
    """Say why a stage cannot be measured, or nothing."""
    if stage.peft != "full":
        return (
            f"peft={stage.peft} trains an adapter beside the layers, whose own weights stay as they are. Leave it out"
        )
    if isinstance(stage, ContinuedSettings) and stage.train_only == "embeddings":
        return "train_only=embeddings trains rows of tokens alone, and all layers stay as they are. Leave it out"
    return ""


METHOD = OptimizerMethod(
    name="layer_updates", settings=LayerUpdatesSettings, begin=begin, after_step=after_step, problem=problem,
    bytes_per_weight=lambda own: WEIGHT, charted=("lowest", "highest", "ratio"),
    phrase="how far the lowest and the highest layers have moved, which shows the stability gap",
    paper="arXiv 2406.14833, the diagnostic of the stability gap", ours="norms over all weights of the layers in one",
)  # fmt: skip
