"""Where pinned libraries (constraints.txt) do something else than a training needs: each change to them is a function.

Usage: `with patches.shard_references_by_layer(): DPOTrainer(...)`; `arguments = patches.use_one_gpu(SFTConfig(...))`.

Each says what the library does, in which version, and what is done instead; `tests/training/test_patches.py` fails for
one that the library no longer needs. Attention is no patch: transformers has a register for it.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

REFERRING = ("dpo", "kto")  # trainers of TRL that shard a reference
SCORING = ("dpo", "kto", "grpo", "rloo")  # trainers of TRL that ask the model for log-probabilities
AddHead = Callable[..., None]


@contextlib.contextmanager
def _replaced(trainers: Sequence[str], name: str, ours: Any) -> Iterator[None]:
    """Let TRL's trainers call `ours` where they call a function of theirs."""
    modules: list[Any] = [importlib.import_module(f"trl.trainer.{trainer}_trainer") for trainer in trainers]
    theirs = [getattr(module, name) for module in modules]
    try:
        for module in modules:
            setattr(module, name, ours)
        yield
    finally:
        for module, original in zip(modules, theirs, strict=True):
            setattr(module, name, original)


def shard_references_by_layer() -> contextlib.AbstractContextManager[None]:
    """Let trainers that are built inside shard their reference layer by layer, as accelerate does the learner.

    TRL 1.16 makes the reference one unit under FSDP2, so each GPU would gather the whole model for every batch.
    """
    return _replaced(REFERRING, "prepare_fsdp", shard_reference)


def shard_reference(model: Any, accelerator: Any) -> Any:
    """Return a model that only reads, sharded with a unit per layer; the first process's weights are the ones taken."""
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model

    return fsdp2_prepare_model(accelerator, model.requires_grad_(False)).eval()


def score_with(add_head: AddHead) -> contextlib.AbstractContextManager[None]:
    """Let trainers that are built inside score answers by our head (`common.training.speed.scoring`).

    TRL 1.16 computes padding like tokens, and without Triton its head reads every position, prompts included.
    """
    return _replaced(SCORING, "add_fused_lm_head", add_head)


def use_one_gpu(arguments: Any) -> Any:
    """Return a trainer's arguments with one GPU, however many a process sees.

    transformers 5.23 splits each batch over all visible GPUs (`DataParallel`), so a step learns from several times its
    tokens.
    """
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def forget_prepared(model: Any) -> None:
    """Let accelerate prepare a model that a trainer has prepared before.

    accelerate 1.15 marks the bare model and later leaves out autocast silently: a second training is in float32.
    """
    vars(model).pop("_is_accelerate_prepared", None)


def sum_in_float32(plugin: Any) -> None:
    """Let FSDP2 compute in a narrow type, but sum gradients over processes in float32 and leave outputs as they are.

    accelerate 1.15 makes all three narrow: gradients of many processes lose bits in each sum, and log-probabilities and
    losses, which are computed in float32, are rounded to three digits.
    """
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy

    policy = plugin.mixed_precision_policy
    if policy is None or policy.param_dtype in (None, torch.float32):
        return
    plugin.mixed_precision_policy = MixedPrecisionPolicy(
        param_dtype=policy.param_dtype, reduce_dtype=torch.float32, output_dtype=None,
        cast_forward_inputs=policy.cast_forward_inputs,
    )  # fmt: skip


def uncompile(layer: Any) -> None:
    """Let a layer run uncompiled again: torch 2.13 has no way back from `Module.compile`."""
    layer._compiled_call_impl = None
