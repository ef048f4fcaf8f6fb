"""Tensors of a sharded model as wholes, for files that any number of processes may read.

Usage: `found = whole(tensor)` in all processes, to be written by the first; `as_weight(file.get_tensor(name), weight)`.

Of a model that is not sharded they are what they are.
"""

from __future__ import annotations

from typing import Any

from common.training.distributed import ranks


def whole(value: Any) -> Any:
    """Return a copy of a tensor, or of a number, on the CPU: in the first process, and None in the others.

    All processes give their shards. So one tensor at a time is whole on a device.
    """
    import torch

    found = torch.as_tensor(value.full_tensor() if hasattr(value, "full_tensor") else value)
    return found.detach().to("cpu", copy=True).contiguous() if ranks.is_main_process() else None


def as_weight(tensor: Any, weight: Any) -> Any:
    """Return a whole tensor as a weight is: on its device, or this process's shard of it. None: as it is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(weight, DTensor):
        return distribute_tensor(tensor.to(weight.device), weight.device_mesh, weight.placements)
    return tensor if weight is None else tensor.to(weight.device)
