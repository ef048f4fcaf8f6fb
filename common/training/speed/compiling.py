"""The layers of a model compiled by torch while it trains: one region, which all layers share.

Usage: `with compiled(model, config.run, stage): trainer.train()`.

A layer is compiled in place, so names of weights, hooks of shards and checkpoints of activations stay as they are. It
takes a while before the first step, so it pays in long runs. The whole model in one graph is `train.torch_compile`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from common.config.schema import RunSettings
from common.errors import ConfigError, first_line
from common.training import patches


@contextlib.contextmanager
def compiled(model: Any, run: RunSettings, stage: str, backend: str | Callable[..., Any] = "inductor") -> Iterator[int]:
    """Compile a model's layers for as long as it trains, if `run.compile` says so; yield how many they are.

    Raises ConfigError where torch cannot compile them.
    """
    if run.compile == "none":
        yield 0
        return
    from torch._dynamo.exc import TorchDynamoException

    layers = layers_of(model)
    if not layers:
        raise ConfigError(
            f"run.compile=layers: {type(model).__name__} of stage {stage} has no layers that repeat. "
            "Use run.compile=none."
        )
    for layer in layers:
        layer.compile(backend=backend)
    try:
        yield len(layers)
    except TorchDynamoException as error:
        raise ConfigError(
            f"run.compile=layers: torch cannot compile the layers of stage {stage} here ({first_line(error)}). "
            "Use run.compile=none."
        ) from error
    finally:
        for layer in layers:
            patches.uncompile(layer)


def layers_of(model: Any) -> list[Any]:
    """Return the layers that repeat, such as a transformer's blocks."""
    import torch
    from accelerate.utils import is_compiled_module
    from accelerate.utils.other import is_repeated_blocks

    assert not is_compiled_module(model), "the whole model is compiled already"
    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and is_repeated_blocks(m)]
    return [layer for found in lists for layer in found]
