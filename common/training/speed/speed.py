"""How a model trains fastest on its device, for as long as it trains.

Usage: `with optimized_for(trainer, config.run, stage): trainer.train()`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from common.config.schema import RunSettings
from common.models.device import device_of
from common.training.speed import heap
from common.training.speed.attention import with_attention
from common.training.speed.compiling import compiled

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def optimized_for(trainer: Any, run: RunSettings, stage: str) -> Iterator[None]:
    """Give a trainer's model its attention, compiled layers, and a heap that keeps what steps free.

    Raises ConfigError for an attention or a compilation that is not available.
    """
    device, model = device_of(run), trainer.model
    in_one_piece = run.compile != "none" or trainer.args.torch_compile
    with (
        with_attention(model, run, device, in_one_piece=in_one_piece) as attention,
        compiled(model, run, stage) as layers,
        heap.keep_heap(run, device) as kept,
    ):
        logger.info(
            "%s: attention %s, %d compiled layers, heap %s", stage, attention, layers, "kept" if kept else "as usual"
        )
        yield
