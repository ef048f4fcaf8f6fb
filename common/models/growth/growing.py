"""Grow a loaded model by the method that its settings name.

Usage: `grown = grow(model, settings, "expand")`; `grown.model`, `grown.added`, `grown.preserving`.

The result is a model of transformers' own classes, with float32 weights. What is refused is refused by
`common.models.growth.configs`, before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.config.growth import ExpandSettings
from common.errors import ContractError
from common.models.growth.configs import copies_among, grown_config, sources_of
from common.models.growth.layers import stacked

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Grown:
    """A grown model, and what is known of it."""

    model: Any
    added: tuple[int, ...] = ()  # places of layers that it added
    preserving: bool = True  # whether the method promises the same logits


def grow(model: Any, settings: ExpandSettings, stage: str) -> Grown:
    """Return a grown copy of a model. Raises ConfigError where the method cannot grow it."""
    config = grown_config(settings, model.config.to_dict(), stage)
    sources = sources_of(settings, model.config.to_dict(), stage)
    added = copies_among(sources)
    return Grown(rebuilt(model, config, stacked(model.state_dict(), sources, added)), tuple(added))


def rebuilt(model: Any, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Any:
    """Return a model of a config.json with given weights, which generates as another one does.

    Raises ContractError where a tensor has no place in it, or is missing.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    fresh = AutoConfig.for_model(**config)
    made, report = AutoModelForCausalLM._model_mapping[type(fresh)].from_pretrained(
        None, config=fresh, state_dict=dict(weights), output_loading_info=True
    )
    tied = ("lm_head.weight",) if fresh.tie_word_embeddings else ()
    if wrong := sorted({*report["missing_keys"], *report["unexpected_keys"]} - set(tied)):
        raise ContractError(f"The grown model does not take its weights: {wrong[0]} has no counterpart.")
    made.generation_config = model.generation_config
    return made
