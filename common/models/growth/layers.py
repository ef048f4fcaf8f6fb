"""Growth by layers: the weights of a deeper model from those of the one before.

Usage: `deeper = stacked(weights, sources=[0, 1, 1, 2, 3, 3], silent=[2, 5])`.

Pure functions on mappings from names to tensors, as `state_dict()` gives them; what goes in is not changed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LAYER = re.compile(r"^(model\.layers\.)(\d+)(\..+)$")
# What a layer adds to the residual passes through these two, and through nothing behind them.
WRITERS = ("self_attn.o_proj.", "mlp.down_proj.")


def stacked(weights: Mapping[str, Tensor], sources: Sequence[int], silent: Collection[int] = ()) -> dict[str, Tensor]:
    """Return the weights of a model whose layer l is a copy of layer `sources[l]`; those in `silent` add nothing.

    LLaMA Pro (Wu et al. 2024, arXiv 2401.02415), equation 5: a layer computes x' = x + Attn(RMSNorm(x)) W_O and
    y = x' + FFN(RMSNorm(x')) W_down. With W_O = 0 and W_down = 0, and their biases, y = x: the model computes what it
    did. Both still learn: their gradients are products of what comes in, which is not zero.
    """
    made = {name: tensor.clone() for name, tensor in weights.items() if not LAYER.match(name)}
    of_layer: dict[int, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        if found := LAYER.match(name):
            of_layer.setdefault(int(found[2]), {})[found[3]] = tensor
    for place, source in enumerate(sources):
        for rest, tensor in of_layer[source].items():
            zero = place in silent and rest[1:].startswith(WRITERS)
            made[f"model.layers.{place}{rest}"] = tensor.new_zeros(tensor.shape) if zero else tensor.clone()
    return made
