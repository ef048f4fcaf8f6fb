"""Grow the model of the stage before: a larger one that goes on from what it knows.

Usage: named by a pipeline as `expand: {kind: expand, from: base}`, with `expand: {method: llama_pro, added: 2}`.

The result is a plain checkpoint of transformers' own classes, but for control_llm, whose result only stages of ours
load (`common.models.growth.pairs`). Nothing is trained here. A `cpt` stage behind it with
`train_only: added` trains what was added alone. The methods are in `common.models.growth`.
"""

from __future__ import annotations

from typing import Any, cast

from common.config.growth import ExpandSettings
from common.config.kinds import Kind
from common.config.node import Node
from common.config.resolve import Resolved
from common.models import checkpoint, contracts
from common.models.device import device_of
from common.models.facts import context_of
from common.models.growth.configs import grown_config
from common.models.growth.growing import grow
from common.models.growth.importance import layer_importance, least_important
from common.models.growth.record import Growth, write_growth
from common.models.planned import config_after
from common.stage import StageContext, StageReport
from common.stages.collapse import check_until_collapsed
from common.training.fit import TrainResult, check_and_save, text_probe
from common.training.rows.probe import probe_batches

PROBE_LENGTH = 1024  # tokens of the longest row that is measured on


def run(context: StageContext) -> StageReport:
    """Return the parent, grown. Raises ContractError where a method that promises the same logits gives others."""
    settings = cast(ExpandSettings, context.settings)
    model, tokenizer = checkpoint.load(context.parent_artifact.path, context.config.model)
    probe = text_probe(tokenizer)
    logits_TV, parameters = contracts.probe_logits(model, probe), model.num_parameters()

    importance = _importance(context, model, tokenizer, settings) if settings.measuring else []
    chosen = least_important(importance, settings.added or 0)
    grown = grow(model, settings, context.stage, chosen=chosen, seed=context.config.seed)
    difference = contracts.check_grown(contracts.probe_logits(grown.model, probe), logits_TV, grown.preserving)
    growth = Growth(
        context.stage, settings.method, grown.added, int(grown.model.config.num_hidden_layers), parameters,
        grown.model.num_parameters(), difference, grown.preserving,
    )  # fmt: skip
    context.console.line(
        f"  {context.stage}: {parameters:,} -> {growth.parameters:,} parameters, {growth.layers} layers; logits differ "
        f"by {difference:.1g} of their range"
    )
    check_and_save(context, TrainResult(grown.model), tokenizer, probe=probe)
    write_growth(context.out, growth)
    measured = {"layer_importance": [round(one, 6) for one in importance], "copied": chosen} if importance else {}
    return StageReport(metrics={"steps": 0, "growth": growth.as_dict(), **measured})


def _importance(context: StageContext, model: Any, tokenizer: Any, settings: ExpandSettings) -> list[float]:
    """Return how much the replay text needs each layer."""
    length = min(PROBE_LENGTH, context_of(model))
    batches, tokens = probe_batches(context, tokenizer, settings.probe_tokens, length)
    device = device_of(context.config.run)
    found = layer_importance(model.to(device), batches)
    model.to("cpu")
    shown = ", ".join(f"{one:.3f}" for one in found)
    context.console.line(f"  {context.stage}: loss added without each layer on {tokens:,} tokens: {shown}")
    return found


def check(node: Node, settings: ExpandSettings, resolved: Resolved) -> None:
    """Check that the method can grow the model before, where that is known. Raises ConfigError."""
    config_after(resolved, node.name)
    if settings.paired:
        check_until_collapsed(resolved)


KIND = Kind(
    name="expand", settings=ExpandSettings, run=run, check=check, reshapes=grown_config, measures=("replay",),
    seconds=3.0, phrase="a larger model that goes on from it",
)  # fmt: skip
