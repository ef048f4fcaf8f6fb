"""What a growth method makes of a config.json, and which architectures it takes. No weight is read, no torch loaded.

Usage: `after = grown_config(settings, before, "expand")`, in a plan and again in the stage, before weights are loaded.

`before` and `after` are mappings as in a config.json. Keys that growth does not change are kept, whatever they say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.config.growth import ExpandSettings
from common.errors import ConfigError
from common.models.growth.experts import sparse_config
from common.models.growth.pair_configs import paired_config, require_plain
from common.models.growth.width import widened_config

Config = Mapping[str, Any]
# Decoders whose layers add to a residual through `self_attn.o_proj` and `mlp.down_proj` alone, with no norm behind
# them. SmolLM2, TinyLlama and many others are of type llama.
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


def grown_config(settings: ExpandSettings, config: Config, stage: str) -> Config:
    """Return the config.json of the grown model. Raises ConfigError where the method cannot grow this one."""
    require_plain(config, stage)
    require_family(config, settings.method, stage)
    if settings.paired:
        return paired_config(config, block_ends(settings, int(config["num_hidden_layers"]), stage), settings)
    if settings.method == "width":
        return widened_config(settings, config, stage)
    if settings.method == "upcycle":
        return sparse_config(settings, config, stage)
    return with_layers(config, sources_of(settings, config, stage))


def sources_of(settings: ExpandSettings, config: Config, stage: str, chosen: Sequence[int] | None = None) -> list[int]:
    """Return, for each layer of the grown model, the layer that it is made from.

    Which ones ADEPT copies, its measurement has `chosen`; before that they are taken to be the lowest, from where
    training costs most.
    """
    layers = int(config["num_hidden_layers"])
    if settings.method == "depth":
        return stretched(layers, settings.num_hidden_layers or 0, stage)
    if settings.method == "adept":
        _require_at_most(settings, layers, stage)
        return sources_after(range(layers), range(settings.added or 0) if chosen is None else chosen)
    if settings.method == "llama_pro":
        return sources_after(range(layers), block_ends(settings, layers, stage))
    return list(range(layers))


def places_of(settings: ExpandSettings, config: Config, stage: str) -> tuple[int, ...]:
    """Return the places of the layers that a method adds, to be trained alone.

    Each copy of a pair counts as the layer above its own: the lowest one's frozen layer passes nothing back.
    """
    if settings.paired:
        ends = block_ends(settings, int(config["num_hidden_layers"]), stage)
        return tuple(end + number for number, end in enumerate(ends, start=1))
    return tuple(copies_among(sources_of(settings, config, stage))) if settings.method != "depth" else ()


def require_family(config: Config, method: str, stage: str) -> None:
    """Check that the architecture is one that a method knows. Raises ConfigError."""
    if (found := config.get("model_type")) not in FAMILIES:
        raise ConfigError(
            f"{stage}.method={method}: the stage before it is a model of type {found}, and growth knows "
            f"{', '.join(FAMILIES[:-1])} and {FAMILIES[-1]}. Give a checkpoint of one of these (model.path), or use a "
            "pipeline without this stage."
        )


def block_ends(settings: ExpandSettings, layers: int, stage: str) -> list[int]:
    """Return the last layer of each of `added` blocks of equal size: 8 layers in 2 blocks give 3 and 7.

    LLaMA Pro (Wu et al. 2024, arXiv 2401.02415), section 3.2: the L layers are N groups of M = L/N, and each group
    gets a copy of its topmost layer. Raises ConfigError where they cannot be parted so.
    """
    _require_at_most(settings, layers, stage)
    added = settings.added or 0
    if layers % added:
        possible = [number for number in range(1, layers + 1) if layers % number == 0]
        near = sorted(possible, key=lambda number: (abs(number - added), number))[:2]
        raise ConfigError(
            f"{stage}.added={added}: {settings.method} parts the model's {layers} layers into blocks of one size, and "
            f"{layers} is no multiple of {added}. Set {stage}.added={' or '.join(map(str, sorted(near)))}."
        )
    size = layers // added
    return [size * (block + 1) - 1 for block in range(added)]


def _require_at_most(settings: ExpandSettings, layers: int, stage: str) -> None:
    if (settings.added or 0) > layers:
        raise ConfigError(
            f"{stage}.added={settings.added}: the model has {layers} layers, and {settings.method} copies each at most "
            f"once. Set {stage}.added={layers} or less."
        )


def stretched(layers: int, target: int, stage: str) -> list[int]:
    """Return the source of each layer of a deeper model: layer l of L2 is layer floor(l L1 / L2) of L1.

    AquilaMoE (Zhang et al. 2024, arXiv 2408.06567), depth growth of AKI-Pro. The paper prints floor(l L2 / L1), which
    would index beyond the source; this is the reading that does not.
    """
    if target <= layers:
        raise ConfigError(
            f"{stage}.num_hidden_layers={target}: the model has {layers} layers already. Set more than {layers}."
        )
    return [place * layers // target for place in range(target)]


def sources_after(layers: Sequence[int], copied: Sequence[int]) -> list[int]:
    """Return, for each layer of the grown model, the layer that it is made from; a copy follows its original."""
    return [layer for layer in layers for _ in range(2 if layer in copied else 1)]


def copies_among(sources: Sequence[int]) -> list[int]:
    """Return the places of copies: layers made from the same layer as the one before them."""
    return [place for place in range(1, len(sources)) if sources[place] == sources[place - 1]]


def with_layers(config: Config, sources: Sequence[int]) -> Config:
    """Return a config.json of as many layers; each keeps the kind of attention of the layer it is made from."""
    kinds = config.get("layer_types")
    changed = {"layer_types": [kinds[layer] for layer in sources]} if kinds else {}
    return {**config, "num_hidden_layers": len(sources), **changed}
