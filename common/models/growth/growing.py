"""Grow a loaded model by the method that its settings name.

Usage: `grown = grow(model, settings, "expand")`; `grown.model`, `grown.added`, `grown.preserving`.

The result is a model of transformers' own classes (with copies beside layers: of ours), with float32 weights. What is
refused is refused by `common.models.growth.configs`, before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.config.growth import ADDS_LAYERS, ExpandSettings
from common.errors import ContractError
from common.models.growth.configs import copies_among, grown_config, places_of, sources_of, with_layers
from common.models.growth.experts import with_experts
from common.models.growth.layers import stacked
from common.models.growth.pair_configs import PLACES, family_of
from common.models.growth.pairs import paired_weights, register_family
from common.models.growth.width import widened

if TYPE_CHECKING:
    from torch import Tensor

HEAD = "lm_head.weight"  # stored once with the embedding where both are tied


@dataclass(frozen=True)
class Grown:
    """A grown model, and what is known of it."""

    model: Any
    added: tuple[int, ...] = ()  # places of layers that it added
    preserving: bool = True  # whether the method promises the same logits


def grow(
    model: Any, settings: ExpandSettings, stage: str, *, chosen: Sequence[int] | None = None, seed: int = 0
) -> Grown:  # fmt: skip
    """Return a grown copy of a model; `chosen` are the layers that ADEPT's measurement found.

    Raises ConfigError where the method cannot grow it.
    """
    before, weights = model.config.to_dict(), model.state_dict()
    after = grown_config(settings, before, stage)
    if settings.method == "width":
        made = widened(weights, before, after, settings.new_neurons)
        return Grown(rebuilt(model, after, made), preserving=settings.new_neurons == "fpi")
    if settings.method == "upcycle":
        shared = after["model_type"] == "qwen2_moe"
        made = with_experts(weights, settings.num_experts or 0, shared=shared, std=settings.router_std, seed=seed)
        return Grown(rebuilt(model, after, made))
    if settings.paired:
        register_family(family_of(after))
        made = paired_weights(weights, after[PLACES], settings.interpolation, after["hidden_size"], seed)
        return Grown(rebuilt(model, after, made), places_of(settings, before, stage))
    sources = sources_of(settings, before, stage, chosen)
    silent = copies_among(sources) if settings.method in ADDS_LAYERS else []
    deeper = rebuilt(model, with_layers(before, sources), stacked(weights, sources, silent))
    return Grown(deeper, tuple(silent), preserving=settings.method in ADDS_LAYERS)


def rebuilt(model: Any, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Any:
    """Return a model of a config.json with given weights, which generates as another one does.

    Raises ContractError where a tensor has no place in it, or is missing.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    fresh = AutoConfig.for_model(**config)
    weights = {name: tensor for name, tensor in weights.items() if not (fresh.tie_word_embeddings and name == HEAD)}
    made, report = MODEL_FOR_CAUSAL_LM_MAPPING[type(fresh)].from_pretrained(
        None, config=fresh, state_dict=weights, output_loading_info=True
    )
    if wrong := sorted({*report["missing_keys"], *report["unexpected_keys"]} - {HEAD}):
        raise ContractError(f"The grown model does not take its weights: {wrong[0]} has no counterpart.")
    made.generation_config = model.generation_config
    return made
