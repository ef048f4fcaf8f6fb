"""Whether bitsandbytes can quantise and hold an optimizer in 8 bits or in pages, and Liger's kernels are there.

Usage: `check_backends(config, ["sft", "dpo"])` before a run spends anything.

A backend counts when it does the work on a few numbers: bitsandbytes lists devices that it has no kernels for, and on a
CPU it takes a paged optimizer and then does not page. Which options exist is `common.trl_options`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from typing import Any

from common.config import Config
from common.errors import ConfigError
from common.stage_settings import LearningSettings
from common.training.device import device_of
from common.trl_options import needs_bitsandbytes

# How bitsandbytes says that it cannot: it is not there, has no kernel, or has no library of its own.
CANNOT = (ImportError, RuntimeError, AttributeError, OSError)


def check_backends(config: Config, stages: Iterable[str]) -> None:
    """Check every stage that quantises or asks for an optimizer of bitsandbytes. Raises ConfigError for the first."""
    for name in stages:
        settings = config.stages[name]
        if not isinstance(settings, LearningSettings):
            continue
        optimizer = str(settings.train.get("optim", ""))
        if settings.peft == "qlora":
            _check_quantises(f"{name}.peft=qlora", device_of(config.run))
        if needs_bitsandbytes(optimizer):
            _check_optimizes(f"{name}.train.optim={optimizer}", optimizer, device_of(config.run))
        if settings.train.get("use_liger_kernel"):
            _check_liger(f"{name}.train.use_liger_kernel=true", device_of(config.run))


def _check_liger(key: str, device: str) -> None:
    """The kernels of Liger are of Triton, so they need a GPU."""
    if device != "cuda":
        raise ConfigError(
            f"{key}: Liger's kernels need a CUDA device, and this stage trains on {device}. Leave it out."
        )
    if importlib.util.find_spec("liger_kernel") is None:
        raise ConfigError(f"{key} needs the package liger-kernel, which is not installed. Install it, or leave it out.")


def _check_quantises(key: str, device: str) -> None:
    """Quantise a few numbers to nf4 and back."""
    import torch

    try:
        import bitsandbytes
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        if device not in bitsandbytes.supported_torch_devices:
            raise RuntimeError(f"its devices are {', '.join(sorted(bitsandbytes.supported_torch_devices))}")
        packed, state = quantize_4bit(torch.ones(64, 64, device=device), quant_type="nf4", compress_statistics=True)
        dequantize_4bit(packed, state)
    except CANNOT as error:
        raise ConfigError(
            f"{key}: bitsandbytes cannot quantise on {device} ({_first_line(error)}). Use peft=lora, which needs no "
            "backend, or a device that bitsandbytes supports."
        ) from error


def _check_optimizes(key: str, optimizer: str, device: str) -> None:
    """Step an 8-bit optimizer over a few numbers. Pages need CUDA."""
    import torch

    if optimizer.startswith("paged_") and device != "cuda":
        raise ConfigError(
            f"{key}: paged optimizers need a CUDA device, and this stage trains on {device}. Use "
            f"{optimizer.removeprefix('paged_') if '8bit' in optimizer else 'adamw_torch'}."
        )
    try:
        optimizers: Any = importlib.import_module("bitsandbytes.optim")  # its classes are untyped
        weights = torch.nn.Parameter(torch.ones(64, 128, device=device))  # smaller ones are kept in 32 bits
        (weights**2).sum().backward()
        optimizers.AdamW8bit([weights], lr=1e-3).step()
    except CANNOT as error:
        raise ConfigError(
            f"{key}: bitsandbytes cannot run this optimizer on {device} ({_first_line(error)}). Use adamw_torch."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
