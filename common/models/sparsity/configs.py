"""Whether a model can have the 2:4 pattern, by its config.json and its files' headers. No torch is loaded.

Usage: `check_widths(config, settings, "sparse")` in a plan, and of files that are there `check_tensors(folder, ...)`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from common.config.pruning import MODULES, PruneSettings
from common.errors import ConfigError
from common.models.growth.configs import FAMILIES
from common.models.shards import read_header, shards_of

GROUP = 4
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
TRANSPOSED = ("gpt2", "openai-gpt")  # whose layers are Conv1D of transformers: inputs in rows, no linear layers
# Matrices of Llama and its like -> what their inputs are.
OF_LAYER = re.compile(r"\.\d+\..+\.weight$")
OF_HIDDEN = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")


def check_columns(name: str, columns: int, settings: PruneSettings, stage: str) -> None:
    """Check that the columns of a matrix fall into fours, and into groups of scales. Raises ConfigError."""
    if columns % GROUP:
        raise ConfigError(
            f"{stage}: {name} has {columns} inputs, which is no multiple of {GROUP}, so it cannot have 2 of each 4 "
            f"weights. Leave its name out of {stage}.modules, or use another checkpoint."
        )
    if settings.zeros == "decay" and columns % settings.scale_groups:
        raise ConfigError(
            f"{stage}.scale_groups={settings.scale_groups}: {name} has {columns} inputs, which do not divide by it. "
            f"Set {stage}.scale_groups=2, or another divisor."
        )


def check_names(known: Collection[str], settings: PruneSettings, stage: str) -> None:
    """Check that a model has linear layers of each name that is to be pruned. Raises ConfigError."""
    if missing := [name for name in settings.modules if name not in known]:
        raise ConfigError(
            f"{stage}.modules: {missing[0]} is no linear layer of this model; it has "
            f"{', '.join(sorted(known)) or 'none'}. Set {stage}.modules to the names of those that are to be pruned."
        )


def check_tensors(folder: Path, settings: PruneSettings, stage: str) -> None:
    """Check names and inputs of matrices by the headers of a checkpoint's files. Raises ConfigError."""
    matrices = {
        name.removesuffix(".weight"): entry["shape"]
        for shard in shards_of(folder)
        for name, entry in read_header(shard).items()
        if OF_LAYER.search(name) and len(entry["shape"]) == 2
    }
    check_names({name.rpartition(".")[2] for name in matrices}, settings, stage)
    for name, shape in matrices.items():
        if name.rpartition(".")[2] in settings.modules:
            check_columns(name, shape[1], settings, stage)


def check_widths(config: Mapping[str, Any], settings: PruneSettings, stage: str) -> None:
    """Check what a config.json says of matrices and their inputs; of an empty one nothing. Raises ConfigError."""
    if any(int(config.get(key) or 0) > 1 for key in EXPERTS):
        raise ConfigError(
            f"{stage}: the stage before it is a model of type {config.get('model_type')}, whose experts are not linear "
            "layers but one tensor, so they cannot be pruned. Use a dense checkpoint."
        )
    if (family := config.get("model_type")) in TRANSPOSED:
        raise ConfigError(
            f"{stage}: the stage before it is a model of type {family}, which has no linear layers but transposed ones "
            "(Conv1D), so it cannot be pruned. Use another checkpoint, or a pipeline without this stage."
        )
    if family in FAMILIES:
        check_names(MODULES, settings, stage)
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
