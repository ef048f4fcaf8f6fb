"""Which layers are computed again in the backward pass, where only a part of a model learns.

Usage: `trainer.add_callback(spare_frozen(trainer, keeps=keeps_frozen(context)))` before it trains.

A layer that learns keeps the inputs of all its matrices for their gradients; a frozen one keeps less, and computing it
again is as much work as passing gradients through it. So frozen layers may be left out of checkpointing.
Losses and gradients are the same to the last bit. Whether there is memory for that is `common.cost.frozen`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from common.cost.outlook import setting_in
from common.training.callbacks import callback
from common.training.distributed import ranks

if TYPE_CHECKING:
    from common.stage import StageContext

logger = logging.getLogger(__name__)


def keeps_frozen(context: StageContext) -> bool:
    """Whether frozen layers keep their activations: as the plan says, and in all processes alike."""
    if (asked := context.config.run.keep_frozen) is not None:
        return asked
    found = setting_in(context) if ranks.is_main_process() else None
    return bool(ranks.broadcast(found is not None and found[0].work is not None and found[0].work.keeps_frozen))


def spare_frozen(trainer: Any, *, keeps: bool) -> Any:
    """Return a callback that spares frozen layers what a trainer would compute in vain.

    transformers 5.23 turns checkpointing on at every start of a training, with gradients of the embedded tokens: they
    would pass through all frozen layers below those that learn. Only the older, reentrant way needs them; it is left as
    it is. With `keeps`, frozen layers keep their activations. Without checkpointing there is nothing to do.
    """

    def begin(*_: Any, **__: Any) -> None:
        layers = checkpointed(trainer.model)
        ways = [layer._gradient_checkpointing_func.keywords.get("use_reentrant") for layer in layers]
        if not layers or any(reentrant is not False for reentrant in ways):
            return
        trainer.model.disable_input_require_grads()
        for layer in layers if keeps else ():
            layer.gradient_checkpointing = any(weight.requires_grad for weight in layer.parameters())
        left = len(checkpointed(trainer.model))
        logger.info("activations of %d layers are checkpointed, those of %d are kept", left, len(layers) - left)

    return callback(on_train_begin=begin)


def checkpointed(model: Any) -> list[Any]:
    """Return the layers whose activations are checkpointed."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = (module for module in model.modules() if isinstance(module, GradientCheckpointingLayer))
    return [layer for layer in layers if layer.gradient_checkpointing]
