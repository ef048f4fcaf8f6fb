"""Which device a run trains on, and which one has room for a model.

Usage: `device = device_of(config.run)`; `place(model, config.run)`.
"""

from __future__ import annotations

from typing import Any

from common.config import RunSettings
from common.errors import ConfigError


def device_of(run: RunSettings) -> str:
    """Return cpu or cuda. Raises ConfigError when CUDA is asked for and there is none."""
    import torch

    if run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device=cuda, but this machine has no CUDA device. Use run.device=cpu or profile=tiny.")
    return "cuda" if run.device != "cpu" and torch.cuda.is_available() else "cpu"


ROOM = 0.8  # share of the free memory that weights may take; what is computed with them needs some too


def place(model: Any, run: RunSettings) -> Any:
    """Move a model to where the run trains, if its weights have room there; else it stays on the CPU, which is slow."""
    import torch

    device = device_of(run)
    if device == "cuda":
        wanted = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        free, _ = torch.cuda.mem_get_info()
        device = "cuda" if wanted < ROOM * free else "cpu"
    return model.to(device)
