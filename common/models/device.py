"""Which device a run trains on, and which one has room for a model.

Usage: `device = device_of(config.run)`; `to_device(model, config.run)`; `release_memory()` between two stages.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from typing import Any

from common.config.schema import RunSettings
from common.console import Console
from common.errors import ConfigError

logger = logging.getLogger(__name__)


def device_of(run: RunSettings) -> str:
    """Return cpu or cuda. Raises ConfigError when CUDA is asked for and there is none."""
    import torch

    if run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device=cuda, but this machine has no CUDA device. Use run.device=cpu or profile=tiny.")
    return "cuda" if run.device != "cpu" and torch.cuda.is_available() else "cpu"


ROOM = 0.8  # share of the free memory that weights may take; activations need the rest


def to_device(model: Any, run: RunSettings) -> Any:
    """Move a model to the run's device if its weights have room there. Else it stays on the CPU, which is slow."""
    device = device_of(run)
    if device == "cuda":
        wanted = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        if not has_room(wanted):
            device = "cpu"
            warning = (
                f"The model stays on the CPU, which is slow: its weights take {wanted / 2**30:.1f} GiB, and "
                f"{free_bytes() / 2**30:.1f} GiB of the GPU are free."
            )
            logger.warning(warning)
            Console(run.verbosity).line(f"  {warning}", always=True)
    return model.to(device)


def has_room(num_bytes: int) -> bool:
    """Whether a GPU has room for weights of that size and for their activations."""
    return num_bytes < ROOM * free_bytes()


def free_bytes(number: int | None = None) -> int:
    """Return the free bytes of a GPU, by default this process's. Blocks that torch caches count as free."""
    import torch

    kept = torch.cuda.memory_reserved(number) - torch.cuda.memory_allocated(number)
    return int(torch.cuda.mem_get_info(number)[0] + kept)


def release_memory() -> None:
    """Free the cached memory of the GPU and reset its peak; without a GPU, do nothing.

    The next stage of this process then finds as much room as in a process of its own, and reports its own peak.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return
    gc.collect()  # trainers and models refer to each other in circles
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def offload_kwargs() -> dict[str, Any]:
    """Return what `from_pretrained` needs to spread a model over the GPUs that it sees and, behind them, main memory.

    A process by itself sees one GPU alone (`common.engine.environment.prepare`) unless CUDA_VISIBLE_DEVICES names more.
    Layers in main memory are copied to a GPU in every forward pass (accelerate's big model inference). That is slow,
    but far faster than the CPU.
    """
    import torch

    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    gpus = {number: int(ROOM * free_bytes(number)) for number in range(torch.cuda.device_count())}
    return {"device_map": "auto", "max_memory": {**gpus, "cpu": host}}
