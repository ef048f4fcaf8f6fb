"""The state of methods in a trainer checkpoint: written by the first process, read by all.

Usage: `save_state(checkpoint, {"reptile": {"model.norm.weight": tensor}})`; `load_state(checkpoint, step)`.

Tensors of a sharded model are gathered one by one and cut again when they are read, as the weight of the same name is.
So a checkpoint is read by any number of processes, as the shards of the model are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.config.methods import Step
from common.training.distributed import ranks
from common.training.distributed.tensors import as_weight, whole

FILE = "methods.safetensors"
HEAD = "head_of_"  # before the name of a method: what a model calls its module while both learn
SEPARATOR = "|"  # between the name of a method and that of its tensor


def save_state(checkpoint: Path, state: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the tensors of all methods into a trainer checkpoint; nothing where there are none."""
    from safetensors.torch import save_file

    found: dict[str, Any] = {}
    for method, tensors in state.items():
        for name, tensor in tensors.items():
            found[f"{method}{SEPARATOR}{name}"] = whole(tensor)
    if ranks.is_main_process():
        save_file(found, str(checkpoint / FILE))


def load_state(checkpoint: Path, step: Step) -> dict[str, dict[str, Any]] | None:
    """Return the tensors of a trainer checkpoint, cut and placed as the weights are; None where it holds none."""
    from safetensors import safe_open

    if not (checkpoint / FILE).is_file():
        return None
    found: dict[str, dict[str, Any]] = {}
    weights = dict(step.model.named_parameters())
    with safe_open(str(checkpoint / FILE), framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 # safe_open is no mapping
            method, _, name = key.partition(SEPARATOR)
            found.setdefault(method, {})[name] = as_weight(file.get_tensor(key), weights.get(name))
    return found
