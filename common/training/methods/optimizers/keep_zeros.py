"""Zeros that stay: matrices that are 2:4 sparse when a training begins are so after each of its steps.

Usage: `sft: {methods: {keep_zeros: {}}}`, behind a stage of kind `prune` or for a checkpoint that is sparse already.

After each optimizer step the weights that were zero at first are set to zero again (ours). The others learn as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.config.methods import Ancestor, MethodSettings, OptimizerMethod, Step
from common.config.pruning import PruneSettings
from common.config.stages import TrainingSettings
from common.errors import ConfigError
from common.models.sparsity.masks import is_sparse, linears

MASK = 1.0  # bytes of a weight


class KeepZerosSettings(MethodSettings):
    """Nothing to set."""


def begin(step: Step, settings: KeepZerosSettings) -> dict[str, Any]:
    """Return which weights of sparse matrices are not zero. Raises ConfigError where there are no such matrices."""
    found = {
        f"{name}.weight": (module.weight != 0)
        for name, module in linears(step.model).items()
        if module.weight.requires_grad and is_sparse(module.weight.detach())
    }
    if not found:
        raise ConfigError(
            "methods.keep_zeros: no linear layer of the model that learns is 2:4 sparse, so there are no zeros to "
            "keep. Leave it out, or start from a model that is sparse."
        )
    return found


def after_step(step: Step, settings: KeepZerosSettings, state: dict[str, Any]) -> None:
    """Set what was zero to zero."""
    weights = step.weights()
    for name, kept in state.items():
        weights[name].data.mul_(kept)


def complete(own: KeepZerosSettings, before: Sequence[Ancestor]) -> KeepZerosSettings:
    """Check that something before may have made zeros; of a finished checkpoint nobody knows yet. Raises ValueError."""
    if any(isinstance(stage.settings, PruneSettings) or stage.taken for stage in before):
        return own
    raise ValueError("no stage before it makes any: put one of kind prune before it, or leave it out.")


def problem(own: KeepZerosSettings, stage: TrainingSettings) -> str:
    """Say why zeros would be lost all the same, or nothing."""
    if stage.peft == "full":
        return ""
    return f"an adapter that is merged fills the zeros, and peft is {stage.peft}; set peft=full"


METHOD = OptimizerMethod(
    name="keep_zeros", settings=KeepZerosSettings, begin=begin, after_step=after_step, complete=complete,
    problem=problem, shards=False, bytes_per_weight=lambda own: MASK,
    phrase="matrices that are 2:4 sparse stay so", paper="ours", ours="all of it",
)  # fmt: skip
