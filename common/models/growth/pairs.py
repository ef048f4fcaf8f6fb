"""Layers with a copy beside them, on the same input: the model class of Control LLM, of which only copies learn.

Usage: `register(folder)` before transformers loads a checkpoint; `pairs_of(model)`; `paired_weights(…)`.

Control LLM (Wei et al. 2025, arXiv 2501.10979), expansion "concat", and its authors' code. With h_p the output of the
frozen layer, h_e that of its copy, s the logistic function:
- lerp: h = (1 - w) h_p + w h_e with w = s(f);
- dlerp: the same with w = s(W [h_p; h_e] + f) for each token, W of shape (1, 2H);
- slerp: h = sin((1 - w) θ)/sin θ h_p + sin(w θ)/sin θ h_e with w = s(f) and θ their angle, for each token; where one of
  the angles is below 1e-4, the lerp of all.
f begins at 0, so w at a half where W is left out. Gradients pass through both layers to what lies below; the weights of
the frozen one have none. Shapes: B rows, T tokens, H hidden.
No other program loads such a checkpoint; `common.stages.collapse` makes a plain one of it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.models.growth.configs import FAMILIES
from common.models.growth.layers import LAYER
from common.models.growth.pair_configs import INTERPOLATION, PAIRED, PLACES, paired_family

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_ANGLE = 1e-4
SMALLEST_SINE = 1e-6  # of vectors that point in opposite directions


def lerp(a: Tensor, b: Tensor, w: Any) -> Tensor:
    """Return (1 - w) a + w b, and exactly a where both are equal."""
    return a + w * (b - a)


def slerp(a: Tensor, b: Tensor, w: Any, *, each: bool = False) -> Tensor:
    """Return a point on the arc between the last dimensions of two tensors, in float32.

    Where one of the angles is below 1e-4, all are on a line; with `each`, those that are.
    """
    import torch

    a, b = a.float(), b.float()
    u, v = (torch.nn.functional.normalize(one, dim=-1) for one in (a, b))
    # 2 atan2(|u - v|, |u + v|) is the angle, also where it is so small that float32 rounds its cosine to 1.
    angle = 2 * torch.atan2((u - v).norm(dim=-1, keepdim=True), (u + v).norm(dim=-1, keepdim=True))
    small = angle < SMALLEST_ANGLE
    angle = torch.where(small, torch.ones_like(angle), angle)  # the branch not taken has no NaN in its gradient
    sine = torch.sin(angle).clamp(min=SMALLEST_SINE)
    arc = torch.sin((1 - w) * angle) / sine * a + torch.sin(w * angle) / sine * b
    return torch.where(small if each else small.any(), lerp(a, b, w), arc)


def dlerp_weight(h_p: Tensor, h_e: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return w of each token, (B, T, 1)."""
    import torch

    return torch.sigmoid(torch.nn.functional.linear(torch.cat([h_p, h_e], dim=-1), weight, bias))


@functools.cache
def pair_class() -> type:
    """Return the module that stands in a layer's place; a function, so that importing this module loads no torch."""
    import torch

    class Pair(torch.nn.Module):  # type: ignore[misc] # mypy does not read torch
        """A frozen layer, its copy on the same input, and how their outputs meet.

        In training it keeps what the loss beside it needs (`common.training.methods.losses.control_divergence`).
        """

        def __init__(self, original: Any, copy: Any, interpolation: str, hidden: int) -> None:
            super().__init__()
            self.original, self.copy, self.interpolation = original, copy, interpolation
            self.factor = torch.nn.Parameter(torch.zeros(1))
            self.mixer = torch.nn.Parameter(torch.zeros(1, 2 * hidden)) if interpolation == "dlerp" else None
            self.register_buffer("mean_w", torch.full((1,), 0.5))  # over the forward passes of the last training
            self.register_buffer("passes", torch.zeros(1, dtype=torch.int64))  # that it is a mean over
            self.kept: tuple[Tensor, Tensor, Tensor] | None = None  # h_p, h_e, w

        def forward(self, hidden_states: Tensor, **named: Any) -> Tensor:
            h_p = self.original(hidden_states, **named)
            h_e = self.copy(hidden_states, **named)
            w = torch.sigmoid(self.factor) if self.mixer is None else dlerp_weight(h_p, h_e, self.mixer, self.factor)
            if self.training:
                self.kept = (h_p, h_e, w)
            mixed = slerp(h_p, h_e, w) if self.interpolation == "slerp" else lerp(h_p, h_e, w)
            return mixed.to(h_e.dtype)

    return Pair


def pairs_of(model: Any) -> list[Any]:
    """Return the pairs of a model, the lowest first."""
    return [layer for layer in model.model.layers if isinstance(layer, pair_class())]


def learning_parts(model: Any, *, trained: bool) -> list[Any]:
    """Return what of the pairs learns: copies, how tokens weigh them, and with `trained` the factors f."""
    found: list[Any] = []
    for pair in pairs_of(model):
        found += [pair.copy, *([pair.mixer] if pair.mixer is not None else []), *([pair.factor] if trained else [])]
    return found


@functools.cache
def register_family(family: str) -> None:
    """Make the paired models of a plain type known to transformers, in this process."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    plain_config = CONFIG_MAPPING[family]
    plain: Any = MODEL_FOR_CAUSAL_LM_MAPPING[plain_config]

    def __init__(self: Any, config: Any, *given: Any, **named: Any) -> None:
        plain.__init__(self, config, *given, **named)
        layers, places = list(self.model.layers), getattr(config, PLACES)
        kept = layers[: len(layers) - len(places)]
        for copy, place in zip(layers[len(kept) :], places, strict=True):  # each has keys and values of its own
            how = getattr(config, INTERPOLATION)
            kept[place] = pair_class()(kept[place], copy, how, config.hidden_size)
        self.model.layers = torch.nn.ModuleList(kept)

    own_config = type(f"Control{plain_config.__name__}", (plain_config,), {"model_type": PAIRED + family})
    own = type(f"Control{plain.__name__}", (plain,), {"__init__": __init__, "config_class": own_config})
    AutoConfig.register(PAIRED + family, own_config)
    AutoModelForCausalLM.register(own_config, own)


def register(folder: Path) -> None:
    """Make a checkpoint's type known to transformers, in this process, where it is a paired one."""
    if (family := paired_family(folder)) in FAMILIES:
        register_family(family)


def paired_weights(
    weights: Mapping[str, Tensor], places: Sequence[int], interpolation: str, hidden: int, seed: int
) -> dict[str, Tensor]:  # fmt: skip
    """Return the weights of the paired model; a copy begins as its layer, so any interpolation gives its output.

    W is drawn as torch draws a linear layer, as in the authors' code: uniform up to 1 / sqrt(2H).
    """
    import torch

    random, bound = torch.Generator().manual_seed(seed), 1 / math.sqrt(2 * hidden)
    made: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        found = LAYER.match(name)
        if found and int(found[2]) in places:
            for part in ("original", "copy"):
                made[f"{found[1]}{found[2]}.{part}{found[3]}"] = tensor.clone()
        else:
            made[name] = tensor.clone()
    for place in places:
        own = f"model.layers.{place}."
        made |= {f"{own}factor": torch.zeros(1), f"{own}mean_w": torch.full((1,), 0.5)}
        made[f"{own}passes"] = torch.zeros(1, dtype=torch.int64)
        if interpolation == "dlerp":
            made[f"{own}mixer"] = torch.empty(1, 2 * hidden).uniform_(-bound, bound, generator=random)
    return made
