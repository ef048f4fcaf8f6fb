"""Train a part of a model, all else frozen: the layers that an `expand` stage before has added, or the rows of tokens.

Usage: `freeze(context, model)` before a trainer is built; `check_train_only(node, settings, resolved)` in a plan.

What is frozen gets no gradient and no optimizer state, and below the lowest layer that learns nothing is passed back.
Adapters, which add weights of their own, are `common.training.adapters`.
"""

from __future__ import annotations

import logging
from typing import Any

from common.config.growth import ADDS_LAYERS
from common.config.node import Node
from common.config.resolve import Resolved
from common.config.stages import ContinuedSettings, MergeSettings
from common.errors import ConfigError
from common.models.growth.pair_configs import TRAINED, is_paired
from common.models.growth.pairs import learning_parts
from common.models.growth.record import growth_of
from common.models.planned import growth_before, line_of
from common.stage import StageContext

logger = logging.getLogger(__name__)
ADVICE = "Put `expand: {kind: expand, from: <stage>}` with one of these before it, or remove train_only"


def check_train_only(node: Node, settings: ContinuedSettings, resolved: Resolved) -> None:
    """Check that a stage before adds what alone is to learn. Raises ConfigError."""
    if settings.train_only != "added":
        return
    found = growth_before(resolved, node.name)
    if found is None or found[1].method not in ADDS_LAYERS:
        before = "no stage before it expands the model"
        if found is not None:
            before = f"{found[0]} before it grows by {found[1].method}, which adds no layers of their own"
        raise ConfigError(_refusal(node.name, before))
    line = [one.name for one in line_of(resolved, node.name)]
    for name in line[line.index(found[0]) : -1]:
        between = resolved.config.stages[name]
        if isinstance(between, MergeSettings) and between.method == "passthrough":
            raise ConfigError(
                f"{node.name}.train_only=added: {name} before it takes layers apart, so that the places of those that "
                f"{found[0]} added are no longer known. Put it behind {node.name}, or remove train_only."
            )


def _refusal(stage: str, before: str) -> str:
    methods = ", ".join(ADDS_LAYERS[:-1]) + f" and {ADDS_LAYERS[-1]}"
    return f"{stage}.train_only=added: {before}; layers are added by the methods {methods}. {ADVICE}."


def freeze(context: StageContext, model: Any) -> dict[str, int]:
    """Freeze all of a model but what the settings let learn; return what the card says of it.

    Raises ConfigError where nothing was added before.
    """
    settings = context.settings
    if not isinstance(settings, ContinuedSettings) or settings.train_only is None:
        return {}
    if settings.train_only == "embeddings":
        tables = (model.get_input_embeddings(), model.get_output_embeddings())
        return _learned(context, model, [table for table in tables if table is not None])
    growth = growth_of(context.parent_artifact.path)
    if growth is None or not growth.added:
        raise ConfigError(_refusal(context.stage, f"{context.parent} holds no layers that a stage has added"))
    if is_paired(model.config.to_dict()):
        layers = learning_parts(model, trained=getattr(model.config, TRAINED))
    else:
        layers = [model.get_submodule(f"model.layers.{place}") for place in growth.added]
    named = {"embed_tokens": model.get_input_embeddings(), "lm_head": model.get_output_embeddings()}
    return _learned(context, model, [*layers, *(named[name] for name in settings.train_also)])


def _learned(context: StageContext, model: Any, parts: list[Any]) -> dict[str, int]:
    """Let some parts of a model learn and nothing else; return how many weights do."""
    model.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)
    learned = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    logger.info("%s: %d of %d weights learn", context.stage, learned, model.num_parameters())
    return {"learned_parameters": learned}
