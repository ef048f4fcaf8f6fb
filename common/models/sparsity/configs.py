"""Whether a model can have the 2:4 pattern, by its config.json. No weight is read, no torch loaded.

Usage: `check_widths(config, settings, "sparse")` in a plan; `check_columns(name, 128, settings, "sparse")` in a stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.config.pruning import PruneSettings
from common.errors import ConfigError

GROUP = 4
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
# Matrices of Llama and its like -> what their inputs are.
OF_HIDDEN = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")


def check_columns(name: str, columns: int, settings: PruneSettings, stage: str) -> None:
    """Check that the columns of a matrix fall into fours, and into groups of scales. Raises ConfigError."""
    if columns % GROUP:
        raise ConfigError(
            f"{stage}: {name} has {columns} inputs, which is no multiple of {GROUP}, so it cannot have 2 of each 4 "
            f"weights. Leave its name out of {stage}.modules, or use another checkpoint."
        )
    if columns % settings.scale_groups:
        raise ConfigError(
            f"{stage}.scale_groups={settings.scale_groups}: {name} has {columns} inputs, which do not divide by it. "
            f"Set {stage}.scale_groups=2, or another divisor."
        )


def check_widths(config: Mapping[str, Any], settings: PruneSettings, stage: str) -> None:
    """Check what a config.json says of the inputs of matrices; of an empty one nothing. Raises ConfigError."""
    if any(int(config.get(key) or 0) > 1 for key in EXPERTS):
        raise ConfigError(
            f"{stage}: the stage before it is a model of type {config.get('model_type')}, whose experts are not linear "
            "layers but one tensor, so they cannot be pruned. Use a dense checkpoint."
        )
    if "hidden_size" not in config:
        return
    hidden, heads = int(config["hidden_size"]), int(config.get("num_attention_heads") or 1)
    widths = dict.fromkeys(OF_HIDDEN, hidden)
    widths["o_proj"] = heads * int(config.get("head_dim") or hidden // heads)
    if config.get("intermediate_size"):
        widths["down_proj"] = int(config["intermediate_size"])
    for name in settings.modules:
        if name in widths:
            check_columns(name, widths[name], settings, stage)
