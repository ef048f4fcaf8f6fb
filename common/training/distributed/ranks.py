"""The processes that share a stage, as torchrun counts them: its number, barriers and broadcasts.

Usage: `ranks.start(config.run)` once, then `ranks.is_main_process()`, `ranks.barrier()`, `ranks.broadcast(value)`.

A process by itself is the first and only one, and none of this costs it anything. `common.engine.launch` starts them.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from typing import Any, TypeVar

from common.config.schema import RunSettings

_T = TypeVar("_T")
_control: Any = None  # a group over the CPU for small messages, so that no GPU is waited for
_patient: Any = None  # the same, for what may take any time
ANY_TIME = datetime.timedelta(days=365)


def size() -> int:
    """Return the number of processes that share the work."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def local_size() -> int:
    """Return the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process writes results, talks to the user and holds the locks."""
    return rank() == 0


def start(run: RunSettings) -> None:
    """Join the other processes. Whoever waits for one that prepares data does so for `run.patience_minutes`."""
    global _control, _patient
    if size() == 1 or _control is not None:
        return
    import torch.distributed as dist
    from accelerate import PartialState

    from common.models.device import device_of

    patience = datetime.timedelta(minutes=run.patience_minutes)
    PartialState(cpu=device_of(run) == "cpu", timeout=patience)
    _control = dist.new_group(backend="gloo", timeout=patience)
    _patient = dist.new_group(backend="gloo", timeout=ANY_TIME)


def barrier(*, patiently: bool = False) -> None:
    """Return once every process has come here; `patiently` where one of them may wait for another run's lock."""
    if size() > 1:
        import torch.distributed as dist

        dist.barrier(group=_patient if patiently else _control)


def broadcast(value: _T) -> _T:
    """Return what the first process gives, in all of them."""
    if size() == 1:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0, group=_control)
    return box[0]


def all_gather(numbers: Sequence[float]) -> list[list[float]]:
    """Return what every process gives, in the order of the processes."""
    if size() == 1:
        return [list(numbers)]
    import torch
    import torch.distributed as dist

    own = torch.tensor(numbers, dtype=torch.float64)
    found = [torch.empty_like(own) for _ in range(size())]
    dist.all_gather(found, own, group=_control)
    return [row.tolist() for row in found]
