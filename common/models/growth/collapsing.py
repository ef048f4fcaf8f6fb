"""Collapse a model whose layers have copies beside them: each pair becomes one plain layer.

Usage: `plain = collapse(model, "auto", "collapse")`; `mean_weights(model)` are the w that it takes.

Control LLM (arXiv 2501.10979) and its authors' code: the weights of a layer and its copy meet with the pair's running
mean of w: behind lerp on a line; behind dlerp and slerp on an arc between the last dimensions of each tensor. What mean
weights compute is not the mean of what both computed, so this costs something, which exams before and after show.
In the authors' code w is averaged over an evaluation; ours is over the forward passes of the last training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from common.models.growth.growing import rebuilt
from common.models.growth.pair_configs import INTERPOLATION, collapsed_config
from common.models.growth.pairs import lerp, pairs_of, slerp

if TYPE_CHECKING:
    from torch import Tensor

ORIGINAL, COPY, MEAN = ".original.", ".copy.", "mean_w"
OF_PAIRS = (".factor", ".mixer", f".{MEAN}", ".passes")


def mean_weights(model: Any) -> list[float]:
    """Return the running mean of each pair's w, the lowest pair first."""
    return [round(float(pair.mean_w), 6) for pair in pairs_of(model)]


def how_weights_meet(asked: str, interpolation: str) -> str:
    """Return lerp or slerp."""
    if asked != "auto":
        return asked
    return "lerp" if interpolation == "lerp" else "slerp"


def collapse(model: Any, asked: str, stage: str) -> Any:
    """Return the plain model of a paired one. Raises ConfigError where no layer has a copy."""
    config = model.config.to_dict()
    after, how = collapsed_config(config, stage), how_weights_meet(asked, config[INTERPOLATION])
    return rebuilt(model, after, collapsed_weights(model.state_dict(), how))


def collapsed_weights(weights: Mapping[str, Tensor], how: str) -> dict[str, Tensor]:
    """Return the weights of the plain model, in the types that they have."""
    made: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if COPY in name or name.endswith(OF_PAIRS):
            continue
        if ORIGINAL not in name:
            made[name] = tensor.clone()
            continue
        layer, _, rest = name.partition(ORIGINAL)
        w, copy = weights[f"{layer}.{MEAN}"].float(), weights[f"{layer}{COPY}{rest}"].float()
        met = slerp(tensor, copy, w, each=True) if how == "slerp" else lerp(tensor.float(), copy, w)
        made[f"{layer}.{rest}"] = met.to(tensor.dtype)
    return made
