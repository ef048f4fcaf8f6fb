"""Which device a run trains on.

Usage: `device = device_of(config.run)`.
"""

from __future__ import annotations

from common.config import RunSettings
from common.errors import ConfigError


def device_of(run: RunSettings) -> str:
    """Return cpu or cuda. Raises ConfigError when CUDA is asked for and there is none."""
    import torch

    if run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device=cuda, but this machine has no CUDA device. Use run.device=cpu or profile=tiny.")
    return "cuda" if run.device != "cpu" and torch.cuda.is_available() else "cpu"
