"""Whether a run's device has what its settings ask for: attention, precision, bitsandbytes, Liger.

Usage: `check_device(config, stages, "cuda")` for a device that is only planned for, which loads no library;
`check_backends(config, stages)` on the machine itself, before a run spends anything.

A backend counts when it does the work on a few numbers: bitsandbytes lists devices that it has no kernels for, and on a
CPU it takes a paged optimizer and then does not page. Which options exist is `common.config.trl_options`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Iterator
from typing import Any

from common.config.schema import Config
from common.config.stages import BaseSettings, LearningSettings
from common.config.trl_options import needs_bitsandbytes
from common.cost.hardware import hardware_of
from common.errors import ConfigError, first_line
from common.models.device import device_of
from common.training.speed import attention

# What bitsandbytes raises where it is not installed, has no kernel for a device, or lacks its compiled library.
CANNOT = (ImportError, RuntimeError, AttributeError, OSError)


def check_device(config: Config, stages: Iterable[str], device: str) -> None:
    """Check what needs a CUDA device, by its name alone. Raises ConfigError for the first that has none."""
    found = list(learning(config, stages))
    if not found:
        return
    attention.check_name(config.run.attention, device)
    for name, settings in found:
        train, optimizer = settings.train, str(settings.train.get("optim", ""))
        attention.check_precision(config.run.attention, name, settings.precision)
        needs = f"need a CUDA device, and this stage trains on {device}."
        if settings.precision == "float16" and device != "cuda":
            raise ConfigError(f"{name}.precision=float16: its scaled losses {needs} Use precision=auto.")
        if optimizer.startswith("paged_") and device != "cuda":
            instead = optimizer.removeprefix("paged_") if "8bit" in optimizer else "adamw_torch"
            raise ConfigError(f"{name}.train.optim={optimizer}: paged optimizers {needs} Use {instead}.")
        if train.get("use_liger_kernel") and device != "cuda":  # they are of Triton
            raise ConfigError(f"{name}.train.use_liger_kernel=true: Liger's kernels {needs} Leave it out.")


def check_backends(config: Config, stages: Iterable[str]) -> None:
    """Check that what some stages ask for works on this machine. Raises ConfigError for the first that does not."""
    device, found = device_of(config.run), list(learning(config, stages))
    check_device(config, [name for name, _ in found], device)
    if found:
        attention.check_there(config.run.attention)
    for name, settings in found:
        optimizer = str(settings.train.get("optim", ""))
        if settings.peft == "qlora":
            _check_quantises(f"{name}.peft=qlora", device)
        if needs_bitsandbytes(optimizer):
            _check_optimizes(f"{name}.train.optim={optimizer}", device)
        if settings.train.get("use_liger_kernel") and importlib.util.find_spec("liger_kernel") is None:
            raise ConfigError(
                f"{name}.train.use_liger_kernel=true needs the package liger-kernel, which is not installed. Install "
                "it, or leave it out."
            )


def learning(config: Config, stages: Iterable[str]) -> Iterator[tuple[str, LearningSettings]]:
    """Yield the stages that train here, with their settings. A base that takes a given checkpoint does not train."""
    for name in stages:
        settings = config.stages[name]
        given = config.model.path is not None and isinstance(settings, BaseSettings)
        if isinstance(settings, LearningSettings) and not given:
            yield name, settings


def emulated(config: Config, stages: Iterable[str]) -> str:
    """Say which stages train in bfloat16 where it is emulated, and how much slower that is; else nothing."""
    names = [name for name, settings in learning(config, stages) if settings.precision == "bfloat16"]
    hardware = hardware_of(config)
    if not names or hardware.slowdown < 1:
        return ""
    seen = f"about {hardware.slowdown:.2g} times slower" if hardware.slowdown > 1 else "no faster"
    return (
        f"{hardware.name} emulates bfloat16, {seen} than float32, and {', '.join(names)} will train in it. "
        "precision=auto takes what the device computes in."
    )


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
            f"{key}: bitsandbytes cannot quantise on {device} ({first_line(error)}). Use peft=lora, which needs no "
            "backend, or a device that bitsandbytes supports."
        ) from error


def _check_optimizes(key: str, device: str) -> None:
    """Step an 8-bit optimizer over a few numbers."""
    import torch

    try:
        optimizers: Any = importlib.import_module("bitsandbytes.optim")  # its classes are untyped
        weights = torch.nn.Parameter(torch.ones(64, 128, device=device))  # smaller ones are kept in 32 bits
        (weights**2).sum().backward()
        optimizers.AdamW8bit([weights], lr=1e-3).step()
    except CANNOT as error:
        raise ConfigError(
            f"{key}: bitsandbytes cannot run this optimizer on {device} ({first_line(error)}). Use adamw_torch."
        ) from error
