"""What a stage's model will look like before there is one: the base's config.json, changed by every stage on the way.

Usage: `config_after(resolved, "sft")["num_hidden_layers"]`; an empty mapping where nothing is known of the base.

It reads no weights. What a stage does to a config.json is the `reshapes` of its kind, or its `rope_theta`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.config.growth import CollapseSettings, ExpandSettings, growth_among
from common.config.kinds import kind_of
from common.config.node import Node
from common.config.resolve import Resolved
from common.config.schema import ModelSettings
from common.config.stages import CptSettings
from common.models.facts import known_config
from common.models.growth.configs import places_of
from common.models.rope import config_with_base

# What LlamaConfig takes where an architecture is silent (transformers 5.23, models/llama/configuration_llama.py).
LLAMA = {
    "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "tie_word_embeddings": False, "max_position_embeddings": 2048,
}  # fmt: skip


def config_after(resolved: Resolved, stage: str) -> Mapping[str, Any]:
    """Return the config.json of a stage's result, as far as it is known.

    Raises ConfigError where a stage on the way cannot change the model before it.
    """
    config = base_config(resolved.config.model)
    if not config:
        return {}
    for node in line_of(resolved, stage):
        settings, reshape = resolved.config.stages[node.name], kind_of(node.kind).reshapes
        if reshape is not None:
            config = reshape(settings, config, node.name)
        elif isinstance(settings, CptSettings) and settings.rope_theta is not None:
            config = config_with_base(config, node.name, base=settings.rope_theta, length=settings.sequence_length)
    return config


def context_after(resolved: Resolved, stage: str) -> int | None:
    """Return the longest row in tokens that a stage's model reads, or None where it is unknown.

    Raises ConfigError as `config_after` does.
    """
    length = config_after(resolved, stage).get("max_position_embeddings")
    return None if length is None else int(length)


def base_config(model: ModelSettings) -> Mapping[str, Any]:
    """Return what is known of the base's config.json: of a checkpoint, of a profile's facts, of an architecture."""
    if model.path is None:
        vocabulary = model.vocabulary_size + len(model.new_tokens) + len(model.control_tokens)
        return {"model_type": "llama", "vocab_size": vocabulary, **LLAMA, **model.architecture}
    known = known_config(model)
    return known if model.facts is None else {**known, **model.facts.model_dump()}


def reshaping(resolved: Resolved, stage: str) -> list[Node]:
    """Return the stages that change the model's shape on the way to a stage, itself included, the first one first."""
    return [node for node in line_of(resolved, stage) if kind_of(node.kind).reshapes is not None]


def line_of(resolved: Resolved, stage: str) -> list[Node]:
    """Return the stages that a stage continues from, the start of the chain first, itself last."""
    nodes = {node.name: node for node in resolved.nodes}
    line: list[Node] = []
    name: str | None = stage
    while name is not None:
        line.append(nodes[name])
        name = line[-1].parent
    return line[::-1]


def added_before(resolved: Resolved, stage: str) -> tuple[int, ...]:
    """Return the places of the layers that the last growth before a stage adds, as far as they are known."""
    found = growth_before(resolved, stage)
    if found is None:
        return ()
    name, settings = found
    line = line_of(resolved, name)
    config = config_after(resolved, line[-2].name)
    return places_of(settings, config, name) if config else ()


def growth_before(resolved: Resolved, stage: str) -> tuple[str, ExpandSettings] | None:
    """Return the last stage before another that made its model larger, and its settings."""
    stages = resolved.config.stages
    for node in reversed(line_of(resolved, stage)[:-1]):
        settings = stages[node.name]
        if isinstance(settings, CollapseSettings):
            return None
        if isinstance(settings, ExpandSettings):
            return node.name, settings
    return None


def is_paired_after(resolved: Resolved, stage: str) -> bool:
    """Whether layers of a stage's result have copies beside them."""
    growth = growth_among(resolved.config.stages[node.name] for node in reversed(line_of(resolved, stage)))
    return growth is not None and growth.paired
