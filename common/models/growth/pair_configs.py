"""What Control LLM makes of a config.json, and what collapsing makes of that. No weight is read, no torch loaded.

Usage: `config = paired_config(config, places=[1, 3], settings=settings)`; `collapsed_config(config, "collapse")`.

A paired model has a type of its own, so that no other program takes it for a plain one. It counts copies among its
layers: they have weights, keys and values like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.config.growth import ExpandSettings
from common.config.json import parse_json
from common.errors import ConfigError

Config = Mapping[str, Any]
PAIRED = "control_"  # and the type of the plain model
PLACES, INTERPOLATION, TRAINED = "expanded_layers", "interpolation", "train_interpolation"
ADVICE = "Add a stage of kind collapse"


def is_paired(config: Config) -> bool:
    """Whether layers of a model have copies beside them."""
    return str(config.get("model_type", "")).startswith(PAIRED)


def paired_family(folder: Path) -> str | None:
    """Return the plain type of a paired checkpoint; None for others, and for what cannot be read."""
    try:
        found = parse_json((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return family_of(found) if isinstance(found, dict) and is_paired(found) else None


def family_of(config: Config) -> str:
    """Return the type of the plain model."""
    return str(config.get("model_type", "")).removeprefix(PAIRED)


def mixing_weights(config: Config) -> tuple[int, int]:
    """Return the weights of how layers and their copies meet, W and f of `common.models.growth.pairs`, and the learned.

    They are 0 where no layer has a copy.
    """
    if not is_paired(config):
        return 0, 0
    each = 2 * int(config["hidden_size"]) if config[INTERPOLATION] == "dlerp" else 0
    return len(config[PLACES]) * (each + 1), len(config[PLACES]) * (each + bool(config[TRAINED]))


def require_plain(config: Config, stage: str) -> None:
    """Check that no layer has a copy beside it yet. Raises ConfigError."""
    if is_paired(config):
        raise ConfigError(
            f"{stage}: the layers of the stage before it have copies beside them (control_llm), and such a model "
            f"cannot change its shape again. {ADVICE} before {stage}."
        )


def require_plain_folder(folder: Path) -> None:
    """Check that a given checkpoint is no intermediate one. Raises ConfigError."""
    if paired_family(folder) is not None:
        raise ConfigError(
            f"{folder}: its layers have copies beside them (control_llm), which only the chain that made it can use. "
            f"{ADVICE} to its pipeline, and give the result of that one."
        )


def paired_config(config: Config, places: Sequence[int], settings: ExpandSettings) -> Config:
    """Return the config.json of a model with copies beside the layers in `places`; the copies count as its last."""
    kinds = config.get("layer_types")
    return {
        **config, "model_type": f"{PAIRED}{config['model_type']}",
        "num_hidden_layers": int(config["num_hidden_layers"]) + len(places),
        **({"layer_types": [*kinds, *(kinds[place] for place in places)]} if kinds else {}),
        PLACES: list(places), INTERPOLATION: settings.interpolation, TRAINED: settings.train_interpolation,
    }  # fmt: skip


def collapsed_config(config: Config, stage: str) -> Config:
    """Return the config.json of the plain model. Raises ConfigError where no layer has a copy."""
    if not is_paired(config):
        raise ConfigError(
            f"{stage}: no layer of the stage before it has a copy beside it, so nothing can be collapsed. Put `expand: "
            "{kind: expand, from: <stage>}` with method control_llm before it, or remove this stage."
        )
    layers, kinds = int(config["num_hidden_layers"]) - len(config[PLACES]), config.get("layer_types")
    kept = {key: value for key, value in config.items() if key not in (PLACES, INTERPOLATION, TRAINED)}
    changed = {"layer_types": list(kinds[:layers])} if kinds else {}
    return {**kept, "model_type": family_of(config), "num_hidden_layers": layers, **changed}
