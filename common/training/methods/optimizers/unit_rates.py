"""A learning rate for each weight by what general text makes of it: the more important, the slower it learns.

Usage: `cpt: {train_only: added, replay: 0.2, methods: {unit_rates: {every: 500}}}`, behind `expand` by `adept`.

ADEPT (arXiv 2510.10071), stage 2, in the form of the authors' code: the importance of a matrix or a norm theta is

    I = mean(|theta| mean_b |dL_b / dtheta|)

over the batches b of a corpus that probes general competence, and its rate is

    2 (I_max - I) / (I_max - I_min)

times that of the schedule, from 0 to 2 over all that learns. It is measured before the first step and every 500. The
corpus is ours: replay text of the stage.

Layers that an `expand` stage has added begin by adding nothing, so that their importance is 0: the formula would say
that they matter least, where nothing is known of them yet. Ours: a unit of importance 0 keeps the rate of the schedule
and is left out of the range. Where all are equally important each keeps the rate of the schedule.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from common.config.cleaning import from_lineage
from common.config.methods import MethodSettings, OptimizerMethod, Step
from common.config.stages import TrainingSettings
from common.training.distributed import ranks

# Bytes a weight of the sum of its gradients over batches; those of a batch are where a step's own will be.
SUMS = 4.0


class UnitRatesSettings(MethodSettings):
    """How often importance is measured, and on how much text."""

    every: int = Field(500, ge=1, description="optimizer steps between two measurements")
    probe_tokens: int = Field(4096, ge=64, description="tokens of replay text that importance is measured on")


def shares_of(importance: Mapping[str, float]) -> dict[str, float]:
    """Return the share of the learning rate of each unit: 2 for the least important, 0 for the most important.

    Units of importance 0, and all where the others are equal, have 1.
    """
    known = [one for one in importance.values() if one]
    low, high = min(known, default=0.0), max(known, default=0.0)
    if high <= low:
        return dict.fromkeys(importance, 1.0)
    return {name: 2 * (high - one) / (high - low) if one else 1.0 for name, one in importance.items()}


@contextlib.contextmanager
def without_dropout(model: Any) -> Iterator[None]:
    """Let a model compute as when it is evaluated, but for layers that save memory by computing twice, within."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    for module in training:
        module.training = getattr(module, "gradient_checkpointing", False)
    try:
        yield
    finally:
        for module in training:
            module.training = True


def importance_of(model: Any, batches: Sequence[tuple[Any, Any]]) -> dict[str, float]:
    """Return the importance of every weight that learns, by name; gradients are left as none."""
    import torch
    from torch.nn.functional import cross_entropy

    learned = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    sums = {name: torch.zeros_like(weight) for name, weight in learned.items()}
    device = next(model.parameters()).device
    with without_dropout(model):
        for ids_BT, labels_BT in batches:
            logits_BTV = model(input_ids=ids_BT.to(device), use_cache=False).logits[:, :-1].float()
            loss = cross_entropy(logits_BTV.flatten(0, 1), labels_BT[:, 1:].flatten().to(device))
            for (name, _), gradient in zip(
                learned.items(), torch.autograd.grad(loss, list(learned.values()), allow_unused=True), strict=True
            ):  # a tied head and an expert that no token passes have none
                if gradient is not None:
                    sums[name] += gradient.abs()
    return {name: float((weight.detach().abs() * sums[name]).mean()) / len(batches) for name, weight in learned.items()}


def _measured(step: Step) -> dict[str, Any]:
    """Return the shares of all weights, in every process those that the first one has found."""
    import torch

    shares = ranks.broadcast(shares_of(importance_of(step.model, step.probe)))
    return {name: torch.tensor(share) for name, share in shares.items()}


def begin(step: Step, settings: UnitRatesSettings) -> dict[str, Any]:
    """Return the shares before the first step."""
    return _measured(step)


def before_step(step: Step, settings: UnitRatesSettings, state: dict[str, Any]) -> dict[str, float]:
    """Give each weight its share of the rate of this step; the trainer sets rates back after it."""
    named = {id(weight): name for name, weight in step.model.named_parameters()}
    for group in step.optimizer.param_groups:
        (weight,) = group["params"]
        group["lr"] *= float(state[named[id(weight)]])
    shares = [float(share) for share in state.values()]
    return {"mean_share": sum(shares) / len(shares)}


def after_step(step: Step, settings: UnitRatesSettings, state: dict[str, Any]) -> None:
    """Measure again where it is time, but not after the last step."""
    if step.number % settings.every == 0 and step.number < step.of:
        state.update(_measured(step))


def problem(own: UnitRatesSettings, stage: TrainingSettings) -> str:
    """Say what is missing: without replay there is no text to measure on."""
    if not stage.replay:
        return "importance is measured on replay text, and replay is 0; set replay above 0"
    if from_lineage(stage):
        return "importance is measured on text of the role replay, and replay_from is lineage; set replay_from=role"
    if stage.peft != "full":
        return f"it is for the weights themselves, and peft is {stage.peft}; set peft=full"
    if (stage.train.get("gradient_checkpointing_kwargs") or {}).get("use_reentrant"):
        return "gradients of single weights need train.gradient_checkpointing_kwargs.use_reentrant=false; set that"
    return ""


METHOD = OptimizerMethod(
    name="unit_rates", settings=UnitRatesSettings, begin=begin, before_step=before_step, after_step=after_step,
    problem=problem, apart=True, shards=False, probe_tokens=lambda own: own.probe_tokens,
    probe_every=lambda own: own.every,
    bytes_per_weight=lambda own: SUMS,
    phrase="a learning rate for each weight matrix, the lower the more general text needs it (ADEPT)",
    paper="arXiv 2510.10071, stage 2",
    ours="the probing corpus is replay text; tokens of it; units of importance 0 keep the rate of the schedule",
)  # fmt: skip
